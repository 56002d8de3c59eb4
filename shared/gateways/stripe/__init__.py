"""Stripe: cards on and off session by PaymentIntents, through Stripe's own library."""
