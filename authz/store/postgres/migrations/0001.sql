-- serves from: 1

-- Names that come from outside (ids, holders, issuers, values of revocations) may hold any bytes, so they are bytea, which also sorts
-- as Go does. An index entry has at most about 2,700 bytes: the checks keep names well below that, so that a name is refused
-- for its length and not for how well it compresses.

CREATE TABLE tollkeeper.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id       uuid NOT NULL DEFAULT gen_random_uuid(),
    pepper   text,                        -- the fingerprint; null until the first server starts
    revision bigint NOT NULL DEFAULT 0,   -- of the feed: accounts, keys and revocations
    filling  text                         -- how far a copy into this database has come; null: it is not one
);
INSERT INTO tollkeeper.installation DEFAULT VALUES;

-- What the feed was at each write of the last day or more. A reader that finds its own place no more knows that commits were lost, and
-- reads everything again: revisions were given out a second time.
CREATE TABLE tollkeeper.feed (
    revision bigint PRIMARY KEY,          -- the last one of the write
    token    uuid NOT NULL,               -- another one if the revision is given out again
    at       timestamptz NOT NULL DEFAULT now()
);
INSERT INTO tollkeeper.feed (revision, token) VALUES (0, gen_random_uuid());

CREATE TABLE tollkeeper.accounts (
    id       bytea PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 1024),
    plan     bytea NOT NULL DEFAULT '',
    record   bytea NOT NULL,
    revision bigint NOT NULL UNIQUE
);

CREATE TABLE tollkeeper.keys (
    id       bytea PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 1024),
    digest   bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    account  bytea NOT NULL CHECK (octet_length(account) BETWEEN 1 AND 1024),
    plan     bytea NOT NULL DEFAULT '',   -- empty: the account's
    record   bytea NOT NULL,
    revision bigint NOT NULL UNIQUE
);
CREATE INDEX keys_of_account ON tollkeeper.keys (account, id);

CREATE TABLE tollkeeper.revocations (
    kind       text COLLATE "C" NOT NULL,
    issuer     bytea NOT NULL CHECK (octet_length(issuer) <= 1024),
    value      bytea NOT NULL CHECK (octet_length(value) <= 1024),
    expires_at timestamptz,               -- null: never
    expires_ns smallint NOT NULL,         -- the nanoseconds that expires_at cannot hold
    record     bytea NOT NULL,            -- revocation.Record as JSON
    revision   bigint NOT NULL UNIQUE,
    PRIMARY KEY (kind, issuer, value)
);
CREATE INDEX revocations_expire ON tollkeeper.revocations (expires_at, expires_ns) WHERE expires_at IS NOT NULL;

CREATE TABLE tollkeeper.marks (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    mark     jsonb NOT NULL               -- revocation.Mark
);

-- Each lease rewrites a row of holders. The free space in its pages lets PostgreSQL put the new row beside the old one, without
-- touching the index, and rows that are no longer needed are removed early.
CREATE TABLE tollkeeper.holders (
    per    text COLLATE "C" NOT NULL,
    holder bytea NOT NULL CHECK (octet_length(holder) <= 2048),
    record bytea NOT NULL,                -- quota.Record in its binary form
    PRIMARY KEY (per, holder)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- For good: an id that was used is never forgotten.
CREATE TABLE tollkeeper.journal (
    id     bytea PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 2048),
    verb   text NOT NULL,                 -- credit, reset or release
    bucket bytea NOT NULL,                -- quota.Bucket.Key
    units  bigint NOT NULL,
    note   bytea NOT NULL DEFAULT '',
    at     timestamptz NOT NULL
);

CREATE TABLE tollkeeper.settled (
    id     bytea PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 2048),
    at     timestamptz NOT NULL,
    answer jsonb NOT NULL                 -- quota.Settlement
);
CREATE INDEX settled_at ON tollkeeper.settled (at);

CREATE TABLE tollkeeper.roll (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    content  jsonb NOT NULL               -- quota.Roll
);
INSERT INTO tollkeeper.roll (content) VALUES ('{}');
