"""What the enrollment service does, one module a subject."""
