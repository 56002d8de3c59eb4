"""Enrollment: grants what was paid for, and takes it back.

Owns enrollments. Receives `PaymentSucceeded`, `PaymentRefunded`, `RefundReturned`,
`DisputeWon` and `DisputeLost`; sends nothing yet.
"""
