"""What the scheduler does: one function per request, message or due time."""
