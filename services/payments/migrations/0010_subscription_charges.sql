-- A payment that the scheduler ordered for one period of a subscription. It hears what becomes of it,
-- and nobody is enrolled by the payment itself.
ALTER TABLE payment
    ADD COLUMN subscription_id  text    COLLATE "C",
    -- On a test clock time does not pass by itself: a retry of a minute or longer waits for an order.
    ADD COLUMN waits_for_orders boolean NOT NULL DEFAULT false;

ALTER TABLE payment
    ADD CONSTRAINT orders_are_of_a_subscription CHECK (
        subscription_id IS NOT NULL OR NOT waits_for_orders) NOT VALID;

CREATE INDEX payment_of_subscription ON payment (subscription_id, id)
    WHERE subscription_id IS NOT NULL;

-- One row per charge that the scheduler spoke of. Its key decides between an order that comes twice,
-- and between the order to charge and one to cancel that overtook it: the first one has it.
CREATE TABLE charge_order (
    payment_id      text        COLLATE "C" NOT NULL,
    subscription_id text        COLLATE "C" NOT NULL,
    ordered_at      timestamptz NOT NULL,
    -- It was cancelled before it came: there is no payment, and there never will be.
    cancelled_at    timestamptz,
    -- The number of the last order to retry that was heard; one that comes again has no greater one.
    retry_order     bigint,
    PRIMARY KEY (payment_id)
) PARTITION BY RANGE (payment_id);

CREATE TABLE charge_order_default PARTITION OF charge_order DEFAULT;

-- waiting: its time comes when it is ordered. Nothing that looks for scheduled retries finds it, and
-- it cannot be claimed: it must be scheduled first.
ALTER TABLE retry DROP CONSTRAINT retry_state_check;
ALTER TABLE retry
    ADD CONSTRAINT retry_state_check CHECK (state IN (
        'scheduled', 'running', 'parked', 'waiting', 'succeeded', 'exhausted', 'cancelled'))
        NOT VALID;

DROP TRIGGER retry_transition ON retry;
CREATE TRIGGER retry_transition AFTER UPDATE OF state ON retry
    FOR EACH ROW
    WHEN (NEW.state = 'running' AND OLD.state NOT IN ('scheduled', 'running')
          OR NEW.state = 'parked' AND OLD.state <> 'scheduled'
          OR NEW.state = 'cancelled'
             AND OLD.state NOT IN ('scheduled', 'running', 'parked', 'waiting'))
    EXECUTE FUNCTION refuse_retry();
