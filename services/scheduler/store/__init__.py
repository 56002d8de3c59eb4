"""Every SQL statement of the scheduler, one module a subject."""
