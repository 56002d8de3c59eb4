-- What subscriptions give. The latest that is known of each: older news that come late are dropped.
CREATE TABLE subscription_access (
    subscription_id text        COLLATE "C" PRIMARY KEY,
    -- Counted by the subscription's owner from 1. 0 is seen only by whoever writes the first news.
    sequence        bigint      NOT NULL CHECK (sequence >= 0),
    customer_id     text        NOT NULL,
    product_id      text        NOT NULL,
    has_access      boolean     NOT NULL,
    reason          text,
    -- When it became so for the subscription, which may live on a clock of its own; stored_at is when
    -- it was heard of here, and compared with what operators did.
    told_at         timestamptz NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT only_an_end_has_a_reason CHECK (NOT has_access OR reason IS NULL)
);

CREATE INDEX subscription_access_of_enrollment ON subscription_access (customer_id, product_id);

-- revoked_with_subscription: what gave it has ended, or stayed unpaid for too long.
-- NOT VALID: new rows are held to it without a walk through all old ones under an exclusive lock.
ALTER TABLE enrollment_history
    ADD COLUMN subscription_id text COLLATE "C",
    DROP CONSTRAINT event_is_known,
    ADD CONSTRAINT event_is_known CHECK (event IN (
        'granted', 'regranted', 'granted_by_hand', 'revoked_by_hand', 'revocation_planned',
        'revocation_cancelled', 'revoked_after_refund', 'revoked_after_dispute', 'restored',
        'revoked_with_subscription'))
        NOT VALID,
    ADD CONSTRAINT a_payment_or_a_subscription CHECK (
        payment_id IS NULL OR subscription_id IS NULL) NOT VALID,
    ADD CONSTRAINT an_end_of_a_subscription_names_it CHECK (
        event <> 'revoked_with_subscription' OR subscription_id IS NOT NULL) NOT VALID;
