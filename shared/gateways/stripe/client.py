"""Calls Stripe: charge a card on or off session, look it up, cancel it, give money back.

One order is one PaymentIntent, created and confirmed in one call whose idempotency key is our
reference. Stripe learns amounts and ids from us, and nothing about the customer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import structlog

from shared.gateways.interface import (
    ActionRequired,
    Card,
    Declined,
    DisputeOutcome,
    FailureKind,
    Listing,
    Order,
    Outcome,
    Paid,
    Pending,
    RefundOrder,
    RefundOutcome,
    Refusal,
    Unknown,
    refusal_of,
)
from shared.gateways.pages import PageHosts
from shared.gateways.registration import Surroundings
from shared.gateways.stripe.calls import GATEWAY, StripeCalls
from shared.gateways.stripe.capabilities import CAPABILITIES
from shared.gateways.stripe.declines import NOT_FOR_CUSTOMERS, read_decline
from shared.gateways.stripe.disputes import StripeDisputes
from shared.gateways.stripe.errors import (
    AccessRefusedError,
    CardDeclinedError,
    KeyReusedError,
    RateLimitedError,
    RequestRefusedError,
    StripeCallError,
)
from shared.gateways.stripe.intents import (
    REFERENCE_MEMBER,
    IntentReader,
    is_intent_id,
    own_reference,
)
from shared.gateways.stripe.key_age import KNOWN_AFTER, may_be_known, may_be_repeated
from shared.gateways.stripe.listing import CLOCKS_DIFFER, PAGE_SIZE, list_paid, page_of
from shared.gateways.stripe.refunds import StripeRefunds
from shared.gateways.stripe.transport import StripeTransport

if TYPE_CHECKING:
    from stripe.params import PaymentIntentCreateParams, PaymentIntentListParams

log = structlog.get_logger()

#: Customers authenticate at hooks.stripe.com; other ways of paying redirect to its siblings.
PAGE_DOMAIN: Final = "stripe.com"

_PAYMENT_METHOD: Final = re.compile(r"(?:pm|card|src)_[A-Za-z0-9_]{1,200}")
_CUSTOMER: Final = re.compile(r"cus_[A-Za-z0-9_]{1,200}")

#: Pages of intents of one customer around an order that are looked through.
_PAGES_MAX: Final = 10


class StripeGateway:
    """One account at Stripe, live or test."""

    name = GATEWAY
    capabilities = CAPABILITIES

    def __init__(
        self, surroundings: Surroundings, *, base_url: str, secret_key: str, is_live: bool
    ) -> None:
        self._public_url = surroundings.public_url.rstrip("/")
        self._clock = surroundings.clock
        transport = StripeTransport(
            timeout_seconds=surroundings.timeout_seconds,
            connections_max=surroundings.calls_max,
        )
        self._calls = StripeCalls(transport, base_url=base_url, secret_key=secret_key)
        self._reader = IntentReader(is_live, PageHosts(PAGE_DOMAIN, base_url, self._public_url))
        self._refunds = StripeRefunds(self._calls, self._clock)
        self._disputes = StripeDisputes(self._calls, is_live=is_live)

    def refusal(self, order: Order) -> Refusal | None:
        """Return which field of an order Stripe cannot take, or None. No I/O."""
        refusal = refusal_of(self.name, self.capabilities, order)
        if refusal is not None:
            return refusal
        assert isinstance(order.method, Card)  # The only method of the capabilities.
        if _PAYMENT_METHOD.fullmatch(order.method.payment_method) is None:
            return Refusal("method.paymentMethod", "must be an id of Stripe: pm_…")
        customer = order.method.gateway_customer
        if customer is not None and _CUSTOMER.fullmatch(customer) is None:
            return Refusal("method.gatewayCustomer", "must be an id of Stripe: cus_…")
        return None

    async def start(self, order: Order) -> Outcome:
        """Create and confirm the intent.

        What Stripe refuses to carry out has not happened: without access, over the rate, or with
        parameters it does not take. That is known here and not in `look_up`, because this is the
        first call.
        """
        try:
            return await self._charge(order)
        except AccessRefusedError as error:
            log.error("stripe_access_refused", reason=error.reason)
            return Declined(error.reason, FailureKind.CONFIGURATION, is_final=True)
        except RateLimitedError as error:
            return Declined(
                error.reason,
                FailureKind.RATE_LIMIT_EXCEEDED,
                is_final=True,
                retry_after_seconds=error.retry_after_seconds,
            )
        except StripeCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)

    async def look_up(self, order: Order) -> Outcome:
        """Ask what became of an order: by its intent, else by the same call, else by metadata."""
        if order.handle is not None:
            return await self._retrieve(order.reference, order.handle)
        try:
            outcome = await self._charge(order)
        except StripeCallError as error:
            if not error.is_lasting:
                return Unknown(error.reason, error.retry_after_seconds)
            return await self._find(order, error.reason)
        if isinstance(outcome, (Paid, Declined, Unknown)) or outcome.handle is None:
            return outcome
        # A repeated call gets the first answer again, however old it is.
        return await self._retrieve(order.reference, outcome.handle)

    async def confirm(self, reference: str, handle: str) -> Outcome:
        """Retrieve the intent that a notice names."""
        return await self._retrieve(reference, handle)

    async def cancel(self, order: Order) -> Outcome:
        """Cancel the intent and return what became of it.

        Without its id it is only looked for: the call that would tell the id might also charge.
        """
        handle = order.handle
        if handle is None:
            found = await self._find(order, "not_found")
            if not isinstance(found, (Pending, ActionRequired)) or found.handle is None:
                return found
            handle = found.handle
        if not is_intent_id(handle):
            return Unknown("no_intent_id")
        try:
            intent = await self._calls.cancel(handle)
        except RequestRefusedError:
            # It is succeeded, cancelled already, or in a state that cannot be cancelled.
            return await self._retrieve(order.reference, handle)
        except StripeCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)
        return self._reader.read(intent, order.reference)

    async def refund(self, order: RefundOrder) -> RefundOutcome:
        """Give money back; repeated with the same reference it is the same refund."""
        return await self._refunds.refund(order)

    async def look_up_refund(self, order: RefundOrder) -> RefundOutcome:
        """Ask what became of a refund."""
        return await self._refunds.look_up_refund(order)

    async def look_up_dispute(self, handle: str) -> DisputeOutcome:
        """Ask how a dispute stands."""
        return await self._disputes.look_up(handle)

    async def list_paid(self, day: date, cursor: str | None = None) -> Listing:
        """List the intents of a day that took money."""
        return await list_paid(self._calls, self._reader, day, cursor)

    async def close(self) -> None:
        """Close kept connections."""
        await self._calls.close()

    async def _charge(self, order: Order) -> Outcome:
        """Make the call that charges, or charges no second time; never after 23 hours.

        Raises:
            StripeCallError: it has no result.
        """
        if not may_be_repeated(order.started_at, self._clock()):
            return await self._find(order, "not_found")
        try:
            intent = await self._calls.charge(self._parameters(order), order.reference)
        except CardDeclinedError as error:
            return self._declined(error.error, order.reference)
        except RequestRefusedError as error:
            # Refused before anything was stored, or stored as refused: it is the same each time.
            log.error("stripe_request_refused", reason=error.reason, reference=order.reference)
            return Declined(error.reason, FailureKind.CONFIGURATION, is_final=True)
        except KeyReusedError:
            log.error("stripe_idempotency_key_reused", reference=order.reference)
            raise
        return self._reader.read(intent, order.reference)

    def _declined(self, error: Mapping[str, Any], reference: str) -> Outcome:
        code = read_decline(error).code
        if code in NOT_FOR_CUSTOMERS:
            # The outcome says something harmless; operators may know, also from the Dashboard.
            log.info("stripe_decline_not_shown", reference=reference, code=code)
        return self._reader.read_decline(error, reference)

    async def _retrieve(self, reference: str, handle: str) -> Outcome:
        if not is_intent_id(handle):
            return Unknown("no_intent_id")
        try:
            intent = await self._calls.retrieve(handle)
        except StripeCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)
        return self._reader.read(intent, reference)

    async def _find(self, order: Order, doubt: str) -> Outcome:
        """Look for an order by its metadata; what is not there after a day never will be.

        Until then its absence means nothing, and the outcome is `Unknown(doubt)`.
        """
        try:
            intents = await self._intents_of(order)
        except StripeCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)
        if intents:
            return self._reader.read_all(intents, order.reference)
        if may_be_known(order.started_at, self._clock()):
            return Unknown(doubt)
        return Declined("never_reached_stripe", FailureKind.NETWORK_ERROR, is_final=True)

    async def _intents_of(self, order: Order) -> list[Mapping[str, Any]]:
        """Return the intents with our reference: of the customer, else by search.

        A customer's list is complete at once. Search may be a minute late, and accounts in India
        do not have it; but all intents of a busy account would be too many to list.
        """
        customer = order.method.gateway_customer if isinstance(order.method, Card) else None
        if customer is None:
            name = order.reference.replace("\\", "\\\\").replace("'", "\\'")
            query = f"metadata['{REFERENCE_MEMBER}']:'{name}'"
            page = await self._calls.search_intents(query, PAGE_SIZE)
            return _with_reference(page_of(page)[0], order.reference)
        found: list[Mapping[str, Any]] = []
        parameters: PaymentIntentListParams = {
            "customer": customer,
            "created": {
                "gte": int((order.started_at - CLOCKS_DIFFER).timestamp()),
                "lte": int((order.started_at + KNOWN_AFTER + CLOCKS_DIFFER).timestamp()),
            },
            "limit": PAGE_SIZE,
        }
        for _ in range(_PAGES_MAX):
            intents, last_id = page_of(await self._calls.list_intents(parameters))
            found += _with_reference(intents, order.reference)
            if last_id is None:
                return found
            parameters["starting_after"] = last_id
        raise StripeCallError("too_many_intents")

    def _parameters(self, order: Order) -> PaymentIntentCreateParams:
        """Build the parameters from the record alone: with the same key they must be the same."""
        assert isinstance(order.method, Card)  # Anything else is refused up front.
        parameters: PaymentIntentCreateParams = {
            "amount": order.amount.minor_units,
            "currency": order.amount.currency.lower(),
            "confirm": True,
            "metadata": {REFERENCE_MEMBER: order.reference},
            "payment_method": order.method.payment_method,
            # Off session too: without it Stripe refuses the call when the account's settings allow
            # any method that redirects.
            "return_url": f"{self._public_url}/return/{self.name}/{order.reference}/back",
        }
        if order.method.gateway_customer is not None:
            parameters["customer"] = order.method.gateway_customer
        if order.method.off_session:
            parameters["off_session"] = True
        return parameters


def _with_reference(intents: list[Mapping[str, Any]], reference: str) -> list[Mapping[str, Any]]:
    return [intent for intent in intents if own_reference(intent) == reference]
