-- Payments whose money went back: refunded in full, or taken back by a bank. Whether and when that
-- takes the enrollment away is decided once, by the policy in force when the news came.
CREATE TABLE payment_reversal (
    payment_id  text        COLLATE "C" NOT NULL,
    -- What took the money back: 'refund', or the gateway's name of a dispute. Each has a fate of
    -- its own: a dispute that is won leaves a refund as it is.
    occasion    text        COLLATE "C" NOT NULL,
    -- The latest that is known of it; older news that come late are dropped.
    cause       text        NOT NULL CHECK (cause IN (
                                'refunded', 'refund_returned', 'dispute_lost', 'dispute_won')),
    noticed_at  timestamptz NOT NULL,
    customer_id text        NOT NULL,
    product_id  text        NOT NULL,
    -- waiting: decided at due_at. ungranted: the payment has granted nothing (yet).
    -- not_needed: the money is ours, something else holds the enrollment, or it is gone already.
    revocation  text        NOT NULL CHECK (revocation IN (
                                'waiting', 'ungranted', 'done', 'cancelled', 'not_needed', 'never')),
    reason      text,
    due_at      timestamptz,
    stored_at   timestamptz NOT NULL,
    PRIMARY KEY (payment_id, occasion),
    -- Nothing is silently stuck: what waits says until when.
    CONSTRAINT waiting_has_a_time CHECK ((revocation = 'waiting') = (due_at IS NOT NULL))
);

CREATE INDEX payment_reversal_due ON payment_reversal (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX payment_reversal_waiting ON payment_reversal (customer_id, product_id)
    WHERE due_at IS NOT NULL;

-- What holds an enrollment is looked for when a payment of it goes back.
CREATE INDEX further_payment_of_enrollment ON further_payment (enrollment_id);

-- revoked_after_…: the money went back. restored: it came again, by a dispute that was won.
-- NOT VALID: new rows are held to it without a walk through all old ones under an exclusive lock.
ALTER TABLE enrollment_history
    DROP CONSTRAINT enrollment_history_event_check,
    ADD CONSTRAINT event_is_known CHECK (event IN (
        'granted', 'regranted', 'granted_by_hand', 'revoked_by_hand', 'revocation_planned',
        'revocation_cancelled', 'revoked_after_refund', 'revoked_after_dispute', 'restored'))
        NOT VALID;
