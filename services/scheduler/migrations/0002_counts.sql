-- What was counted lately. Rows are only appended, in the commit of what they count, so that no
-- writer waits for another's counter; a worker adds them to billing_count and billing_total.
CREATE TABLE billing_count_new (
    id      bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day     date    NOT NULL,
    plan_id text    COLLATE "C" NOT NULL,
    -- What happened, or `is_<state>` for subscriptions that are in a state since then (more) or not
    -- any more (less than none).
    what    text    COLLATE "C" NOT NULL,
    is_test boolean NOT NULL,
    times   bigint  NOT NULL,
    amount  bigint  NOT NULL
);

-- The same since ever. Of `is_<state>` it is how many there are.
CREATE TABLE billing_total (
    plan_id text    COLLATE "C" NOT NULL,
    what    text    COLLATE "C" NOT NULL,
    is_test boolean NOT NULL,
    times   bigint  NOT NULL,
    amount  bigint  NOT NULL,
    PRIMARY KEY (plan_id, what, is_test)
);
