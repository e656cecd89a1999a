-- name: set_fact
-- With an expected version, refused unless that is the fact's; given again, what was applied is success.
CREATE OR REPLACE FUNCTION set_fact(op jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    wanted bigint := (op ->> 'expected')::bigint;
    present facts;
BEGIN
    SELECT * INTO present FROM facts WHERE name = op ->> 'name';
    IF wanted IS NOT NULL AND wanted <> coalesce(present.version, 0) THEN
        IF present.version = wanted + 1 AND present.value = op ->> 'value' THEN
            RETURN '["ok",' || present.version || ']';
        END IF;
        RETURN refused('facts', op ->> 'name');
    END IF;
    INSERT INTO facts (name, version, value) VALUES (op ->> 'name', 1, op ->> 'value')
    ON CONFLICT (name) DO UPDATE SET version = facts.version + 1, value = excluded.value WHERE facts.value <> excluded.value;
    SELECT * INTO STRICT present FROM facts WHERE name = op ->> 'name';
    RETURN '["ok",' || present.version || ']';
END $$;
-- name: add_audit
-- One row of the audit log behind the others, unless it is there already. Whoever calls it holds the log.
CREATE FUNCTION add_audit(record bytea) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    last audit;
    next bigint;
BEGIN
    IF EXISTS (SELECT 1 FROM audit WHERE digest = sha256(record)) THEN
        RETURN;
    END IF;
    SELECT * INTO last FROM audit ORDER BY seq DESC LIMIT 1;
    next := coalesce(last.seq, 0) + 1;
    INSERT INTO audit (seq, body, digest, hash) VALUES (next, record, sha256(record),
        sha256(coalesce(last.hash, decode(repeat('00', 32), 'hex')) || int8send(next) || int4send(length(record)) || record));
END $$;
-- name: apply_audited
-- A batch of which some operations are told in the audit log: one statement, one transaction. The log is taken first by all who write it.
CREATE FUNCTION apply_audited(of_owner bigint, lease_s double precision, ops text[], bodies bytea[], given bytea[], digests bytea[],
    use_facts boolean, change_facts boolean, names text[], asked text[], charged text[], isolate boolean, audits bytea[])
RETURNS text LANGUAGE plpgsql SET search_path = quarterdeck, pg_temp AS $$
DECLARE
    answers jsonb;
BEGIN
    PERFORM pg_advisory_xact_lock(1363430193, 3);
    answers := apply(of_owner, lease_s, ops, bodies, given, digests, use_facts, change_facts, names, asked, charged, isolate)::jsonb;
    FOR i IN 1 .. cardinality(ops) LOOP
        IF audits[i] IS NOT NULL AND answers -> (i - 1) ->> 0 = 'ok' THEN
            PERFORM add_audit(audits[i]);
        END IF;
    END LOOP;
    RETURN answers::text;
END $$;
