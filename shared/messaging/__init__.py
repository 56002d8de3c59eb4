"""Messages between services: outbox, publication, reception, receipts.

PostgreSQL is the record, Redis is the doorbell: whatever Redis or a process loses, the sender's
outbox sends again until the receiver has committed.
"""
