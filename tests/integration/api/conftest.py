"""Databases of the tests of the whole API."""

from __future__ import annotations

from tests.support.reused_database import new_database, reused_database

__all__ = ["new_database", "reused_database"]
