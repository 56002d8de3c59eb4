-- A dead letter waits for an operator, who has it handled again (at a time) or discards it. It is
-- never deleted: what was handled after all, or discarded, says so.
ALTER TABLE dead_letter
    ADD COLUMN state        text        NOT NULL DEFAULT 'waiting'
                                        CHECK (state IN ('waiting', 'handled', 'discarded')),
    -- When it is handed to its handler again; NULL: not until somebody says so.
    ADD COLUMN retry_at     timestamptz,
    -- Times it was handed over again, and the last of them. `reason` is that of the last try.
    ADD COLUMN tries        integer     NOT NULL DEFAULT 0 CHECK (tries >= 0),
    ADD COLUMN tried_at     timestamptz,
    -- Held by a worker that handles it; by the database's clock.
    ADD COLUMN leased_until timestamptz,
    ADD CONSTRAINT only_what_waits_is_retried CHECK (state = 'waiting' OR retry_at IS NULL);

CREATE INDEX dead_letter_due ON dead_letter (retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX dead_letter_of_state ON dead_letter (state, id);

CREATE INDEX outbox_parked ON outbox (id) WHERE parked_at IS NOT NULL;
