-- Rows are bytes that the store does not understand; the columns beside them only find them. Who reads a row verifies it. Nothing
-- here opens a message without the tenant's KEK. `digest` is SHA-256 of `row`, made by the writer: what compare-and-set compares.

-- The room's row and the fleet's. Both are always there, empty at first, so that who relies on there being none can lock that.
CREATE TABLE single_rows (
    name   text COLLATE "C" NOT NULL PRIMARY KEY,
    digest bytea,
    row    bytea
);
INSERT INTO single_rows (name) VALUES ('room'), ('fleet');

CREATE TABLE tenants (
    tenant text COLLATE "C" NOT NULL PRIMARY KEY, -- in byte order, whatever the database's locale
    digest bytea NOT NULL,
    row    bytea NOT NULL
);

-- No foreign key to tenants: whether a key may be there is not the store's to understand.
CREATE TABLE data_keys (
    tenant text COLLATE "C" NOT NULL,
    key_id bytea NOT NULL,
    scope  bytea NOT NULL, -- canonical context
    period text COLLATE "C" NOT NULL, -- 'hour=2026-11-22T05Z', or '' where there are no periods
    state  text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    row    bytea NOT NULL,
    PRIMARY KEY (tenant, key_id)
);

-- One Active key for each tenant, scope and period, whatever races.
CREATE UNIQUE INDEX one_active_key ON data_keys (tenant, scope, period) WHERE state = 'active';

CREATE TABLE journal (
    tenant text COLLATE "C" NOT NULL,
    seq    bigint NOT NULL,
    digest bytea NOT NULL,
    row    bytea NOT NULL,
    PRIMARY KEY (tenant, seq)
);

-- Which tenant a KEK serves.
CREATE TABLE keks (
    kek    text COLLATE "C" NOT NULL PRIMARY KEY,
    digest bytea NOT NULL,
    row    bytea NOT NULL
);

-- The log of changes, in the order of the decisions.
CREATE TABLE changes (
    seq   bigint NOT NULL PRIMARY KEY,
    entry bytea  NOT NULL
);

-- Where the log ends, should somebody have emptied it. Whoever adds an entry takes an advisory lock until the commit, then the number
-- after the last one: so numbers come in the order of the commits and none is missing. A sequence gives neither: it counts on when
-- a transaction is rolled back, and 7 may commit before 6, which a node that has read up to 7 would never see. A lock on this row
-- would do too, but anybody's transaction that touches the row and stays open would keep every tenant from deciding: so it is
-- written after the fact, and left as it is while somebody has it locked.
CREATE TABLE log_end (
    only_row boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    seq      bigint  NOT NULL
);
INSERT INTO log_end (seq) VALUES (0);

-- Which store this is: drawn at random by whoever makes these tables.
CREATE TABLE store_identity (
    only_row boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    id       text    NOT NULL
);
