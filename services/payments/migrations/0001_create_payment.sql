-- One row per payment. Ids begin with their time, so the tables are partitioned by id.
CREATE TABLE payment (
    id                 text        COLLATE "C" NOT NULL,
    gateway            text        NOT NULL,
    state              text        NOT NULL CHECK (state IN (
                                       'created', 'pending', 'processing', 'unknown', 'on_hold',
                                       'succeeded', 'failed', 'cancelled')),
    -- Why the payment is in this state, in words a program can match on.
    reason             text,
    amount             bigint      NOT NULL CHECK (amount > 0),
    currency           text        NOT NULL,
    customer_id        text        NOT NULL,
    product_id         text        NOT NULL,
    customer           jsonb       NOT NULL DEFAULT '{}',
    product            jsonb       NOT NULL DEFAULT '{}',
    return_url         text,
    metadata           jsonb       NOT NULL DEFAULT '{}',
    -- The live attempt: what the gateway knows this payment as. A single column, so there is one.
    reference          text        COLLATE "C" NOT NULL,
    -- The gateway's own names for the money: what to ask about, and what was taken.
    validation_id      text,
    gateway_payment_id text,
    checks_made        smallint    NOT NULL DEFAULT 0,
    next_check_at      timestamptz,
    check_leased_until timestamptz,
    created_at         timestamptz NOT NULL,
    expires_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    version            integer     NOT NULL DEFAULT 1,
    PRIMARY KEY (id),
    -- Nothing is silently stuck: what is not at rest says when it is looked at next. A failed or
    -- cancelled payment may be looked at too, in case the customer tried again and paid.
    CONSTRAINT waiting_has_a_time CHECK (
        CASE WHEN state IN ('succeeded', 'on_hold') THEN next_check_at IS NULL
             WHEN state IN ('failed', 'cancelled') THEN true
             ELSE next_check_at IS NOT NULL
        END)
) PARTITION BY RANGE (id);

CREATE TABLE payment_default PARTITION OF payment DEFAULT;

CREATE INDEX payment_due ON payment (next_check_at) WHERE next_check_at IS NOT NULL;
CREATE INDEX payment_of_customer ON payment (customer_id, id);
CREATE INDEX payment_not_succeeded ON payment (state, id) WHERE state <> 'succeeded';

-- The guard of the state machine: services/payments/domain/state_machine.py holds the same table,
-- and a test compares the two pair by pair.
CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'payment % must not go from % to %', OLD.id, OLD.state, NEW.state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_transition';
END
$$;

CREATE TRIGGER payment_transition BEFORE UPDATE OF state ON payment
    FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state AND (OLD.state, NEW.state) NOT IN (
        ('created', 'pending'), ('created', 'processing'), ('created', 'unknown'),
        ('created', 'on_hold'), ('created', 'succeeded'), ('created', 'failed'),
        ('created', 'cancelled'),
        ('pending', 'processing'), ('pending', 'unknown'), ('pending', 'on_hold'),
        ('pending', 'succeeded'), ('pending', 'failed'), ('pending', 'cancelled'),
        ('processing', 'pending'), ('processing', 'unknown'), ('processing', 'on_hold'),
        ('processing', 'succeeded'), ('processing', 'failed'), ('processing', 'cancelled'),
        ('unknown', 'pending'), ('unknown', 'processing'), ('unknown', 'on_hold'),
        ('unknown', 'succeeded'), ('unknown', 'failed'), ('unknown', 'cancelled'),
        ('on_hold', 'succeeded'), ('on_hold', 'failed'),
        ('failed', 'succeeded'), ('failed', 'on_hold'),
        ('cancelled', 'succeeded'), ('cancelled', 'on_hold')))
    EXECUTE FUNCTION refuse_transition();

-- One row per try to take the money; `reference` is our name for it at the gateway.
CREATE TABLE attempt (
    reference    text        COLLATE "C" NOT NULL,
    payment_id   text        COLLATE "C" NOT NULL,
    number       smallint    NOT NULL CHECK (number >= 1),
    -- started: the gateway may or may not know it. open: the customer can pay.
    state        text        NOT NULL CHECK (state IN ('started', 'open', 'refused', 'abandoned')),
    session_key  text,
    checkout_url text,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (reference),
    CHECK ((state = 'open') <= (checkout_url IS NOT NULL))
) PARTITION BY RANGE (reference);

CREATE TABLE attempt_default PARTITION OF attempt DEFAULT;
CREATE INDEX attempt_of_payment ON attempt (payment_id);

-- The story of each payment, append only: every state it took and every look at the gateway.
CREATE TABLE payment_history (
    payment_id text        COLLATE "C" NOT NULL,
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    at         timestamptz NOT NULL,
    event      text        NOT NULL,
    state      text        NOT NULL,
    reason     text,
    next_check_at timestamptz,
    PRIMARY KEY (payment_id, id)
) PARTITION BY RANGE (payment_id);

CREATE TABLE payment_history_default PARTITION OF payment_history DEFAULT;
