"""Enrollment: grants what was paid for, and takes it back.

Owns enrollments. Receives `PaymentSucceeded`; sends nothing yet.
"""
