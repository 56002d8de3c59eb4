"""What can go wrong while measuring, as opposed to a slow result, which is no error."""

from __future__ import annotations


class BenchmarkError(Exception):
    """The figures cannot be had, or could not be trusted; nothing is reported."""


class SetupError(BenchmarkError):
    """Something that the benchmark needs is missing; the message says how to get it."""


class VerificationError(BenchmarkError):
    """A run lost or doubled an event, so its speed means nothing."""
