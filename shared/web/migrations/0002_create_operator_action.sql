-- What operators did by hand, append only: who, when, why, and what it was before and after.
CREATE TABLE operator_action (
    -- Begins with its time, so the primary key is the order of time.
    id     text        COLLATE "C" PRIMARY KEY,
    at     timestamptz NOT NULL,
    -- The name of the API key that asked for it.
    actor  text        NOT NULL,
    action text        NOT NULL,
    target text        NOT NULL,
    -- NULL where there was nothing, or nothing is left.
    before jsonb,
    after  jsonb,
    reason text        NOT NULL CHECK (reason <> '')
);

CREATE INDEX operator_action_of_target ON operator_action (target, id);
