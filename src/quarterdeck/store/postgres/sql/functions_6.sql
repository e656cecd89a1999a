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

-- What commits that are applied all at once may bring beside their events: a change of the run's row, and charges. So do the first and the
-- last commit of almost every run. What an older runtime sends has neither, and means what it meant.

-- name: charges_of
-- The charges of the plain commits of a batch, each with the place of its commit.
CREATE FUNCTION charges_of(plain jsonb)
RETURNS TABLE (place bigint, account text, dimension text, leased bigint, returned bigint, spent bigint, bound bigint)
LANGUAGE sql IMMUTABLE AS $$
    SELECT p.place, c.item ->> 0, c.item ->> 1, (c.item -> 2)::bigint, (c.item -> 3)::bigint, (c.item -> 4)::bigint, (c.item ->> 5)::bigint
    FROM jsonb_array_elements(plain) WITH ORDINALITY AS p (item, place)
    CROSS JOIN LATERAL jsonb_array_elements(p.item -> 10) AS c (item)
$$;
-- name: crowded
-- The places of those that charge an account which has no room for everything that the batch asks of it, whatever the batch returns: in
-- which order they come matters, so they are left out. The accounts are taken already.
CREATE FUNCTION crowded(plain jsonb) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    WITH charge AS MATERIALIZED (
        SELECT * FROM charges_of(plain)
    ), wanted AS (
        SELECT account, dimension, sum(greatest(leased, 0) + greatest(spent, 0)) AS amount, (array_agg(bound ORDER BY place))[1] AS bound
        FROM charge GROUP BY account, dimension
    )
    SELECT coalesce(array_agg(c.place), '{}') FROM wanted w LEFT JOIN accounts a ON a.account = w.account AND a.dimension = w.dimension
    JOIN charge c ON c.account = w.account AND c.dimension = w.dimension
    WHERE coalesce(a.committed + a.reserved, 0) + w.amount > CASE WHEN a.account IS NULL THEN w.bound ELSE a.bound END
$$;
-- name: book
-- The charges of those commits that were appended, summed up: a row of each account is written once.
CREATE FUNCTION book(plain jsonb, appended bigint[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO accounts AS a (account, dimension, bound, committed, reserved)
    SELECT account, dimension, (array_agg(bound ORDER BY place))[1], sum(spent)::bigint, sum(leased - returned)::bigint
    FROM charges_of(plain) WHERE place = ANY (appended) GROUP BY account, dimension
    ON CONFLICT (account, dimension)
    DO UPDATE SET committed = a.committed + excluded.committed, reserved = a.reserved + excluded.reserved
$$;
-- name: append_plain
-- Each to another run; answers which were appended, by their places. The rows are found by their keys, whatever is known of the tables.
-- A run that stands in a line is not left here: somebody else would have to be told.
CREATE OR REPLACE FUNCTION append_plain(plain jsonb, present jsonb, incarnation text, bodies bytea[], given bytea[], digests bytea[])
RETURNS bigint[] LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    appended bigint[];
    charges boolean := plain @? '$[*][10][*]';
    without bigint[] := CASE WHEN charges THEN crowded(plain) ELSE '{}' END;
BEGIN
    WITH asked AS MATERIALIZED (
        SELECT place, item ->> 0 AS name, (item -> 1)::bigint AS after, (item -> 2)::bigint AS epoch, (item ->> 3)::bigint AS control,
            (item -> 4)::bigint AS at_us, (item -> 5)::integer AS first, (item -> 6)::integer AS added, nullif(item -> 9, 'null') AS new
        FROM jsonb_array_elements(plain) WITH ORDINALITY AS p (item, place)
        WHERE item ->> 7 = incarnation AND (item -> 8 = 'null' OR present @> (item -> 8)) AND place <> ALL (without)
    ), seen AS MATERIALIZED (
        SELECT a.*, r.id, chained_at(r.head, a.after, a.first, a.added, bodies, digests) AS hashes
        FROM asked a JOIN runs r ON r.run_id = a.name WHERE r.seq = a.after
    ), moved AS (
        UPDATE runs SET seq = s.after + s.added, head = s.hashes[s.added], updated_at_us = s.at_us,
            status = coalesce(s.new ->> 0, status), reason = coalesce(s.new ->> 1, reason), code = coalesce(s.new ->> 2, code),
            waiting_on = coalesce(s.new ->> 3, waiting_on), wake_at_us = CASE WHEN s.new IS NULL THEN wake_at_us ELSE (s.new ->> 4)::bigint END,
            worker = CASE WHEN (s.new -> 5)::boolean THEN NULL ELSE worker END,
            owner = CASE WHEN (s.new -> 5)::boolean THEN NULL ELSE owner END
        FROM seen s
        WHERE runs.id = s.id AND runs.seq = s.after AND runs.epoch = s.epoch AND runs.worker IS NOT NULL
            AND (s.control IS NULL OR runs.control = s.control) AND (s.new IS NULL OR runs.line IS NULL)
        RETURNING s.place, runs.id, s.after, s.first, s.added, s.hashes
    ), event AS MATERIALIZED (
        SELECT m.id, m.after + i AS seq, m.hashes[i] AS hash, m.first + i - 1 AS at
        FROM moved m CROSS JOIN LATERAL generate_series(1, m.added) AS i
    ), written AS (
        INSERT INTO events (run, seq, body, payload_digest, hash) SELECT id, seq, bodies[at], digests[at], hash FROM event
    ), kept AS (
        INSERT INTO payloads (run, seq, payload) SELECT id, seq, given[at] FROM event WHERE given[at] IS NOT NULL
    )
    SELECT array_agg(place) INTO appended FROM moved;
    IF charges AND appended IS NOT NULL THEN
        PERFORM book(plain, appended);
    END IF;
    RETURN coalesce(appended, '{}');
END $$;
