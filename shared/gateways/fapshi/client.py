"""Calls Fapshi: open a payment page, prompt a phone, ask for a status, close a page.

Fapshi knows no idempotency key, and `externalId` is a label that may come twice: a starting call
is never repeated before the customer's transactions were searched for our reference.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

from shared.clock import Clock
from shared.gateways.fapshi.listing import SEARCH_MAX, list_paid
from shared.gateways.fapshi.transaction import (
    CURRENCY,
    TRANSACTION_ID,
    may_still_be_paid,
    most_telling,
    of_reference,
    outcome_of,
    several,
    single,
)
from shared.gateways.http_client import HttpCallError, HttpClient
from shared.gateways.interface import (
    ActionRequired,
    Capabilities,
    Declined,
    DisputeOutcome,
    FailureKind,
    Limits,
    Listing,
    Order,
    Outcome,
    Paid,
    Pending,
    Prompt,
    RefundFailed,
    RefundOrder,
    RefundOutcome,
    Refusal,
    Unknown,
    refusal_of,
)
from shared.gateways.json_calls import JsonAnswer, JsonCalls, text_in
from shared.gateways.mobile_money import (
    kind_in,
    national_number,
    phone_refusal,
    plain_reason,
)
from shared.gateways.pages import PageHosts
from shared.money import MINOR_UNITS_MAX

#: Least amount of one payment, in XAF (docs.fapshi.com). A most is not documented: above it
#: Fapshi refuses the call.
AMOUNT_MIN: Final = 100

#: Pages live on the gateway's hosts, beside the configured one.
_OWN_DOMAIN: Final = "fapshi.com"

_USER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_HASHED_USER_ID: Final = re.compile(r"h-[0-9a-f]{64}")

#: Statuses by which Fapshi itself refuses a call before doing anything: bad input; credentials
#: (its Python SDK knows 401 too), an address not white-listed, a service not enabled.
_BAD_INPUT: Final = 400
_REFUSALS: Final = frozenset({_BAD_INPUT, 401, 403})
_NOT_FOUND: Final = 404

#: What `/search` tells unless asked for more. Whether a customer's listing is cut anywhere is not
#: documented; one of such a length may be.
_PAGE: Final = 10

_MESSAGE_LENGTH_MAX: Final = 100


class FapshiGateway:
    """One service (account) at Fapshi.

    Args:
        certain_after: Age from which an order is no longer on its way, and a transaction that is
            not listed does not exist. Whether a new one is listed at once is not documented.
    """

    name = "fapshi"
    capabilities = Capabilities(
        methods=("checkout", "prompt"),
        limits={CURRENCY: Limits(AMOUNT_MIN, MINOR_UNITS_MAX)},
        cancels=True,
        lists_payments=True,
    )

    def __init__(
        self,
        client: HttpClient,
        *,
        base_url: str,
        public_url: str,
        api_user: str,
        api_key: str,
        certain_after: timedelta,
        clock: Clock,
    ) -> None:
        self._calls = JsonCalls(
            client, self.name, ("initiate", "direct", "status", "listing", "search", "expire")
        )
        self._headers = {"apiuser": api_user, "apikey": api_key}
        self._public_url = public_url
        self._pages = PageHosts(_OWN_DOMAIN, base_url, public_url)
        self._certain_after = certain_after
        self._clock = clock

    def refusal(self, order: Order) -> Refusal | None:
        """Return which field Fapshi cannot take, or None."""
        return refusal_of(self.name, self.capabilities, order) or phone_refusal(order.method)

    async def start(self, order: Order) -> Outcome:
        """Open a page or prompt the phone. Sent once: a repetition may be a second debit."""
        refusal = self.refusal(order)
        if refusal is not None:
            return Declined(refusal.problem, FailureKind.CONFIGURATION, is_final=True)
        try:
            if isinstance(order.method, Prompt):
                answer = await self._post("direct", "/direct-pay", _prompt_fields(order))
            else:
                answer = await self._post("initiate", "/initiate-pay", self._page_fields(order))
            return _refused(answer, order) or self._started(answer.fields(), order)
        except HttpCallError as error:
            # Also of 404, 409 and 429, and of a refusal that does not read as Fapshi's own: none
            # is documented to come before the work. If nothing was done, the look-up finds that
            # out; a false failure would let the customer be asked for the money twice.
            return Unknown(error.reason, error.retry_after_seconds)

    async def look_up(self, order: Order) -> Outcome:
        """Ask by the handle, or search the customer's transactions for our reference.

        A page whose address was lost with the answer is closed, and then it was "not_attempted":
        nobody can have been sent there, and a new one may be opened.
        """
        is_prompt = isinstance(order.method, Prompt)
        try:
            if order.handle is not None:
                return await self._status(order.reference, order.handle, is_prompt=is_prompt)
            listing = await self._listing(order)
            statuses = of_reference(listing, order.reference)
            if statuses:
                return await self._decide(order, statuses)
            return await self._absent(order, listing)
        except HttpCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)

    async def confirm(self, reference: str, handle: str) -> Outcome:
        """Ask for the status of the transaction that a notice names.

        A handle does not tell a page from a prompt, so no FAILED is final here; `look_up` with
        the order knows.
        """
        try:
            return await self._status(reference, handle, is_prompt=False)
        except HttpCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)

    async def cancel(self, order: Order) -> Outcome:
        """Expire a page and read it again. A prompt cannot be called back: it is only asked."""
        if isinstance(order.method, Prompt):
            return await self.look_up(order)
        handle = order.handle
        if handle is None:
            found = await self.look_up(order)
            handle = found.handle if isinstance(found, (Pending, Declined)) else None
            if handle is None or (isinstance(found, Declined) and found.is_final):
                return found
        await self._expire(handle)
        return await self.look_up(replace(order, handle=handle))

    async def refund(self, order: RefundOrder) -> RefundOutcome:
        """Refuse: there is no refund call; a payout is another service with its own money."""
        return RefundFailed("not_supported")

    async def look_up_refund(self, order: RefundOrder) -> RefundOutcome:
        """Refuse, like `refund`."""
        return RefundFailed("not_supported")

    async def look_up_dispute(self, handle: str) -> DisputeOutcome:
        """Say that its protocol knows no disputes."""
        return Unknown("not_supported")

    async def list_paid(self, day: date, cursor: str | None = None) -> Listing:
        """Search for what was paid around a day; of a busy one not all is told."""

        async def search(target: str) -> JsonAnswer:
            return await self._get("search", target)

        return await list_paid(search, day, cursor, self._clock())

    async def close(self) -> None:
        """Close kept connections."""
        self._calls.close()

    def _started(self, fields: Mapping[str, Any], order: Order) -> Outcome:
        handle = text_in(fields, "transId")
        if TRANSACTION_ID.fullmatch(handle) is None:
            return Unknown("no_transaction_id")
        if isinstance(order.method, Prompt):
            return Pending("prompted", handle)
        url = text_in(fields, "link")
        if not self._pages.has(url):
            return Unknown("page_on_foreign_host" if url else "no_page")
        return ActionRequired("open_page", url, handle)

    async def _status(self, reference: str, handle: str, *, is_prompt: bool) -> Outcome:
        if TRANSACTION_ID.fullmatch(handle) is None:
            return Unknown("not_a_handle")
        answer = await self._get("status", f"/payment-status/{handle}")
        return outcome_of(single(answer.said()), reference, handle, is_failure_final=is_prompt)

    async def _listing(self, order: Order) -> Sequence[Mapping[str, Any]]:
        answer = await self._get("listing", f"/transaction/{user_id(order.customer.id)}")
        if answer.status == _NOT_FOUND and _message(answer):
            return ()  # Fapshi itself knows no transaction of this customer.
        return several(answer.said())

    async def _decide(self, order: Order, statuses: Mapping[str, str]) -> Outcome:
        """Read the transaction that decides; the listing only says which one that is."""
        is_prompt = isinstance(order.method, Prompt)
        handle = most_telling(statuses)
        others = (status for other, status in statuses.items() if other != handle)
        has_live = any(may_still_be_paid(status, is_prompt=is_prompt) for status in others)
        if statuses[handle] == "CREATED" and not (is_prompt or has_live):
            return await self._close_lost_page(order, handle)
        outcome = await self._status(order.reference, handle, is_prompt=is_prompt)
        if isinstance(outcome, Paid):
            paid = [status for status in statuses.values() if status == "SUCCESSFUL"]
            return replace(outcome, is_repeated=len(paid) > 1)
        if isinstance(outcome, Declined):
            return replace(outcome, is_final=outcome.is_final and not has_live)
        return outcome

    async def _close_lost_page(self, order: Order, handle: str) -> Outcome:
        if self._is_early(order):
            return Unknown("page_unknown")  # Its address may just be on the way to the customer.
        await self._expire(handle)
        outcome = await self._status(order.reference, handle, is_prompt=False)
        if isinstance(outcome, Declined) and outcome.is_final:
            return Pending("not_attempted")
        # Still open, so it is neither the customer's nor out of the way: ask again.
        return Unknown("page_unknown") if outcome == Pending("gateway_created", handle) else outcome

    async def _expire(self, handle: str) -> None:
        """Close a page. It may be closed, paid meanwhile, or not heard: reading it again tells."""
        with suppress(HttpCallError):
            await self._post("expire", "/expire-pay", {"transId": handle})

    def _is_early(self, order: Order) -> bool:
        return self._clock() - order.started_at < self._certain_after

    async def _absent(self, order: Order, listing: Sequence[Mapping[str, Any]]) -> Outcome:
        if self._is_early(order):
            return Unknown("not_visible_yet")
        if listing and len(listing) % _PAGE == 0:
            # It may be the first page of more, in an order we do not know: search by day and
            # amount as well, which is a short list.
            found = several((await self._get("search", _search_target(order))).said())
            statuses = of_reference(found, order.reference)
            if statuses:
                return await self._decide(order, statuses)
            if len(found) >= SEARCH_MAX:
                return Unknown("listing_may_be_cut")
        return Pending("not_attempted")

    async def _get(self, operation: str, target: str) -> JsonAnswer:
        return await self._calls.get(operation, target, self._headers)

    async def _post(self, operation: str, target: str, fields: Mapping[str, Any]) -> JsonAnswer:
        return await self._calls.post(operation, target, fields, self._headers)

    def _page_fields(self, order: Order) -> dict[str, Any]:
        back = f"{self._public_url}/return/{self.name}/{quote(order.reference)}/back"
        return {"redirectUrl": back, **_order_fields(order)}


def user_id(customer_id: str) -> str:
    """Write a customer's id in the alphabet of `userId`; two customers never share one.

    An id that does not fit becomes its digest, and so does one that looks like a digest.
    """
    if _USER_ID.fullmatch(customer_id) and not _HASHED_USER_ID.fullmatch(customer_id):
        return customer_id
    return f"h-{hashlib.sha256(customer_id.encode()).hexdigest()}"


def _order_fields(order: Order) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "amount": order.amount.minor_units,
        "userId": user_id(order.customer.id),
        "externalId": order.reference,
        "message": order.product_name[:_MESSAGE_LENGTH_MAX],
    }
    if order.customer.email:
        fields["email"] = order.customer.email
    return fields


def _prompt_fields(order: Order) -> dict[str, Any]:
    assert isinstance(order.method, Prompt)
    # `medium` is left out: Fapshi detects the operator, who may have changed with the number kept.
    fields = {"phone": national_number(order.method.phone), **_order_fields(order)}
    if order.customer.name:
        fields["name"] = order.customer.name
    return fields


def _search_target(order: Order) -> str:
    day = timedelta(days=1)  # The zone of the gateway's days is not documented.
    query = {
        "start": (order.started_at - day).date().isoformat(),
        "end": (order.started_at + day).date().isoformat(),
        "amt": str(order.amount.minor_units),
        "limit": str(SEARCH_MAX),
    }
    return f"/search?{urlencode(query)}"


def _message(answer: JsonAnswer) -> str:
    """Return what Fapshi itself says in an error; empty when the answer is not its own."""
    return text_in(answer.content, "message") if isinstance(answer.content, dict) else ""


def _refused(answer: JsonAnswer, order: Order) -> Declined | None:
    """Read a definite refusal of a starting call; one by a proxy on the way is none."""
    words = _message(answer)
    if answer.status not in _REFUSALS or not words:
        return None
    phone = order.method.phone if isinstance(order.method, Prompt) else ""
    hidden = (order.customer.name, order.customer.email, order.customer.phone, phone)
    kind = FailureKind.CONFIGURATION
    if answer.status == _BAD_INPUT:
        kind = kind_in(words, otherwise=kind)  # Of a phone number the customer can find another.
    return Declined(plain_reason(words, f"http_{answer.status}", hidden), kind, is_final=True)
