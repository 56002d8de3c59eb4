-- x402: a chain with one token per network. Amounts are atomic units of the token.
CREATE TABLE x402_balance (
    network text    NOT NULL,
    token   text    COLLATE "C" NOT NULL,
    -- Addresses are in lower case everywhere here.
    address text    COLLATE "C" NOT NULL,
    amount  numeric(78, 0) NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (network, token, address)
);

-- One row per nonce that was ever submitted. The primary key is what the token contract enforces:
-- of one payer and nonce, at most one transfer.
CREATE TABLE x402_authorization (
    network          text        NOT NULL,
    token            text        COLLATE "C" NOT NULL,
    payer            text        COLLATE "C" NOT NULL,
    nonce            text        COLLATE "C" NOT NULL,
    state            text        NOT NULL CHECK (state IN (
                         'broadcast', 'used', 'dropped', 'cancelled')),
    recipient        text        COLLATE "C" NOT NULL,
    value            numeric(78, 0) NOT NULL CHECK (value >= 0),
    valid_before     numeric(78, 0) NOT NULL,
    transaction_hash text        COLLATE "C" NOT NULL,
    -- Whether the facilitator has said that the money was moved; it says so once.
    is_settled       boolean     NOT NULL,
    submitted_at     timestamptz NOT NULL,
    -- When a block takes it; null: none ever does.
    mines_at         timestamptz,
    mined_at         timestamptz,
    PRIMARY KEY (network, token, payer, nonce),
    UNIQUE (transaction_hash),
    CHECK ((state IN ('used', 'cancelled')) = (mined_at IS NOT NULL))
);

CREATE INDEX x402_authorization_of_nonce ON x402_authorization (nonce);
CREATE INDEX x402_authorization_due ON x402_authorization (mines_at) WHERE state = 'broadcast';
CREATE INDEX x402_authorization_in_order ON x402_authorization (network, mined_at)
    WHERE mined_at IS NOT NULL;

INSERT INTO transition (machine, from_state, to_state) VALUES
    ('x402', 'broadcast', 'used'),
    ('x402', 'broadcast', 'dropped'),
    ('x402', 'broadcast', 'cancelled'),
    ('x402', 'dropped', 'cancelled');

CREATE TRIGGER guard_transition BEFORE UPDATE OF state ON x402_authorization
    FOR EACH ROW EXECUTE FUNCTION guard_transition('x402');

-- Payments whose magic amount has spoilt a call already; the next calls work.
CREATE TABLE x402_spoilt (
    nonce text COLLATE "C" NOT NULL,
    PRIMARY KEY (nonce)
);
