"""HTTP as every service speaks it: routes, envelope, errors, keys, idempotency, health."""
