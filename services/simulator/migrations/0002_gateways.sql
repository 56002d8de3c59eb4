-- One simulator for several gateways. The tables `session` and `element` stay SSLCommerz' own;
-- ledger, notices and scripts become every gateway's, by the merchant's reference.

ALTER TABLE charge RENAME COLUMN tran_id TO reference;
ALTER TABLE charge RENAME COLUMN bank_tran_id TO gateway_payment_id;
ALTER TABLE charge ALTER COLUMN val_id DROP NOT NULL;
ALTER TABLE charge ALTER COLUMN risk_level SET DEFAULT 0;
ALTER TABLE charge ADD COLUMN gateway text COLLATE "C" NOT NULL DEFAULT 'sslcommerz';
ALTER TABLE charge ALTER COLUMN gateway DROP DEFAULT;
COMMENT ON COLUMN charge.amount IS
    'What was taken from the customer, in minor units of `currency`.';
COMMENT ON COLUMN charge.currency_amount IS
    'The same money in the currency of the order, `currency_type`; of most gateways the same.';

ALTER TABLE notice RENAME COLUMN tran_id TO reference;
ALTER TABLE notice ADD COLUMN gateway text COLLATE "C" NOT NULL DEFAULT 'sslcommerz';
ALTER TABLE notice ALTER COLUMN gateway DROP DEFAULT;
ALTER TABLE notice ADD COLUMN method text NOT NULL DEFAULT 'POST'
    CHECK (method IN ('GET', 'POST'));
ALTER TABLE notice ADD COLUMN headers jsonb NOT NULL
    DEFAULT '{"Content-Type": "application/x-www-form-urlencoded"}';
ALTER TABLE notice ALTER COLUMN headers DROP DEFAULT;

ALTER TABLE script RENAME COLUMN tran_id TO reference;
ALTER TABLE script ADD COLUMN gateway text COLLATE "C" NOT NULL DEFAULT 'sslcommerz';
ALTER TABLE script ALTER COLUMN gateway DROP DEFAULT;
-- Which operations there are, each gateway says.
ALTER TABLE script DROP CONSTRAINT script_operation_check;
DROP INDEX script_in_force;
CREATE INDEX script_in_force ON script (gateway, operation, id) WHERE times_left > 0;

-- The random profile in force, if any: at most one row.
CREATE TABLE profile (
    is_in_force boolean NOT NULL DEFAULT true CHECK (is_in_force),
    document    jsonb   NOT NULL,
    PRIMARY KEY (is_in_force)
);

-- What a profile had in store for each payment that was started while it was in force.
CREATE TABLE fate (
    gateway         text             COLLATE "C" NOT NULL,
    reference       text             COLLATE "C" NOT NULL,
    fate            text             NOT NULL,
    notice_fate     text             NOT NULL,
    latency_seconds double precision NOT NULL CHECK (latency_seconds >= 0),
    late_seconds    double precision NOT NULL CHECK (late_seconds >= 0),
    customer_acts   boolean          NOT NULL,
    recorded_at     timestamptz      NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (gateway, reference)
);

-- What customers are going to do by themselves; deleted when done.
CREATE TABLE act (
    id           bigint      GENERATED ALWAYS AS IDENTITY,
    gateway      text        COLLATE "C" NOT NULL,
    reference    text        COLLATE "C" NOT NULL,
    wish         text        NOT NULL,
    due_at       timestamptz NOT NULL,
    leased_until timestamptz,
    PRIMARY KEY (id)
);

CREATE INDEX act_due ON act (due_at);

-- The only steps that a payment may take, by machine: one for each gateway that has states.
CREATE TABLE transition (
    machine    text NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    PRIMARY KEY (machine, from_state, to_state)
);

INSERT INTO transition (machine, from_state, to_state) VALUES
    ('sslcommerz', 'open', 'paid'),
    ('sslcommerz', 'open', 'expired');

-- For tables with a column `state`; the argument names the machine.
CREATE FUNCTION guard_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> OLD.state AND NOT EXISTS (
        SELECT
          FROM transition
         WHERE machine = TG_ARGV[0]
           AND from_state = OLD.state
           AND to_state = NEW.state
    ) THEN
        RAISE EXCEPTION '% has no step from % to %', TG_ARGV[0], OLD.state, NEW.state
              USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER guard_transition BEFORE UPDATE OF state ON session
    FOR EACH ROW EXECUTE FUNCTION guard_transition('sslcommerz');
