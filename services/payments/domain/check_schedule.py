"""When a payment that is not at rest is looked at next."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from services.payments.domain.model import PaymentState

#: After a notice whose confirmation failed or stayed out: the customer is waiting.
CONFIRMATION_DELAYS: Final = tuple(timedelta(seconds=s) for s in (2, 4, 8, 16, 32))

#: Without news: first after 30 s, in case the notice was lost, then ever more rarely. The last one
#: repeats: an hour is soon enough for a customer who left, and kind to the gateway.
POLL_DELAYS: Final = tuple(timedelta(seconds=s) for s in (30, 60, 120, 300, 600, 1_800, 3_600))

#: A declined payment is looked at again from five minutes on.
LOOKS_SKIPPED_AFTER_DECLINE: Final = 3


def next_check_at(state: PaymentState, checks_made: int, now: datetime) -> datetime:
    """Return when a payment in a waiting state is looked at next.

    Args:
        state: PROCESSING follows the confirmation delays, every other state the poll delays.
        checks_made: Looks since the payment took this schedule.
        now: The present moment.
    """
    if state is PaymentState.PROCESSING:
        return now + CONFIRMATION_DELAYS[min(max(checks_made, 1), len(CONFIRMATION_DELAYS)) - 1]
    return now + POLL_DELAYS[min(checks_made, len(POLL_DELAYS) - 1)]
