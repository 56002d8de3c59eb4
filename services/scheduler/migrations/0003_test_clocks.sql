-- All subscriptions of a clock, those that are over or set aside too: to count them, and to cancel
-- them when it is removed.
CREATE INDEX subscription_of_clock ON subscription (clock_id, id) WHERE clock_id IS NOT NULL;
