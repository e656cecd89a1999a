-- name: facts
SELECT name, version FROM facts
-- name: find_run
SELECT id, seq, head, salt FROM runs WHERE run_id = ?
-- name: guards
SELECT seq, epoch, control, worker FROM runs WHERE id = ?
-- name: step
UPDATE runs SET seq = ?1, head = ?2, updated_at_us = ?3
WHERE id = ?4 AND seq = ?5 AND epoch = ?6 AND worker IS NOT NULL AND (?7 IS NULL OR control = ?7)
-- name: step_head
UPDATE runs SET seq = ?1, head = ?2, updated_at_us = ?3, status = ?8, reason = ?9, code = ?10, waiting_on = ?11,
    wake_at_us = ?12, worker = CASE WHEN ?13 THEN NULL ELSE worker END
WHERE id = ?4 AND seq = ?5 AND epoch = ?6 AND worker IS NOT NULL AND (?7 IS NULL OR control = ?7)
-- name: insert_event
INSERT INTO events (run, seq, body, payload, payload_digest, hash) VALUES (?, ?, ?, ?, ?, ?)
-- name: stored_events
SELECT body, payload, payload_digest FROM events WHERE run = ? AND seq > ? AND seq <= ? ORDER BY seq
-- name: insert_run
INSERT INTO runs (run_id, status, seq, head, salt, updated_at_us) VALUES (?, ?, ?, ?, ?, ?) RETURNING id
-- name: insert_contract
INSERT INTO contracts (run, tenant, route, agent, actor, admitted_at_us, correlation_id, thread_id, parent_run_id, priority)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
-- name: insert_ready
INSERT OR IGNORE INTO ready (run, at_us) VALUES (?, ?)
-- name: find_key
SELECT r.run_id, k.body_digest, k.expires_at_us FROM idempotency k JOIN runs r ON r.id = k.run WHERE k.tenant = ? AND k.key = ?
-- name: put_key
INSERT OR REPLACE INTO idempotency (tenant, key, run, body_digest, expires_at_us) VALUES (?, ?, ?, ?, ?)
-- name: open_account
INSERT OR IGNORE INTO accounts (account, dimension, bound) VALUES (?, ?, ?)
-- name: charge
UPDATE accounts SET reserved = reserved + ?3 - ?4, committed = committed + ?5
WHERE account = ?1 AND dimension = ?2 AND (?3 = 0 OR bound IS NULL OR committed + ?5 + reserved + ?3 - ?4 <= bound)
-- name: set_account
INSERT INTO accounts (account, dimension, bound) VALUES (?1, ?2, ?3)
ON CONFLICT (account, dimension) DO UPDATE SET bound = excluded.bound
-- name: insert_approval
INSERT INTO approvals (approval, run, call, tool, digest, requested_by, expires_at_us, shown) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
-- name: consume_approval
UPDATE approvals SET consumed = 1
WHERE approval = ? AND run = ? AND digest = ? AND status = 'approved' AND consumed = 0 AND expires_at_us > ?
-- name: close_approval
UPDATE approvals SET status = ? WHERE approval = ? AND run = ? AND status = 'pending'
-- name: find_approval
SELECT a.run, a.digest, a.status, a.expires_at_us, a.requested_by, r.run_id, r.status
FROM approvals a JOIN runs r ON r.id = a.run WHERE a.approval = ?
-- name: decide_approval
UPDATE approvals SET status = ?, decided_by = ?, reason = ? WHERE approval = ? AND status = 'pending'
-- name: run_status
SELECT id, status FROM runs WHERE run_id = ?
-- name: find_token
SELECT id FROM inbox WHERE run = ? AND token = ?
-- name: same_row
SELECT id FROM inbox WHERE run = ? AND token = ? AND body = ? AND at_us = ?
-- name: insert_inbox
INSERT INTO inbox (run, kind, body, at_us, token) VALUES (?, ?, ?, ?, ?) RETURNING id
-- name: consume_inbox
UPDATE inbox SET consumed = 1 WHERE id = ? AND run = ?
-- name: bump_control
UPDATE runs SET control = control + 1 WHERE id = ?
-- name: ready_if_waiting
INSERT OR IGNORE INTO ready (run, at_us) SELECT id, ?2 FROM runs WHERE id = ?1 AND worker IS NULL
-- name: due_to_ready
INSERT OR IGNORE INTO ready (run, at_us) SELECT id, wake_at_us FROM runs WHERE wake_at_us <= ? AND worker IS NULL
-- name: due_done
UPDATE runs SET wake_at_us = NULL WHERE wake_at_us <= ? AND worker IS NULL
-- name: pick_ready
SELECT run FROM ready ORDER BY at_us, run LIMIT ?
-- name: claim
UPDATE runs SET epoch = epoch + 1, worker = ? WHERE id = ? AND worker IS NULL
    AND status IN ('queued', 'running', 'waiting') RETURNING run_id, seq, epoch
-- name: drop_ready
DELETE FROM ready WHERE run = ?
-- name: find_claim
SELECT answer FROM claims WHERE worker = ? AND token = ?
-- name: put_claim
INSERT OR REPLACE INTO claims (worker, token, answer) VALUES (?, ?, ?)
-- name: put_fact
INSERT INTO facts (name, version, value) VALUES (?1, 1, ?2)
ON CONFLICT (name) DO UPDATE SET version = version + 1, value = excluded.value WHERE value <> excluded.value
-- name: fact_version
SELECT version FROM facts WHERE name = ?
-- name: insert_api_key
INSERT INTO api_keys (prefix, digest, label, subject, grants, created_by, created_at_us, expires_at_us)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
WHERE NOT EXISTS (SELECT 1 FROM api_keys WHERE prefix = ?1) AND (NOT ?9 OR NOT EXISTS (SELECT 1 FROM api_keys))
-- name: same_api_key
SELECT EXISTS (SELECT 1 FROM api_keys WHERE prefix = ?1 AND digest = ?2 AND label = ?3 AND subject = ?4 AND grants = ?5
    AND created_by = ?6 AND created_at_us = ?7 AND expires_at_us IS ?8)
-- name: revoke_api_key
UPDATE api_keys SET revoked_at_us = ?2, revoked_by = ?3, reason = ?4 WHERE prefix = ?1 AND revoked_at_us IS NULL
-- name: find_api_key
SELECT EXISTS (SELECT 1 FROM api_keys WHERE prefix = ?)
-- name: erase_payloads
UPDATE events SET payload = NULL WHERE run = ? AND payload IS NOT NULL
-- name: erase_salt
UPDATE runs SET salt = NULL WHERE id = ?
-- name: erase_inbox
UPDATE inbox SET body = x'' WHERE run = ?
-- name: erase_shown
UPDATE approvals SET shown = x'' WHERE run = ?
-- name: adopt_claims
DELETE FROM claims
-- name: adopt_release
UPDATE runs SET worker = NULL WHERE worker IS NOT NULL
-- name: adopt_ready
INSERT OR IGNORE INTO ready (run, at_us) SELECT id, updated_at_us FROM runs
WHERE status IN ('queued', 'running') OR (status = 'waiting' AND worker IS NOT NULL)
-- name: adopt_unread
INSERT OR IGNORE INTO ready (run, at_us) SELECT DISTINCT i.run, i.at_us FROM inbox i JOIN runs r ON r.id = i.run
WHERE i.consumed = 0 AND r.status = 'waiting'
-- name: meta
SELECT value FROM meta WHERE name = ?
-- name: put_meta
INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)
