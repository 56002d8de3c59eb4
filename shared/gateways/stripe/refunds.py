"""Asks Stripe to give money back, and reads what it says of that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from shared.clock import Clock
from shared.gateways.interface import (
    Refunded,
    RefundFailed,
    RefundOrder,
    RefundOutcome,
    RefundPending,
    Unknown,
)
from shared.gateways.stripe.calls import StripeCalls
from shared.gateways.stripe.declines import word
from shared.gateways.stripe.errors import (
    KeyReusedError,
    RequestRefusedError,
    StripeCallError,
)
from shared.gateways.stripe.intents import REFERENCE_MEMBER, is_intent_id, own_reference
from shared.gateways.stripe.key_age import may_be_known, may_be_repeated

if TYPE_CHECKING:
    from stripe.params import RefundCreateParams

log = structlog.get_logger()

#: The member of a refund's `metadata` that names the payment it gives back.
PAYMENT_REFERENCE_MEMBER: Final = "payment_reference"

#: Refunds of one intent that are looked through; a payment has a few.
_LISTED_MAX: Final = 100

_REFUND_ID: Final = re.compile(r"(?:re|pyr)_[A-Za-z0-9_]{1,97}")


class StripeRefunds:
    """The refunds of one account."""

    def __init__(self, calls: StripeCalls, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock

    async def refund(self, order: RefundOrder) -> RefundOutcome:
        """Give money back; repeated with the same reference it is the same refund.

        Stripe forgets our key after a day, so from then on a refund is only looked for.
        """
        if not is_intent_id(order.gateway_payment_id):
            return RefundFailed("no_intent_id")
        if not may_be_repeated(order.started_at, self._clock()):
            return await self._find(order, "not_found")
        try:
            refund = await self._calls.refund(_parameters(order), order.reference)
        except RequestRefusedError as error:
            # Refused before anything was stored, or stored as refused: it is the same each time.
            return RefundFailed(error.reason)
        except KeyReusedError as error:
            log.error("stripe_idempotency_key_reused", reference=order.reference)
            return await self._find(order, error.reason)
        except StripeCallError as error:
            return await self._after(error, order)
        return read_refund(refund, order)

    async def look_up_refund(self, order: RefundOrder) -> RefundOutcome:
        """Ask what became of a refund; without its id the same call is made again."""
        if order.handle is None:
            outcome = await self.refund(order)
            # A repeated call gets the first answer again, however old it is.
            handle = outcome.handle if isinstance(outcome, RefundPending) else None
            return outcome if handle is None else await self._retrieve(order, handle)
        return await self._retrieve(order, order.handle)

    async def _retrieve(self, order: RefundOrder, handle: str) -> RefundOutcome:
        if _REFUND_ID.fullmatch(handle) is None:
            return Unknown("no_refund_id")
        try:
            refund = await self._calls.retrieve_refund(handle)
        except StripeCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)
        return read_refund(refund, order)

    async def _after(self, error: StripeCallError, order: RefundOrder) -> RefundOutcome:
        """Look at the list when the same call would fail alike for a day."""
        return (
            await self._find(order, error.reason)
            if error.is_lasting
            else Unknown(error.reason, error.retry_after_seconds)
        )

    async def _find(self, order: RefundOrder, doubt: str) -> RefundOutcome:
        """Look for a refund by our reference; what is not there after a day never will be."""
        try:
            page = await self._calls.list_refunds(order.gateway_payment_id, _LISTED_MAX)
        except StripeCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)
        refunds = page.get("data")
        if not isinstance(refunds, list) or page.get("has_more") is not False:
            return Unknown("unreadable_list")
        for refund in refunds:
            if isinstance(refund, dict) and own_reference(refund) == order.reference:
                return read_refund(refund, order)
        if may_be_known(order.started_at, self._clock()):
            return Unknown(doubt)
        return RefundFailed("never_reached_stripe")


def _parameters(order: RefundOrder) -> RefundCreateParams:
    """Build the parameters from the record alone: with the same key they must be the same.

    The reason is for our own books: Stripe knows only three, and free text may name a person.
    """
    return {
        "payment_intent": order.gateway_payment_id,
        "amount": order.amount.minor_units,
        "metadata": {
            REFERENCE_MEMBER: order.reference,
            PAYMENT_REFERENCE_MEMBER: order.payment_reference,
        },
    }


def read_refund(refund: Mapping[str, Any], order: RefundOrder) -> RefundOutcome:
    """Return what became of an order to give money back; all that identifies it must be exact."""
    handle = word(refund.get("id"))
    if refund.get("object") != "refund" or _REFUND_ID.fullmatch(handle) is None:
        return Unknown("unreadable_answer")
    if own_reference(refund) != order.reference:
        return Unknown("reference_differs")
    if refund.get("payment_intent") != order.gateway_payment_id:
        return Unknown("payment_differs")
    amount, currency = refund.get("amount"), word(refund.get("currency"))
    if type(amount) is not int or (amount, currency) != (
        order.amount.minor_units,
        order.amount.currency.lower(),
    ):
        return Unknown("amount_differs")
    return _by_status(refund, handle)


def _by_status(refund: Mapping[str, Any], handle: str) -> RefundOutcome:
    status = word(refund.get("status"))
    if status == "succeeded":
        return Refunded(handle)
    if status in {"pending", "requires_action"}:
        return RefundPending(status, handle)
    if status in {"failed", "canceled"}:
        # Also possible after it had succeeded: the bank sends the money back.
        return RefundFailed(word(refund.get("failure_reason")) or status)
    return Unknown("unknown_status")
