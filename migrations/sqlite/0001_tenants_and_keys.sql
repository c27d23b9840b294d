-- Tenants, data keys and the log of changes. Times are Unix milliseconds. Nothing here opens a message without the tenant's KEK.
CREATE TABLE tenants (
    tenant      TEXT    NOT NULL PRIMARY KEY,
    policy      TEXT    NOT NULL, -- JSON
    revocations TEXT    NOT NULL, -- JSON
    erasures    TEXT    NOT NULL, -- JSON
    rewrap      TEXT,             -- JSON
    enrolled_at INTEGER NOT NULL,
    epoch       INTEGER NOT NULL CHECK (epoch > 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE data_keys (
    tenant        TEXT    NOT NULL REFERENCES tenants (tenant),
    key_id        BLOB    NOT NULL CHECK (length(key_id) = 32),
    suite         INTEGER NOT NULL,
    scope         BLOB    NOT NULL, -- canonical context
    period        TEXT    NOT NULL, -- 'hour=2026-11-22T05Z', or '' where there are no periods
    region        TEXT    NOT NULL,
    state         TEXT    NOT NULL CHECK (state IN ('active', 'deactivated', 'suspended', 'destroyed')),
    state_since   INTEGER NOT NULL,
    wrapped       TEXT    CHECK ((wrapped IS NULL) = (state = 'destroyed')), -- JSON: {"kek": URI, "wrapped": hex}, any_of, all_of
    pending       TEXT    CHECK (pending IS NULL OR state <> 'destroyed'), -- the same, not proven yet
    wrapped_epoch INTEGER NOT NULL CHECK (wrapped_epoch > 0),
    created_at    INTEGER NOT NULL,
    revision      INTEGER NOT NULL CHECK (revision > 0),
    PRIMARY KEY (tenant, key_id)
) STRICT, WITHOUT ROWID;

-- One Active key for each tenant, scope and period, whatever races.
CREATE UNIQUE INDEX one_active_key ON data_keys (tenant, scope, period) WHERE state = 'active';

-- What nodes must forget, in the order of the decisions. AUTOINCREMENT: a number is never given twice.
CREATE TABLE changes (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant   TEXT    NOT NULL,
    selector TEXT    NOT NULL, -- JSON
    forget   TEXT    NOT NULL
) STRICT;
