-- Money that moved after a charge. A line is written when the money really moves, and never changes.
CREATE TABLE movement (
    id                 bigint      GENERATED ALWAYS AS IDENTITY,
    gateway            text        NOT NULL,
    -- The payment's, as in `charge`.
    reference          text        COLLATE "C" NOT NULL,
    gateway_payment_id text        COLLATE "C" NOT NULL,
    -- To the customer: refund, dispute. To the merchant: refund_returned, dispute_returned.
    -- To the gateway: fee.
    kind               text        NOT NULL CHECK (kind IN (
                           'refund', 'refund_returned', 'dispute', 'dispute_returned', 'fee')),
    -- What the merchant calls the refund, if it has a name; else as `handle`.
    name               text        COLLATE "C" NOT NULL,
    -- What the gateway calls the refund or the dispute.
    handle             text        COLLATE "C" NOT NULL,
    amount             bigint      NOT NULL CHECK (amount > 0),
    currency           text        NOT NULL,
    moved_at           timestamptz NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX movement_of_reference ON movement (gateway, reference);
-- A refund moves money once, and back at most once. A dispute may be heard again.
CREATE UNIQUE INDEX movement_of_refund_once ON movement (gateway, handle, kind)
    WHERE kind IN ('refund', 'refund_returned');

-- Of refunds from before there were lines of them; one that failed had succeeded before, with the
-- cards that there were.
INSERT INTO movement (gateway, reference, gateway_payment_id, kind, name, handle, amount, currency,
                      moved_at)
SELECT 'sslcommerz', tran_id, bank_tran_id, 'refund', refund_trans_id, refund_ref_id, amount, 'BDT',
       ended_on
  FROM sslcommerz_refund
 WHERE state = 'refunded';

INSERT INTO movement (gateway, reference, gateway_payment_id, kind, name, handle, amount, currency,
                      moved_at)
SELECT 'stripe', reference, intent_id, kind, coalesce(refund.metadata ->> 'reference', refund.id),
       refund.id, refund.amount, upper(refund.currency), refund.created_at
  FROM stripe_refund refund
  JOIN stripe_intent ON stripe_intent.id = intent_id
 CROSS JOIN LATERAL (VALUES ('refund', 'succeeded'), ('refund', 'failed'),
                            ('refund_returned', 'failed')) line (kind, line_state)
 WHERE refund.state = line_state
 ORDER BY refund.position, kind;

ALTER TABLE stripe_dispute RENAME COLUMN status TO state;
ALTER TABLE stripe_dispute
    ADD COLUMN position     bigint GENERATED ALWAYS AS IDENTITY,
    -- When the bank last took the money, and when it last gave it back since.
    ADD COLUMN withdrawn_at  timestamptz,
    ADD COLUMN reinstated_at timestamptz,
    ADD COLUMN fee           bigint NOT NULL DEFAULT 0 CHECK (fee >= 0),
    ADD CONSTRAINT state_is_known CHECK (state IN (
        'warning_needs_response', 'warning_under_review', 'warning_closed', 'needs_response',
        'under_review', 'appeal_needs_response', 'appeal_under_review', 'won', 'lost')),
    ADD CONSTRAINT only_what_was_taken_comes_back CHECK (
        reinstated_at IS NULL OR withdrawn_at IS NOT NULL);

CREATE UNIQUE INDEX stripe_dispute_in_order ON stripe_dispute (position);
CREATE INDEX stripe_dispute_of_charge ON stripe_dispute (charge);

INSERT INTO transition (machine, from_state, to_state) VALUES
    ('stripe_dispute', 'warning_needs_response', 'warning_under_review'),
    ('stripe_dispute', 'warning_needs_response', 'warning_closed'),
    ('stripe_dispute', 'warning_needs_response', 'needs_response'),
    ('stripe_dispute', 'warning_under_review', 'warning_closed'),
    ('stripe_dispute', 'warning_under_review', 'needs_response'),
    ('stripe_dispute', 'needs_response', 'under_review'),
    ('stripe_dispute', 'needs_response', 'won'),
    ('stripe_dispute', 'needs_response', 'lost'),
    ('stripe_dispute', 'under_review', 'won'),
    ('stripe_dispute', 'under_review', 'lost'),
    ('stripe_dispute', 'won', 'appeal_needs_response'),
    ('stripe_dispute', 'lost', 'appeal_under_review'),
    ('stripe_dispute', 'appeal_needs_response', 'appeal_under_review'),
    ('stripe_dispute', 'appeal_needs_response', 'won'),
    ('stripe_dispute', 'appeal_needs_response', 'lost'),
    ('stripe_dispute', 'appeal_under_review', 'won'),
    ('stripe_dispute', 'appeal_under_review', 'lost');

CREATE TRIGGER guard_transition BEFORE UPDATE OF state ON stripe_dispute
    FOR EACH ROW EXECUTE FUNCTION guard_transition('stripe_dispute');
