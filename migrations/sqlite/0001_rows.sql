-- Rows are bytes that the store does not understand; the columns beside them only find them. Who reads a row verifies it. Nothing
-- here opens a message without the tenant's KEK. `digest` is SHA-256 of `row`, made by the writer: what compare-and-set compares.

-- The room's row and the fleet's, as far as they are there: 'room', 'fleet'.
CREATE TABLE single_rows (
    name   TEXT NOT NULL PRIMARY KEY,
    digest BLOB NOT NULL,
    row    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    tenant TEXT NOT NULL PRIMARY KEY,
    digest BLOB NOT NULL,
    row    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- No foreign key to tenants: whether a key may be there is not the store's to understand.
CREATE TABLE data_keys (
    tenant TEXT NOT NULL,
    key_id BLOB NOT NULL,
    scope  BLOB NOT NULL, -- canonical context
    period TEXT NOT NULL, -- 'hour=2026-11-22T05Z', or '' where there are no periods
    state  TEXT NOT NULL,
    digest BLOB NOT NULL,
    row    BLOB NOT NULL,
    PRIMARY KEY (tenant, key_id)
) STRICT, WITHOUT ROWID;

-- One Active key for each tenant, scope and period, whatever races.
CREATE UNIQUE INDEX one_active_key ON data_keys (tenant, scope, period) WHERE state = 'active';

CREATE TABLE journal (
    tenant TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    digest BLOB    NOT NULL,
    row    BLOB    NOT NULL,
    PRIMARY KEY (tenant, seq)
) STRICT, WITHOUT ROWID;

-- Which tenant a KEK serves.
CREATE TABLE keks (
    kek    TEXT NOT NULL PRIMARY KEY,
    digest BLOB NOT NULL,
    row    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The log of changes, in the order of the decisions.
CREATE TABLE changes (
    seq   INTEGER NOT NULL PRIMARY KEY,
    entry BLOB    NOT NULL
) STRICT;

-- Where the log ends: a number is never given twice, whatever was dropped.
CREATE TABLE log_end (
    only_row INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    seq      INTEGER NOT NULL
) STRICT;
INSERT INTO log_end (seq) VALUES (0);

-- Which versions the schema has had. A program that knows a version `least_known` at least may use the tables after it.
CREATE TABLE migrations (
    version     INTEGER NOT NULL PRIMARY KEY,
    least_known INTEGER NOT NULL
) STRICT;

-- Which store this is: drawn at random by whoever makes the file.
CREATE TABLE store_identity (
    only_row INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    id       TEXT    NOT NULL
) STRICT;
