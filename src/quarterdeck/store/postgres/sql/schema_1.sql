-- Small rows that change often are apart from what is written once. Texts that are compared or sorted are in byte order.
CREATE TABLE meta (
    name  text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- A runtime that may hold runs: alive until its lease ends by this server's clock.
CREATE TABLE owners (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lease_until timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE runs (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id        text COLLATE "C" NOT NULL UNIQUE,
    status        text COLLATE "C" NOT NULL,
    reason        text NOT NULL DEFAULT '',
    code          text NOT NULL DEFAULT '',
    seq           bigint NOT NULL,
    epoch         bigint NOT NULL DEFAULT 0,
    control       bigint NOT NULL DEFAULT 0,
    worker        text,
    owner         bigint,
    head          bytea NOT NULL,
    waiting_on    text NOT NULL DEFAULT '[]',
    wake_at_us    bigint,
    updated_at_us bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX runs_by_status ON runs (status, id);
CREATE INDEX runs_to_wake ON runs (wake_at_us) WHERE worker IS NULL AND wake_at_us IS NOT NULL;
CREATE INDEX runs_by_owner ON runs (owner) WHERE owner IS NOT NULL;

CREATE TABLE contracts (
    run            bigint PRIMARY KEY,
    tenant         text COLLATE "C" NOT NULL,
    route          text COLLATE "C" NOT NULL,
    agent          text NOT NULL,
    actor          text NOT NULL,
    admitted_at_us bigint NOT NULL,
    correlation_id text COLLATE "C" NOT NULL,
    thread_id      text,
    parent_run_id  text,
    priority       text NOT NULL,
    salt           bytea
);
CREATE INDEX contracts_by_route ON contracts (route, run);
CREATE INDEX contracts_by_tenant ON contracts (tenant, run);
CREATE INDEX contracts_by_correlation ON contracts (correlation_id, run) WHERE correlation_id <> '';

-- Only ever inserted into; what can be erased is in payloads.
CREATE TABLE events (
    run            bigint NOT NULL,
    seq            bigint NOT NULL,
    body           bytea NOT NULL,
    payload_digest bytea,
    hash           bytea NOT NULL,
    PRIMARY KEY (run, seq)
);

CREATE TABLE payloads (
    run     bigint NOT NULL,
    seq     bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (run, seq)
);

CREATE TABLE ready (
    run   bigint PRIMARY KEY,
    at_us bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
CREATE INDEX ready_by_time ON ready (at_us, run);

CREATE TABLE claims (
    owner  bigint NOT NULL,
    worker text COLLATE "C" NOT NULL,
    token  text NOT NULL,
    answer text NOT NULL,
    PRIMARY KEY (owner, worker)
) WITH (fillfactor = 50);

CREATE TABLE inbox (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run      bigint NOT NULL,
    kind     text NOT NULL,
    body     bytea NOT NULL,
    at_us    bigint NOT NULL,
    token    text COLLATE "C" NOT NULL,
    consumed boolean NOT NULL DEFAULT false,
    UNIQUE (run, token)
);
CREATE INDEX inbox_unread ON inbox (run, id) WHERE NOT consumed;

CREATE TABLE approvals (
    approval      text COLLATE "C" PRIMARY KEY,
    run           bigint NOT NULL,
    call          text NOT NULL,
    tool          text NOT NULL,
    digest        text NOT NULL,
    requested_by  text NOT NULL,
    expires_at_us bigint NOT NULL,
    shown         bytea NOT NULL,
    status        text COLLATE "C" NOT NULL DEFAULT 'pending',
    decided_by    text NOT NULL DEFAULT '',
    reason        text NOT NULL DEFAULT '',
    consumed      boolean NOT NULL DEFAULT false
);
CREATE INDEX approvals_by_deadline ON approvals (status, expires_at_us, approval);
CREATE INDEX approvals_by_run ON approvals (run);

CREATE TABLE accounts (
    account   text COLLATE "C" NOT NULL,
    dimension text COLLATE "C" NOT NULL,
    bound     bigint,
    committed bigint NOT NULL DEFAULT 0,
    reserved  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account, dimension)
) WITH (fillfactor = 50);

CREATE TABLE idempotency (
    tenant        text COLLATE "C" NOT NULL,
    key           text COLLATE "C" NOT NULL,
    run           bigint NOT NULL,
    body_digest   text NOT NULL,
    expires_at_us bigint NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE facts (
    name    text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    value   text NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE api_keys (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prefix        text COLLATE "C" NOT NULL UNIQUE,
    digest        bytea NOT NULL,
    label         text NOT NULL,
    subject       text NOT NULL,
    grants        text NOT NULL,
    created_by    text NOT NULL,
    created_at_us bigint NOT NULL,
    expires_at_us bigint,
    revoked_at_us bigint,
    revoked_by    text NOT NULL DEFAULT '',
    reason        text NOT NULL DEFAULT ''
);

-- What one operation of a batch is answered, and the hashes of the events that it adds; they are written together with the others'.
CREATE TYPE answered AS (answer text, run bigint, hashes bytea[]);
