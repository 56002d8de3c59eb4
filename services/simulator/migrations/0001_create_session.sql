-- One row per session that a merchant opened; amounts are whole minor units.
CREATE TABLE session (
    session_key       text        COLLATE "C" NOT NULL,
    tran_id           text        COLLATE "C" NOT NULL,
    state             text        NOT NULL CHECK (state IN ('open', 'paid', 'expired')),
    -- What the merchant asked for, and what that is in BDT, the only currency that is charged.
    price_amount      bigint      NOT NULL CHECK (price_amount > 0),
    price_currency    text        NOT NULL,
    charge_amount     bigint      NOT NULL CHECK (charge_amount > 0),
    rate              numeric(12, 4) NOT NULL,
    store_id          text        NOT NULL,
    product_name      text        NOT NULL,
    success_url       text        NOT NULL,
    fail_url          text        NOT NULL,
    cancel_url        text        NOT NULL,
    -- Empty: the merchant wants no notices.
    ipn_url           text        NOT NULL,
    -- value_a to value_d, echoed back as they came.
    echoed            text[]      NOT NULL CHECK (cardinality(echoed) = 4),
    validations_asked integer     NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL,
    PRIMARY KEY (session_key),
    UNIQUE (tran_id)
);

CREATE INDEX session_open ON session (expires_at) WHERE state = 'open';

-- One row per attempt of a customer to pay: what the protocol calls an element.
CREATE TABLE element (
    id              bigint      GENERATED ALWAYS AS IDENTITY,
    session_key     text        COLLATE "C" NOT NULL REFERENCES session,
    status          text        NOT NULL CHECK (status IN (
                                    'VALID', 'FAILED', 'CANCELLED', 'UNATTEMPTED', 'EXPIRED')),
    val_id          text        COLLATE "C",
    bank_tran_id    text        COLLATE "C" NOT NULL,
    -- In BDT, and in the currency of the price.
    amount          bigint      NOT NULL,
    currency_amount bigint      NOT NULL,
    risk_level      smallint    NOT NULL,
    created_at      timestamptz NOT NULL,
    -- The first validation; later ones answer VALIDATED.
    validated_at    timestamptz,
    PRIMARY KEY (id),
    UNIQUE (val_id),
    CHECK ((status = 'VALID') = (val_id IS NOT NULL)),
    CHECK (validated_at IS NULL OR val_id IS NOT NULL)
);

CREATE INDEX element_of_session ON element (session_key);

-- The ledger: one row each time money was really taken. It records what happened, so nothing here
-- keeps a customer from being charged twice: that is what audits look for.
CREATE TABLE charge (
    id              bigint      GENERATED ALWAYS AS IDENTITY,
    tran_id         text        COLLATE "C" NOT NULL,
    val_id          text        COLLATE "C" NOT NULL,
    bank_tran_id    text        COLLATE "C" NOT NULL,
    amount          bigint      NOT NULL,
    currency        text        NOT NULL,
    -- The same money in the currency of the order.
    currency_amount bigint      NOT NULL,
    currency_type   text        NOT NULL,
    risk_level      smallint    NOT NULL,
    charged_at      timestamptz NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX charge_of_reference ON charge (tran_id);

-- Notices (IPN) to send and sent. Each is delivered once, whatever the merchant answers.
CREATE TABLE notice (
    id              bigint      GENERATED ALWAYS AS IDENTITY,
    tran_id         text        COLLATE "C" NOT NULL,
    -- What it says about the payment.
    status          text        NOT NULL,
    url             text        NOT NULL,
    body            text        NOT NULL,
    due_at          timestamptz NOT NULL,
    leased_until    timestamptz,
    sent_at         timestamptz,
    -- What the merchant answered, or why there was no answer.
    response_status smallint,
    error           text,
    PRIMARY KEY (id),
    CHECK (sent_at IS NULL OR (response_status IS NULL) <> (error IS NULL))
);

CREATE INDEX notice_due ON notice (due_at) WHERE sent_at IS NULL;
CREATE INDEX notice_of_reference ON notice (tran_id);

-- What the next calls are to do instead of working; taken in the order in which they came.
CREATE TABLE script (
    id            bigint           GENERATED ALWAYS AS IDENTITY,
    operation     text             NOT NULL CHECK (
                                       operation IN ('session', 'validate', 'query', 'notice')),
    behaviour     text             NOT NULL,
    delay_seconds double precision NOT NULL,
    -- Null: the calls of any payment.
    tran_id       text             COLLATE "C",
    times_left    integer          NOT NULL CHECK (times_left >= 0),
    PRIMARY KEY (id)
);

CREATE INDEX script_in_force ON script (operation, id) WHERE times_left > 0;
