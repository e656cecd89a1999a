-- name: session
SELECT set_config('search_path', 'quarterdeck, pg_temp', false), set_config('synchronous_commit', 'on', false),
    set_config('plan_cache_mode', 'force_generic_plan', false), set_config('jit', 'off', false),
    set_config('enable_seqscan', 'off', false), set_config('idle_in_transaction_session_timeout', '30s', false),
    set_config('lock_timeout', '20s', false)
-- name: read_only
SELECT set_config('default_transaction_read_only', 'on', false), set_config('statement_timeout', '10s', false)
-- name: server
SELECT current_setting('server_version_num')::integer, pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
    current_setting('server_encoding'), current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit')
-- name: version
SELECT current_setting('server_version')
-- name: schemas
SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'quarterdeck'),
    EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'quarterdeck' AND c.relname = 'meta')
-- name: meta
SELECT name, value FROM meta
-- name: put_meta
INSERT INTO meta (name, value) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value
-- name: take_schema
SELECT pg_advisory_xact_lock(1363430192, 0)
-- name: make_schema
CREATE SCHEMA quarterdeck
-- name: identity
SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '/'
    || (SELECT oid FROM pg_database WHERE datname = current_database())
-- name: release_all
SELECT release(id) FROM owners ORDER BY id
