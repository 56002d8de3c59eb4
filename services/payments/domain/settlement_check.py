"""Compares what we took of one day with what a gateway lists of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

from shared.gateways.listings import ListedPayment
from shared.money import Money

#: Findings of one check that are kept one by one; all are counted.
FINDINGS_MAX: Final = 1_000

#: Days that are checked by themselves, before the present one. What began late on a day may end on
#: the next, so each is checked twice: soon, and when everything of it has ended.
DAYS_BACK: Final = (1, 2)

#: Waits between the tries to list, in seconds; after the last one the check has failed.
TRY_DELAYS_SECONDS: Final = (30, 60, 120, 300, 600, 1_800, 3_600, 3_600, 3_600)


class FindingKind(StrEnum):
    """In what our books and a gateway's list differ."""

    #: Another amount, currency or charge.
    MISMATCH = "mismatch"
    #: The gateway took money of which we have no confirmation.
    MISSING_HERE = "missing_here"
    #: We booked money that the gateway does not list.
    MISSING_THERE = "missing_there"
    #: The gateway took the money of one payment more than once.
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class OwnAttempt:
    """An attempt of ours, and what its payment took."""

    reference: str
    payment_id: str
    #: The gateway's name for the payment's charge.
    gateway_payment_id: str | None
    #: What was booked as the payment's charge, and under which attempt.
    captured: Money | None
    captured_reference: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference."""

    kind: FindingKind
    reference: str
    payment_id: str | None
    gateway_payment_id: str | None
    ours: Money | None
    theirs: Money | None


@dataclass(slots=True)
class Tally:
    """What a comparison has found so far."""

    matched: int = 0
    #: Ours that a list which may be cut does not have.
    unlisted: int = 0
    counts: dict[FindingKind, int] = field(default_factory=lambda: dict.fromkeys(FindingKind, 0))
    findings: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it if it is one of the first."""
        self.counts[finding.kind] += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)


def due_days(today: date) -> tuple[date, ...]:
    """Return the days that are due to be checked on a day."""
    return tuple(today - timedelta(days=days) for days in DAYS_BACK)


def compare(
    tally: Tally,
    reference: str,
    own: OwnAttempt | None,
    listed: Sequence[ListedPayment],
    *,
    is_cut: bool,
) -> None:
    """Compare one attempt with what is listed under its reference.

    Args:
        tally: Takes what is found.
        reference: Of the attempt.
        own: The attempt, if there is one.
        listed: The different charges that the gateway lists under it.
        is_cut: Whether the gateway may have left something out of its list.
    """
    is_taken = own is not None and own.captured is not None and own.captured_reference == reference
    if not listed:
        if own is not None and is_taken and is_cut:
            tally.unlisted += 1
        elif own is not None and is_taken:
            tally.add(_finding(FindingKind.MISSING_THERE, reference, own, None))
        return
    first = listed[0]
    if len(listed) > 1 or (own is not None and own.captured is not None and not is_taken):
        # More than one charge of this attempt, or one of another attempt of a payment that is paid.
        tally.add(_finding(FindingKind.DUPLICATE, reference, own, first))
    elif own is None or not is_taken:
        tally.add(_finding(FindingKind.MISSING_HERE, reference, own, first))
    elif own.captured != first.amount or own.gateway_payment_id != first.gateway_payment_id:
        tally.add(_finding(FindingKind.MISMATCH, reference, own, first))
    else:
        tally.matched += 1


def _finding(
    kind: FindingKind, reference: str, own: OwnAttempt | None, listed: ListedPayment | None
) -> Finding:
    return Finding(
        kind=kind,
        reference=reference,
        payment_id=None if own is None else own.payment_id,
        gateway_payment_id=(
            listed.gateway_payment_id
            if listed is not None
            else None
            if own is None
            else own.gateway_payment_id
        ),
        ours=None if own is None else own.captured,
        theirs=None if listed is None else listed.amount,
    )
