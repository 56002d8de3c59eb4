"""What the payments service does: one function per request, message or due time."""
