"""When a payment that is not at rest is looked at next."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from services.payments.domain.model import PaymentState
from shared.gateways.interface import MethodKind

#: After a notice whose confirmation failed or stayed out: the customer is waiting.
CONFIRMATION_DELAYS: Final = tuple(timedelta(seconds=s) for s in (2, 4, 8, 16, 32))

#: Without news: first after 30 s, in case the notice was lost, then ever more rarely. The last one
#: repeats: an hour is soon enough for a customer who left, and kind to the gateway.
POLL_DELAYS: Final = tuple(timedelta(seconds=s) for s in (30, 60, 120, 300, 600, 1_800, 3_600))

#: The same where nobody is on a page: a prompt on a phone, a card or a wallet decides within a
#: minute or two. No minute sees more than five looks, because Fapshi allows about six.
CHARGE_DELAYS: Final = tuple(
    timedelta(seconds=s) for s in (5, 10, 15, 15, 15, 30, 30, 60, 60, 120, 300, 600, 1_800, 3_600)
)

#: What the gateway has not closed when a payment expires may still be paid: it is looked at for so
#: long in case it is. The gateways that let nobody close anything keep a page for a day at most.
OPEN_LOOKED_AT_FOR: Final = timedelta(hours=48)

#: A gateway that has not said for so long after the end what became of a payment never will. Money
#: that comes all the same is found by its notice or by the comparison with the gateway's list.
UNKNOWN_GIVEN_UP_AFTER: Final = timedelta(days=7)

#: A declined payment is looked at again from five minutes on.
LOOKS_SKIPPED_AFTER_DECLINE: Final = 3


def next_check_at(
    method: MethodKind, state: PaymentState, checks_made: int, now: datetime
) -> datetime:
    """Return when a payment is looked at next.

    Args:
        method: What the customer has to do; a page takes longer than a phone.
        state: PROCESSING follows the confirmation delays, every other state those of its method.
            What failed or was cancelled is followed like a page, whatever its method.
        checks_made: Looks since the payment took this schedule.
        now: The present moment.
    """
    if state is PaymentState.PROCESSING:
        return now + CONFIRMATION_DELAYS[min(max(checks_made, 1), len(CONFIRMATION_DELAYS)) - 1]
    is_quick = method != "checkout" and state not in {PaymentState.FAILED, PaymentState.CANCELLED}
    delays = CHARGE_DELAYS if is_quick else POLL_DELAYS
    return now + delays[min(checks_made, len(delays) - 1)]
