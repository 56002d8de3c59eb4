-- What the payment engine needs to know of every payment: how urgent it is, and whether a decline is
-- followed by further attempts. Written once, at creation.
ALTER TABLE payment
    ADD COLUMN priority text COLLATE "C" NOT NULL DEFAULT 'normal',
    ADD COLUMN retries_automatically boolean NOT NULL DEFAULT false;

ALTER TABLE payment
    ADD CONSTRAINT priority_is_known CHECK (priority IN ('high', 'medium', 'normal')) NOT VALID;

-- More states: a further attempt has a time, and money that was taken can go back.
ALTER TABLE payment DROP CONSTRAINT payment_state_check, DROP CONSTRAINT waiting_has_a_time;
ALTER TABLE payment
    ADD CONSTRAINT payment_state_check CHECK (state IN (
        'created', 'pending', 'processing', 'unknown', 'on_hold', 'succeeded', 'failed', 'cancelled',
        'retry_scheduled', 'partially_refunded', 'refunded', 'disputed')) NOT VALID,
    -- A scheduled retry has its time in its own row; what failed or was cancelled may be looked at
    -- in case the customer tried again and paid.
    ADD CONSTRAINT waiting_has_a_time CHECK (
        CASE WHEN state IN ('failed', 'cancelled', 'retry_scheduled') THEN true
             WHEN state IN ('created', 'pending', 'processing', 'unknown')
                  THEN next_check_at IS NOT NULL
             ELSE next_check_at IS NULL
        END) NOT VALID;

-- Due looks are taken up by gateway, which may be paused or broken, and by urgency. A payment at rest
-- is in no index of what waits.
DROP INDEX payment_due;
CREATE INDEX payment_due ON payment (gateway, priority, next_check_at)
    WHERE next_check_at IS NOT NULL;

-- The guard of the state machine; services/payments/domain/state_machine.py holds the same table, and
-- a test compares the two pair by pair. It acts after the row is written and still undoes it: a
-- trigger before it would lock every row it looks at, also where there is nothing to refuse.
DROP TRIGGER payment_transition ON payment;
CREATE TRIGGER payment_transition AFTER UPDATE OF state ON payment
    FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state AND NOT CASE OLD.state
        WHEN 'created' THEN NEW.state IN (
            'pending', 'processing', 'unknown', 'retry_scheduled',
            'on_hold', 'succeeded', 'failed', 'cancelled')
        WHEN 'pending' THEN NEW.state IN (
            'processing', 'unknown', 'retry_scheduled',
            'on_hold', 'succeeded', 'failed', 'cancelled')
        WHEN 'processing' THEN NEW.state IN (
            'pending', 'unknown', 'retry_scheduled',
            'on_hold', 'succeeded', 'failed', 'cancelled')
        WHEN 'unknown' THEN NEW.state IN (
            'pending', 'processing', 'retry_scheduled',
            'on_hold', 'succeeded', 'failed', 'cancelled')
        WHEN 'retry_scheduled' THEN NEW.state IN (
            'pending', 'processing', 'unknown',
            'on_hold', 'succeeded', 'failed', 'cancelled')
        WHEN 'on_hold' THEN NEW.state IN (
            'succeeded', 'failed', 'unknown', 'retry_scheduled', 'refunded', 'disputed')
        WHEN 'failed' THEN NEW.state IN ('succeeded', 'on_hold', 'retry_scheduled')
        WHEN 'cancelled' THEN NEW.state IN ('succeeded', 'on_hold')
        WHEN 'succeeded' THEN NEW.state IN ('partially_refunded', 'refunded', 'disputed')
        WHEN 'partially_refunded' THEN NEW.state IN ('succeeded', 'refunded', 'disputed')
        WHEN 'refunded' THEN NEW.state IN (
            'succeeded', 'partially_refunded', 'disputed', 'on_hold')
        WHEN 'disputed' THEN NEW.state IN ('succeeded', 'partially_refunded', 'refunded')
        ELSE false
    END)
    EXECUTE FUNCTION refuse_transition();
