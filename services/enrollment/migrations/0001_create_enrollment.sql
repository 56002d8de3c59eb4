-- Who may use what. One row per customer and product, for good: it is revoked, not deleted.
CREATE TABLE enrollment (
    id          text        COLLATE "C" PRIMARY KEY,
    customer_id text        NOT NULL,
    product_id  text        NOT NULL,
    -- The first payment for it; null when an operator granted it.
    payment_id  text        COLLATE "C",
    state       text        NOT NULL CHECK (state IN ('active', 'revoked')),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT enrollment_once_per_product UNIQUE (customer_id, product_id),
    CONSTRAINT enrollment_once_per_payment UNIQUE (payment_id)
);

CREATE INDEX enrollment_of_product ON enrollment (product_id, id);

-- A customer who paid again: for what they already have (recorded, and flagged to the operator) or for
-- what was taken away (granted anew). Either way the payment is not lost, and handled once.
CREATE TABLE further_payment (
    payment_id    text        COLLATE "C" PRIMARY KEY,
    enrollment_id text        COLLATE "C" NOT NULL REFERENCES enrollment (id),
    effect        text        NOT NULL CHECK (effect IN ('recorded', 'regranted')),
    amount        bigint      NOT NULL,
    currency      text        NOT NULL,
    stored_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE enrollment_history (
    enrollment_id text        COLLATE "C" NOT NULL,
    id            bigint      GENERATED ALWAYS AS IDENTITY,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    event         text        NOT NULL CHECK (event IN (
                                  'granted', 'regranted', 'granted_by_hand', 'revoked_by_hand')),
    payment_id    text        COLLATE "C",
    -- The name of the API key, and why, when a person did it.
    actor         text,
    reason        text,
    PRIMARY KEY (enrollment_id, id)
);
