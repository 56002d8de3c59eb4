-- One row per link or prompt of Fapshi; nothing keeps a merchant from opening two for one order.
CREATE TABLE fapshi_transaction (
    trans_id           text        COLLATE "C" NOT NULL,
    -- The merchant's `externalId`, or `trans_id` if it gave none.
    reference          text        COLLATE "C" NOT NULL,
    kind               text        NOT NULL CHECK (kind IN ('link', 'prompt')),
    state              text        NOT NULL CHECK (state IN (
                                       'CREATED', 'PENDING', 'SUCCESSFUL', 'FAILED', 'EXPIRED')),
    -- What was asked for, and what was taken; in XAF.
    amount             bigint      NOT NULL CHECK (amount >= 100),
    charged            bigint      CHECK (charged > 0),
    -- The last part of the link's address; a prompt has none.
    link_key           text        COLLATE "C",
    -- Nine digits; null until a customer on a page has given one.
    phone              text,
    name               text,
    email              text,
    user_id            text        COLLATE "C",
    external_id        text        COLLATE "C",
    redirect_url       text,
    message            text,
    reason             text,
    financial_trans_id text,
    initiated_at       timestamptz NOT NULL,
    confirmed_at       timestamptz,
    expires_at         timestamptz NOT NULL,
    -- The reads of its status since it was paid, and the times of those in the last minute.
    reads              integer     NOT NULL DEFAULT 0,
    recent_reads       timestamptz[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (trans_id),
    UNIQUE (link_key),
    CHECK ((kind = 'link') = (link_key IS NOT NULL)),
    CHECK (kind = 'link' OR phone IS NOT NULL),
    CHECK (kind = 'link' OR state NOT IN ('CREATED', 'EXPIRED')),
    CHECK ((state = 'SUCCESSFUL') = (charged IS NOT NULL)),
    CHECK ((state = 'SUCCESSFUL') = (confirmed_at IS NOT NULL))
);

CREATE INDEX fapshi_transaction_of_reference ON fapshi_transaction (reference);
CREATE INDEX fapshi_transaction_of_user ON fapshi_transaction (user_id, initiated_at);
CREATE INDEX fapshi_transaction_by_time ON fapshi_transaction (initiated_at);
CREATE INDEX fapshi_transaction_open ON fapshi_transaction (expires_at)
    WHERE state IN ('CREATED', 'PENDING') OR (kind = 'link' AND state = 'FAILED');

-- On a link a customer who failed may try again, until the link expires.
INSERT INTO transition (machine, from_state, to_state) VALUES
    ('fapshi_link', 'CREATED', 'PENDING'),
    ('fapshi_link', 'CREATED', 'EXPIRED'),
    ('fapshi_link', 'PENDING', 'SUCCESSFUL'),
    ('fapshi_link', 'PENDING', 'FAILED'),
    ('fapshi_link', 'PENDING', 'EXPIRED'),
    ('fapshi_link', 'FAILED', 'PENDING'),
    ('fapshi_link', 'FAILED', 'EXPIRED'),
    ('fapshi_prompt', 'PENDING', 'SUCCESSFUL'),
    ('fapshi_prompt', 'PENDING', 'FAILED');

CREATE TRIGGER guard_link BEFORE UPDATE OF state ON fapshi_transaction
    FOR EACH ROW WHEN (new.kind = 'link') EXECUTE FUNCTION guard_transition('fapshi_link');

CREATE TRIGGER guard_prompt BEFORE UPDATE OF state ON fapshi_transaction
    FOR EACH ROW WHEN (new.kind = 'prompt') EXECUTE FUNCTION guard_transition('fapshi_prompt');
