-- One row per payment that was, or shall be, tried again. Times that are due are business time;
-- leases go by the database's clock.
CREATE TABLE retry (
    payment_id       text        COLLATE "C" NOT NULL,
    state            text        NOT NULL CHECK (state IN (
                                     'scheduled', 'running', 'parked',
                                     'succeeded', 'exhausted', 'cancelled')),
    gateway          text        COLLATE "C" NOT NULL,
    priority         text        COLLATE "C" NOT NULL
                                 CHECK (priority IN ('high', 'medium', 'normal')),
    customer_id      text        NOT NULL,
    product_id       text        NOT NULL,
    amount           bigint      NOT NULL CHECK (amount > 0),
    currency         text        NOT NULL,
    -- Why the last try failed: our kind, and the gateway's own code or words.
    kind             text        NOT NULL,
    code             text        NOT NULL,
    -- How often each kind was the reason.
    failures         jsonb       NOT NULL DEFAULT '{}',
    -- Retries that were begun; the first try of the payment is none.
    attempts_made    smallint    NOT NULL DEFAULT 0 CHECK (attempts_made >= 0),
    -- The try of which the gateway said for good that it moved no money. Nothing else may be followed
    -- by another one without the gateway being asked.
    failed_reference text        COLLATE "C",
    -- The try whose sender came back without an answer: it sends nothing any more.
    lost_reference   text        COLLATE "C",
    -- Questions about a try in doubt that were not answered.
    asked            smallint    NOT NULL DEFAULT 0,
    -- Whether a failure is followed by further retries; a single one asked for by hand is not.
    continues        boolean     NOT NULL,
    next_attempt_at  timestamptz,
    -- What keeps one that is due: a pause, an open breaker, a payment on hold.
    waits_for        text,
    metadata         jsonb       NOT NULL DEFAULT '{}',
    -- Whoever claims it gets the next number, and writes only while it is the last one.
    token            bigint      NOT NULL DEFAULT 0,
    leased_until     timestamptz,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    finished_at      timestamptz,
    PRIMARY KEY (payment_id),
    CONSTRAINT scheduled_has_a_time CHECK (state <> 'scheduled' OR next_attempt_at IS NOT NULL),
    CONSTRAINT lease_is_of_a_running_one CHECK (leased_until IS NULL OR state = 'running'),
    CONSTRAINT ended_says_when CHECK (
        (state IN ('succeeded', 'exhausted', 'cancelled')) = (finished_at IS NOT NULL))
) PARTITION BY RANGE (payment_id);

CREATE TABLE retry_default PARTITION OF retry DEFAULT;

CREATE INDEX retry_due ON retry (priority, gateway, next_attempt_at) WHERE state = 'scheduled';
CREATE INDEX retry_to_park ON retry (priority DESC, updated_at) WHERE state = 'scheduled';
CREATE INDEX retry_leased ON retry (leased_until) WHERE leased_until IS NOT NULL;
CREATE INDEX retry_of_customer ON retry (customer_id, payment_id);

-- What was cancelled, or has ended, never runs: it must be scheduled anew first.
CREATE FUNCTION refuse_retry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the retry of payment % must not go from % to %',
                    OLD.payment_id, OLD.state, NEW.state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'retry_transition';
END
$$;

CREATE TRIGGER retry_transition AFTER UPDATE OF state ON retry
    FOR EACH ROW
    WHEN (NEW.state = 'running' AND OLD.state NOT IN ('scheduled', 'running')
          OR NEW.state = 'parked' AND OLD.state <> 'scheduled'
          OR NEW.state = 'cancelled' AND OLD.state NOT IN ('scheduled', 'running', 'parked'))
    EXECUTE FUNCTION refuse_retry();

-- Every retry that was begun, written before the gateway hears of it. The number is that of the try
-- among all of its payment, so of two that begin at once one fails here.
CREATE TABLE retry_attempt (
    payment_id text        COLLATE "C" NOT NULL,
    number     smallint    NOT NULL CHECK (number >= 2),
    reference  text        COLLATE "C" NOT NULL,
    due_at     timestamptz NOT NULL,
    begun_at   timestamptz NOT NULL,
    PRIMARY KEY (payment_id, number)
) PARTITION BY RANGE (payment_id);

CREATE TABLE retry_attempt_default PARTITION OF retry_attempt DEFAULT;
