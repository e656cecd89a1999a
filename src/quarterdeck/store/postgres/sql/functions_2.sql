-- What a commit may carry beside its run: rows for other runs, messages, exclusive keys, statements on the author's own tables. And the lines
-- of runs with one ordering key. Functions of version 1 that do more now are replaced; what an older runtime sends means what it meant.

-- name: clock_us
CREATE FUNCTION clock_us() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;
-- name: leave_line
-- A run that stood in a line has ended: whoever is the first there now may be claimed.
CREATE FUNCTION leave_line(of_run bigint, of_line text, now_us bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1363430195, hashtext(of_line));
    UPDATE runs SET line = NULL, behind = false WHERE id = of_run;
    UPDATE runs SET behind = false
    WHERE id = (SELECT id FROM runs WHERE line = of_line ORDER BY id LIMIT 1) AND behind RETURNING id INTO first;
    IF FOUND THEN
        INSERT INTO ready (run, at_us) VALUES (first, now_us) ON CONFLICT DO NOTHING;
    END IF;
END $$;
-- name: write_theirs
-- One statement of the author's own, on the author's tables. What is wrong with it refuses the commit that carries it.
CREATE FUNCTION write_theirs(statement text, wanted bigint) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    changed bigint;
BEGIN
    EXECUTE statement;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed <> wanted THEN
        RAISE EXCEPTION USING ERRCODE = 'QD001', MESSAGE = 'statement', DETAIL = format('changed %s rows, not %s', changed, wanted);
    END IF;
EXCEPTION
    WHEN SQLSTATE 'QD001' OR serialization_failure OR deadlock_detected THEN
        RAISE;
    WHEN OTHERS THEN
        RAISE EXCEPTION USING ERRCODE = 'QD001', MESSAGE = 'statement', DETAIL = left(SQLERRM, 200);
END $$;
-- name: put_post
-- The lane's row is taken first, so that the messages of one lane are numbered in the order of their commits.
CREATE FUNCTION put_post(item jsonb, of_run bigint, now_us bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lanes (lane, due_us) VALUES (item ->> 1, now_us) ON CONFLICT (lane) DO UPDATE SET due_us = lanes.due_us;
    INSERT INTO outbox (run, message, lane, topic, key, body, headers, at_us)
    VALUES (of_run, item ->> 0, item ->> 1, item ->> 2, item ->> 3, decode(item ->> 4, 'base64'), item ->> 5, now_us);
END $$;
-- name: attach_beside
-- What few commits carry. A refusal is raised as QD001 and undoes the commit.
CREATE FUNCTION attach_beside(op jsonb, of_run bigint, now_us bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    item jsonb;
    holder text;
BEGIN
    FOR item IN SELECT value FROM jsonb_array_elements(op -> 'frees') LOOP
        DELETE FROM exclusive WHERE key = item ->> 0 AND run = of_run AND call = item ->> 1;
    END LOOP;
    FOR item IN SELECT value FROM jsonb_array_elements(op -> 'takes') LOOP
        INSERT INTO exclusive AS e (key, run, call) VALUES (item ->> 0, of_run, item ->> 1)
        ON CONFLICT (key) DO UPDATE SET call = excluded.call WHERE e.run = excluded.run AND e.call = excluded.call;
        IF NOT FOUND THEN
            SELECT r.run_id INTO holder FROM exclusive e JOIN runs r ON r.id = e.run WHERE e.key = item ->> 0;
            RAISE EXCEPTION USING ERRCODE = 'QD001', MESSAGE = 'exclusive', DETAIL = (item ->> 0) || '|' || coalesce(holder, '');
        END IF;
    END LOOP;
    FOR item IN SELECT value FROM jsonb_array_elements(op -> 'writes') LOOP
        PERFORM write_theirs(item ->> 0, (item ->> 1)::bigint);
    END LOOP;
    FOR item IN SELECT value FROM jsonb_array_elements(op -> 'outbox') LOOP
        PERFORM put_post(item, of_run, now_us);
    END LOOP;
    FOR item IN SELECT value FROM jsonb_array_elements(op -> 'delivers') LOOP
        PERFORM deliver(item, decode(item ->> 'body', 'base64'));
    END LOOP;
END $$;
-- name: take_posts
-- The first message of each lane that is due, whoever may have it: a lease on a lane is by this server's clock.
CREATE FUNCTION take_posts(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    told text[] := '{}';
    now_us bigint := clock_us();
    of_lane text;
    first record;
    held bigint;
BEGIN
    FOR of_lane IN
        SELECT lane FROM lanes WHERE due_us <= (op -> 'now')::bigint AND until_us <= now_us
        ORDER BY due_us LIMIT (op -> 'limit')::bigint FOR UPDATE SKIP LOCKED
    LOOP
        SELECT o.id, o.status, o.attempts, r.run_id, c.tenant, o.topic, o.key, o.message, o.body, o.headers, o.at_us INTO first
        FROM outbox o JOIN runs r ON r.id = o.run JOIN contracts c ON c.run = o.run
        WHERE o.lane = of_lane AND o.status = ANY (ARRAY['queued', 'dead']) ORDER BY o.id LIMIT 1;
        IF NOT FOUND THEN
            DELETE FROM lanes WHERE lane = of_lane;
            CONTINUE;
        ELSIF first.status = 'dead' THEN
            UPDATE lanes SET due_us = NULL, until_us = 0 WHERE lane = of_lane;
            CONTINUE;
        END IF;
        UPDATE outbox SET attempts = attempts + 1 WHERE id = first.id AND status = 'queued';
        IF NOT FOUND THEN
            CONTINUE;
        END IF;
        UPDATE lanes SET until_us = now_us + (op -> 'lease')::bigint, ticket = ticket + 1 WHERE lane = of_lane RETURNING ticket INTO held;
        told := told || json_build_array(first.id, of_lane, held, first.attempts + 1, first.run_id, first.tenant, first.topic, first.key,
            first.message, translate(encode(first.body, 'base64'), E'\n', ''), first.headers::json, first.at_us)::text;
    END LOOP;
    RETURN '["taken",[' || array_to_string(told, ',') || ']]';
END $$;
-- name: settle_post
CREATE FUNCTION settle_post(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    of_lane text := op ->> 'lane';
    ended text := op ->> 'outcome';
    held bigint;
    at_status text;
BEGIN
    SELECT ticket INTO held FROM lanes WHERE lane = of_lane FOR UPDATE;
    SELECT status INTO at_status FROM outbox WHERE id = (op -> 'number')::bigint FOR UPDATE;
    IF NOT FOUND THEN
        RETURN refused('post', 'gone');
    ELSIF at_status = ended THEN
        RETURN '["ok",' || (op ->> 'number') || ']';
    ELSIF at_status <> 'queued' OR held IS DISTINCT FROM (op -> 'ticket')::bigint THEN
        RETURN refused('post', at_status);
    END IF;
    UPDATE outbox SET status = CASE ended WHEN 'again' THEN 'queued' ELSE ended END, code = op ->> 'code'
    WHERE id = (op -> 'number')::bigint;
    UPDATE lanes SET until_us = 0,
        due_us = CASE ended WHEN 'dead' THEN NULL WHEN 'again' THEN (op -> 'due')::bigint ELSE (op -> 'at')::bigint END
    WHERE lane = of_lane;
    RETURN '["ok",' || (op ->> 'number') || ']';
END $$;
-- name: decide_post
CREATE FUNCTION decide_post(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    wanted text := CASE op ->> 'action' WHEN 'requeue' THEN 'queued' ELSE 'dropped' END;
    number bigint;
    of_lane text;
    at_status text;
BEGIN
    SELECT lane INTO of_lane FROM outbox WHERE message = op ->> 'message';
    PERFORM 1 FROM lanes WHERE lane = of_lane FOR UPDATE;
    SELECT id, status INTO number, at_status FROM outbox WHERE message = op ->> 'message' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN refused('post', 'unknown');
    ELSIF at_status = wanted THEN
        RETURN '["ok",' || number || ']';
    ELSIF at_status <> 'dead' THEN
        RETURN refused('post', at_status);
    END IF;
    UPDATE outbox SET status = wanted, attempts = 0, code = '', decided_by = op ->> 'by', reason = op ->> 'reason' WHERE id = number;
    UPDATE lanes SET due_us = coalesce(due_us, (op -> 'at')::bigint) WHERE lane = of_lane;
    RETURN '["ok",' || number || ']';
END $$;
-- name: purge
-- Remove what is left of runs of a route that ended long ago, by the earlier of two clocks; one with an undelivered message stays.
CREATE FUNCTION purge(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    before_us bigint := least((op -> 'now')::bigint, clock_us()) - (op -> 'retain')::bigint;
    seen bigint[];
    old bigint[];
    upto bigint;
BEGIN
    seen := ARRAY(SELECT run FROM contracts WHERE route = op ->> 'route' AND run > (op -> 'after')::bigint
        ORDER BY run LIMIT (op -> 'limit')::bigint);
    upto := CASE WHEN EXISTS (SELECT 1 FROM contracts WHERE run = ANY (seen) AND admitted_at_us > before_us) THEN 0
        ELSE coalesce(seen[cardinality(seen)], 0) END;
    old := ARRAY(SELECT id FROM runs WHERE id = ANY (seen) AND NOT status = ANY (ARRAY['queued', 'running', 'waiting'])
        AND updated_at_us <= before_us
        AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.run = runs.id AND o.status = ANY (ARRAY['queued', 'dead']))
        ORDER BY id FOR UPDATE SKIP LOCKED);
    DELETE FROM payloads WHERE run = ANY (old);
    DELETE FROM events WHERE run = ANY (old);
    DELETE FROM inbox WHERE run = ANY (old);
    DELETE FROM approvals WHERE run = ANY (old);
    DELETE FROM outbox WHERE run = ANY (old);
    DELETE FROM idempotency WHERE run = ANY (old);
    DELETE FROM exclusive WHERE run = ANY (old);
    DELETE FROM ready WHERE run = ANY (old);
    DELETE FROM contracts WHERE run = ANY (old);
    DELETE FROM runs WHERE id = ANY (old);
    RETURN '["purged",' || coalesce(cardinality(old), 0) || ',' || upto || ']';
END $$;
-- name: append
CREATE OR REPLACE FUNCTION append(op jsonb, present jsonb, bodies bytea[], given bytea[], digests bytea[]) RETURNS answered LANGUAGE plpgsql AS $$
DECLARE
    of_run bigint;
    was bigint;
    end_hash bytea;
    hashes bytea[];
    after bigint := op -> 'seq';
    upto bigint := after + cardinality(bodies);
    new jsonb := op -> 'head';
    fact text;
    stood_in text;
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
            AND (op ->> 'control' IS NULL OR control = (op ->> 'control')::bigint)
        RETURNING line INTO stood_in;
    END IF;
    IF NOT FOUND THEN
        RETURN ROW(again_or_refused(op, of_run, bodies, given, NULL), NULL, NULL)::answered;
    END IF;
    IF op ? 'more' THEN
        PERFORM attach(op -> 'more', of_run);
    END IF;
    IF op ? 'beside' THEN
        PERFORM attach_beside(op -> 'beside', of_run, (op -> 'at')::bigint);
    END IF;
    IF stood_in IS NOT NULL AND NOT new ->> 0 = ANY (ARRAY['queued', 'running', 'waiting']) THEN
        PERFORM leave_line(of_run, stood_in, (op -> 'at')::bigint);
    END IF;
    RETURN ROW('["ok",' || upto || ']', of_run, hashes)::answered;
END $$;
-- name: admit
-- Two that admit one run or use one key at once: the later one fails as if its transaction had to be repeated, and then sees the other.
CREATE OR REPLACE FUNCTION admit(op jsonb, present jsonb, bodies bytea[], given bytea[], digests bytea[]) RETURNS answered LANGUAGE plpgsql AS $$
DECLARE
    of_run bigint;
    answer text;
    held record;
    new jsonb := op -> 'new';
    named jsonb := op -> 'key';
    hashes bytea[];
    stands_behind boolean := false;
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
    IF new ->> 11 IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(1363430195, hashtext(new ->> 11));
        stands_behind := EXISTS (SELECT 1 FROM runs WHERE line = new ->> 11);
    END IF;
    INSERT INTO runs (run_id, status, seq, head, updated_at_us, line, behind)
    VALUES (op ->> 'run', 'queued', cardinality(bodies), hashes[cardinality(hashes)], (op -> 'at')::bigint, new ->> 11, stands_behind)
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
    IF NOT stands_behind THEN
        INSERT INTO ready (run, at_us) VALUES (of_run, (new -> 10)::bigint);
    END IF;
    IF op ? 'more' THEN
        PERFORM attach(op -> 'more', of_run);
    END IF;
    IF op ? 'beside' THEN
        PERFORM attach_beside(op -> 'beside', of_run, (op -> 'at')::bigint);
    END IF;
    RETURN ROW('["ok",' || cardinality(bodies) || ']', of_run, hashes)::answered;
END $$;
-- name: put_inbox
CREATE OR REPLACE FUNCTION put_inbox(of_run bigint, of_kind text, content bytea, now_us bigint, name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    INSERT INTO inbox (run, kind, body, at_us, token) VALUES (of_run, of_kind, content, now_us, name) RETURNING id INTO number;
    UPDATE runs SET control = control + 1 WHERE id = of_run;
    INSERT INTO ready (run, at_us) SELECT id, now_us FROM runs WHERE id = of_run AND worker IS NULL AND (NOT behind OR of_kind = 'cancel')
    ON CONFLICT DO NOTHING;
    IF of_kind = 'cancel' THEN
        UPDATE outbox SET status = 'withdrawn' WHERE run = of_run AND status = 'queued' AND attempts = 0;
    END IF;
    RETURN '["ok",' || number || ']';
END $$;
-- name: rouse
-- Make ready what nobody holds and somebody has to look at: queued, running, or waiting beside an unread inbox.
CREATE OR REPLACE FUNCTION rouse() RETURNS void LANGUAGE sql AS $$
    INSERT INTO ready (run, at_us) SELECT id, updated_at_us FROM runs
    WHERE status = ANY (ARRAY['queued', 'running']) AND worker IS NULL AND wake_at_us IS NULL AND NOT behind ON CONFLICT DO NOTHING;
    INSERT INTO ready (run, at_us) SELECT i.run, min(i.at_us) FROM inbox i JOIN runs r ON r.id = i.run
    WHERE NOT i.consumed AND r.status = 'waiting' AND r.worker IS NULL GROUP BY i.run ON CONFLICT DO NOTHING;
$$;
-- name: erase
CREATE OR REPLACE FUNCTION erase(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    of_run bigint;
    at_status text;
    lanes_of text[];
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
    lanes_of := ARRAY(SELECT DISTINCT lane FROM outbox WHERE run = of_run AND status = ANY (ARRAY['queued', 'dead']) ORDER BY lane);
    PERFORM 1 FROM lanes WHERE lane = ANY (lanes_of) ORDER BY lane FOR UPDATE;
    UPDATE outbox SET body = '', headers = '[]',
        status = CASE WHEN status = ANY (ARRAY['queued', 'dead']) THEN 'withdrawn' ELSE status END
    WHERE run = of_run;
    UPDATE lanes SET due_us = coalesce(due_us, (op -> 'at')::bigint) WHERE lane = ANY (lanes_of);
    INSERT INTO erasures (run_id, tenant, actor, by, reason, at_us)
    SELECT op ->> 'run', tenant, actor, coalesce(op ->> 'by', ''), coalesce(op ->> 'reason', ''), coalesce((op -> 'at')::bigint, clock_us())
    FROM contracts WHERE run = of_run ON CONFLICT (run_id) DO NOTHING;
    RETURN '["ok",0]';
END $$;
-- name: apply_one
CREATE OR REPLACE FUNCTION apply_one(op jsonb, of_owner bigint, lease interval, present jsonb, incarnation text,
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
        WHEN 'purge' THEN RETURN ROW(purge(op), NULL, NULL)::answered;
        WHEN 'take' THEN RETURN ROW(take_posts(op), NULL, NULL)::answered;
        WHEN 'settle' THEN RETURN ROW(settle_post(op), NULL, NULL)::answered;
        WHEN 'post' THEN RETURN ROW(decide_post(op), NULL, NULL)::answered;
        WHEN 'key' THEN RETURN ROW(add_key(op), NULL, NULL)::answered;
        WHEN 'revoke' THEN RETURN ROW(revoke_key(op), NULL, NULL)::answered;
    END CASE;
END $$;
