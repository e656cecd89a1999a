-- name: apply
SELECT quarterdeck.apply(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
-- name: apply_all
SELECT quarterdeck.apply_all(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
-- name: salts
SELECT r.run_id, c.salt FROM runs r JOIN contracts c ON c.run = r.id WHERE r.run_id = ANY (%s)
-- name: notify
SELECT pg_notify('quarterdeck', '')
-- name: listen
LISTEN quarterdeck
-- name: enter
INSERT INTO owners (lease_until) VALUES (clock_timestamp() + make_interval(secs => %s)) RETURNING id
-- name: adopt
SELECT release_expired(), rouse()
-- name: leave
SELECT release(%s)
-- name: renew
UPDATE owners SET lease_until = clock_timestamp() + make_interval(secs => %s), beat_at = clock_timestamp(), about = %s, programs = %s
WHERE id = %s RETURNING beat_at::text, pg_current_wal_insert_lsn()::text
-- name: standing
SELECT (SELECT value FROM meta WHERE name = 'incarnation'), pg_current_wal_insert_lsn() < %s::pg_lsn
    OR coalesce((SELECT beat_at < %s::timestamptz FROM owners WHERE id = %s),
                coalesce(pg_sequence_last_value(pg_get_serial_sequence('owners', 'id')::regclass), 0) < %s)
-- name: enter_again
INSERT INTO owners (id, lease_until) OVERRIDING SYSTEM VALUE VALUES (%s, clock_timestamp() + make_interval(secs => %s))
ON CONFLICT DO NOTHING
-- name: apply_audited
SELECT quarterdeck.apply_audited(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
