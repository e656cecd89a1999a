-- Runs of one ordering key stand in a line; one that is behind another is not ready before its turn.
ALTER TABLE runs ADD COLUMN line text COLLATE "C", ADD COLUMN behind boolean NOT NULL DEFAULT false;
CREATE INDEX runs_in_line ON runs (line, id) WHERE line IS NOT NULL;

-- Messages that leave once the commit that carries them is durable.
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run        bigint NOT NULL,
    message    text COLLATE "C" NOT NULL UNIQUE,
    lane       text COLLATE "C" NOT NULL,
    topic      text COLLATE "C" NOT NULL,
    key        text NOT NULL,
    body       bytea NOT NULL,
    headers    text NOT NULL,
    at_us      bigint NOT NULL,
    status     text COLLATE "C" NOT NULL DEFAULT 'queued',
    attempts   integer NOT NULL DEFAULT 0,
    code       text NOT NULL DEFAULT '',
    decided_by text NOT NULL DEFAULT '',
    reason     text NOT NULL DEFAULT ''
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX outbox_open ON outbox (lane, id) WHERE status = ANY (ARRAY['queued', 'dead']);
CREATE INDEX outbox_by_run ON outbox (run);
CREATE INDEX outbox_dead ON outbox (id) WHERE status = 'dead';

-- One row for each lane of which something has not left: when its first message is due, until when a relay has it, and how often one had.
CREATE TABLE lanes (
    lane     text COLLATE "C" PRIMARY KEY,
    due_us   bigint,
    until_us bigint NOT NULL DEFAULT 0,
    ticket   bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
CREATE INDEX lanes_due ON lanes (due_us) WHERE due_us IS NOT NULL;

CREATE TABLE exclusive (
    key  text COLLATE "C" PRIMARY KEY,
    run  bigint NOT NULL,
    call text NOT NULL
);
CREATE INDEX exclusive_by_run ON exclusive (run);

CREATE TABLE erasures (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL UNIQUE,
    tenant text COLLATE "C" NOT NULL,
    actor  text NOT NULL,
    by     text NOT NULL,
    reason text NOT NULL,
    at_us  bigint NOT NULL
);
CREATE INDEX idempotency_by_run ON idempotency (run);
