-- What runs had reported to shared accounts is told in the audit log when they are removed, so that the books can be proven without them.

-- name: purge
-- Remove what is left of runs of a route that ended long ago, by the earlier of two clocks; one with an undelivered message stays. The
-- log is taken first, as by all who write it.
CREATE OR REPLACE FUNCTION purge(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    before_us bigint := least((op -> 'now')::bigint, clock_us()) - (op -> 'retain')::bigint;
    seen bigint[];
    old bigint[];
    upto bigint;
    spent jsonb;
BEGIN
    PERFORM pg_advisory_xact_lock(1363430193, 3);
    seen := ARRAY(SELECT run FROM contracts WHERE route = op ->> 'route' AND run > (op -> 'after')::bigint
        ORDER BY run LIMIT (op -> 'limit')::bigint);
    upto := CASE WHEN EXISTS (SELECT 1 FROM contracts WHERE run = ANY (seen) AND admitted_at_us > before_us) THEN 0
        ELSE coalesce(seen[cardinality(seen)], 0) END;
    old := ARRAY(SELECT id FROM runs WHERE id = ANY (seen) AND NOT status = ANY (ARRAY['queued', 'running', 'waiting'])
        AND updated_at_us <= before_us
        AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.run = runs.id AND o.status = ANY (ARRAY['queued', 'dead']))
        ORDER BY id FOR UPDATE SKIP LOCKED);
    IF cardinality(old) > 0 THEN
        SELECT jsonb_agg(jsonb_build_array(t.account, t.dimension, t.spent) ORDER BY t.account, t.dimension) INTO spent FROM (
            SELECT m ->> 'account' AS account, m ->> 'dimension' AS dimension, sum((m ->> 'spent')::bigint) AS spent
            FROM events e, jsonb_array_elements(convert_from(e.body, 'UTF8')::jsonb -> 'moves') m
            WHERE e.run = ANY (old) AND substring(e.body FROM 1 FOR 22) = '{"kind":"budget.moved"'::bytea AND m ? 'spent'
            GROUP BY 1, 2
        ) t WHERE t.spent <> 0;
        PERFORM add_audit(convert_to(jsonb_build_object('action', 'run.purged', 'by', 'retention', 'target', op ->> 'route',
            'at_us', clock_us(), 'detail',
            jsonb_build_object('removed', cardinality(old), 'spent', coalesce(spent, '[]'))::text)::text, 'UTF8'));
    END IF;
    DELETE FROM payloads WHERE run = ANY (old);
    DELETE FROM events WHERE run = ANY (old);
    DELETE FROM inbox WHERE run = ANY (old);
    DELETE FROM approvals WHERE run = ANY (old);
    DELETE FROM outbox WHERE run = ANY (old);
    DELETE FROM idempotency WHERE run = ANY (old);
    DELETE FROM exclusive WHERE run = ANY (old);
    DELETE FROM dead_letters WHERE run = ANY (old);
    DELETE FROM ready WHERE run = ANY (old);
    DELETE FROM contracts WHERE run = ANY (old);
    DELETE FROM runs WHERE id = ANY (old);
    RETURN '["purged",' || coalesce(cardinality(old), 0) || ',' || upto || ']';
END $$;
