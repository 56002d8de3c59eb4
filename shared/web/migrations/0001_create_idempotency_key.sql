-- One row per Idempotency-Key of an API caller. `resource_id` is chosen when the key is first seen,
-- so that a request that died half-way is carried on with the same ids, never started anew.
CREATE TABLE idempotency_key (
    caller       text        NOT NULL,
    key          text        NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint  bytea       NOT NULL,
    resource_id  text        NOT NULL,
    leased_until timestamptz NOT NULL,
    status       smallint,
    body         bytea,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (caller, key),
    CHECK ((status IS NULL) = (body IS NULL))
);

CREATE INDEX idempotency_key_age ON idempotency_key (created_at);
