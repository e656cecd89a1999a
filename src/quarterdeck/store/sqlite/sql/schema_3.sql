ALTER TABLE runs ADD COLUMN line TEXT;
ALTER TABLE runs ADD COLUMN behind INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_in_line ON runs (line, id) WHERE line IS NOT NULL;

CREATE TABLE outbox (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run      INTEGER NOT NULL,
    message  TEXT NOT NULL UNIQUE,
    lane     TEXT NOT NULL,
    topic    TEXT NOT NULL,
    key      TEXT NOT NULL,
    body     BLOB NOT NULL,
    headers  TEXT NOT NULL,
    at_us    INTEGER NOT NULL,
    status   TEXT NOT NULL DEFAULT 'queued',
    attempts INTEGER NOT NULL DEFAULT 0,
    code     TEXT NOT NULL DEFAULT '',
    decided_by TEXT NOT NULL DEFAULT '',
    reason   TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX outbox_open ON outbox (lane, id) WHERE status IN ('queued', 'dead');
CREATE INDEX outbox_by_run ON outbox (run);
CREATE INDEX outbox_dead ON outbox (id) WHERE status = 'dead';

CREATE TABLE lanes (
    lane     TEXT PRIMARY KEY,
    due_us   INTEGER,
    until_us INTEGER NOT NULL DEFAULT 0,
    ticket   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX lanes_due ON lanes (due_us) WHERE due_us IS NOT NULL;

CREATE TABLE exclusive (
    key  TEXT PRIMARY KEY,
    run  INTEGER NOT NULL,
    call TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE erasures (
    id     INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    actor  TEXT NOT NULL,
    by     TEXT NOT NULL,
    reason TEXT NOT NULL,
    at_us  INTEGER NOT NULL
) STRICT;

CREATE INDEX approvals_by_run ON approvals (run);
CREATE INDEX idempotency_by_run ON idempotency (run);
