"""Campay: tokens, phone prompts and payment links, withdrawals, callbacks with a JWT."""
