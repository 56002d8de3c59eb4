"""The nouns and decisions of enrollment. Pure: no I/O, no clock, no randomness."""
