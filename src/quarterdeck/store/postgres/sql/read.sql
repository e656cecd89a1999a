-- name: events
SELECT e.seq, e.body, p.payload, e.payload_digest, e.hash
FROM runs r JOIN events e ON e.run = r.id LEFT JOIN payloads p ON p.run = e.run AND p.seq = e.seq
WHERE r.run_id = %s AND e.seq > %s ORDER BY e.seq LIMIT %s
-- name: inbox
SELECT r.control, r.epoch, i.id, i.kind, i.body, i.at_us FROM runs r LEFT JOIN inbox i ON i.run = r.id AND NOT i.consumed
WHERE r.run_id = %s ORDER BY i.id
-- name: openings
SELECT r.run_id, r.epoch, r.control, c.salt, e.seq, e.body, p.payload, e.payload_digest, e.hash
FROM runs r JOIN contracts c ON c.run = r.id JOIN events e ON e.run = r.id LEFT JOIN payloads p ON p.run = e.run AND p.seq = e.seq
WHERE r.run_id = ANY (%s) AND r.epoch > 0 AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.run = r.id AND NOT i.consumed) ORDER BY r.id, e.seq
-- name: run_columns
SELECT r.run_id, c.tenant, c.route, c.agent, c.actor, r.status, r.reason, r.code, r.seq, r.epoch, r.worker, r.waiting_on,
    r.wake_at_us, c.admitted_at_us, r.updated_at_us, c.correlation_id, c.thread_id, c.parent_run_id, c.priority, r.head,
    CASE WHEN c.needs <> '' AND r.worker IS NULL THEN quarterdeck.unserved(r.id) END
FROM runs r JOIN contracts c ON c.run = r.id
-- name: run_position
SELECT id FROM runs WHERE run_id = %s
-- name: positions
SELECT run_id, seq, status, worker FROM runs WHERE run_id = ANY (%s)
-- name: approval_columns
SELECT a.approval, r.run_id, c.tenant, a.call, a.tool, a.digest, a.requested_by, a.expires_at_us, a.status, a.decided_by,
    a.reason, a.consumed, a.shown
FROM approvals a JOIN runs r ON r.id = a.run JOIN contracts c ON c.run = a.run
-- name: approval_position
SELECT expires_at_us, approval FROM approvals WHERE approval = %s
-- name: keyed
SELECT r.run_id FROM idempotency k JOIN runs r ON r.id = k.run WHERE k.tenant = %s AND k.key = %s AND k.expires_at_us > %s
-- name: standing
SELECT status, count(*) FROM runs WHERE status = ANY (ARRAY['queued', 'running', 'waiting']) GROUP BY status
-- name: accounts
SELECT account, dimension, bound, committed, reserved FROM accounts ORDER BY account, dimension
-- name: account
SELECT account, dimension, bound, committed, reserved FROM accounts WHERE account = %s ORDER BY dimension
-- name: facts
SELECT name, version, value FROM facts ORDER BY name
-- name: salt
SELECT c.salt FROM runs r JOIN contracts c ON c.run = r.id WHERE r.run_id = %s
-- name: due
SELECT EXISTS (SELECT 1 FROM ready WHERE %s::text[] IS NULL OR needs = ANY (%s::text[]))
    OR EXISTS (SELECT 1 FROM runs WHERE wake_at_us <= %s AND worker IS NULL)
    OR EXISTS (SELECT 1 FROM owners WHERE lease_until < clock_timestamp())
-- name: letter
SELECT r.run_id, d.how, d.by, d.why, d.at_us FROM runs r JOIN dead_letters d ON d.run = r.id WHERE r.run_id = %s
-- name: workers
SELECT o.id::text, o.lease_until >= clock_timestamp(), (SELECT count(*) FROM runs r WHERE r.owner = o.id), o.about::bytea,
    (extract(epoch FROM o.beat_at) * 1000000)::bigint, (extract(epoch FROM o.lease_until) * 1000000)::bigint
FROM owners o WHERE o.about <> '{}' ORDER BY o.id
-- name: incarnation
SELECT value FROM meta WHERE name = 'incarnation'
-- name: key_columns
SELECT prefix, digest, label, subject, grants, created_by, created_at_us, expires_at_us, revoked_at_us, revoked_by, reason
FROM api_keys
-- name: post_columns
SELECT o.id, o.message, r.run_id, c.tenant, o.topic, o.key, o.status, o.attempts, o.code, o.at_us, o.decided_by, o.reason, o.headers, o.body
FROM outbox o JOIN runs r ON r.id = o.run JOIN contracts c ON c.run = o.run
-- name: post_position
SELECT id FROM outbox WHERE message = %s
-- name: due_posts
SELECT EXISTS (SELECT 1 FROM lanes
    WHERE due_us <= %s AND until_us <= floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
-- name: erasures
SELECT run_id, tenant, actor, by, reason, at_us FROM erasures ORDER BY id DESC LIMIT %s
-- name: as_reader
SET LOCAL ROLE quarterdeck_reader
-- name: for_tenants
SELECT set_config('quarterdeck.tenants', %s::text[]::text, true)
-- name: audit
SELECT seq, body, hash FROM audit WHERE seq > %s ORDER BY seq LIMIT %s
