"""The pure core of payments: states, decisions, schedules. No I/O, no clock."""
