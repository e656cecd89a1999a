CREATE INDEX contracts_by_tenant ON contracts (tenant, run);
CREATE INDEX contracts_by_correlation ON contracts (correlation_id, run);

-- Which code a run needs, whose runs have lost their owner before, and what became of dead letters.
ALTER TABLE contracts ADD COLUMN needs TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN deaths TEXT NOT NULL DEFAULT '[]';
CREATE INDEX runs_dead ON runs (id) WHERE status = 'failed' AND reason = 'blocked';

CREATE TABLE dead_letters (
    run   INTEGER PRIMARY KEY,
    how   TEXT NOT NULL,
    by    TEXT NOT NULL,
    why   TEXT NOT NULL,
    at_us INTEGER NOT NULL
) STRICT;
