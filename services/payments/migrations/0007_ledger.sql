-- Double entry: a row is one amount that goes from the account that is credited to the one that is
-- debited, so that both sides are equal whatever is written. Append only. The primary key takes each
-- occasion once, and is the one B-tree that the confirmation of a payment has to write.
--
-- Of a charge the gateway keeps a fee, if it tells one: then `fee` of the amount is debited to the
-- account 'fees', and the rest to `debit`. A row of its own for each would cost every confirmation.
CREATE TABLE ledger_transfer (
    payment_id text        COLLATE "C" NOT NULL,
    kind       text        COLLATE "C" NOT NULL CHECK (kind IN (
                               'capture', 'fee', 'release', 'surplus', 'refund', 'refund_returned',
                               'dispute_opened', 'dispute_won', 'dispute_lost',
                               'dispute_reopened')),
    occasion   text        COLLATE "C" NOT NULL,
    debit      text        COLLATE "C" NOT NULL,
    credit     text        COLLATE "C" NOT NULL,
    amount     bigint      NOT NULL CHECK (amount > 0),
    fee        bigint      NOT NULL DEFAULT 0 CHECK (fee BETWEEN 0 AND amount),
    currency   text        COLLATE "C" NOT NULL,
    -- The attempt whose money it is, where that is known.
    reference  text        COLLATE "C",
    -- When it was written, by the clock that the snapshot of the balances goes by.
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (payment_id, kind, occasion),
    CONSTRAINT sides_differ CHECK (debit <> credit)
) PARTITION BY RANGE (payment_id);

CREATE TABLE ledger_transfer_default PARTITION OF ledger_transfer DEFAULT;

-- Rows lie in the order in which they were written, so that some bytes for each megabyte say where
-- the latest are. A new row costs it next to nothing.
CREATE INDEX ledger_transfer_by_time ON ledger_transfer USING brin (at)
    WITH (pages_per_range = 32);

-- What is rare, so that it is found without what is not.
CREATE INDEX ledger_transfer_uncommon ON ledger_transfer (payment_id, kind, occasion)
    WHERE kind NOT IN ('capture', 'fee') OR credit = 'held';

-- The balances of everything written before `until`; what is younger is added when they are asked for.
CREATE TABLE ledger_balance (
    account  text    COLLATE "C" NOT NULL,
    currency text    COLLATE "C" NOT NULL,
    debits   numeric NOT NULL CHECK (debits >= 0),
    credits  numeric NOT NULL CHECK (credits >= 0),
    PRIMARY KEY (account, currency)
);

CREATE TABLE ledger_snapshot (
    is_only boolean     NOT NULL DEFAULT true CHECK (is_only),
    until   timestamptz NOT NULL,
    PRIMARY KEY (is_only)
);

-- Payments that took money before there was a ledger, as far as their rows tell.
INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount, currency, reference)
SELECT id, 'capture', '', 'gateway:' || gateway,
       CASE state WHEN 'on_hold' THEN 'held' ELSE 'revenue' END, amount, currency, reference
  FROM payment
 WHERE state IN ('succeeded', 'on_hold', 'partially_refunded', 'refunded', 'disputed')
   AND gateway_payment_id IS NOT NULL;

INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount, currency)
SELECT id, 'surplus', 'repeated', 'gateway:' || gateway, 'surplus', amount, currency
  FROM payment
 WHERE reason = 'surplus_charge'
   AND gateway_payment_id IS NOT NULL;

-- A comparison of our successes of one day with what a gateway lists. A day is one of UTC, and a
-- payment belongs to the one on which its attempt began.
CREATE TABLE settlement_check (
    id            text        COLLATE "C" NOT NULL,
    gateway       text        NOT NULL,
    day           date        NOT NULL,
    -- The day on which it was due by itself; null when somebody asked for it.
    scheduled_on  date,
    state         text        NOT NULL CHECK (state IN (
                                  'listing', 'comparing', 'done', 'failed')),
    reason        text,
    -- Where to go on listing, and whether the gateway may have left something out.
    cursor        text,
    is_cut        boolean     NOT NULL DEFAULT false,
    tries         integer     NOT NULL DEFAULT 0,
    next_try_at   timestamptz,
    leased_until  timestamptz,
    listed        bigint      NOT NULL DEFAULT 0,
    matched       bigint      NOT NULL DEFAULT 0,
    mismatched    bigint      NOT NULL DEFAULT 0,
    missing_here  bigint      NOT NULL DEFAULT 0,
    missing_there bigint      NOT NULL DEFAULT 0,
    duplicates    bigint      NOT NULL DEFAULT 0,
    -- Ours that a list which may be cut does not have.
    unlisted      bigint      NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL,
    ended_at      timestamptz,
    PRIMARY KEY (id),
    UNIQUE (gateway, day, scheduled_on),
    CONSTRAINT open_has_a_time CHECK (
        (state IN ('listing', 'comparing')) = (next_try_at IS NOT NULL)),
    CONSTRAINT ended_has_a_time CHECK (
        (state IN ('done', 'failed')) = (ended_at IS NOT NULL))
);

CREATE INDEX settlement_check_due ON settlement_check (next_try_at)
    WHERE next_try_at IS NOT NULL;

-- What a gateway listed for a check that is under way.
CREATE TABLE settlement_listed (
    check_id           text   COLLATE "C" NOT NULL,
    reference          text   COLLATE "C" NOT NULL,
    gateway_payment_id text   COLLATE "C" NOT NULL,
    amount             bigint NOT NULL,
    currency           text   NOT NULL,
    PRIMARY KEY (check_id, reference, gateway_payment_id)
);

CREATE TABLE settlement_finding (
    id                 text   COLLATE "C" NOT NULL,
    check_id           text   COLLATE "C" NOT NULL REFERENCES settlement_check,
    kind               text   NOT NULL CHECK (kind IN (
                                  'mismatch', 'missing_here', 'missing_there', 'duplicate')),
    reference          text   NOT NULL,
    payment_id         text,
    gateway_payment_id text,
    our_amount         bigint,
    our_currency       text,
    their_amount       bigint,
    their_currency     text,
    PRIMARY KEY (check_id, id)
);
