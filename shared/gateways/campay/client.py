"""Calls Campay: prompt a phone, open a payment page, ask for a status.

A repeated `external_reference` is documented to give the first answer again, but that could not be
confirmed: a starting call is sent once, and a lost answer is searched for, never asked for again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import quote

from shared.clock import Clock
from shared.gateways.campay.listing import list_paid
from shared.gateways.campay.tokens import PermanentToken, RenewedToken, TokenRefusedError, Tokens
from shared.gateways.campay.transaction import (
    CURRENCY,
    TRANSACTION_ID,
    outcome_of,
    refused,
    text_of,
    transactions_of,
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
from shared.gateways.json_calls import JsonAnswer, JsonCalls
from shared.gateways.mobile_money import national_number, phone_refusal
from shared.gateways.pages import PageHosts
from shared.identifiers import as_uuid
from shared.money import MINOR_UNITS_MAX

#: No limits are documented beyond whole XAF; what is too little or too much Campay refuses.
AMOUNT_MIN: Final = 1

#: Pages live on the gateway's hosts, beside the configured one.
_OWN_DOMAIN: Final = "campay.net"

_COUNTRY: Final = "237"
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404

#: Campay rejects a call that holds something like a tag, whatever the customer meant by it.
_UNWELCOME: Final = re.compile(r"[^\w .,'()-]+")
_EMAIL: Final = re.compile(r"[\w.+%-]+@[\w.-]+")
_DESCRIPTION_LENGTH_MAX: Final = 100
_NAME_LENGTH_MAX: Final = 50

#: Cameroon is an hour ahead of UTC all year; in which zone the history counts days is unknown.
_ZONE_AHEAD: Final = timedelta(hours=1)


class CampayGateway:
    """One application at Campay.

    Args:
        credentials: A permanent token, or a user name and a password to get tokens with.
        timeout_seconds: Longest time of one call, the renewal of its token included.
        visible_after: How long after that a prompt that is not in the history does not exist.
            Neither when one gets there nor how long it can be answered is documented.
    """

    name = "campay"
    capabilities = Capabilities(
        methods=("prompt", "checkout"),
        limits={CURRENCY: Limits(AMOUNT_MIN, MINOR_UNITS_MAX)},
        lists_payments=True,
    )

    def __init__(
        self,
        client: HttpClient,
        *,
        base_url: str,
        public_url: str,
        credentials: str | tuple[str, str],
        timeout_seconds: float,
        visible_after: timedelta,
        clock: Clock,
    ) -> None:
        operations = ("token", "collect", "link", "status", "history")
        self._calls = JsonCalls(client, self.name, operations)
        self._tokens: Tokens = (
            PermanentToken(credentials)
            if isinstance(credentials, str)
            else RenewedToken(self._asking_with(*credentials), clock)
        )
        self._public_url = public_url
        self._pages = PageHosts(_OWN_DOMAIN, base_url, public_url)
        self._call_max = timedelta(seconds=timeout_seconds)
        self._visible_after = visible_after
        self._clock = clock

    def refusal(self, order: Order) -> Refusal | None:
        """Return which field Campay cannot take, or None."""
        return refusal_of(self.name, self.capabilities, order) or phone_refusal(order.method)

    async def start(self, order: Order) -> Outcome:
        """Prompt the phone or open a page. Sent once: a repetition may be a second debit."""
        refusal = self.refusal(order)
        if refusal is not None:
            return Declined(refusal.problem, FailureKind.CONFIGURATION, is_final=True)
        try:
            if isinstance(order.method, Prompt):
                answer = await self._call("collect", "/api/collect/", _prompt_fields(order))
            else:
                answer = await self._call(
                    "link", "/api/get_payment_link/", self._page_fields(order)
                )
            return self._started(answer, order)
        except TokenRefusedError:
            return _unauthorized()
        except HttpCallError as error:
            # Also of 403, 404, 409 and 429: none is documented to come before the work. If
            # nothing was done, the look-up finds that out; a false failure would let the
            # customer be asked for the money twice.
            return Unknown(error.reason, error.retry_after_seconds)

    async def look_up(self, order: Order) -> Outcome:
        """Ask by the handle, or search the history for our reference."""
        is_prompt = isinstance(order.method, Prompt)
        try:
            if order.handle is None:
                return await self._find(order, is_prompt=is_prompt)
            answer = await self._ask(order.handle)
            if answer.status == _NOT_FOUND and not is_prompt:
                # Said of a page before the payer acts. It is open all the same, so this is not
                # "not_attempted": another one must not be opened beside it.
                return Pending("page_unused", order.handle)
            return outcome_of(
                answer.fields(), order.reference, order.handle, is_failure_final=is_prompt
            )
        except TokenRefusedError:
            return Unknown("token_refused")
        except HttpCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)

    async def confirm(self, reference: str, handle: str) -> Outcome:
        """Ask for the status of the transaction that a notice names.

        A handle does not tell a page from a prompt, so no FAILED is final here; `look_up` with
        the order knows.
        """
        try:
            answer = await self._ask(handle)
            return outcome_of(answer.fields(), reference, handle, is_failure_final=False)
        except TokenRefusedError:
            return Unknown("token_refused")
        except HttpCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)

    async def cancel(self, order: Order) -> Outcome:
        """Do nothing: neither a prompt nor a page can be closed."""
        return Unknown("not_supported")

    async def refund(self, order: RefundOrder) -> RefundOutcome:
        """Refuse: there is no refund call; a withdrawal is another service with its own money."""
        return RefundFailed("not_supported")

    async def look_up_refund(self, order: RefundOrder) -> RefundOutcome:
        """Refuse, like `refund`."""
        return RefundFailed("not_supported")

    async def look_up_dispute(self, handle: str) -> DisputeOutcome:
        """Say that its protocol knows no disputes."""
        return Unknown("not_supported")

    async def list_paid(self, day: date, cursor: str | None = None) -> Listing:
        """Read the history around a day."""

        async def history(days: Mapping[str, str]) -> JsonAnswer:
            return await self._call("history", "/api/history/", days)

        return await list_paid(history, day, cursor, self._clock())

    async def close(self) -> None:
        """Close kept connections."""
        self._tokens.close()
        self._calls.close()

    def _started(self, answer: JsonAnswer, order: Order) -> Outcome:
        is_object = answer.is_success and isinstance(answer.content, dict)
        fields = answer.content if is_object else {}
        handle = text_of(fields, "reference")
        if TRANSACTION_ID.fullmatch(handle) is None:
            return _not_started(answer)
        if isinstance(order.method, Prompt):
            return Pending("prompted", handle)
        url = text_of(fields, "link")
        if not self._pages.has(url):
            return Unknown("page_on_foreign_host" if url else "no_page")
        return ActionRequired("open_page", url, handle)

    async def _find(self, order: Order, *, is_prompt: bool) -> Outcome:
        """Search the history, which knows no `external_reference`, for our description.

        Rows only say which transaction to read. That there is none proves nothing about a prompt
        for a while: whether one that still waits for the customer is listed is not documented. A
        page that is not listed may exist, but nobody can pay there: its address was lost.
        """
        now = self._clock()
        started_on = order.started_at.date()
        # No day that has not begun where the gateway is: it may refuse one.
        last = min(started_on + timedelta(days=1), (now + _ZONE_AHEAD).date())
        days = {
            "start_date": (started_on - timedelta(days=1)).isoformat(),
            "end_date": last.isoformat(),
        }
        answer = await self._call("history", "/api/history/", days)
        statuses = transactions_of(answer.fields(), order.reference)
        if not statuses:
            certain_after = self._call_max + (self._visible_after if is_prompt else timedelta(0))
            is_early = now - order.started_at < certain_after
            return Unknown("not_visible_yet") if is_early else Pending("not_attempted")
        paid = [handle for handle, status in statuses.items() if status == "SUCCESSFUL"]
        live = [handle for handle, status in statuses.items() if status != "FAILED"]
        handle = next(iter([*paid, *live, *statuses]))
        found = await self._ask(handle)
        outcome = outcome_of(found.fields(), order.reference, handle, is_failure_final=is_prompt)
        if isinstance(outcome, Paid):
            return replace(outcome, is_repeated=len(paid) > 1)
        if isinstance(outcome, Declined):
            return replace(outcome, is_final=outcome.is_final and not {*live} - {handle})
        return outcome

    async def _ask(self, handle: str) -> JsonAnswer:
        if TRANSACTION_ID.fullmatch(handle) is None:
            raise HttpCallError("not_a_handle")
        return await self._call("status", f"/api/transaction/{handle}/")

    async def _call(
        self, operation: str, target: str, fields: Mapping[str, Any] | None = None
    ) -> JsonAnswer:
        """Call with a token; after a 401 once more with another.

        That is safe for a starting call too, because a 401 comes before any work. One time-out
        bounds it all, the renewal of a token included.

        Raises:
            TokenRefusedError: no token for our credentials; the call was not carried out.
            HttpCallError: no complete answer in time; the call may have been carried out.
        """
        try:
            async with asyncio.timeout(self._call_max.total_seconds()):
                token = await self._tokens.current()
                answer = await self._send(operation, target, fields, token)
                if answer.status == _UNAUTHORIZED:
                    other = await self._tokens.replaced(token)
                    if other is not None:
                        answer = await self._send(operation, target, fields, other)
                return answer
        except TimeoutError:
            raise HttpCallError("timeout") from None

    async def _send(
        self, operation: str, target: str, fields: Mapping[str, Any] | None, token: str
    ) -> JsonAnswer:
        headers = {"Authorization": f"Token {token}"}
        if fields is None:
            return await self._calls.get(operation, target, headers)
        return await self._calls.post(operation, target, fields, headers)

    def _asking_with(self, username: str, password: str) -> Callable[[], Awaitable[JsonAnswer]]:
        async def ask() -> JsonAnswer:
            fields = {"username": username, "password": password}
            return await self._calls.post("token", "/api/token/", fields, {})

        return ask

    def _page_fields(self, order: Order) -> dict[str, Any]:
        back = f"{self._public_url}/return/{self.name}/{quote(order.reference)}"
        first, _, last = _plain(order.customer.name, _NAME_LENGTH_MAX).partition(" ")
        number = national_number(order.customer.phone)
        known = {
            "from": f"{_COUNTRY}{number}" if number else "",
            "first_name": first,
            "last_name": last,
            "email": order.customer.email if _EMAIL.fullmatch(order.customer.email) else "",
        }
        return {
            **_order_fields(order),
            "redirect_url": f"{back}/success",
            "failure_redirect_url": f"{back}/fail",
            "payment_options": "MOMO,CARD",
            **{name: value for name, value in known.items() if value},
        }


def _unauthorized() -> Declined:
    """Say that our credentials are wrong: nothing was done, and nothing will be."""
    return Declined("credentials refused", FailureKind.CONFIGURATION, is_final=True)


def _not_started(answer: JsonAnswer) -> Declined | Unknown:
    """Read an answer that names no transaction.

    Raises:
        HttpCallError: it says nothing that could be relied on.
    """
    refusal = _unauthorized() if answer.status == _UNAUTHORIZED else refused(answer)
    if refusal is not None:
        return refusal
    answer.fields()
    return Unknown("no_reference")


def _plain(text: str, length_max: int) -> str:
    return _UNWELCOME.sub(" ", text)[:length_max].strip()


def _order_fields(order: Order) -> dict[str, Any]:
    # Our reference comes first in the description: the history shows no other name of ours, and
    # may cut the text.
    description = f"{order.reference} {order.product_name}"
    return {
        "amount": order.amount.decimal_text(),
        "currency": order.amount.currency,
        "description": _plain(description, _DESCRIPTION_LENGTH_MAX),
        "external_reference": as_uuid(order.reference),
    }


def _prompt_fields(order: Order) -> dict[str, Any]:
    assert isinstance(order.method, Prompt)
    number = national_number(order.method.phone)
    return {"from": f"{_COUNTRY}{number}", **_order_fields(order)}
