"""The HTTP side of the payments service, one module a subject."""
