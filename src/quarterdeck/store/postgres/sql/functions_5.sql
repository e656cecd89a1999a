-- Commits that only add events to a run, applied all at once: most commits are such. What each expects is compared as in `append`; one
-- that finds anything else is left out here, and is sent again by itself, to be told why.

-- name: chained_at
-- The hashes of the events whose bytes are at these places of a batch, behind the one that ends in head.
CREATE FUNCTION chained_at(head bytea, after bigint, first integer, added integer, bodies bytea[], digests bytea[])
RETURNS bytea[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    hashes bytea[] := '{}';
BEGIN
    FOR i IN 1 .. added LOOP
        head := sha256(head || int8send(after + i) || int4send(length(bodies[first + i - 1])) || bodies[first + i - 1]
            || coalesce(digests[first + i - 1], ''));
        hashes := hashes || head;
    END LOOP;
    RETURN hashes;
END $$;
-- name: chained
CREATE OR REPLACE FUNCTION chained(head bytea, after bigint, bodies bytea[], digests bytea[]) RETURNS bytea[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN chained_at(head, after, 1, cardinality(bodies), bodies, digests);
END $$;
-- name: append_plain
-- Each to another run; answers which were appended, by their places. The rows are found by their keys, whatever is known of the tables.
CREATE FUNCTION append_plain(plain jsonb, present jsonb, incarnation text, bodies bytea[], given bytea[], digests bytea[])
RETURNS bigint[] LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    appended bigint[];
BEGIN
    WITH asked AS MATERIALIZED (
        SELECT place, item ->> 0 AS name, (item -> 1)::bigint AS after, (item -> 2)::bigint AS epoch, (item ->> 3)::bigint AS control,
            (item -> 4)::bigint AS at_us, (item -> 5)::integer AS first, (item -> 6)::integer AS added
        FROM jsonb_array_elements(plain) WITH ORDINALITY AS p (item, place)
        WHERE item ->> 7 = incarnation AND (item -> 8 = 'null' OR present @> (item -> 8))
    ), seen AS MATERIALIZED (
        SELECT a.*, r.id, chained_at(r.head, a.after, a.first, a.added, bodies, digests) AS hashes
        FROM asked a JOIN runs r ON r.run_id = a.name WHERE r.seq = a.after
    ), moved AS (
        UPDATE runs SET seq = s.after + s.added, head = s.hashes[s.added], updated_at_us = s.at_us FROM seen s
        WHERE runs.id = s.id AND runs.seq = s.after AND runs.epoch = s.epoch AND runs.worker IS NOT NULL
            AND (s.control IS NULL OR runs.control = s.control)
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
    RETURN coalesce(appended, '{}');
END $$;
-- name: apply_all
-- A batch with such commits in it, which come before the others: which of these were appended, and what the others are answered.
CREATE FUNCTION apply_all(of_owner bigint, lease_s double precision, ops text[], bodies bytea[], given bytea[], digests bytea[],
    use_facts boolean, change_facts boolean, names text[], asked text[], charged text[], isolate boolean, commits text)
RETURNS text LANGUAGE plpgsql SET search_path = quarterdeck, pg_temp AS $$
DECLARE
    plain jsonb := commits;
    present jsonb := '{}';
    judged jsonb;
    appended bigint[];
BEGIN
    IF current_setting('synchronous_commit') <> ALL (ARRAY['on', 'remote_apply']) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'synchronous_commit is not on';
    END IF;
    IF use_facts OR change_facts THEN
        PERFORM take_facts(change_facts);
        present := current_facts();
    END IF;
    IF cardinality(names) + cardinality(asked) > 1 THEN
        PERFORM take_runs(names, asked);
    END IF;
    IF cardinality(charged) > 0 THEN
        PERFORM take_accounts(charged);
    END IF;
    FOR judged IN SELECT DISTINCT item -> 8 FROM jsonb_array_elements(plain) AS item WHERE item -> 8 <> 'null' LOOP
        IF wrong_fact(judged, present) IS NULL THEN
            present := judged || present;  -- what was never set is 0
        END IF;
    END LOOP;
    appended := append_plain(plain, present, (SELECT value FROM meta WHERE name = 'incarnation'), bodies, given, digests);
    RETURN '[' || array_to_json(appended) || ',' || CASE WHEN cardinality(ops) = 0 THEN '[]' ELSE
        apply(of_owner, lease_s, ops, bodies, given, digests, false, false, '{}', '{}', '{}', isolate) END || ']';
END $$;
