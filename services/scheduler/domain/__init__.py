"""The pure core of the scheduler: periods, life, dunning. No I/O, no clock."""
