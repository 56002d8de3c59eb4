"""What becomes of an enrollment when the money that paid for it goes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

#: News of a payment may come before the payment has granted anything. Its grant is sure to be seen
#: by then: a grant that did not see the news began before they were stored, and is one statement.
GRANT_IS_SEEN_AFTER: Final = timedelta(minutes=1)

#: The occasion of refunds: only that nothing is left of a payment counts, not how many they were.
REFUND: Final = "refund"


class Cause(StrEnum):
    """What became of the money of a payment."""

    REFUNDED = "refunded"
    #: A refund that was complete came back to us.
    REFUND_RETURNED = "refund_returned"
    DISPUTE_LOST = "dispute_lost"
    DISPUTE_WON = "dispute_won"

    @property
    def takes_money_away(self) -> bool:
        """Whether the payment no longer pays for anything."""
        return self in {Cause.REFUNDED, Cause.DISPUTE_LOST}


class Revocation(StrEnum):
    """How far the revocation for a payment that went back has come."""

    WAITING = "waiting"
    #: The payment has granted nothing so far; if it ever does, this is looked at again.
    UNGRANTED = "ungranted"
    DONE = "done"
    CANCELLED = "cancelled"
    NOT_NEEDED = "not_needed"
    #: The policy was to leave enrollments as they are.
    NEVER = "never"


class PolicyKind(StrEnum):
    """When an enrollment is taken away whose payment went back."""

    AT_ONCE = "at_once"
    AFTER_GRACE = "after_grace"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's choice; `grace` counts from when the news were received here."""

    kind: PolicyKind
    grace: timedelta


@dataclass(frozen=True, slots=True)
class News:
    """What was heard of a payment's money. `occasion` is `REFUND` or a dispute's name."""

    payment_id: str
    occasion: str
    cause: Cause
    customer_id: str
    product_id: str
    noticed_at: datetime


@dataclass(frozen=True, slots=True)
class Reversal:
    """The latest news of one occasion, and what they lead to."""

    news: News
    revocation: Revocation
    due_at: datetime | None
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """Where a revocation goes: `due_at` is set exactly while it waits."""

    revocation: Revocation
    reason: str | None = None
    due_at: datetime | None = None


def are_late(news: News, known: News) -> bool:
    """Tell whether news add nothing to what is known of the same occasion."""
    if news.noticed_at == known.noticed_at:
        return news.cause is known.cause
    return news.noticed_at < known.noticed_at


def step_of_news(news: News, known: Reversal | None, policy: Policy, *, now: datetime) -> Step:
    """Return what news lead to, before anything is known of the enrollment."""
    if not news.cause.takes_money_away:
        was_in_force = known is not None and known.revocation in {
            Revocation.WAITING,
            Revocation.DONE,
        }
        revocation = Revocation.CANCELLED if was_in_force else Revocation.NOT_NEEDED
        return Step(revocation, reason=news.cause)
    if policy.kind is PolicyKind.NEVER:
        return Step(Revocation.NEVER, reason="policy")
    grace = policy.grace if policy.kind is PolicyKind.AFTER_GRACE else timedelta(0)
    return Step(Revocation.WAITING, due_at=now + grace)


def step_when_due(
    reversal: Reversal, *, has_granted: bool, is_active: bool, is_held: bool, now: datetime
) -> Step:
    """Return what to do when the time of a revocation has come; `DONE` is to take it away.

    Args:
        reversal: What waits.
        has_granted: The payment has had its effect here.
        is_active: The customer has the product.
        is_held: Something else than payments that went back still gives them the right to it.
        now: The present.
    """
    if not has_granted:
        seen_by = reversal.stored_at + GRANT_IS_SEEN_AFTER
        if now < seen_by:
            return Step(Revocation.WAITING, reason="grant_may_come", due_at=seen_by)
        return Step(Revocation.UNGRANTED)
    if not is_active:
        return Step(Revocation.NOT_NEEDED, reason="revoked_already")
    if is_held:
        return Step(Revocation.NOT_NEEDED, reason="held_otherwise")
    return Step(Revocation.DONE)
