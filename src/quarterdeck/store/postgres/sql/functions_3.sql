-- The functions of earlier schemas that change, in place: what older workers send means what it did.
-- name: need
-- What a run needs is known by its contract, whoever makes it ready.
CREATE FUNCTION need() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT coalesce(max(needs), '') INTO NEW.needs FROM quarterdeck.contracts WHERE run = NEW.run;
    RETURN NEW;
END $$;
CREATE TRIGGER ready_need BEFORE INSERT ON ready FOR EACH ROW EXECUTE FUNCTION need();
-- name: is_served
-- Whether somebody is alive who has the code that a run needs.
CREATE FUNCTION is_served(needed text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = quarterdeck, pg_temp AS $$
    SELECT EXISTS (
        SELECT 1 FROM owners WHERE lease_until >= clock_timestamp() AND (programs IS NULL OR needed = ANY (programs))
    )
$$;
-- name: unserved
-- The code that a ready run waits for, where nobody is alive who has it; else null.
CREATE FUNCTION unserved(of_run bigint) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = quarterdeck, pg_temp AS $$
    SELECT needs FROM ready WHERE run = of_run AND needs <> '' AND NOT is_served(needs)
$$;
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
    INSERT INTO contracts (run, tenant, route, agent, actor, admitted_at_us, correlation_id, thread_id, parent_run_id, priority, salt,
        needs)
    VALUES (of_run, new ->> 0, new ->> 1, new ->> 2, new ->> 3, (new -> 4)::bigint, new ->> 5, new ->> 6, new ->> 7, new ->> 8,
        decode(new ->> 9, 'base64'), coalesce(new ->> 12, ''));
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
-- name: release_expired
-- Whoever's lease has ended counts as dead: each of its runs remembers at which sequence that was, the newest sixteen times.
CREATE OR REPLACE FUNCTION release_expired() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    FOR gone IN SELECT id FROM owners WHERE lease_until < clock_timestamp() ORDER BY id FOR UPDATE SKIP LOCKED LOOP
        WITH theirs AS MATERIALIZED (
            SELECT id FROM runs WHERE owner = gone ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE runs SET deaths = (deaths || seq)[greatest(1, cardinality(deaths) - 14):] FROM theirs
        WHERE runs.id = theirs.id;
        PERFORM release(gone);
    END LOOP;
END $$;
-- name: claim
CREATE OR REPLACE FUNCTION claim(op jsonb, of_owner bigint, lease interval) RETURNS text LANGUAGE plpgsql AS $$
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
    -- Whose own lease had ended was buried just now with the others, and begins anew: nobody holds runs without a lease that can end.
    IF NOT EXISTS (SELECT 1 FROM owners WHERE id = of_owner) THEN
        INSERT INTO owners (id, lease_until) OVERRIDING SYSTEM VALUE VALUES (of_owner, clock_timestamp() + lease) ON CONFLICT DO NOTHING;
    END IF;
    PERFORM wake_due((op -> 'now')::bigint);
    IF jsonb_typeof(op -> 'programs') = 'array' THEN
        -- Only the index that begins with the need gives this order, however common a need is. (An equality would make the need
        -- redundant in it, and the planner could walk all that is ready by time, past whatever needs other code.)
        first := ARRAY(
            SELECT q.run FROM jsonb_array_elements_text(op -> 'programs' || '[""]'::jsonb) AS p (has)
            CROSS JOIN LATERAL (
                SELECT run, at_us FROM ready WHERE needs BETWEEN p.has AND p.has
                ORDER BY needs, at_us, run LIMIT (op -> 'limit')::bigint FOR UPDATE SKIP LOCKED
            ) AS q ORDER BY q.at_us, q.run LIMIT (op -> 'limit')::bigint
        );
    ELSE
        first := ARRAY(SELECT run FROM ready ORDER BY at_us, run LIMIT (op -> 'limit')::bigint FOR UPDATE SKIP LOCKED);
    END IF;
    free := ARRAY(SELECT id FROM runs WHERE id = ANY (first) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED);
    WITH taken AS (
        DELETE FROM ready WHERE run = ANY (free) RETURNING run, at_us
    ), held AS (
        UPDATE runs SET epoch = epoch + 1, worker = op ->> 'worker', owner = of_owner
        WHERE id = ANY (free) AND worker IS NULL AND status = ANY (ARRAY['queued', 'running', 'waiting'])
        RETURNING id, run_id, seq, epoch, deaths
    )
    SELECT json_agg(json_build_array(h.run_id, h.seq, h.epoch, coalesce(h.deaths, '{}')) ORDER BY t.at_us, h.id)::text INTO told
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
-- name: settle_letter
CREATE FUNCTION settle_letter(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
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
    INSERT INTO dead_letters (run, how, by, why, at_us)
    VALUES (of_run, op ->> 'how', op ->> 'by', op ->> 'why', (op -> 'at')::bigint) ON CONFLICT DO NOTHING;
    RETURN '["ok",0]';
END $$;
-- name: give_back
CREATE FUNCTION give_back(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    of_run bigint;
BEGIN
    UPDATE runs SET worker = NULL, owner = NULL
    WHERE run_id = op ->> 'run' AND epoch = (op -> 'epoch')::bigint AND worker IS NOT NULL RETURNING id INTO of_run;
    IF NOT FOUND THEN
        RETURN refused('epoch', '');
    END IF;
    INSERT INTO ready (run, at_us) VALUES (of_run, (op -> 'at')::bigint) ON CONFLICT DO NOTHING;
    RETURN '["ok",0]';
END $$;
-- name: purge
-- Remove what is left of runs of a route that ended long ago, by the earlier of two clocks; one with an undelivered message stays.
CREATE OR REPLACE FUNCTION purge(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
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
    DELETE FROM dead_letters WHERE run = ANY (old);
    DELETE FROM ready WHERE run = ANY (old);
    DELETE FROM contracts WHERE run = ANY (old);
    DELETE FROM runs WHERE id = ANY (old);
    RETURN '["purged",' || coalesce(cardinality(old), 0) || ',' || upto || ']';
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
        WHEN 'back' THEN RETURN ROW(give_back(op), NULL, NULL)::answered;
        WHEN 'letter' THEN RETURN ROW(settle_letter(op), NULL, NULL)::answered;
        WHEN 'key' THEN RETURN ROW(add_key(op), NULL, NULL)::answered;
        WHEN 'revoke' THEN RETURN ROW(revoke_key(op), NULL, NULL)::answered;
    END CASE;
END $$;
