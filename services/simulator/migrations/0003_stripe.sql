-- Stripe. Amounts are whole minor units. A customer or a payment method without anything personal.
CREATE TABLE stripe_customer (
    id         text        COLLATE "C" NOT NULL,
    metadata   jsonb       NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE stripe_payment_method (
    id         text        COLLATE "C" NOT NULL,
    -- The test payment method that it is a copy of.
    card_name  text        NOT NULL,
    customer   text        COLLATE "C",
    created_at timestamptz NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX stripe_payment_method_of_customer ON stripe_payment_method (customer);

CREATE TABLE stripe_intent (
    -- The order of lists: the newest first.
    position            bigint      GENERATED ALWAYS AS IDENTITY,
    id                  text        COLLATE "C" NOT NULL,
    state               text        NOT NULL CHECK (state IN (
                            'requires_payment_method', 'requires_confirmation', 'requires_action',
                            'processing', 'requires_capture', 'canceled', 'succeeded')),
    -- metadata[reference], or the id of an intent without.
    reference           text        COLLATE "C" NOT NULL,
    amount              bigint      NOT NULL CHECK (amount > 0),
    currency            text        NOT NULL,
    client_secret       text        NOT NULL,
    customer            text        COLLATE "C",
    payment_method      text        COLLATE "C",
    card_name           text,
    capture_method      text        NOT NULL,
    description         text,
    return_url          text,
    setup_future_usage  text,
    is_off_session      boolean     NOT NULL,
    metadata            jsonb       NOT NULL,
    latest_charge       text        COLLATE "C",
    amount_received     bigint      NOT NULL,
    amount_refunded     bigint      NOT NULL,
    last_payment_error  jsonb,
    cancellation_reason text,
    canceled_at         timestamptz,
    -- When it comes to which state by itself.
    due_at              timestamptz,
    due_state           text        CHECK (due_state IN (
                            'requires_payment_method', 'requires_capture', 'succeeded',
                            'canceled')),
    request_id          text,
    idempotency_key     text,
    created_at          timestamptz NOT NULL,
    PRIMARY KEY (id),
    CHECK ((state = 'succeeded') = (amount_received > 0)),
    CHECK ((state = 'canceled') = (canceled_at IS NOT NULL)),
    CHECK (amount_refunded BETWEEN 0 AND amount_received),
    CHECK (amount_received BETWEEN 0 AND amount),
    CHECK ((due_at IS NULL) = (due_state IS NULL)),
    CHECK (due_at IS NULL OR state NOT IN ('succeeded', 'canceled'))
);

CREATE UNIQUE INDEX stripe_intent_in_order ON stripe_intent (position);
CREATE INDEX stripe_intent_of_reference ON stripe_intent (reference);
CREATE INDEX stripe_intent_of_customer ON stripe_intent (customer, position);
CREATE INDEX stripe_intent_of_charge ON stripe_intent (latest_charge);
CREATE INDEX stripe_intent_due ON stripe_intent (due_at) WHERE due_at IS NOT NULL;

INSERT INTO transition (machine, from_state, to_state) VALUES
    ('stripe', 'requires_payment_method', 'requires_confirmation'),
    ('stripe', 'requires_payment_method', 'requires_action'),
    ('stripe', 'requires_payment_method', 'processing'),
    ('stripe', 'requires_payment_method', 'requires_capture'),
    ('stripe', 'requires_payment_method', 'succeeded'),
    ('stripe', 'requires_payment_method', 'canceled'),
    ('stripe', 'requires_confirmation', 'requires_payment_method'),
    ('stripe', 'requires_confirmation', 'requires_action'),
    ('stripe', 'requires_confirmation', 'processing'),
    ('stripe', 'requires_confirmation', 'requires_capture'),
    ('stripe', 'requires_confirmation', 'succeeded'),
    ('stripe', 'requires_confirmation', 'canceled'),
    ('stripe', 'requires_action', 'requires_payment_method'),
    ('stripe', 'requires_action', 'processing'),
    ('stripe', 'requires_action', 'requires_capture'),
    ('stripe', 'requires_action', 'succeeded'),
    ('stripe', 'requires_action', 'canceled'),
    ('stripe', 'processing', 'requires_payment_method'),
    ('stripe', 'processing', 'requires_capture'),
    ('stripe', 'processing', 'succeeded'),
    ('stripe', 'requires_capture', 'succeeded'),
    ('stripe', 'requires_capture', 'canceled'),
    ('stripe_refund', 'pending', 'succeeded'),
    ('stripe_refund', 'pending', 'failed'),
    ('stripe_refund', 'succeeded', 'failed');

CREATE TRIGGER guard_transition BEFORE UPDATE OF state ON stripe_intent
    FOR EACH ROW EXECUTE FUNCTION guard_transition('stripe');

CREATE TABLE stripe_refund (
    position       bigint      GENERATED ALWAYS AS IDENTITY,
    id             text        COLLATE "C" NOT NULL,
    intent_id      text        COLLATE "C" NOT NULL REFERENCES stripe_intent,
    charge         text        COLLATE "C" NOT NULL,
    amount         bigint      NOT NULL CHECK (amount > 0),
    currency       text        NOT NULL,
    state          text        NOT NULL CHECK (state IN ('pending', 'succeeded', 'failed')),
    reason         text,
    failure_reason text,
    metadata       jsonb       NOT NULL,
    -- When it comes to which state by itself.
    due_at         timestamptz,
    due_state      text        CHECK (due_state IN ('succeeded', 'failed')),
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (id),
    CHECK ((state = 'failed') = (failure_reason IS NOT NULL)),
    CHECK ((due_at IS NULL) = (due_state IS NULL))
);

CREATE UNIQUE INDEX stripe_refund_in_order ON stripe_refund (position);
CREATE INDEX stripe_refund_of_intent ON stripe_refund (intent_id, position);
CREATE INDEX stripe_refund_of_charge ON stripe_refund (charge, position);
CREATE INDEX stripe_refund_due ON stripe_refund (due_at) WHERE due_at IS NOT NULL;

CREATE TRIGGER guard_transition BEFORE UPDATE OF state ON stripe_refund
    FOR EACH ROW EXECUTE FUNCTION guard_transition('stripe_refund');

CREATE TABLE stripe_dispute (
    id         text        COLLATE "C" NOT NULL,
    intent_id  text        COLLATE "C" NOT NULL REFERENCES stripe_intent,
    charge     text        COLLATE "C" NOT NULL,
    amount     bigint      NOT NULL CHECK (amount > 0),
    currency   text        NOT NULL,
    reason     text        NOT NULL,
    status     text        NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX stripe_dispute_of_intent ON stripe_dispute (intent_id);

CREATE TABLE stripe_event (
    position   bigint      GENERATED ALWAYS AS IDENTITY,
    id         text        COLLATE "C" NOT NULL,
    type       text        NOT NULL,
    -- Of the intent that it is about.
    reference  text        COLLATE "C" NOT NULL,
    body       bytea       NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (id)
);

CREATE UNIQUE INDEX stripe_event_in_order ON stripe_event (position);
CREATE INDEX stripe_event_of_reference ON stripe_event (reference, position);

-- The primary key decides which of two requests with one key executes. `status` is null while the
-- first one runs; one that died frees the key when its lease is over.
CREATE TABLE stripe_idempotency (
    key          text        COLLATE "C" NOT NULL,
    path         text        NOT NULL,
    -- SHA-256 of the parameters in order.
    fingerprint  bytea       NOT NULL,
    request_id   text        NOT NULL,
    status       smallint,
    body         bytea,
    created_at   timestamptz NOT NULL,
    leased_until timestamptz NOT NULL,
    PRIMARY KEY (key),
    CHECK ((status IS NULL) = (body IS NULL))
);

CREATE INDEX stripe_idempotency_by_age ON stripe_idempotency (created_at);

-- Payments whose magic amount has spoilt a call already; the next calls work.
CREATE TABLE stripe_spoilt (
    reference text COLLATE "C" NOT NULL,
    PRIMARY KEY (reference)
);

-- While the secret of the notices is being rolled: the old one, which signs too.
CREATE TABLE stripe_roll (
    is_rolling boolean NOT NULL DEFAULT true CHECK (is_rolling),
    secret     text    NOT NULL,
    PRIMARY KEY (is_rolling)
);
