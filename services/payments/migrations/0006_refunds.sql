-- How much of a payment has been given back, and how much is about to be. Both are kept by the
-- trigger on `refund` below and by nothing else, so refunds that race each other, from wherever they
-- are asked for, cannot give back more than was taken: the second waits for the row of the first,
-- and then breaks this constraint.
ALTER TABLE payment
    ADD COLUMN refunded_amount bigint NOT NULL DEFAULT 0,
    ADD COLUMN refund_reserved bigint NOT NULL DEFAULT 0;

-- NOT VALID holds every new row to it without a walk through all old ones under an exclusive lock;
-- those have the defaults above, which satisfy it.
ALTER TABLE payment
    ADD CONSTRAINT refunds_within_amount CHECK (
        refunded_amount >= 0 AND refund_reserved >= 0
        AND refunded_amount + refund_reserved <= amount) NOT VALID;

-- One row per order to give money back, committed before the gateway hears of it; `id` is our name
-- for it at the gateway, so a repetition is the same refund.
CREATE TABLE refund (
    id           text        COLLATE "C" NOT NULL,
    payment_id   text        COLLATE "C" NOT NULL,
    gateway      text        NOT NULL,
    amount       bigint      NOT NULL CHECK (amount > 0),
    currency     text        NOT NULL,
    state        text        NOT NULL CHECK (state IN (
                                 'requested', 'pending', 'unknown', 'succeeded', 'failed')),
    -- Why, in the words of whoever asked for it, and what was last heard of it.
    reason       text        NOT NULL,
    detail       text,
    requested_by text        NOT NULL,
    -- The gateway's own name for it, once it told one.
    handle       text,
    -- Calls that may have asked for the money, counted before each; when the first was made.
    sends        integer     NOT NULL DEFAULT 0 CHECK (sends >= 0),
    sent_at      timestamptz,
    looks        smallint    NOT NULL DEFAULT 0,
    next_look_at timestamptz,
    leased_until timestamptz,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    version      integer     NOT NULL DEFAULT 1,
    PRIMARY KEY (id),
    CONSTRAINT sent_refund_has_a_time CHECK ((sends > 0) = (sent_at IS NOT NULL)),
    -- Nothing is silently stuck. One that succeeded is looked at for a while: its money may come back.
    CONSTRAINT refund_waiting_has_a_time CHECK (
        CASE state WHEN 'failed'    THEN next_look_at IS NULL
                   WHEN 'succeeded' THEN true
                   ELSE next_look_at IS NOT NULL
        END)
) PARTITION BY RANGE (id);

CREATE TABLE refund_default PARTITION OF refund DEFAULT;

CREATE INDEX refund_due ON refund (next_look_at) WHERE next_look_at IS NOT NULL;
CREATE INDEX refund_of_payment ON refund (payment_id, id);
CREATE INDEX refund_not_succeeded ON refund (state, id) WHERE state <> 'succeeded';

-- The guard of the refund's states: services/payments/domain/refunds.py holds the same table, and a
-- test compares the two pair by pair. What a refund is about never changes.
CREATE FUNCTION refuse_refund_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'refund % must not change so, from % to %', OLD.id, OLD.state, NEW.state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'refund_transition';
END
$$;

CREATE TRIGGER refund_transition BEFORE UPDATE ON refund
    FOR EACH ROW
    WHEN ((OLD.payment_id, OLD.amount, OLD.currency) IS DISTINCT FROM
              (NEW.payment_id, NEW.amount, NEW.currency)
          OR (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
              ('requested', 'pending'), ('requested', 'unknown'), ('requested', 'succeeded'),
              ('requested', 'failed'),
              ('pending', 'unknown'), ('pending', 'succeeded'), ('pending', 'failed'),
              ('unknown', 'pending'), ('unknown', 'succeeded'), ('unknown', 'failed'),
              ('succeeded', 'failed'))))
    EXECUTE FUNCTION refuse_refund_change();

-- A customer's bank takes a payment back, as the gateway tells it. Few, so the table is not cut.
CREATE TABLE dispute (
    id           text        COLLATE "C" NOT NULL,
    payment_id   text        COLLATE "C" NOT NULL,
    gateway      text        NOT NULL,
    -- The gateway's name for the dispute.
    handle       text        NOT NULL,
    amount       bigint      NOT NULL CHECK (amount > 0),
    currency     text        NOT NULL,
    -- inquiry: the bank asks, no money has moved. opened: the money is with the bank.
    state        text        NOT NULL CHECK (state IN ('inquiry', 'opened', 'won', 'lost')),
    -- The gateway's word for why.
    reason       text        NOT NULL,
    fee          bigint      CHECK (fee >= 0),
    fee_currency text,
    looks        smallint    NOT NULL DEFAULT 0,
    next_look_at timestamptz,
    leased_until timestamptz,
    opened_at    timestamptz NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    version      integer     NOT NULL DEFAULT 1,
    PRIMARY KEY (id),
    CONSTRAINT dispute_once UNIQUE (gateway, handle),
    CONSTRAINT fee_has_a_currency CHECK ((fee IS NULL) = (fee_currency IS NULL)),
    CONSTRAINT dispute_waiting_has_a_time CHECK (
        state IN ('won', 'lost') OR next_look_at IS NOT NULL)
);

CREATE INDEX dispute_due ON dispute (next_look_at) WHERE next_look_at IS NOT NULL;
CREATE INDEX dispute_of_payment ON dispute (payment_id, id);
CREATE INDEX dispute_by_state ON dispute (state, id);

-- A refund takes its amount from what is left when it is recorded, and gives it back when it fails.
-- Only money that is there can be given back: a bank that has taken a payment back, or is about to,
-- would make it twice. What is held can be given back whole.
CREATE FUNCTION reserve_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE payment
       SET refund_reserved = refund_reserved + NEW.amount
     WHERE id = NEW.payment_id
       AND currency = NEW.currency
       AND gateway_payment_id IS NOT NULL
       AND (state IN ('succeeded', 'partially_refunded')
            OR (state = 'on_hold' AND reason IN ('gateway_says_risky', 'late_success')
                AND amount = NEW.amount))
       AND NOT EXISTS (SELECT FROM dispute
                        WHERE dispute.payment_id = NEW.payment_id
                          AND dispute.state IN ('opened', 'lost'));
    IF NOT FOUND OR NEW.state <> 'requested' THEN
        RAISE EXCEPTION 'refund % is of money that is not there', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refund_of_money_that_is_there';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER refund_reserved AFTER INSERT ON refund
    FOR EACH ROW EXECUTE FUNCTION reserve_refund();

CREATE FUNCTION settle_reserved_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE payment
       SET refund_reserved = refund_reserved
               - CASE WHEN OLD.state = 'succeeded' THEN 0 ELSE NEW.amount END,
           refunded_amount = refunded_amount
               + CASE WHEN NEW.state = 'succeeded' THEN NEW.amount ELSE 0 END
               - CASE WHEN OLD.state = 'succeeded' THEN NEW.amount ELSE 0 END
     WHERE id = NEW.payment_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER refund_settled AFTER UPDATE OF state ON refund
    FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND NEW.state IN ('succeeded', 'failed'))
    EXECUTE FUNCTION settle_reserved_refund();
