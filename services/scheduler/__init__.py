"""Subscriptions: what is due when, what became of it, and what time it is for whom.

Owns plans, subscriptions, billing cycles, jobs and test clocks. Sends `ChargeSubscription`,
`AccessGranted` and their like; receives what became of charges.
"""
