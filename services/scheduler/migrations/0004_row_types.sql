-- Rows as they are written by moves, many in one value. A type is never changed, for processes of the
-- version before use it as it was: what needs other fields makes another type.
CREATE TYPE moved_subscription AS (
    id                    text,
    version               integer,
    plan_id               text,
    next_plan_id          text,
    payment_method_id     text,
    state                 text,
    reason                text,
    priority              text,
    auto_pay              boolean,
    anchor                timestamptz,
    periods_opened        integer,
    period_number         integer,
    period_start          timestamptz,
    period_end            timestamptz,
    cancels_at_period_end boolean,
    is_unpaid             boolean,
    charges_made          integer,
    charging              text,
    retry_at              timestamptz,
    may_still_be_paid     boolean,
    failed_at             timestamptz,
    dunning_step          integer,
    grace_until           timestamptz,
    has_access            boolean,
    access_sequence       integer,
    asks_to_catch_up      boolean,
    catches_up_until      timestamptz,
    due_at                timestamptz,
    clock_id              text,
    as_of                 timestamptz
);

CREATE TYPE opened_cycle AS (
    subscription_id text,
    period_start    timestamptz,
    period_end      timestamptz,
    number          integer,
    periods         integer,
    state           text,
    reason          text,
    payment_id      text,
    plan_id         text,
    amount          bigint,
    currency        text,
    opened_at       timestamptz
);

CREATE TYPE ordered_job AS (
    id                text,
    subscription_id   text,
    payment_id        text,
    period_start      timestamptz,
    charge_number     integer,
    occasion          text,
    status            text,
    progress          smallint,
    ordered_at        timestamptz,
    plan_id           text,
    payment_method_id text,
    gateway           text,
    amount            bigint,
    currency          text
);

CREATE TYPE history_line AS (
    subscription_id text,
    at              timestamptz,
    event           text,
    state           text,
    reason          text,
    period_start    timestamptz,
    payment_id      text
);
