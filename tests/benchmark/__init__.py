"""`make bench`: Sluice against Express + BullMQ + PostgreSQL, in turn on the same machine."""
