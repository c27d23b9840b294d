-- Tenants, data keys and the log of changes. Times are Unix milliseconds. Nothing here opens a message without the tenant's KEK.
-- JSON is kept as text: jsonb refuses U+0000, which may stand in a selector.
CREATE TABLE tenants (
    tenant      text COLLATE "C" NOT NULL PRIMARY KEY, -- in byte order, whatever the database's locale
    policy      text   NOT NULL, -- JSON
    revocations text   NOT NULL, -- JSON
    erasures    text   NOT NULL, -- JSON
    rewrap      text,            -- JSON
    enrolled_at bigint NOT NULL,
    epoch       bigint NOT NULL CHECK (epoch > 0)
);

CREATE TABLE data_keys (
    tenant        text COLLATE "C" NOT NULL REFERENCES tenants (tenant),
    key_id        bytea    NOT NULL CHECK (length(key_id) = 32),
    suite         smallint NOT NULL,
    scope         bytea    NOT NULL, -- canonical context
    period        text COLLATE "C" NOT NULL, -- 'hour=2026-11-22T05Z', or '' where there are no periods
    region        text     NOT NULL,
    state         text     NOT NULL CHECK (state IN ('active', 'deactivated', 'suspended', 'destroyed')),
    state_since   bigint   NOT NULL,
    wrapped       text     CHECK ((wrapped IS NULL) = (state = 'destroyed')), -- JSON: {"kek": URI, "wrapped": hex}, any_of, all_of
    pending       text     CHECK (pending IS NULL OR state <> 'destroyed'), -- the same, not proven yet
    wrapped_epoch bigint   NOT NULL CHECK (wrapped_epoch > 0),
    created_at    bigint   NOT NULL,
    revision      bigint   NOT NULL CHECK (revision > 0),
    PRIMARY KEY (tenant, key_id)
);

-- One Active key for each tenant, scope and period, whatever races.
CREATE UNIQUE INDEX one_active_key ON data_keys (tenant, scope, period) WHERE state = 'active';

-- What nodes must forget, in the order of the decisions.
CREATE TABLE changes (
    seq      bigint NOT NULL PRIMARY KEY,
    tenant   text   NOT NULL,
    selector text   NOT NULL, -- JSON
    forget   text   NOT NULL
);

-- Where the log ends. One row, locked by whoever logs until the commit, so that numbers come in the order of the commits and
-- none is missing. A sequence gives neither: it counts on when a transaction is rolled back, and 7 may commit before 6, which
-- a node that has read up to 7 would never see.
CREATE TABLE log_end (
    only_row boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    seq      bigint  NOT NULL
);
INSERT INTO log_end (seq) VALUES (0);
