CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    id         INTEGER PRIMARY KEY,
    run_id     TEXT NOT NULL UNIQUE,
    status     TEXT NOT NULL,
    reason     TEXT NOT NULL DEFAULT '',
    code       TEXT NOT NULL DEFAULT '',
    seq        INTEGER NOT NULL,
    epoch      INTEGER NOT NULL DEFAULT 0,
    control    INTEGER NOT NULL DEFAULT 0,
    worker     TEXT,
    head       BLOB NOT NULL,
    salt       BLOB,
    waiting_on TEXT NOT NULL DEFAULT '[]',
    wake_at_us INTEGER,
    updated_at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_by_status ON runs (status, id);
CREATE INDEX runs_to_wake ON runs (wake_at_us) WHERE wake_at_us IS NOT NULL;

CREATE TABLE contracts (
    run            INTEGER PRIMARY KEY,
    tenant         TEXT NOT NULL,
    route          TEXT NOT NULL,
    agent          TEXT NOT NULL,
    actor          TEXT NOT NULL,
    admitted_at_us INTEGER NOT NULL,
    correlation_id TEXT NOT NULL,
    thread_id      TEXT,
    parent_run_id  TEXT,
    priority       TEXT NOT NULL
) STRICT;
CREATE INDEX contracts_by_route ON contracts (route, run);

CREATE TABLE events (
    id             INTEGER PRIMARY KEY,
    run            INTEGER NOT NULL,
    seq            INTEGER NOT NULL,
    body           BLOB NOT NULL,
    payload        BLOB,
    payload_digest BLOB,
    hash           BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_by_run ON events (run, seq);

CREATE TABLE ready (
    run   INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX ready_by_time ON ready (at_us);

CREATE TABLE claims (
    worker TEXT PRIMARY KEY,
    token  TEXT NOT NULL,
    answer BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE inbox (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run      INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    body     BLOB NOT NULL,
    at_us    INTEGER NOT NULL,
    token    TEXT NOT NULL,
    consumed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX inbox_by_token ON inbox (run, token);
CREATE INDEX inbox_unread ON inbox (run, id) WHERE consumed = 0;

CREATE TABLE approvals (
    approval      TEXT PRIMARY KEY,
    run           INTEGER NOT NULL,
    call          TEXT NOT NULL,
    tool          TEXT NOT NULL,
    digest        TEXT NOT NULL,
    requested_by  TEXT NOT NULL,
    expires_at_us INTEGER NOT NULL,
    shown         BLOB NOT NULL,
    status        TEXT NOT NULL DEFAULT 'pending',
    decided_by    TEXT NOT NULL DEFAULT '',
    reason        TEXT NOT NULL DEFAULT '',
    consumed      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX approvals_by_deadline ON approvals (status, expires_at_us);

CREATE TABLE accounts (
    account   TEXT NOT NULL,
    dimension TEXT NOT NULL,
    bound     INTEGER,
    committed INTEGER NOT NULL DEFAULT 0,
    reserved  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, dimension)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    tenant        TEXT NOT NULL,
    key           TEXT NOT NULL,
    run           INTEGER NOT NULL,
    body_digest   TEXT NOT NULL,
    expires_at_us INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE facts (
    name    TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    value   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
