-- What is sold, how often and for how much. What is billed by a plan never changes: another price is
-- another plan, to which subscriptions move.
CREATE TABLE plan (
    id             text        COLLATE "C" PRIMARY KEY,
    name           text        NOT NULL,
    is_archived    boolean     NOT NULL DEFAULT false,
    product_id     text        NOT NULL,
    product_name   text        NOT NULL,
    amount         bigint      NOT NULL CHECK (amount > 0),
    currency       text        NOT NULL,
    interval_unit  text        NOT NULL CHECK (interval_unit IN (
                                   'minute', 'hour', 'day', 'week', 'month', 'year')),
    interval_every integer     NOT NULL CHECK (interval_every > 0),
    trial_unit     text        CHECK (trial_unit IN (
                                   'minute', 'hour', 'day', 'week', 'month', 'year')),
    trial_every    integer     CHECK (trial_every > 0),
    gateway        text        NOT NULL,
    -- How long access outlasts the time at which an unpaid period was due.
    grace          interval    NOT NULL CHECK (grace >= interval '0'),
    -- Days after the failure of a charge on which the money is asked for again, then what comes.
    dunning_days   integer[]   NOT NULL,
    dunning_end    text        NOT NULL CHECK (dunning_end IN ('pause', 'cancel')),
    -- Which periods are billed that went by unbilled.
    catch_up       text        NOT NULL CHECK (catch_up IN ('every', 'current', 'ask')),
    catch_up_max   integer     NOT NULL CHECK (catch_up_max > 0),
    metadata       jsonb       NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CONSTRAINT trial_is_whole CHECK ((trial_unit IS NULL) = (trial_every IS NULL))
);

CREATE FUNCTION refuse_plan_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what plan % bills must not change', OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'plan_bills_the_same';
END
$$;

CREATE TRIGGER plan_bills_the_same AFTER UPDATE ON plan
    FOR EACH ROW
    WHEN ((OLD.product_id, OLD.amount, OLD.currency, OLD.interval_unit, OLD.interval_every, OLD.gateway)
          IS DISTINCT FROM
          (NEW.product_id, NEW.amount, NEW.currency, NEW.interval_unit, NEW.interval_every, NEW.gateway))
    EXECUTE FUNCTION refuse_plan_change();

-- Means of payment as payments has told of them. What they are made of stays there. That one is
-- removed may be heard before what it was.
CREATE TABLE payment_method (
    id          text        COLLATE "C" PRIMARY KEY,
    customer_id text        NOT NULL,
    gateway     text,
    kind        text,
    stored_at   timestamptz,
    removed_at  timestamptz,
    CONSTRAINT stored_unless_removed CHECK (
        removed_at IS NOT NULL
        OR gateway IS NOT NULL AND kind IS NOT NULL AND stored_at IS NOT NULL)
);

-- A time that a person moves. It is a ceiling: all that is due until then happens, each subscription
-- in its own order. While `runs_since` is set it goes with the real time from `now` on.
CREATE TABLE test_clock (
    id         text        COLLATE "C" PRIMARY KEY,
    name       text        NOT NULL,
    now        timestamptz NOT NULL,
    runs_since timestamptz,
    -- Set while something of it may be due or in flight.
    is_advancing boolean   NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    removed_at timestamptz
);

CREATE INDEX test_clock_advancing ON test_clock (id)
    WHERE (is_advancing OR runs_since IS NOT NULL) AND removed_at IS NULL;

-- Customers whose present and future subscriptions are on a clock.
CREATE TABLE test_clock_customer (
    customer_id text PRIMARY KEY,
    clock_id    text COLLATE "C" NOT NULL REFERENCES test_clock (id)
);

CREATE TABLE subscription (
    id                text        COLLATE "C" PRIMARY KEY,
    customer_id       text        NOT NULL,
    plan_id           text        COLLATE "C" NOT NULL REFERENCES plan (id),
    next_plan_id      text        COLLATE "C" REFERENCES plan (id),
    payment_method_id text        COLLATE "C",
    state             text        NOT NULL CHECK (state IN (
                                      'trialing', 'active', 'past_due', 'paused', 'cancelled', 'ended')),
    -- Why it is in this state, in words a program can match on.
    reason            text        NOT NULL,
    priority          text        COLLATE "C" NOT NULL CHECK (priority IN ('high', 'medium', 'normal')),
    auto_pay          boolean     NOT NULL,
    zone              text        NOT NULL,
    anchor            timestamptz NOT NULL,
    start_at          timestamptz NOT NULL,
    ends_after        integer     CHECK (ends_after > 0),
    periods_opened    integer     NOT NULL DEFAULT 0 CHECK (periods_opened >= 0),
    -- The last period that was opened; before the first one its number is -1.
    period_number     integer     NOT NULL,
    period_start      timestamptz NOT NULL,
    period_end        timestamptz NOT NULL,
    cancels_at_period_end boolean NOT NULL DEFAULT false,
    is_unpaid         boolean     NOT NULL DEFAULT false,
    charges_made      integer     NOT NULL DEFAULT 0,
    -- The payment whose end is not known. A single column, so there is one.
    charging          text        COLLATE "C",
    retry_at          timestamptz,
    may_still_be_paid boolean     NOT NULL DEFAULT false,
    failed_at         timestamptz,
    dunning_step      integer     NOT NULL DEFAULT 0,
    grace_until       timestamptz,
    has_access        boolean     NOT NULL DEFAULT false,
    access_sequence   integer     NOT NULL DEFAULT 0,
    asks_to_catch_up  boolean     NOT NULL DEFAULT false,
    -- Somebody has said so: periods that began before are billed, one after the other.
    catches_up_until  timestamptz,
    -- When there is next something to do by itself.
    due_at            timestamptz,
    clock_id          text        COLLATE "C" REFERENCES test_clock (id),
    -- On a test clock: the moment of the last thing that happened.
    as_of             timestamptz,
    -- Set aside: what was decided about it could not be written. Nothing happens until it is cleared.
    problem           text,
    metadata          jsonb       NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    version           integer     NOT NULL DEFAULT 1,
    CONSTRAINT period_has_a_length CHECK (period_end >= period_start),
    CONSTRAINT on_a_clock_time_is_its_own CHECK ((clock_id IS NULL) = (as_of IS NULL)),
    CONSTRAINT retry_is_of_a_charge CHECK (retry_at IS NULL OR charging IS NOT NULL),
    CONSTRAINT over_has_no_access CHECK (state NOT IN ('cancelled', 'ended') OR NOT has_access),
    -- Nothing is silently stuck: what is not over waits for a time, a charge, a person, or is paused.
    CONSTRAINT waits_for_something CHECK (
        CASE WHEN state IN ('cancelled', 'ended') THEN due_at IS NULL
             ELSE due_at IS NOT NULL OR charging IS NOT NULL OR asks_to_catch_up OR state = 'paused'
        END)
);

CREATE INDEX subscription_due ON subscription (priority, due_at)
    WHERE due_at IS NOT NULL AND clock_id IS NULL AND problem IS NULL;
CREATE INDEX subscription_due_on_clock ON subscription (clock_id, due_at)
    WHERE clock_id IS NOT NULL AND problem IS NULL;
CREATE INDEX subscription_set_aside ON subscription (id) WHERE problem IS NOT NULL;
CREATE INDEX subscription_charging_on_clock ON subscription (clock_id)
    WHERE clock_id IS NOT NULL AND charging IS NOT NULL;
CREATE INDEX subscription_of_customer ON subscription (customer_id, id);
CREATE INDEX subscription_of_plan ON subscription (plan_id, id);
CREATE INDEX subscription_asks ON subscription (id) WHERE asks_to_catch_up;
CREATE INDEX subscription_not_active ON subscription (state, id) WHERE state <> 'active';
CREATE INDEX subscription_charging ON subscription (charging) WHERE charging IS NOT NULL;

-- The billing of each period, for good. The primary key is what keeps a period from being billed
-- twice, whoever tries.
CREATE TABLE billing_cycle (
    subscription_id text        COLLATE "C" NOT NULL,
    period_start    timestamptz NOT NULL,
    period_end      timestamptz NOT NULL,
    number          integer     NOT NULL,
    -- More than one only of those that are skipped.
    periods         integer     NOT NULL DEFAULT 1,
    state           text        NOT NULL CHECK (state IN (
                                    'charging', 'unpaid', 'paid', 'skipped', 'uncollectible')),
    reason          text,
    plan_id         text        COLLATE "C" NOT NULL,
    amount          bigint      NOT NULL,
    currency        text        NOT NULL,
    -- The payment asked for it last; of a paid one the payment that paid it.
    payment_id      text        COLLATE "C",
    opened_at       timestamptz NOT NULL,
    paid_at         timestamptz,
    PRIMARY KEY (subscription_id, period_start),
    CONSTRAINT period_has_a_length CHECK (period_end > period_start),
    CONSTRAINT one_period_unless_skipped CHECK (periods = 1 OR (state = 'skipped' AND periods > 1)),
    CONSTRAINT charging_has_a_payment CHECK (state <> 'charging' OR payment_id IS NOT NULL),
    CONSTRAINT paid_says_when CHECK ((state = 'paid') = (paid_at IS NOT NULL))
) PARTITION BY RANGE (subscription_id);

CREATE TABLE billing_cycle_default PARTITION OF billing_cycle DEFAULT;

-- What is paid stays paid, and what was skipped is not billed after all.
CREATE FUNCTION refuse_cycle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'period % of subscription % must not go from % to %',
                    OLD.period_start, OLD.subscription_id, OLD.state, NEW.state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'billing_cycle_transition';
END
$$;

CREATE TRIGGER billing_cycle_transition AFTER UPDATE OF state ON billing_cycle
    FOR EACH ROW
    WHEN (OLD.state IN ('paid', 'skipped') AND NEW.state <> OLD.state)
    EXECUTE FUNCTION refuse_cycle();

-- One row per charge that was ordered, kept for some days after its end.
CREATE TABLE job (
    id                text        COLLATE "C" NOT NULL,
    subscription_id   text        COLLATE "C" NOT NULL,
    payment_id        text        COLLATE "C" NOT NULL,
    period_start      timestamptz NOT NULL,
    charge_number     integer     NOT NULL CHECK (charge_number > 0),
    occasion          text        NOT NULL CHECK (occasion IN ('period', 'dunning', 'trigger')),
    status            text        NOT NULL CHECK (status IN (
                                      'waiting', 'active', 'completed', 'failed', 'delayed')),
    progress          smallint    NOT NULL CHECK (progress BETWEEN 0 AND 100),
    attempts_made     integer     NOT NULL DEFAULT 0,
    failed_reason     text,
    gateway_reference text,
    retry_at          timestamptz,
    plan_id           text        COLLATE "C" NOT NULL,
    payment_method_id text        COLLATE "C",
    gateway           text        NOT NULL,
    amount            bigint      NOT NULL,
    currency          text        NOT NULL,
    -- In the subscription's own time, which may be that of a test clock.
    ordered_at        timestamptz NOT NULL,
    -- When payments was first heard of it.
    processed_at      timestamptz,
    finished_at       timestamptz,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id),
    CONSTRAINT ended_says_when CHECK ((status IN ('completed', 'failed')) = (finished_at IS NOT NULL))
) PARTITION BY RANGE (id);

CREATE TABLE job_default PARTITION OF job DEFAULT;

CREATE INDEX job_of_subscription ON job (subscription_id, id);
CREATE INDEX job_of_status ON job (status, id);
CREATE INDEX job_ended ON job (updated_at) WHERE status IN ('completed', 'failed');

-- How many jobs there are of each status: the sum of its rows. Whoever changes jobs appends what that
-- makes more or less, so that no writer waits for another's counter; a worker adds rows up. What
-- drops a partition subtracts what was in it.
CREATE TABLE job_tally (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status text   NOT NULL,
    jobs   bigint NOT NULL
);

CREATE FUNCTION tally_new_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_tally (status, jobs)
    SELECT status, count(*) FROM after GROUP BY status;
    RETURN NULL;
END
$$;

CREATE FUNCTION tally_changed_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_tally (status, jobs)
    SELECT status, sum(jobs)
      FROM (SELECT status, count(*) AS jobs FROM after GROUP BY status
             UNION ALL
            SELECT status, -count(*) FROM before GROUP BY status) AS change
     GROUP BY status
    HAVING sum(jobs) <> 0;
    RETURN NULL;
END
$$;

CREATE FUNCTION tally_gone_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_tally (status, jobs)
    SELECT status, -count(*) FROM before GROUP BY status;
    RETURN NULL;
END
$$;

CREATE TRIGGER job_inserted AFTER INSERT ON job
    REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION tally_new_jobs();

CREATE TRIGGER job_updated AFTER UPDATE ON job
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION tally_changed_jobs();

CREATE TRIGGER job_deleted AFTER DELETE ON job
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION tally_gone_jobs();

-- The story of each subscription, append only.
CREATE TABLE subscription_history (
    subscription_id text        COLLATE "C" NOT NULL,
    id              bigint      GENERATED ALWAYS AS IDENTITY,
    -- In the subscription's own time, and when it was written.
    at              timestamptz NOT NULL,
    written_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    event           text        NOT NULL,
    state           text        NOT NULL,
    reason          text        NOT NULL,
    period_start    timestamptz NOT NULL,
    payment_id      text        COLLATE "C",
    -- When a person did it: the name of the API key, and which request it was, so that one that is
    -- carried on after a crash is not carried out twice.
    actor           text,
    request_id      text        COLLATE "C",
    PRIMARY KEY (subscription_id, id)
) PARTITION BY RANGE (subscription_id);

CREATE TABLE subscription_history_default PARTITION OF subscription_history DEFAULT;

CREATE INDEX subscription_history_request ON subscription_history (subscription_id, request_id)
    WHERE request_id IS NOT NULL;

-- What happened on a day (UTC, of the subscription's own time), for analytics.
CREATE TABLE billing_count (
    day      date    NOT NULL,
    plan_id  text    COLLATE "C" NOT NULL,
    what     text    COLLATE "C" NOT NULL,
    is_test  boolean NOT NULL,
    times    bigint  NOT NULL,
    amount   bigint  NOT NULL,
    PRIMARY KEY (day, plan_id, what, is_test)
);
