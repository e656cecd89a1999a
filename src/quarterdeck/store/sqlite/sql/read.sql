-- name: events
SELECT e.seq, e.body, e.payload, e.payload_digest, e.hash FROM events e JOIN runs r ON r.id = e.run
WHERE r.run_id = ? AND e.seq > ? ORDER BY e.seq LIMIT ?
-- name: inbox
SELECT r.control, r.epoch, i.id, i.kind, i.body, i.at_us FROM runs r LEFT JOIN inbox i ON i.run = r.id AND i.consumed = 0
WHERE r.run_id = ? ORDER BY i.id
-- name: run_columns
SELECT r.run_id, c.tenant, c.route, c.agent, c.actor, r.status, r.reason, r.code, r.seq, r.epoch, r.worker, r.waiting_on,
    r.wake_at_us, c.admitted_at_us, r.updated_at_us, c.correlation_id, c.thread_id, c.parent_run_id, c.priority, r.head
FROM runs r JOIN contracts c ON c.run = r.id
-- name: run_position
SELECT id FROM runs WHERE run_id = ?
-- name: positions
SELECT r.run_id, r.seq, r.status, r.worker FROM json_each(?) AS wanted CROSS JOIN runs r ON r.run_id = wanted.value
-- name: approval_columns
SELECT a.approval, r.run_id, c.tenant, a.call, a.tool, a.digest, a.requested_by, a.expires_at_us, a.status, a.decided_by,
    a.reason, a.consumed, a.shown
FROM approvals a JOIN runs r ON r.id = a.run JOIN contracts c ON c.run = a.run
-- name: approval_position
SELECT expires_at_us, approval FROM approvals WHERE approval = ?
-- name: keyed
SELECT r.run_id FROM idempotency k JOIN runs r ON r.id = k.run WHERE k.tenant = ? AND k.key = ? AND k.expires_at_us > ?
-- name: standing
SELECT status, COUNT(*) FROM runs WHERE status IN ('queued', 'running', 'waiting') GROUP BY status
-- name: accounts
SELECT account, dimension, bound, committed, reserved FROM accounts ORDER BY account, dimension
-- name: account
SELECT account, dimension, bound, committed, reserved FROM accounts WHERE account = ? ORDER BY dimension
-- name: facts
SELECT name, version, value FROM facts ORDER BY name
-- name: salt
SELECT salt FROM runs WHERE run_id = ?
-- name: due
SELECT EXISTS (SELECT 1 FROM ready) OR EXISTS (SELECT 1 FROM runs WHERE wake_at_us <= ? AND worker IS NULL)
-- name: letter
SELECT r.run_id, d.how, d.by, d.why, d.at_us FROM runs r JOIN dead_letters d ON d.run = r.id WHERE r.run_id = ?
-- name: held
SELECT COUNT(*) FROM runs WHERE worker IS NOT NULL
-- name: key_columns
SELECT prefix, digest, label, subject, grants, created_by, created_at_us, expires_at_us, revoked_at_us, revoked_by, reason
FROM api_keys
-- name: has_table
SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?)
-- name: post_columns
SELECT o.id, o.message, r.run_id, c.tenant, o.topic, o.key, o.status, o.attempts, o.code, o.at_us, o.decided_by, o.reason, o.headers, o.body
FROM outbox o JOIN runs r ON r.id = o.run JOIN contracts c ON c.run = o.run
-- name: post_position
SELECT id FROM outbox WHERE message = ?
-- name: due_posts
SELECT EXISTS (SELECT 1 FROM lanes WHERE due_us <= ?1 AND until_us <= ?1)
-- name: erasures
SELECT run_id, tenant, actor, by, reason, at_us FROM erasures ORDER BY id DESC LIMIT ?
-- name: in_line
SELECT run_id FROM runs WHERE line = ? ORDER BY id LIMIT ?
-- name: audit
SELECT seq, body, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?
