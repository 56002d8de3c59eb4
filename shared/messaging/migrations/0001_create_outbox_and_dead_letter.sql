-- Messages of this service that their receivers have not yet confirmed. A row is written in the
-- transaction that makes it true and deleted by the receiver's receipt, by nothing else.
CREATE TABLE outbox (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue         text        NOT NULL,
    message_name  text        NOT NULL,
    payload       json        NOT NULL,
    traceparent   text,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    send_again_at timestamptz NOT NULL DEFAULT clock_timestamp() + interval '30 seconds',
    sends         smallint    NOT NULL DEFAULT 1 CHECK (sends > 0),
    -- Set when a message was sent too often: it is kept, counted and alerted on.
    parked_at     timestamptz
);

CREATE INDEX outbox_due ON outbox (send_again_at) WHERE parked_at IS NULL;

-- Messages to this service that it can never handle, with the reason.
CREATE TABLE dead_letter (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue        text        NOT NULL,
    sender       text        NOT NULL,
    message_id   bigint,
    message_name text        NOT NULL,
    payload      text        NOT NULL,
    reason       text        NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (sender, message_id)
);
