-- Which code a run needs, who is alive and has it, whose runs have lost their owner before, and what became of dead letters.
ALTER TABLE contracts ADD COLUMN needs text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE ready ADD COLUMN needs text COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX ready_by_need ON ready (needs, at_us, run);
ALTER TABLE runs ADD COLUMN deaths bigint[];
ALTER TABLE owners ADD COLUMN about text NOT NULL DEFAULT '{}', ADD COLUMN programs text[], ADD COLUMN entered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN beat_at timestamptz NOT NULL DEFAULT clock_timestamp();
CREATE INDEX runs_dead ON runs (id) WHERE status = 'failed' AND reason = 'blocked';

CREATE TABLE dead_letters (
    run   bigint PRIMARY KEY,
    how   text NOT NULL,
    by    text NOT NULL,
    why   text NOT NULL,
    at_us bigint NOT NULL
);
