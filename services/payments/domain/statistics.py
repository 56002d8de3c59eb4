"""What statistics count: the steps of payments from state to state, and what they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from services.payments.domain import durations
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.settlement import Change

_S = PaymentState

#: Our work at a payment ends here. Money that goes back later is no result of the work.
RESULTS: Final = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.ON_HOLD})

#: Where the money of a succeeded payment may be later.
COMPLETED: Final = frozenset({_S.SUCCEEDED, _S.PARTIALLY_REFUNDED, _S.REFUNDED, _S.DISPUTED})

FAILED: Final = frozenset({_S.FAILED, _S.CANCELLED})

#: A step from one state to another outside these changes nothing that is counted.
_COUNTED: Final = RESULTS | COMPLETED | {_S.RETRY_SCHEDULED}

_MILLISECOND: Final = timedelta(milliseconds=1)

#: Longest duration that is kept, about 24 days: what its column holds.
_MILLISECONDS_MAX: Final = 2**31 - 1


class Step(NamedTuple):
    """One change of a payment's state that counts. `milliseconds` only of what came to rest."""

    payment_id: str
    gateway: str
    before: PaymentState
    after: PaymentState
    milliseconds: int | None


def step(
    before: Payment, change: Change, now: datetime, *, since: datetime | None = None
) -> Step | None:
    """Return the step that a change makes; None when nothing is counted of it.

    Args:
        before: The payment that was decided on.
        change: What was decided.
        now: The present moment.
        since: When what led here began: the receipt of a notice, or a call of ours; None when that
            was a person.
    """
    after = change.payment.state
    if after is before.state or (after not in _COUNTED and before.state not in _COUNTED):
        return None
    milliseconds = None
    if since is not None and after in RESULTS and before.state not in COMPLETED:
        milliseconds = min(max(0, (now - since) // _MILLISECOND), _MILLISECONDS_MAX)
    return Step(before.id, before.gateway, before.state, after, milliseconds)


class StepCount(NamedTuple):
    """Equal steps, counted: how many, and the durations of those that were measured."""

    gateway: str
    before: str
    after: str
    payments: int
    measured: int
    milliseconds: int
    #: How many durations there are of each class; empty where nobody asked for it.
    classes: Mapping[int, int]


@dataclass(slots=True)
class Tally:
    """Steps added up. Each coming to rest counts, so a late success counts as both."""

    succeeded: int = 0
    failed: int = 0
    on_hold: int = 0
    retried: int = 0
    measured: int = 0
    milliseconds: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    #: Payments that are in a final state now, as far as they were counted.
    completed_now: int = 0
    failed_now: int = 0

    @property
    def processed(self) -> int:
        """Payments that came to rest."""
        return self.succeeded + self.failed + self.on_hold

    @property
    def average_seconds(self) -> float | None:
        """Our own time for a payment, on average."""
        return self.milliseconds / self.measured / 1_000 if self.measured else None

    @property
    def success_rate(self) -> float | None:
        """Share of what came to rest that succeeded, in per cent."""
        return 100 * self.succeeded / self.processed if self.processed else None

    def percentile_seconds(self, share: float) -> float | None:
        """Return our own time that `share` (0 to 1) of the payments do not exceed."""
        found = durations.percentile(self.classes, share)
        return None if found is None else found / 1_000


def add_up(counts: Iterable[StepCount]) -> Tally:
    """Add up steps of any gateways and times."""
    tally = Tally()
    for count in counts:
        before, after = count.before, count.after
        tally.completed_now += count.payments * ((after in COMPLETED) - (before in COMPLETED))
        tally.failed_now += count.payments * ((after in FAILED) - (before in FAILED))
        if after == _S.RETRY_SCHEDULED and before != _S.ON_HOLD:
            tally.retried += count.payments
        if before in COMPLETED:
            continue  # Money going back, and forth again, is no result of our work.
        if after == _S.SUCCEEDED or (not before and after in COMPLETED):
            tally.succeeded += count.payments
        elif after in FAILED:
            tally.failed += count.payments
        elif after == _S.ON_HOLD:
            tally.on_hold += count.payments
        tally.measured += count.measured
        tally.milliseconds += count.milliseconds
        tally.classes.update(count.classes)
    return tally
