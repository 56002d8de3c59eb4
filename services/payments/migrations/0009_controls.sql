-- What operators decided that holds now: pauses, the drain, limits. Few rows, read by every process
-- every second. What was decided before is in operator_action.
CREATE TABLE control (
    -- pause:all, pause:gateway:<name>, pause:priority:<level>, drain, limits
    key    text        PRIMARY KEY CHECK (key ~ '^(pause:.+|drain|limits)$'),
    value  jsonb       NOT NULL DEFAULT '{}',
    reason text        NOT NULL CHECK (reason <> ''),
    set_by text        NOT NULL,
    set_at timestamptz NOT NULL
);

-- Named sets of limits, and when each is in force by itself. The name `normal` stands for the
-- settings when it has no row.
CREATE TABLE limit_profile (
    name     text        PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    -- Of the profiles whose condition is met the highest rank is in force.
    rank     integer     NOT NULL CHECK (rank BETWEEN 0 AND 1000),
    limits   jsonb       NOT NULL,
    -- [{"days": ["mon", …], "from": "07:00", "to": "09:30"}, …] in the operator's time zone.
    schedule jsonb       NOT NULL DEFAULT '[]',
    -- In force by load: from a queue of load_above on, until it is at load_below or shorter.
    load_above integer   CHECK (load_above > 0),
    load_below integer   CHECK (load_below >= 0),
    minimum_stay interval NOT NULL CHECK (minimum_stay >= interval '0'),
    reason   text        NOT NULL CHECK (reason <> ''),
    set_by   text        NOT NULL,
    set_at   timestamptz NOT NULL,
    CONSTRAINT load_has_hysteresis CHECK (
        (load_above IS NULL) = (load_below IS NULL) AND load_below < load_above IS NOT FALSE),
    CONSTRAINT normal_has_no_condition CHECK (
        name <> 'normal' OR (schedule = '[]' AND load_above IS NULL))
);

-- Which profile was in force when, append only; the highest number is in force now. Two workers
-- that switch at once write the same number, so one of them is refused.
CREATE TABLE profile_switch (
    number  bigint      PRIMARY KEY CHECK (number > 0),
    at      timestamptz NOT NULL,
    profile text        NOT NULL,
    -- manual: an operator chose it, and it stays until an operator says otherwise.
    mode    text        NOT NULL CHECK (mode IN ('automatic', 'manual')),
    -- schedule, load, nothing (neither holds), operator
    cause   text        NOT NULL,
    queue_length bigint,
    -- The name of an API key; NULL when it switched by itself.
    actor   text,
    CONSTRAINT operators_have_names CHECK ((cause = 'operator') = (actor IS NOT NULL))
);

-- put_off: recorded, but the gateway could not be asked yet, and has surely not heard of it. NOT VALID
-- holds every new row to it without a walk through all old ones.
ALTER TABLE attempt DROP CONSTRAINT attempt_state_check;
ALTER TABLE attempt
    ADD CONSTRAINT attempt_state_check CHECK (
        state IN ('started', 'put_off', 'open', 'refused', 'abandoned')) NOT VALID;

-- Set while somebody begins what was put off: nobody else may take it for an attempt that was cut off.
ALTER TABLE attempt ADD COLUMN in_hand_until timestamptz;
