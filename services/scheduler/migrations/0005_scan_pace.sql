-- How much of the orders that all scans together may give was given: a mark that moves on by what an
-- order takes up at the rate that is set, and that is never further back than a second.
CREATE TABLE scan_pace (
    is_only     boolean     PRIMARY KEY DEFAULT true CHECK (is_only),
    spent_until timestamptz NOT NULL DEFAULT clock_timestamp()
);
