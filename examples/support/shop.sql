CREATE TABLE customers (
    email   TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    address TEXT NOT NULL
);

CREATE TABLE orders (
    id         TEXT PRIMARY KEY,
    customer   TEXT NOT NULL REFERENCES customers (email),
    item       TEXT NOT NULL,
    amount_usd INTEGER NOT NULL,
    status     TEXT NOT NULL,
    placed     TEXT NOT NULL,
    ship_to    TEXT NOT NULL
);

-- The ledger of the payment provider. It honours idempotency keys: a second request under a key that is here pays nothing,
-- it is only counted in `asked`. Nothing in this table comes from Quarterdeck's journal, so the two can be compared.
CREATE TABLE refunds (
    number     INTEGER PRIMARY KEY,
    key        TEXT NOT NULL UNIQUE,
    order_id   TEXT NOT NULL REFERENCES orders (id),
    amount_usd INTEGER NOT NULL,
    run_id     TEXT NOT NULL,
    asked      INTEGER NOT NULL DEFAULT 1,
    reversed   INTEGER NOT NULL DEFAULT 0
);

-- The mail gateway honours no keys: whatever it is given, it sends. The key is only noted, so that a second letter would show.
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY,
    key    TEXT NOT NULL,
    sent_to TEXT NOT NULL,
    text   TEXT NOT NULL,
    run_id TEXT NOT NULL
);

CREATE TABLE notes (
    key      TEXT PRIMARY KEY,
    order_id TEXT NOT NULL,
    text     TEXT NOT NULL
);
