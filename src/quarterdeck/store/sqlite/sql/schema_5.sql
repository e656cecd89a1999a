-- What operators did. Rows are only ever added; each hash covers the row before it.
CREATE TABLE audit (
    seq    INTEGER PRIMARY KEY,
    body   BLOB NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    hash   BLOB NOT NULL
) STRICT;
