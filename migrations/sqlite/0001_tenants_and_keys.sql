-- Tenants and data keys. Times are Unix milliseconds. Nothing here opens a message without the tenant's KEK.
CREATE TABLE tenants (
    tenant      TEXT    NOT NULL PRIMARY KEY,
    policy      TEXT    NOT NULL, -- JSON
    revocations TEXT    NOT NULL, -- JSON
    enrolled_at INTEGER NOT NULL,
    revision    INTEGER NOT NULL CHECK (revision > 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE data_keys (
    tenant     TEXT    NOT NULL REFERENCES tenants (tenant),
    key_id     BLOB    NOT NULL CHECK (length(key_id) = 32),
    suite      INTEGER NOT NULL,
    scope      BLOB    NOT NULL, -- canonical context
    period     TEXT    NOT NULL, -- 'hour=2026-11-22T05Z', or '' where there are no periods
    region     TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('active', 'deactivated', 'suspended', 'destroyed')),
    wrappings  TEXT    NOT NULL, -- JSON: [{"kek": URI, "wrapped": hex}]
    created_at INTEGER NOT NULL,
    revision   INTEGER NOT NULL CHECK (revision > 0),
    PRIMARY KEY (tenant, key_id)
) STRICT, WITHOUT ROWID;

-- One Active key for each tenant, scope and period, whatever races.
CREATE UNIQUE INDEX one_active_key ON data_keys (tenant, scope, period) WHERE state = 'active';
