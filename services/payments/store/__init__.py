"""Every SQL statement of the payments service, one module a subject."""
