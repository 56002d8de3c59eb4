-- How a customer wants to be charged without being there: a phone to prompt, a card that a gateway
-- keeps, a recipient of our own wallet. Personal data lies in two columns, and in the payments that
-- were made from them; a removed row has lost both and stays as a tombstone, so that what still names
-- it finds out why it cannot be charged.
CREATE TABLE payment_method (
    id          text        COLLATE "C" NOT NULL,
    gateway     text        NOT NULL,
    kind        text        NOT NULL,
    customer_id text        NOT NULL,
    customer    jsonb,
    details     jsonb,
    created_at  timestamptz NOT NULL,
    removed_at  timestamptz,
    PRIMARY KEY (id),
    CONSTRAINT can_be_charged_alone CHECK (kind IN ('prompt', 'card', 'wallet')),
    CONSTRAINT removed_is_erased CHECK (
        (customer IS NULL) = (removed_at IS NOT NULL)
        AND (details IS NULL) = (removed_at IS NOT NULL)),
    CONSTRAINT details_are_whole CHECK (
        removed_at IS NOT NULL
        OR CASE kind WHEN 'prompt' THEN details ->> 'phone' IS NOT NULL
                     WHEN 'card'   THEN details ->> 'payment_method' IS NOT NULL
                                    -- Without one a gateway would charge it once only.
                                    AND details ->> 'gateway_customer' IS NOT NULL
                     ELSE details ->> 'recipient' IS NOT NULL
           END)
);

CREATE INDEX payment_method_of_customer ON payment_method (customer_id, id);

-- The other services were told who a payment method belongs to and how it is charged, once.
CREATE FUNCTION refuse_payment_method_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'payment method % must not change', OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_method_is_fixed';
END
$$;

CREATE TRIGGER payment_method_is_fixed BEFORE UPDATE ON payment_method
    FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL
          OR (OLD.gateway, OLD.kind, OLD.customer_id) IS DISTINCT FROM
             (NEW.gateway, NEW.kind, NEW.customer_id))
    EXECUTE FUNCTION refuse_payment_method_change();
