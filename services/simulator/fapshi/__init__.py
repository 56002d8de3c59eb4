"""Fapshi: links and phone prompts for mobile money, without any idempotency; notices sent once."""
