CREATE TABLE api_keys (
    id            INTEGER PRIMARY KEY,
    prefix        TEXT NOT NULL UNIQUE,
    digest        BLOB NOT NULL,
    label         TEXT NOT NULL,
    subject       TEXT NOT NULL,
    grants        TEXT NOT NULL,
    created_by    TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    expires_at_us INTEGER,
    revoked_at_us INTEGER,
    revoked_by    TEXT NOT NULL DEFAULT '',
    reason        TEXT NOT NULL DEFAULT ''
) STRICT;
