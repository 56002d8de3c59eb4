-- How all processes together call each gateway: its breaker, what they saw of it, and who may call it
-- how often. Few rows, read and written by every process about twice a second.

-- One row per gateway. The times are business time.
CREATE TABLE gateway_breaker (
    gateway           text        PRIMARY KEY,
    state             text        NOT NULL DEFAULT 'closed'
                                  CHECK (state IN ('closed', 'open', 'half_open')),
    since             timestamptz,
    -- When probes begin.
    until             timestamptz,
    reason            text,
    -- What an operator made of it; NULL lets it decide for itself.
    forced            text        CHECK (forced IN ('open', 'closed')),
    probe_round       integer     NOT NULL DEFAULT 0,
    probes_began_at   timestamptz,
    -- Probes of this round that workers got, and the most there are.
    probes_handed_out integer     NOT NULL DEFAULT 0,
    probes_max        integer     NOT NULL DEFAULT 0,
    -- Results of probes since it became half open.
    probe_calls       integer     NOT NULL DEFAULT 0,
    probe_failures    integer     NOT NULL DEFAULT 0,
    -- The gateway asked us to come back then.
    held_until        timestamptz,
    -- Grows with every change of the breaker: of two processes that decide at once, one is refused.
    version           integer     NOT NULL DEFAULT 0,
    -- Grows with every change of a share, for the same reason.
    shares_version    bigint      NOT NULL DEFAULT 0,
    CONSTRAINT forced_as_it_is CHECK (forced IS NULL OR forced = state),
    CONSTRAINT open_has_an_end CHECK (
        (state = 'open' AND forced IS NULL) = (until IS NOT NULL)),
    CONSTRAINT half_open_has_probes CHECK ((state = 'half_open') = (probes_began_at IS NOT NULL)),
    CONSTRAINT probes_are_few CHECK (probes_handed_out BETWEEN 0 AND probes_max),
    CONSTRAINT probe_failures_are_probes CHECK (probe_failures BETWEEN 0 AND probe_calls)
) WITH (fillfactor = 50);

-- The states it came into, append only.
CREATE TABLE gateway_breaker_history (
    gateway  text        NOT NULL,
    version  integer     NOT NULL,
    at       timestamptz NOT NULL,
    state    text        NOT NULL,
    reason   text        NOT NULL,
    forced   text,
    -- What was seen of the gateway when it was decided.
    calls    integer     NOT NULL,
    failures integer     NOT NULL,
    -- The name of an API key; NULL when it decided for itself.
    actor    text,
    PRIMARY KEY (gateway, version)
);

-- What all processes saw, by second of business time; kept for an hour.
CREATE TABLE gateway_calls (
    gateway  text        NOT NULL,
    second   timestamptz NOT NULL,
    calls    integer     NOT NULL CHECK (calls > 0),
    failures integer     NOT NULL CHECK (failures BETWEEN 0 AND calls),
    PRIMARY KEY (gateway, second)
) WITH (fillfactor = 50);

CREATE INDEX gateway_calls_by_age ON gateway_calls (second);

-- The processes that call gateways. The lease is by the database's clock.
CREATE TABLE flow_process (
    id           text        COLLATE "C" PRIMARY KEY,
    kind         text        NOT NULL CHECK (kind IN ('http', 'worker')),
    leased_until timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX flow_process_alive ON flow_process (leased_until);

-- What a process has of a gateway's limits. After its lease it has nothing, and knows so before.
CREATE TABLE gateway_share (
    gateway      text             NOT NULL,
    process      text             COLLATE "C" NOT NULL,
    -- What it keeps to from now on; NULL where there is no limit of the kind.
    calls        integer          CHECK (calls >= 0),
    rate         double precision CHECK (rate >= 0),
    -- What it may be using until it has heard of that.
    calls_held   integer          NOT NULL,
    rate_held    double precision NOT NULL,
    in_flight    integer          NOT NULL,
    waiting      integer          NOT NULL,
    -- Calls that ended since it last said so.
    made         integer          NOT NULL,
    leased_until timestamptz      NOT NULL,
    PRIMARY KEY (gateway, process),
    CONSTRAINT held_covers_the_share CHECK (
        calls_held >= coalesce(calls, 0) AND rate_held >= coalesce(rate, 0))
) WITH (fillfactor = 50);

CREATE INDEX gateway_share_of_process ON gateway_share (process);
