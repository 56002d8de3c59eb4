-- How a payment is taken, and what the gateway must know for it: a phone, a saved card, a recipient.
-- Like `customer` the details may be personal data: they go to the gateway and stay in this row.
ALTER TABLE payment
    ADD COLUMN method         text  NOT NULL DEFAULT 'checkout',
    ADD COLUMN method_details jsonb NOT NULL DEFAULT '{}';

-- NOT VALID holds every new row to it without a walk through all old ones under an exclusive lock;
-- those have the defaults above, which satisfy it.
ALTER TABLE payment
    ADD CONSTRAINT method_is_known CHECK (method IN ('checkout', 'prompt', 'card', 'wallet'))
        NOT VALID,
    ADD CONSTRAINT method_is_whole CHECK (
        CASE method WHEN 'prompt' THEN method_details ? 'phone'
                    WHEN 'card'   THEN method_details ? 'payment_method'
                    WHEN 'wallet' THEN method_details ? 'recipient'
                    ELSE true
        END) NOT VALID;

-- The gateway's own name for the attempt, once it told one; a session key was the first of its kind.
ALTER TABLE attempt RENAME COLUMN session_key TO handle;

-- 'open' now says that the gateway has taken the attempt on: a page is open, a phone was prompted, a
-- charge was made. Only a page has an address.
ALTER TABLE attempt DROP CONSTRAINT attempt_check;
ALTER TABLE attempt
    ADD CONSTRAINT page_is_open CHECK (checkout_url IS NULL OR state = 'open') NOT VALID;

-- What our own wallets were told to pay on a day (UTC), written with the attempt, before anything is
-- signed. An attempt that ends unpaid is not taken off: the limit then errs on the safe side.
CREATE TABLE wallet_spending (
    gateway  text   NOT NULL,
    currency text   NOT NULL,
    day      date   NOT NULL,
    spent    bigint NOT NULL CHECK (spent > 0),
    -- The limit that held when it was last spent from.
    allowed  bigint NOT NULL,
    PRIMARY KEY (gateway, currency, day),
    CONSTRAINT daily_limit CHECK (spent <= allowed)
);
