"""One invariant, and what a check of it found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import asyncpg

from deploy.local.service_databases import ServiceDatabases

#: Violations told one by one; the others are only counted.
EXAMPLES_MAX: Final = 5


class Example(NamedTuple):
    """One violation: of what, and what is wrong with it."""

    subject: str
    problem: str


@dataclass(slots=True)
class Findings:
    """Counts of one check, and its first violations."""

    #: Rows that were looked at.
    checked: int = 0
    #: Rows whose next step is still to come, and has a time.
    waiting: int = 0
    violations: int = 0
    examples: list[Example] = field(default_factory=list)
    #: How many rows fell into which class, where there are more than good and bad.
    classes: Counter[str] = field(default_factory=Counter)

    def add_violation(self, subject: str, problem: str) -> None:
        """Count a violation, and keep it if it is one of the first."""
        self.violations += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(Example(subject, problem))

    def add_rows(
        self, rows: Sequence[asyncpg.Record], tell: Callable[[asyncpg.Record], Example]
    ) -> int:
        """Count the violations that a query has found and return how many there are.

        Args:
            rows: The first of them; the `total` of each says how many there are.
            tell: Makes an example of a row.
        """
        for row in rows:
            self.add_violation(*tell(row))
        total: int = rows[0]["total"] if rows else 0
        self.violations += total - len(rows)
        return total


Check = Callable[[ServiceDatabases, Findings], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that must hold."""

    name: str
    sentence: str
    #: What to do about a violation.
    hint: str
    check: Check
    #: Whose tables the check cannot do without.
    services: frozenset[str]
    #: A warning does not make the audit fail.
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """An invariant with what was found; `skipped` says why nothing was looked at."""

    invariant: Invariant
    findings: Findings
    skipped: str | None = None

    @property
    def is_violated(self) -> bool:
        """Return whether the audit must fail for it."""
        return self.findings.violations > 0 and not self.invariant.is_warning
