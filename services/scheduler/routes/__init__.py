"""The HTTP side of the scheduler, one module a subject."""
