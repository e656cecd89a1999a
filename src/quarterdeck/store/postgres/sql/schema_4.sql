-- What operators did. Rows are only ever added; each hash covers the row before it.
CREATE TABLE audit (
    seq    bigint PRIMARY KEY,
    body   bytea NOT NULL,
    digest bytea NOT NULL UNIQUE,
    hash   bytea NOT NULL
);
