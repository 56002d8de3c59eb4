"""Every SQL statement of the enrollment service, one module a subject."""
