-- The append contract, applied where the rows are: a batch is one statement, so a runtime that stops in the middle of anything holds no
-- lock. Locks are taken in one order by everybody: facts, runs by id, accounts by name; a claim waits for no one.
-- What an operation is answered is written as the JSON of an outcome.

-- name: refused
CREATE FUNCTION refused(guard text, detail text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '["no",' || to_json(guard)::text || ',' || to_json(detail)::text || ']'
$$;
-- name: take_facts
-- Commits that rely on facts share them until they are durable; a change of a fact waits for those, and those behind it wait for it.
CREATE FUNCTION take_facts(change boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF change THEN
        PERFORM pg_advisory_xact_lock(1363430193, 1);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(1363430193, 1);
    END IF;
END $$;
-- name: take_runs
CREATE FUNCTION take_runs(names text[], asked text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM runs
    WHERE id = ANY (ARRAY(SELECT id FROM runs WHERE run_id = ANY (names) UNION SELECT run FROM approvals WHERE approval = ANY (asked)))
    ORDER BY id FOR NO KEY UPDATE;
END $$;
-- name: take_accounts
CREATE FUNCTION take_accounts(names text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    place integer;
BEGIN
    FOR place IN SELECT DISTINCT hashtext(name) FROM unnest(names) AS name ORDER BY 1 LOOP
        PERFORM pg_advisory_xact_lock(1363430194, place);
    END LOOP;
END $$;
-- name: current_facts
CREATE FUNCTION current_facts() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(name, version), '{}') FROM facts
$$;
-- name: wrong_fact
-- The first fact whose version is another than the one judged by, or null. One that was never set counts as version 0.
CREATE FUNCTION wrong_fact(judged jsonb, present jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT key FROM jsonb_each(judged) WHERE value <> coalesce(present -> key, '0') ORDER BY key LIMIT 1
$$;
-- name: is_stored
-- Whether exactly these events are there already. Of an erased payload is known only that there was one.
CREATE FUNCTION is_stored(of_run bigint, after bigint, bodies bytea[], given bytea[]) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT count(*) = cardinality(bodies) AND bool_and(
        e.body = bodies[e.seq - after] AND (
            p.payload IS NOT DISTINCT FROM given[e.seq - after]
            OR (p.payload IS NULL AND e.payload_digest IS NOT NULL AND given[e.seq - after] IS NOT NULL)
        )
    )
    FROM events e LEFT JOIN payloads p ON p.run = e.run AND p.seq = e.seq
    WHERE e.run = of_run AND e.seq > after AND e.seq <= after + cardinality(bodies)
$$;
-- name: chained
-- The hashes of events behind the one that ends in head: each covers the one before it, the sequence, the body, the payload's digest.
CREATE FUNCTION chained(head bytea, after bigint, bodies bytea[], digests bytea[]) RETURNS bytea[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    hashes bytea[] := '{}';
BEGIN
    FOR i IN 1 .. cardinality(bodies) LOOP
        head := sha256(head || int8send(after + i) || int4send(length(bodies[i])) || bodies[i] || coalesce(digests[i], ''));
        hashes := hashes || head;
    END LOOP;
    RETURN hashes;
END $$;
-- name: write_events
-- The events that a batch adds, in one go: of which run, at which sequence, with which hash, and where in the batch their bytes are.
CREATE FUNCTION write_events(of_runs bigint[], seqs bigint[], hashes bytea[], places integer[], bodies bytea[], given bytea[],
    digests bytea[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (run, seq, body, payload_digest, hash)
    SELECT u.run, u.seq, bodies[u.place], digests[u.place], u.hash
    FROM unnest(of_runs, seqs, hashes, places) AS u (run, seq, hash, place);
    INSERT INTO payloads (run, seq, payload)
    SELECT u.run, u.seq, given[u.place] FROM unnest(of_runs, seqs, places) AS u (run, seq, place) WHERE given[u.place] IS NOT NULL;
END $$;
-- name: attach
-- Everything of a commit beside its events. A refusal is raised as QD001 and undoes the commit; null is success.
CREATE FUNCTION attach(op jsonb, of_run bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    item jsonb;
    taken bigint;
    given_back bigint;
    used bigint;
BEGIN
    FOR item IN SELECT value FROM jsonb_array_elements(op -> 'charges') LOOP
        INSERT INTO accounts (account, dimension, bound) VALUES (item ->> 0, item ->> 1, (item ->> 5)::bigint) ON CONFLICT DO NOTHING;
        taken := item -> 2; given_back := item -> 3; used := item -> 4;
        UPDATE accounts SET reserved = reserved + taken - given_back, committed = committed + used
        WHERE account = item ->> 0 AND dimension = item ->> 1
            AND (taken = 0 OR bound IS NULL OR committed + used + reserved + taken - given_back <= bound);
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'QD001', MESSAGE = 'account', DETAIL = (item ->> 0) || '|' || (item ->> 1);
        END IF;
    END LOOP;
    FOR item IN SELECT value FROM jsonb_array_elements(op -> 'consumes') LOOP
        UPDATE approvals SET consumed = true
        WHERE approval = item ->> 0 AND run = of_run AND digest = item ->> 1 AND status = 'approved' AND NOT consumed
            AND expires_at_us > (item ->> 2)::bigint;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'QD001', MESSAGE = 'approval', DETAIL = item ->> 0;
        END IF;
    END LOOP;
    FOR item IN SELECT value FROM jsonb_array_elements(op -> 'asks') LOOP
        INSERT INTO approvals (approval, run, call, tool, digest, requested_by, expires_at_us, shown)
        VALUES (item ->> 0, of_run, item ->> 1, item ->> 2, item ->> 3, item ->> 4, (item ->> 5)::bigint, decode(item ->> 6, 'base64'));
    END LOOP;
    FOR item IN SELECT value FROM jsonb_array_elements(op -> 'closes') LOOP
        UPDATE approvals SET status = item ->> 1 WHERE approval = item ->> 0 AND run = of_run AND status = 'pending';
    END LOOP;
    UPDATE inbox SET consumed = true
    WHERE id = ANY (ARRAY(SELECT value::bigint FROM jsonb_array_elements(op -> 'inbox'))) AND run = of_run;
END $$;
-- name: again_or_refused
-- Success if exactly these bytes are already there; otherwise the guard that failed.
CREATE FUNCTION again_or_refused(op jsonb, of_run bigint, bodies bytea[], given bytea[], fact text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    after bigint := op -> 'seq';
    present runs;
BEGIN
    SELECT * INTO STRICT present FROM runs WHERE id = of_run;
    IF present.seq >= after + cardinality(bodies) AND is_stored(of_run, after, bodies, given) THEN
        RETURN '["ok",' || after + cardinality(bodies) || ']';
    ELSIF present.epoch <> (op -> 'epoch')::bigint OR present.worker IS NULL THEN
        RETURN refused('epoch', present.epoch::text);
    ELSIF present.seq <> after THEN
        RETURN refused('seq', present.seq::text);
    ELSIF present.control <> (op ->> 'control')::bigint THEN
        RETURN refused('control', present.control::text);
    ELSIF fact IS NULL THEN
        RETURN refused('seq', present.seq::text);
    END IF;
    RETURN refused('facts', fact);
END $$;
-- name: append
CREATE FUNCTION append(op jsonb, present jsonb, bodies bytea[], given bytea[], digests bytea[]) RETURNS answered LANGUAGE plpgsql AS $$
DECLARE
    of_run bigint;
    was bigint;
    end_hash bytea;
    hashes bytea[];
    after bigint := op -> 'seq';
    upto bigint := after + cardinality(bodies);
    new jsonb := op -> 'head';
    fact text;
BEGIN
    SELECT id, seq, head INTO of_run, was, end_hash FROM runs WHERE run_id = op ->> 'run';
    IF NOT FOUND THEN
        RETURN ROW(refused('run', op ->> 'run'), NULL, NULL)::answered;
    END IF;
    IF op ? 'facts' AND NOT present @> (op -> 'facts') THEN
        fact := wrong_fact(op -> 'facts', present);
    END IF;
    IF fact IS NOT NULL OR was <> after THEN
        RETURN ROW(again_or_refused(op, of_run, bodies, given, fact), NULL, NULL)::answered;
    END IF;
    hashes := chained(end_hash, after, bodies, digests);
    IF new IS NULL THEN
        UPDATE runs SET seq = upto, head = hashes[cardinality(hashes)], updated_at_us = (op -> 'at')::bigint
        WHERE id = of_run AND seq = after AND epoch = (op -> 'epoch')::bigint AND worker IS NOT NULL
            AND (op ->> 'control' IS NULL OR control = (op ->> 'control')::bigint);
    ELSE
        UPDATE runs SET seq = upto, head = hashes[cardinality(hashes)], updated_at_us = (op -> 'at')::bigint,
            status = new ->> 0, reason = new ->> 1, code = new ->> 2, waiting_on = new ->> 3, wake_at_us = (new ->> 4)::bigint,
            worker = CASE WHEN (new -> 5)::boolean THEN NULL ELSE worker END,
            owner = CASE WHEN (new -> 5)::boolean THEN NULL ELSE owner END
        WHERE id = of_run AND seq = after AND epoch = (op -> 'epoch')::bigint AND worker IS NOT NULL
            AND (op ->> 'control' IS NULL OR control = (op ->> 'control')::bigint);
    END IF;
    IF NOT FOUND THEN
        RETURN ROW(again_or_refused(op, of_run, bodies, given, NULL), NULL, NULL)::answered;
    END IF;
    IF op ? 'more' THEN
        PERFORM attach(op -> 'more', of_run);
    END IF;
    RETURN ROW('["ok",' || upto || ']', of_run, hashes)::answered;
END $$;
-- name: admit
-- Two that admit one run or use one key at once: the later one fails as if its transaction had to be repeated, and then sees the other.
CREATE FUNCTION admit(op jsonb, present jsonb, bodies bytea[], given bytea[], digests bytea[]) RETURNS answered LANGUAGE plpgsql AS $$
DECLARE
    of_run bigint;
    answer text;
    held record;
    new jsonb := op -> 'new';
    named jsonb := op -> 'key';
    hashes bytea[];
BEGIN
    IF (op -> 'seq')::bigint <> 0 THEN
        RETURN ROW(refused('seq', 'an admission begins a journal at sequence 0'), NULL, NULL)::answered;
    END IF;
    SELECT id INTO of_run FROM runs WHERE run_id = op ->> 'run';
    IF FOUND THEN
        answer := again_or_refused(op, of_run, bodies, given, NULL);
        RETURN ROW(CASE WHEN answer LIKE '["ok"%' THEN answer ELSE refused('run', op ->> 'run') END, NULL, NULL)::answered;
    END IF;
    IF named IS NOT NULL THEN
        SELECT r.run_id, k.body_digest INTO held FROM idempotency k JOIN runs r ON r.id = k.run
        WHERE k.tenant = named ->> 0 AND k.key = named ->> 1 AND k.expires_at_us > (op -> 'at')::bigint;
        IF FOUND THEN
            RETURN ROW(refused(CASE WHEN held.body_digest = named ->> 2 THEN 'key' ELSE 'digest' END, held.run_id), NULL, NULL)::answered;
        END IF;
    END IF;
    IF op ? 'facts' AND wrong_fact(op -> 'facts', present) IS NOT NULL THEN
        RETURN ROW(refused('facts', wrong_fact(op -> 'facts', present)), NULL, NULL)::answered;
    END IF;
    hashes := chained(decode(repeat('00', 32), 'hex'), 0, bodies, digests);
    INSERT INTO runs (run_id, status, seq, head, updated_at_us)
    VALUES (op ->> 'run', 'queued', cardinality(bodies), hashes[cardinality(hashes)], (op -> 'at')::bigint)
    ON CONFLICT (run_id) DO NOTHING RETURNING id INTO of_run;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'admitted at once elsewhere';
    END IF;
    IF named IS NOT NULL THEN
        INSERT INTO idempotency AS k (tenant, key, run, body_digest, expires_at_us)
        VALUES (named ->> 0, named ->> 1, of_run, named ->> 2, (named -> 3)::bigint)
        ON CONFLICT ON CONSTRAINT idempotency_pkey
        DO UPDATE SET run = excluded.run, body_digest = excluded.body_digest, expires_at_us = excluded.expires_at_us
        WHERE k.expires_at_us <= (op -> 'at')::bigint;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'the key was used at once elsewhere';
        END IF;
    END IF;
    INSERT INTO contracts (run, tenant, route, agent, actor, admitted_at_us, correlation_id, thread_id, parent_run_id, priority, salt)
    VALUES (of_run, new ->> 0, new ->> 1, new ->> 2, new ->> 3, (new -> 4)::bigint, new ->> 5, new ->> 6, new ->> 7, new ->> 8,
        decode(new ->> 9, 'base64'));
    INSERT INTO ready (run, at_us) VALUES (of_run, (new -> 10)::bigint);
    IF op ? 'more' THEN
        PERFORM attach(op -> 'more', of_run);
    END IF;
    RETURN ROW('["ok",' || cardinality(bodies) || ']', of_run, hashes)::answered;
END $$;
-- name: put_inbox
CREATE FUNCTION put_inbox(of_run bigint, of_kind text, content bytea, now_us bigint, name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    INSERT INTO inbox (run, kind, body, at_us, token) VALUES (of_run, of_kind, content, now_us, name) RETURNING id INTO number;
    UPDATE runs SET control = control + 1 WHERE id = of_run;
    INSERT INTO ready (run, at_us) SELECT id, now_us FROM runs WHERE id = of_run AND worker IS NULL ON CONFLICT DO NOTHING;
    RETURN '["ok",' || number || ']';
END $$;
-- name: deliver
CREATE FUNCTION deliver(op jsonb, body bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    of_run bigint;
    at_status text;
    number bigint;
BEGIN
    SELECT id, status INTO of_run, at_status FROM runs WHERE run_id = op ->> 'run' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN refused('run', op ->> 'run');
    END IF;
    SELECT id INTO number FROM inbox WHERE run = of_run AND token = op ->> 'token';
    IF FOUND THEN
        RETURN '["ok",' || number || ']';
    ELSIF NOT at_status = ANY (ARRAY['queued', 'running', 'waiting']) THEN
        RETURN refused('terminal', at_status);
    END IF;
    RETURN put_inbox(of_run, op ->> 'kind', body, (op -> 'at')::bigint, op ->> 'token');
END $$;
-- name: decide
CREATE FUNCTION decide(op jsonb, answer bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    asked approvals;
    at_status text;
    number bigint;
    now_us bigint := op -> 'at';
    name text := 'approval:' || (op ->> 'approval');
BEGIN
    SELECT r.status INTO at_status FROM approvals a JOIN runs r ON r.id = a.run
    WHERE a.approval = op ->> 'approval' FOR NO KEY UPDATE OF r;
    IF NOT FOUND THEN
        RETURN refused('approval', op ->> 'approval');
    END IF;
    SELECT * INTO STRICT asked FROM approvals WHERE approval = op ->> 'approval';
    IF asked.status <> 'pending' THEN
        SELECT i.id INTO number FROM inbox i
        WHERE i.run = asked.run AND i.token = name AND i.body = answer AND i.at_us = now_us;
        RETURN CASE WHEN FOUND THEN '["ok",' || number || ']' ELSE refused('decided', asked.status) END;
    ELSIF asked.digest <> op ->> 'digest' THEN
        RETURN refused('digest', asked.digest);
    ELSIF now_us >= asked.expires_at_us THEN
        RETURN refused('expired', asked.expires_at_us::text);
    ELSIF op ->> 'by' = asked.requested_by THEN
        RETURN refused('self', op ->> 'by');
    ELSIF NOT at_status = ANY (ARRAY['queued', 'running', 'waiting']) THEN
        RETURN refused('terminal', at_status);
    END IF;
    UPDATE approvals SET status = op ->> 'outcome', decided_by = op ->> 'by', reason = op ->> 'reason'
    WHERE approval = op ->> 'approval' AND status = 'pending';
    RETURN put_inbox(asked.run, 'approval', answer, now_us, name);
END $$;
-- name: release
-- Give up what an owner holds, as far as nobody has its rows right now; answers how many runs that were.
CREATE FUNCTION release(gone bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    freed integer;
BEGIN
    WITH theirs AS MATERIALIZED (
        SELECT id, status, updated_at_us FROM runs WHERE owner = gone ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    ), free AS (
        UPDATE runs SET worker = NULL, owner = NULL FROM theirs WHERE runs.id = theirs.id
    )
    INSERT INTO ready (run, at_us) SELECT id, updated_at_us FROM theirs
    WHERE status = ANY (ARRAY['queued', 'running', 'waiting']) ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS freed = ROW_COUNT;
    DELETE FROM claims WHERE owner = gone;
    DELETE FROM owners WHERE id = gone AND NOT EXISTS (SELECT 1 FROM runs WHERE owner = gone);
    RETURN freed;
END $$;
-- name: release_expired
CREATE FUNCTION release_expired() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    FOR gone IN SELECT id FROM owners WHERE lease_until < clock_timestamp() ORDER BY id FOR UPDATE SKIP LOCKED LOOP
        PERFORM release(gone);
    END LOOP;
END $$;
-- name: rouse
-- Make ready what nobody holds and somebody has to look at: queued, running, or waiting beside an unread inbox.
CREATE FUNCTION rouse() RETURNS void LANGUAGE sql AS $$
    INSERT INTO ready (run, at_us) SELECT id, updated_at_us FROM runs
    WHERE status = ANY (ARRAY['queued', 'running']) AND worker IS NULL AND wake_at_us IS NULL ON CONFLICT DO NOTHING;
    INSERT INTO ready (run, at_us) SELECT i.run, min(i.at_us) FROM inbox i JOIN runs r ON r.id = i.run
    WHERE NOT i.consumed AND r.status = 'waiting' AND r.worker IS NULL GROUP BY i.run ON CONFLICT DO NOTHING;
$$;
-- name: wake_due
CREATE FUNCTION wake_due(now_us bigint) RETURNS void LANGUAGE sql AS $$
    WITH due AS MATERIALIZED (
        SELECT id, wake_at_us FROM runs WHERE wake_at_us <= now_us AND worker IS NULL
        ORDER BY wake_at_us LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
    ), woken AS (
        UPDATE runs SET wake_at_us = NULL FROM due WHERE runs.id = due.id
    )
    INSERT INTO ready (run, at_us) SELECT id, wake_at_us FROM due ON CONFLICT DO NOTHING;
$$;
-- name: claim
CREATE FUNCTION claim(op jsonb, of_owner bigint, lease interval) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    told text;
    first bigint[];
    free bigint[];
BEGIN
    PERFORM 1 FROM owners WHERE id = of_owner FOR KEY SHARE;
    IF NOT FOUND THEN
        INSERT INTO owners (id, lease_until) OVERRIDING SYSTEM VALUE VALUES (of_owner, clock_timestamp() + lease) ON CONFLICT DO NOTHING;
    END IF;
    SELECT answer INTO told FROM claims WHERE owner = of_owner AND worker = op ->> 'worker' AND token = op ->> 'token';
    IF FOUND THEN
        RETURN '["claimed",' || told || ']';
    END IF;
    PERFORM release_expired();
    PERFORM wake_due((op -> 'now')::bigint);
    first := ARRAY(SELECT run FROM ready ORDER BY at_us, run LIMIT (op -> 'limit')::bigint FOR UPDATE SKIP LOCKED);
    free := ARRAY(SELECT id FROM runs WHERE id = ANY (first) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED);
    WITH taken AS (
        DELETE FROM ready WHERE run = ANY (free) RETURNING run, at_us
    ), held AS (
        UPDATE runs SET epoch = epoch + 1, worker = op ->> 'worker', owner = of_owner
        WHERE id = ANY (free) AND worker IS NULL AND status = ANY (ARRAY['queued', 'running', 'waiting'])
        RETURNING id, run_id, seq, epoch
    )
    SELECT json_agg(json_build_array(h.run_id, h.seq, h.epoch) ORDER BY t.at_us, h.id)::text INTO told
    FROM held h JOIN taken t ON t.run = h.id;
    IF told IS NULL THEN
        RETURN '["claimed",[]]';
    END IF;
    IF op ->> 'token' <> '' THEN
        INSERT INTO claims (owner, worker, token, answer) VALUES (of_owner, op ->> 'worker', op ->> 'token', told)
        ON CONFLICT ON CONSTRAINT claims_pkey DO UPDATE SET token = excluded.token, answer = excluded.answer;
    END IF;
    RETURN '["claimed",' || told || ']';
END $$;
-- name: set_fact
CREATE FUNCTION set_fact(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    at_version bigint;
BEGIN
    INSERT INTO facts (name, version, value) VALUES (op ->> 'name', 1, op ->> 'value')
    ON CONFLICT (name) DO UPDATE SET version = facts.version + 1, value = excluded.value WHERE facts.value <> excluded.value;
    SELECT version INTO STRICT at_version FROM facts WHERE name = op ->> 'name';
    RETURN '["ok",' || at_version || ']';
END $$;
-- name: set_account
CREATE FUNCTION set_account(op jsonb) RETURNS text LANGUAGE sql AS $$
    INSERT INTO accounts (account, dimension, bound)
    SELECT op ->> 'account', key, (value #>> '{}')::bigint FROM jsonb_each(op -> 'limits')
    ON CONFLICT (account, dimension) DO UPDATE SET bound = excluded.bound;
    SELECT '["ok",0]';
$$;
-- name: erase
CREATE FUNCTION erase(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    of_run bigint;
    at_status text;
BEGIN
    SELECT id, status INTO of_run, at_status FROM runs WHERE run_id = op ->> 'run' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN refused('run', op ->> 'run');
    ELSIF at_status = ANY (ARRAY['queued', 'running', 'waiting']) THEN
        RETURN refused('terminal', at_status);
    END IF;
    DELETE FROM payloads WHERE run = of_run;
    UPDATE contracts SET salt = NULL WHERE run = of_run;
    UPDATE approvals SET shown = '' WHERE run = of_run;
    UPDATE inbox SET body = '' WHERE run = of_run;
    RETURN '["ok",0]';
END $$;
-- name: add_key
CREATE FUNCTION add_key(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hash bytea := decode(op ->> 'digest', 'base64');
BEGIN
    PERFORM pg_advisory_xact_lock(1363430193, 2);
    INSERT INTO api_keys (prefix, digest, label, subject, grants, created_by, created_at_us, expires_at_us)
    SELECT op ->> 'prefix', hash, op ->> 'label', op ->> 'subject', op ->> 'grants', op ->> 'by', (op -> 'at')::bigint,
        (op ->> 'expires')::bigint
    WHERE NOT EXISTS (SELECT 1 FROM api_keys WHERE prefix = op ->> 'prefix')
        AND (NOT (op -> 'first')::boolean OR NOT EXISTS (SELECT 1 FROM api_keys));
    IF FOUND OR EXISTS (
        SELECT 1 FROM api_keys WHERE prefix = op ->> 'prefix' AND digest = hash AND label = op ->> 'label' AND subject = op ->> 'subject'
            AND grants = op ->> 'grants' AND created_by = op ->> 'by' AND created_at_us = (op -> 'at')::bigint
            AND expires_at_us IS NOT DISTINCT FROM (op ->> 'expires')::bigint
    ) THEN
        RETURN '["ok",0]';
    END IF;
    RETURN refused('key', op ->> 'prefix');
END $$;
-- name: revoke_key
CREATE FUNCTION revoke_key(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE api_keys SET revoked_at_us = (op -> 'at')::bigint, revoked_by = op ->> 'by', reason = op ->> 'reason'
    WHERE prefix = op ->> 'prefix' AND revoked_at_us IS NULL;
    IF EXISTS (SELECT 1 FROM api_keys WHERE prefix = op ->> 'prefix') THEN
        RETURN '["ok",0]';
    END IF;
    RETURN refused('key', op ->> 'prefix');
END $$;
-- name: apply_one
CREATE FUNCTION apply_one(op jsonb, of_owner bigint, lease interval, present jsonb, incarnation text,
    bodies bytea[], given bytea[], digests bytea[]) RETURNS answered LANGUAGE plpgsql AS $$
DECLARE
    first integer := op -> 'x';
    body bytea[];
    payload bytea[];
    digest bytea[];
BEGIN
    CASE op ->> 'op'
        WHEN 'commit', 'admit' THEN
            IF op ->> 'incarnation' <> incarnation THEN
                RETURN ROW(refused('incarnation', incarnation), NULL, NULL)::answered;
            END IF;
            FOR i IN first .. first + (op -> 'n')::integer - 1 LOOP  -- a slice would copy the whole of each array
                body := body || bodies[i]; payload := payload || given[i]; digest := digest || digests[i];
            END LOOP;
            IF op ->> 'op' = 'commit' THEN
                RETURN append(op, present, body, payload, digest);
            END IF;
            RETURN admit(op, present, body, payload, digest);
        WHEN 'deliver' THEN RETURN ROW(deliver(op, bodies[first]), NULL, NULL)::answered;
        WHEN 'decide' THEN RETURN ROW(decide(op, bodies[first]), NULL, NULL)::answered;
        WHEN 'claim' THEN RETURN ROW(claim(op, of_owner, lease), NULL, NULL)::answered;
        WHEN 'fact' THEN RETURN ROW(set_fact(op), NULL, NULL)::answered;
        WHEN 'account' THEN RETURN ROW(set_account(op), NULL, NULL)::answered;
        WHEN 'erase' THEN RETURN ROW(erase(op), NULL, NULL)::answered;
        WHEN 'key' THEN RETURN ROW(add_key(op), NULL, NULL)::answered;
        WHEN 'revoke' THEN RETURN ROW(revoke_key(op), NULL, NULL)::answered;
    END CASE;
END $$;
-- name: apply
-- A batch: one statement, one transaction. What cannot be applied at all fails the batch, unless it is asked to isolate each operation.
CREATE FUNCTION apply(of_owner bigint, lease_s double precision, ops text[], bodies bytea[], given bytea[], digests bytea[],
    use_facts boolean, change_facts boolean, names text[], asked text[], charged text[], isolate boolean)
RETURNS text LANGUAGE plpgsql SET search_path = quarterdeck, pg_temp AS $$
DECLARE
    outcomes text[] := '{}';
    result answered;
    of_runs bigint[] := '{}';
    seqs bigint[] := '{}';
    hashes bytea[] := '{}';
    places integer[] := '{}';
    op jsonb;
    present jsonb;
    incarnation text;
    hint text;
    added integer;
    lease interval := make_interval(secs => lease_s);
BEGIN
    IF current_setting('synchronous_commit') <> ALL (ARRAY['on', 'remote_apply']) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'synchronous_commit is not on';
    END IF;
    IF use_facts OR change_facts THEN
        PERFORM take_facts(change_facts);
    END IF;
    IF cardinality(names) + cardinality(asked) > 1 THEN
        PERFORM take_runs(names, asked);
    END IF;
    IF cardinality(charged) > 0 THEN
        PERFORM take_accounts(charged);
    END IF;
    SELECT value INTO STRICT incarnation FROM meta WHERE name = 'incarnation';
    present := current_facts();
    FOR i IN 1 .. cardinality(ops) LOOP
        op := ops[i]::jsonb;
        IF op ? 'flush' THEN  -- it looks at what an earlier one of this batch has added to the same run
            PERFORM write_events(of_runs, seqs, hashes, places, bodies, given, digests);
            of_runs := '{}'; seqs := '{}'; hashes := '{}'; places := '{}';
        END IF;
        IF op ? 'facts' AND NOT present @> (op -> 'facts') AND wrong_fact(op -> 'facts', present) IS NULL THEN
            present := (op -> 'facts') || present;  -- what was never set is 0; the others of the batch find it so at once
        END IF;
        IF isolate THEN
            BEGIN
                result := apply_one(op, of_owner, lease, present, incarnation, bodies, given, digests);
                IF result.hashes IS NOT NULL THEN  -- alone, so that whatever is wrong with it is its own
                    added := cardinality(result.hashes);
                    PERFORM write_events(array_fill(result.run, ARRAY[added]),
                        ARRAY(SELECT (op -> 'seq')::bigint + n FROM generate_series(1, added) AS n), result.hashes,
                        ARRAY(SELECT (op -> 'x')::integer + n - 1 FROM generate_series(1, added) AS n), bodies, given, digests);
                    result.hashes := NULL;
                END IF;
            EXCEPTION
                WHEN SQLSTATE 'QD001' THEN
                    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_DETAIL;
                    result := ROW(refused(SQLERRM, hint), NULL, NULL)::answered;
                WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded THEN
                    result := ROW(refused('poison', left(SQLERRM, 200)), NULL, NULL)::answered;
            END;
        ELSIF op ? 'undo' THEN
            BEGIN
                result := apply_one(op, of_owner, lease, present, incarnation, bodies, given, digests);
            EXCEPTION WHEN SQLSTATE 'QD001' THEN
                GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_DETAIL;
                result := ROW(refused(SQLERRM, hint), NULL, NULL)::answered;
            END;
        ELSE
            result := apply_one(op, of_owner, lease, present, incarnation, bodies, given, digests);
        END IF;
        IF result.hashes IS NOT NULL THEN
            FOR at IN 1 .. cardinality(result.hashes) LOOP
                of_runs := of_runs || result.run;
                seqs := seqs || ((op -> 'seq')::bigint + at);
                hashes := hashes || result.hashes[at];
                places := places || ((op -> 'x')::integer + at - 1);
            END LOOP;
        END IF;
        IF op ->> 'op' = 'fact' THEN
            present := current_facts();
        END IF;
        outcomes := outcomes || result.answer;
    END LOOP;
    PERFORM write_events(of_runs, seqs, hashes, places, bodies, given, digests);
    RETURN '[' || array_to_string(outcomes, ',') || ']';
END $$;
