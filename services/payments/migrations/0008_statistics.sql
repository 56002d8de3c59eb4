-- Statistics. Nothing is counted in the table of payments, which may hold hundreds of millions: the
-- statement that saves a batch of results also writes what they were, one row for each gateway and
-- step from state to state. Appended only, so that no two workers ever wait for one counter.
CREATE TABLE step_count (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL,
    gateway      text        NOT NULL,
    from_state   text        NOT NULL,
    to_state     text        NOT NULL,
    payments     integer     NOT NULL CHECK (payments > 0),
    -- Our own time of those that were measured, from the notice or the begin of the call to here: how
    -- many, their sum, and each of them.
    measured     integer     NOT NULL CHECK (measured >= 0),
    milliseconds bigint      NOT NULL CHECK (milliseconds >= 0),
    durations    integer[]   NOT NULL CHECK (cardinality(durations) = measured)
);

-- Those rows folded, one for each minute, gateway and step, by one worker at a time. Late rows of a
-- minute make a further row.
CREATE TABLE step_minute (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    minute       timestamptz NOT NULL,
    gateway      text        NOT NULL,
    from_state   text        NOT NULL,
    to_state     text        NOT NULL,
    payments     integer     NOT NULL CHECK (payments > 0),
    measured     integer     NOT NULL CHECK (measured >= 0),
    milliseconds bigint      NOT NULL CHECK (milliseconds >= 0),
    -- The classes (services/payments/domain/durations.py) that there are durations of, and how many.
    classes      smallint[]  NOT NULL,
    class_counts integer[]   NOT NULL CHECK (cardinality(class_counts) = cardinality(classes))
);

CREATE INDEX step_minute_at ON step_minute (minute);

-- All that was ever folded. `from_state` is empty for payments that were there before the counting.
CREATE TABLE step_total (
    gateway      text   NOT NULL,
    from_state   text   NOT NULL,
    to_state     text   NOT NULL,
    payments     bigint NOT NULL,
    measured     bigint NOT NULL,
    milliseconds bigint NOT NULL,
    PRIMARY KEY (gateway, from_state, to_state)
);

INSERT INTO step_total (gateway, from_state, to_state, payments, measured, milliseconds)
SELECT gateway, '', state, count(*), 0, 0
  FROM payment
 WHERE state NOT IN ('created', 'pending', 'processing', 'unknown')
 GROUP BY gateway, state;

-- Alerts: a row for each episode in which a threshold was passed.
CREATE TABLE alert (
    id         text             COLLATE "C" PRIMARY KEY,
    name       text             NOT NULL,
    threshold  double precision NOT NULL,
    -- What was measured when it was raised, the worst since, and the last.
    raised_value double precision NOT NULL,
    worst_value  double precision NOT NULL,
    last_value   double precision NOT NULL,
    raised_at  timestamptz      NOT NULL,
    -- Since when it has been within its threshold again; after a while it is cleared.
    well_since timestamptz,
    cleared_at timestamptz
);

-- Once per episode: of two workers that see the same threshold passed, one opens the episode.
CREATE UNIQUE INDEX alert_open ON alert (name) WHERE cleared_at IS NULL;
CREATE INDEX alert_of_name ON alert (name, id);

-- Whose turn it is to measure: of all workers one does, every few seconds.
CREATE TABLE alert_turn (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    measured_at timestamptz NOT NULL
);
