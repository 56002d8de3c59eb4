-- One row per prompt, link or withdrawal of Campay.
CREATE TABLE campay_transaction (
    reference          uuid        NOT NULL,
    -- The merchant's, or the text of `reference` if it gave none. An account may be set not to
    -- look for repetitions, so that nothing here keeps a merchant from prompting twice.
    external_reference text        COLLATE "C" NOT NULL,
    kind               text        NOT NULL CHECK (kind IN ('collect', 'link', 'withdraw')),
    -- CREATED: a link that nobody has opened yet; the protocol has no word for it.
    state              text        NOT NULL CHECK (state IN (
                                       'CREATED', 'PENDING', 'SUCCESSFUL', 'FAILED')),
    -- What was asked for, and what was taken or paid out; in XAF.
    amount             bigint      NOT NULL CHECK (amount > 0),
    charged            bigint      CHECK (charged > 0),
    -- With the country code; null until a customer on a page has given one.
    phone              text,
    operator           text        CHECK (operator IN ('MTN', 'ORANGE')),
    description        text        NOT NULL,
    external_user      text        NOT NULL,
    first_name         text        NOT NULL,
    last_name          text        NOT NULL,
    email              text        NOT NULL,
    -- The last part of the link's address, and where it sends the customer back to.
    link_key           text        COLLATE "C",
    redirect_url       text        NOT NULL,
    failure_url        text        NOT NULL,
    code               text        COLLATE "C" NOT NULL,
    operator_reference text,
    reason             text,
    created_at         timestamptz NOT NULL,
    confirmed_at       timestamptz,
    expires_at         timestamptz NOT NULL,
    -- The reads of its status since it was paid.
    reads              integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (reference),
    UNIQUE (link_key),
    CHECK ((kind = 'link') = (link_key IS NOT NULL)),
    CHECK (kind = 'link' OR state <> 'CREATED'),
    CHECK (kind = 'link' OR phone IS NOT NULL),
    CHECK ((state = 'SUCCESSFUL') = (charged IS NOT NULL)),
    CHECK ((state = 'SUCCESSFUL') = (confirmed_at IS NOT NULL))
);

CREATE INDEX campay_transaction_of_reference ON campay_transaction (external_reference);
CREATE INDEX campay_transaction_by_time ON campay_transaction (created_at);
CREATE INDEX campay_transaction_open ON campay_transaction (expires_at)
    WHERE state IN ('CREATED', 'PENDING');

INSERT INTO transition (machine, from_state, to_state) VALUES
    ('campay', 'CREATED', 'PENDING'),
    ('campay', 'PENDING', 'SUCCESSFUL'),
    ('campay', 'PENDING', 'FAILED');

CREATE TRIGGER guard_transition BEFORE UPDATE OF state ON campay_transaction
    FOR EACH ROW EXECUTE FUNCTION guard_transition('campay');
