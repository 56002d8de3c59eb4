-- What the gateway knows the payment by. Of SSLCommerz the key of an event begins with it; of most
-- gateways it does not, and the day of an event need not be that of its payment either. References
-- of ours grow with time, so that the index is written at its end.
ALTER TABLE inbound_event ADD COLUMN reference text COLLATE "C";

CREATE INDEX inbound_event_of_reference ON inbound_event (reference);
