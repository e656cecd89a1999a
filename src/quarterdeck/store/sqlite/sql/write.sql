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
-- name: insert_run_in_line
INSERT INTO runs (run_id, status, seq, head, salt, updated_at_us, line, behind)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, EXISTS (SELECT 1 FROM runs WHERE line = ?7)) RETURNING id, behind
-- name: leave_line
UPDATE runs SET line = NULL, behind = 0 WHERE id = ?
-- name: first_in_line
UPDATE runs SET behind = 0 WHERE id = (SELECT id FROM runs WHERE line = ? ORDER BY id LIMIT 1) AND behind = 1 RETURNING id
-- name: insert_contract
INSERT INTO contracts (run, tenant, route, agent, actor, admitted_at_us, correlation_id, thread_id, parent_run_id, priority, needs)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
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
INSERT OR IGNORE INTO ready (run, at_us) SELECT id, ?2 FROM runs WHERE id = ?1 AND worker IS NULL AND (behind = 0 OR ?3)
-- name: due_to_ready
INSERT OR IGNORE INTO ready (run, at_us) SELECT id, wake_at_us FROM runs WHERE wake_at_us <= ? AND worker IS NULL
-- name: due_done
UPDATE runs SET wake_at_us = NULL WHERE wake_at_us <= ? AND worker IS NULL
-- name: pick_ready
SELECT run FROM ready WHERE ?2 IS NULL OR (SELECT c.needs FROM contracts c WHERE c.run = ready.run) IN (
    SELECT '' UNION ALL SELECT value FROM json_each(?2)
) ORDER BY at_us, run LIMIT ?1
-- name: claim
UPDATE runs SET epoch = epoch + 1, worker = ? WHERE id = ? AND worker IS NULL
    AND status IN ('queued', 'running', 'waiting') RETURNING run_id, seq, epoch, deaths
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
-- name: give_back
UPDATE runs SET worker = NULL WHERE run_id = ? AND epoch = ? AND worker IS NOT NULL RETURNING id
-- name: settle_letter
INSERT OR IGNORE INTO dead_letters (run, how, by, why, at_us) VALUES (?, ?, ?, ?, ?)
-- name: is_held
SELECT EXISTS (SELECT 1 FROM runs WHERE worker IS NOT NULL)
-- name: adopt_deaths
UPDATE runs SET deaths = json_insert(CASE WHEN json_array_length(deaths) > 15 THEN json_remove(deaths, '$[0]') ELSE deaths END, '$[#]', seq)
WHERE worker IS NOT NULL
-- name: adopt_claims
DELETE FROM claims
-- name: adopt_release
UPDATE runs SET worker = NULL WHERE worker IS NOT NULL
-- name: adopt_ready
INSERT OR IGNORE INTO ready (run, at_us) SELECT id, updated_at_us FROM runs
WHERE (status IN ('queued', 'running') AND (behind = 0 OR worker IS NOT NULL)) OR (status = 'waiting' AND worker IS NOT NULL)
-- name: adopt_unread
INSERT OR IGNORE INTO ready (run, at_us) SELECT DISTINCT i.run, i.at_us FROM inbox i JOIN runs r ON r.id = i.run
WHERE i.consumed = 0 AND r.status = 'waiting'
-- name: meta
SELECT value FROM meta WHERE name = ?
-- name: put_meta
INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)
-- name: is_fact
SELECT EXISTS (SELECT 1 FROM facts WHERE name = ? AND version = ? AND value = ?)
-- name: find_audit
SELECT seq FROM audit WHERE digest = ?
-- name: last_audit
SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1
-- name: insert_audit
INSERT INTO audit (seq, body, digest, hash) VALUES (?, ?, ?, ?)
-- name: adopt_lanes
UPDATE lanes SET until_us = 0 WHERE until_us <> 0
-- name: insert_post
INSERT INTO outbox (run, message, lane, topic, key, body, headers, at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
-- name: open_lane
INSERT OR IGNORE INTO lanes (lane, due_us) VALUES (?, ?)
-- name: due_lanes
SELECT lane FROM lanes WHERE due_us <= ?1 AND until_us <= ?1 ORDER BY due_us LIMIT ?2
-- name: first_post
SELECT o.id, o.status, o.attempts, r.run_id, c.tenant, o.topic, o.key, o.message, o.body, o.headers, o.at_us
FROM outbox o JOIN runs r ON r.id = o.run JOIN contracts c ON c.run = o.run
WHERE o.lane = ? AND o.status IN ('queued', 'dead') ORDER BY o.id LIMIT 1
-- name: attempt_post
UPDATE outbox SET attempts = attempts + 1 WHERE id = ?
-- name: hold_lane
UPDATE lanes SET until_us = ?2, ticket = ticket + 1 WHERE lane = ?1 RETURNING ticket
-- name: stop_lane
UPDATE lanes SET due_us = NULL, until_us = 0 WHERE lane = ?
-- name: free_lane
UPDATE lanes SET due_us = ?2, until_us = 0 WHERE lane = ?1
-- name: wake_lane
UPDATE lanes SET due_us = coalesce(due_us, ?2) WHERE lane = ?1
-- name: close_lane
DELETE FROM lanes WHERE lane = ?
-- name: lane_ticket
SELECT ticket FROM lanes WHERE lane = ?
-- name: post_status
SELECT status FROM outbox WHERE id = ?
-- name: settle_post
UPDATE outbox SET status = ?2, code = ?3 WHERE id = ?1
-- name: find_post
SELECT id, lane, status FROM outbox WHERE message = ?
-- name: decide_post
UPDATE outbox SET status = ?2, attempts = 0, code = '', decided_by = ?3, reason = ?4 WHERE id = ?1
-- name: withdraw_posts
UPDATE outbox SET status = 'withdrawn' WHERE run = ? AND status = 'queued' AND attempts = 0
-- name: erase_posts
UPDATE outbox SET body = x'', headers = '[]', status = CASE WHEN status IN ('queued', 'dead') THEN 'withdrawn' ELSE status END WHERE run = ?
-- name: lanes_of
SELECT DISTINCT lane FROM outbox WHERE run = ? AND status IN ('queued', 'dead')
-- name: take_key
INSERT INTO exclusive (key, run, call) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET call = excluded.call
WHERE run = excluded.run AND call = excluded.call
-- name: key_holder
SELECT r.run_id FROM exclusive e JOIN runs r ON r.id = e.run WHERE e.key = ?
-- name: free_key
DELETE FROM exclusive WHERE key = ? AND run = ? AND call = ?
-- name: record_erasure
INSERT OR IGNORE INTO erasures (run_id, tenant, actor, by, reason, at_us)
SELECT ?2, tenant, actor, ?3, ?4, ?5 FROM contracts WHERE run = ?1
-- name: clock
SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER)
-- name: old_runs
SELECT c.run, r.status NOT IN ('queued', 'running', 'waiting') AND r.updated_at_us <= ?3, c.admitted_at_us <= ?3
FROM contracts c JOIN runs r ON r.id = c.run WHERE c.route = ?1 AND c.run > ?2 ORDER BY c.run LIMIT ?4
-- name: moves_of
SELECT body FROM events WHERE run = ? AND substr(body, 1, 22) = CAST('{"kind":"budget.moved"' AS BLOB) ORDER BY seq
-- name: purge_events
DELETE FROM events WHERE run = ?
-- name: purge_inbox
DELETE FROM inbox WHERE run = ?
-- name: purge_approvals
DELETE FROM approvals WHERE run = ?
-- name: purge_posts
DELETE FROM outbox WHERE run = ?
-- name: purge_key
DELETE FROM idempotency WHERE run = ?
-- name: purge_exclusive
DELETE FROM exclusive WHERE run = ?
-- name: purge_letter
DELETE FROM dead_letters WHERE run = ?
-- name: purge_contract
DELETE FROM contracts WHERE run = ?
-- name: purge_run
DELETE FROM runs WHERE id = ?
-- name: open_posts
SELECT EXISTS (SELECT 1 FROM outbox WHERE run = ? AND status IN ('queued', 'dead'))
