"""What a subscription gives: its product is the customer's for as long as it says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from services.enrollment.domain.model import EnrollmentState


class Right(NamedTuple):
    """One customer's right to one product, of which there is at most one enrollment."""

    customer_id: str
    product_id: str


@dataclass(frozen=True, slots=True)
class Access:
    """What a subscription says at one moment; `reason` is that of an end.

    `sequence` counts what it says: the highest holds, in whatever order they come.
    """

    subscription_id: str
    sequence: int
    right: Right
    has_access: bool
    reason: str | None
    told_at: datetime


class AccessEffect(StrEnum):
    """What came of a subscription's news."""

    GRANTED = "granted"
    #: The product had been taken away.
    REGRANTED = "regranted"
    #: They had it already: from the same subscription, or from something else.
    KEPT = "kept"
    REVOKED = "revoked"
    #: The subscription gives it no more; something else does.
    HELD_OTHERWISE = "held_otherwise"
    #: It ended, and there was nothing (more) to take away.
    NOT_NEEDED = "not_needed"
    #: The same or later news were here before.
    OUTDATED = "outdated"


def news_that_count(heard: Iterable[Access], known: Mapping[str, Access]) -> Sequence[Access]:
    """Return the latest of each subscription, if that is later than what is known of it."""
    latest: dict[str, Access] = {}
    for access in heard:
        before = latest.get(access.subscription_id) or known.get(access.subscription_id)
        if before is None or access.sequence > before.sequence:
            latest[access.subscription_id] = access
    return list(latest.values())


def right_left(news: Access, known: Access | None) -> Right | None:
    """Return the right that a subscription gave and gives no more.

    Its product may have been exchanged for another one, of which a single message tells.
    """
    if known is None or not known.has_access:
        return None
    return known.right if not news.has_access or news.right != known.right else None


def effect_of_grant(existing: EnrollmentState, *, is_new: bool) -> AccessEffect:
    """Return what a subscription that gives a product does to the enrollment in it."""
    if is_new:
        return AccessEffect.GRANTED
    if existing is EnrollmentState.REVOKED:
        return AccessEffect.REGRANTED
    return AccessEffect.KEPT


def effect_of_end(existing: EnrollmentState, *, is_held: bool) -> AccessEffect:
    """Return what the end of what a subscription gave does to the enrollment.

    `is_held` says that something else gives the right to it.
    """
    if existing is EnrollmentState.REVOKED:
        return AccessEffect.NOT_NEEDED
    return AccessEffect.HELD_OTHERWISE if is_held else AccessEffect.REVOKED
