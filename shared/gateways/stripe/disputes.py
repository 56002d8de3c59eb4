"""Asks Stripe how a dispute stands, and reads what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from shared.errors import InvalidInputError
from shared.gateways.disputes import Disputed, DisputeState
from shared.gateways.interface import DisputeOutcome, Unknown
from shared.gateways.stripe.calls import StripeCalls
from shared.gateways.stripe.declines import word
from shared.gateways.stripe.errors import StripeCallError
from shared.gateways.stripe.intents import is_intent_id, own_reference
from shared.identifiers import is_id
from shared.money import Money

#: `dp_` is what old accounts have.
_DISPUTE_ID: Final = re.compile(r"(?:du|dp)_[A-Za-z0-9_]{1,97}")

_OWN_PREFIX: Final = "att"

#: `prevented` is not here: what it means for the money, only the money says.
_STATES: Final[Mapping[str, DisputeState]] = MappingProxyType(
    {
        "warning_needs_response": DisputeState.INQUIRY,
        "warning_under_review": DisputeState.INQUIRY,
        # The bank asked, and did not take the money back in time.
        "warning_closed": DisputeState.WON,
        "needs_response": DisputeState.OPENED,
        "under_review": DisputeState.OPENED,
        # Won or lost in the first instance, and heard again: the money may still go either way.
        "appeal_needs_response": DisputeState.OPENED,
        "appeal_under_review": DisputeState.OPENED,
        "won": DisputeState.WON,
        "lost": DisputeState.LOST,
    }
)

#: The last second of the year 9999, beyond which no date goes.
_TIME_MAX: Final = 253_402_300_799


class StripeDisputes:
    """The disputes of one account."""

    def __init__(self, calls: StripeCalls, *, is_live: bool) -> None:
        self._calls = calls
        self._is_live = is_live

    async def look_up(self, handle: str) -> DisputeOutcome:
        """Ask how a dispute stands."""
        if _DISPUTE_ID.fullmatch(handle) is None:
            return Unknown("no_dispute_id")
        try:
            dispute = await self._calls.retrieve_dispute(handle)
        except StripeCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)
        return read_dispute(dispute, handle, is_live=self._is_live)


def read_dispute(dispute: Mapping[str, Any], handle: str, *, is_live: bool) -> DisputeOutcome:
    """Return how a dispute stands; its intent must be there in full, as we asked for it."""
    intent, created = _intent(dispute), dispute.get("created")
    is_whole = dispute.get("object") == "dispute" and dispute.get("id") == handle
    if not is_whole or intent is None or type(created) is not int or not 0 <= created <= _TIME_MAX:
        return Unknown("unreadable_answer")
    if dispute.get("livemode") is not is_live:
        return Unknown("livemode_differs")
    state = _state(dispute)
    if state is None:
        return Unknown("unknown_status")
    amount = _money(dispute.get("amount"), dispute.get("currency"))
    if amount is None:
        return Unknown("unreadable_amount")
    reference = own_reference(intent)
    is_ours = isinstance(reference, str) and is_id(reference, _OWN_PREFIX)
    return Disputed(
        handle=handle,
        state=state,
        amount=amount,
        reason=word(dispute.get("reason")) or "unknown",
        reference=str(reference) if is_ours else None,
        gateway_payment_id=str(intent["id"]),
        opened_at=datetime.fromtimestamp(created, UTC),
        fee=_fee(dispute),
    )


def _intent(dispute: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what the dispute is about; of a charge without an intent, as if it were one."""
    intent = dispute.get("payment_intent")
    if intent is None:
        # Only other systems make such charges: ours have an intent each.
        return {"id": word(dispute.get("charge"))}
    return intent if isinstance(intent, dict) and is_intent_id(word(intent.get("id"))) else None


def _state(dispute: Mapping[str, Any]) -> DisputeState | None:
    status = word(dispute.get("status"))
    if status != "prevented":
        return _STATES.get(status)
    # Stopped before it became a dispute: either the bank let it be, or the money was given back.
    moved = sum(_whole(movement.get("amount")) for movement in _movements(dispute))
    return DisputeState.LOST if moved < 0 else DisputeState.WON


def _fee(dispute: Mapping[str, Any]) -> Money | None:
    """Add up what Stripe charges; of none, or of several currencies, nothing can be said."""
    movements = _movements(dispute)
    currencies = {word(movement.get("currency")) for movement in movements}
    if len(currencies) != 1:
        return None
    fee = sum(_whole(movement.get("fee")) for movement in movements)
    # A fee that is given back with the money, where that is so, ends at nothing.
    return _money(max(0, fee), currencies.pop())


def _movements(dispute: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    movements = dispute.get("balance_transactions")
    if not isinstance(movements, list):
        return []
    return [movement for movement in movements if isinstance(movement, dict)]


def _whole(number: object) -> int:
    return number if type(number) is int else 0


def _money(amount: object, currency: object) -> Money | None:
    code = word(currency)
    try:
        # A boolean is an `int` too, and JSON's `true` no amount.
        if type(amount) is int and code == code.lower():
            return Money(amount, code.upper())
    except InvalidInputError:
        return None
    return None
