"""Lists the intents of a day that Stripe took money for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final

from shared.gateways.interface import Listing, Paid, Unknown
from shared.gateways.listings import ListedPage, ListedPayment
from shared.gateways.stripe.calls import StripeCalls
from shared.gateways.stripe.errors import StripeCallError
from shared.gateways.stripe.intents import IntentReader, own_reference
from shared.gateways.stripe.key_age import KNOWN_AFTER
from shared.identifiers import is_id

if TYPE_CHECKING:
    from stripe.params import PaymentIntentListParams

PAGE_SIZE: Final = 100

#: By how much Stripe's clock may be behind ours.
CLOCKS_DIFFER: Final = timedelta(minutes=15)


async def list_paid(
    calls: StripeCalls, reader: IntentReader, day: date, cursor: str | None
) -> Listing:
    """Return one page of the intents that belong to a day of UTC.

    A call that was repeated may have made its intent a day after the attempt began.
    """
    began = datetime.combine(day, time(), UTC)
    parameters: PaymentIntentListParams = {
        "created": {
            "gte": int((began - CLOCKS_DIFFER).timestamp()),
            "lte": int((began + timedelta(days=1) + KNOWN_AFTER + CLOCKS_DIFFER).timestamp()),
        },
        "limit": PAGE_SIZE,
    }
    if cursor is not None:
        parameters["starting_after"] = cursor
    try:
        intents, last_id = page_of(await calls.list_intents(parameters))
    except StripeCallError as error:
        return Unknown(error.reason, error.retry_after_seconds)
    paid = [intent for intent in intents if _is_ours(intent)]
    payments = [payment for intent in paid if (payment := _listed(reader, intent)) is not None]
    return ListedPage(tuple(payments), last_id, is_cut=len(payments) < len(paid))


def page_of(page: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str | None]:
    """Return the intents of a page, and the id after which the next one begins.

    Raises:
        StripeCallError: it is no page of intents.
    """
    intents = page.get("data")
    if not isinstance(intents, list) or not all(isinstance(intent, dict) for intent in intents):
        raise StripeCallError("unreadable_list")
    has_more = page.get("has_more")
    last_id = intents[-1].get("id") if has_more and intents else None
    if not isinstance(has_more, bool) or (has_more and not isinstance(last_id, str)):
        raise StripeCallError("unreadable_list")
    return intents, last_id


def _is_ours(intent: Mapping[str, Any]) -> bool:
    reference = own_reference(intent)
    is_own = isinstance(reference, str) and is_id(reference, "att")
    return is_own and intent.get("status") == "succeeded"


def _listed(reader: IntentReader, intent: Mapping[str, Any]) -> ListedPayment | None:
    reference = str(own_reference(intent))
    outcome = reader.read(intent, reference)
    if not isinstance(outcome, Paid):
        return None
    return ListedPayment(reference, outcome.gateway_payment_id, outcome.amount)
