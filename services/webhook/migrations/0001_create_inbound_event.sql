-- What gateways told us. The day comes from the event itself (the time inside our reference), so a
-- repeated notice meets its first copy in the same partition and is refused by the primary key.
CREATE TABLE inbound_event (
    gateway     text        NOT NULL,
    event_key   text        COLLATE "C" NOT NULL,
    event_day   date        NOT NULL,
    source      text        NOT NULL CHECK (source IN ('notice', 'return')),
    claim       text        NOT NULL,
    received_at timestamptz NOT NULL,
    body        bytea       NOT NULL,
    PRIMARY KEY (gateway, event_key, event_day)
) PARTITION BY RANGE (event_day);

CREATE TABLE inbound_event_default PARTITION OF inbound_event DEFAULT;

-- Where a customer's browser goes after paying: only addresses the merchant gave at creation.
CREATE TABLE return_address (
    reference  text        COLLATE "C" NOT NULL,
    payment_id text        NOT NULL,
    return_url text        NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (reference)
) PARTITION BY RANGE (reference);

CREATE TABLE return_address_default PARTITION OF return_address DEFAULT;
