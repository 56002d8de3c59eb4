"""Enrollment: grants what was paid for or subscribed to, and takes it back.

Owns enrollments. Receives `PaymentSucceeded`, `PaymentRefunded`, `RefundReturned`,
`DisputeWon`, `DisputeLost`, `AccessGranted` and `AccessRevoked`; sends nothing yet.
"""
