-- Payments whose magic number has already spoilt the first call that started them.
CREATE TABLE first_call (
    gateway   text COLLATE "C" NOT NULL,
    reference text COLLATE "C" NOT NULL,
    PRIMARY KEY (gateway, reference)
);

-- Refunds of SSLCommerz; amounts are minor units of BDT, the currency that was charged.
CREATE TABLE sslcommerz_refund (
    refund_ref_id   text        COLLATE "C" NOT NULL,
    -- The merchant's own id.
    refund_trans_id text        COLLATE "C" NOT NULL,
    bank_tran_id    text        COLLATE "C" NOT NULL,
    tran_id         text        COLLATE "C" NOT NULL,
    amount          bigint      NOT NULL CHECK (amount > 0),
    state           text        NOT NULL CHECK (state IN ('processing', 'refunded', 'cancelled')),
    -- The questions answered so far: the first finds the refund still being processed.
    asked           integer     NOT NULL DEFAULT 0,
    initiated_on    timestamptz NOT NULL,
    ended_on        timestamptz,
    PRIMARY KEY (refund_ref_id),
    UNIQUE (refund_trans_id),
    CHECK ((state = 'processing') = (ended_on IS NULL))
);

CREATE INDEX sslcommerz_refund_of_charge ON sslcommerz_refund (bank_tran_id);
CREATE INDEX sslcommerz_refund_of_reference ON sslcommerz_refund (tran_id);

INSERT INTO transition (machine, from_state, to_state) VALUES
    ('sslcommerz_refund', 'processing', 'refunded'),
    ('sslcommerz_refund', 'processing', 'cancelled');

CREATE TRIGGER guard_transition BEFORE UPDATE OF state ON sslcommerz_refund
    FOR EACH ROW EXECUTE FUNCTION guard_transition('sslcommerz_refund');
