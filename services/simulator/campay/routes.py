"""HTTP of Campay: the merchant's calls, and the pages and phones that customers see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final
from uuid import UUID

import orjson
from aiohttp import web

from services.simulator import faults, pages
from services.simulator.campay import answers, customers, handlers, store
from services.simulator.campay.domain import NAME, Kind, Operation, State, Transaction
from services.simulator.campay.payment_request import read_members
from services.simulator.campay.runtime import Runtime
from services.simulator.core import Treatment
from services.simulator.faults import Reply
from services.simulator.mobile_money import CURRENCY, PLAIN, scenario_of
from shared.errors import ConflictError, NotFoundError
from shared.web.routes import Route, json_response, read_body

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: What the buttons of a link's page and of a phone do.
LINK_BUTTONS: Final[Mapping[str, str]] = MappingProxyType({"pay": "paid", "decline": "declined"})
PHONE_BUTTONS: Final[Mapping[str, str]] = MappingProxyType(
    {"confirm": "paid", "refuse": "cancelled"}
)

#: What the customer reads afterwards.
_VERDICTS: Final[Mapping[State, str]] = MappingProxyType(
    {
        State.CREATED: "Nothing has happened yet",
        State.PENDING: "The payment is being processed",
        State.SUCCESSFUL: "Payment received",
        State.FAILED: "Payment failed",
    }
)


def protocol_routes(runtime: Runtime) -> list[Route]:
    """Return the routes of the protocol; none needs a key of ours."""
    merchant, customer = _Merchant(runtime), _Customer(runtime)
    calls: list[tuple[str, str, Handler]] = [
        ("POST", "/campay/api/token", merchant.token),
        ("POST", "/campay/api/collect", merchant.guarded(partial(merchant.start, Kind.COLLECT))),
        (
            "POST",
            "/campay/api/get_payment_link",
            merchant.guarded(partial(merchant.start, Kind.LINK)),
        ),
        ("POST", "/campay/api/withdraw", merchant.guarded(partial(merchant.start, Kind.WITHDRAW))),
        ("GET", "/campay/api/transaction/{reference}", merchant.guarded(merchant.status)),
        ("POST", "/campay/api/history", merchant.guarded(merchant.history)),
        ("GET", "/campay/api/balance", merchant.guarded(merchant.balance)),
    ]
    return [
        *(Route(method, f"{path}/", handler) for method, path, handler in calls),
        # Every path ends with a slash; one without leads there, and a body is lost on the way.
        *(Route(method, path, _redirect) for method, path, _ in calls),
        Route("GET", "/campay/pay/{link_key}/", customer.see_link),
        Route("POST", "/campay/pay/{link_key}/{action}/", customer.use_link),
        Route("GET", "/campay/phone/{reference}/", customer.see_phone),
        Route("POST", "/campay/phone/{reference}/{action}/", customer.use_phone),
    ]


async def _redirect(request: web.Request) -> web.StreamResponse:
    return web.Response(status=301, headers={"Location": f"{request.rel_url.path}/"})


class _Merchant:
    """The calls that a merchant's server makes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def guarded(self, work: Handler) -> Handler:
        """Check the token of a call first."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if not self._runtime.admits(request.headers.get("Authorization", "")):
                reply = handlers.unauthorized()
                return json_response(orjson.dumps(reply.data), status=reply.status)
            return await work(request)

        return handle

    async def token(self, request: web.Request) -> web.StreamResponse:
        members = read_members(await read_body(request))
        treatment = await self._treatment(Operation.TOKEN)
        return await faults.answer(
            request, treatment, lambda: handlers.token(self._runtime, members)
        )

    async def start(self, kind: Kind, request: web.Request) -> web.StreamResponse:
        members = read_members(await read_body(request))
        treatment = await handlers.start_treatment(self._runtime, kind, members)
        return await faults.answer(
            request,
            treatment,
            lambda: handlers.start(self._runtime, kind, members, treatment),
        )

    async def status(self, request: web.Request) -> web.StreamResponse:
        transaction, treatment = await handlers.read_status(
            self._runtime, request.match_info["reference"]
        )

        async def work() -> Reply:
            return handlers.tell_status(transaction, treatment)

        return await faults.answer(request, treatment, work)

    async def history(self, request: web.Request) -> web.StreamResponse:
        members = read_members(await read_body(request))
        treatment = await self._treatment(Operation.HISTORY)
        return await faults.answer(
            request, treatment, lambda: handlers.history(self._runtime, members, treatment)
        )

    async def balance(self, request: web.Request) -> web.StreamResponse:
        treatment = await self._treatment(Operation.BALANCE)
        return await faults.answer(
            request, treatment, lambda: handlers.balance(self._runtime, treatment)
        )

    async def _treatment(self, operation: Operation) -> Treatment:
        async with self._runtime.core.database.connection() as connection:
            return await self._runtime.core.treatment(connection, NAME, operation, "")


class _Customer:
    """The pages in the customer's browser, and the prompt on the phone."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def see_link(self, request: web.Request) -> web.StreamResponse:
        """Show what is to be paid."""
        transaction = await self._find_link(request)
        if transaction is None:
            return pages.respond(pages.unknown(), status=404)
        base = answers.page_of(transaction, "")
        buttons = (("Pay", f"{base}pay/", "go"), ("Decline", f"{base}decline/", "stop"))
        return pages.respond(_page(transaction, buttons))

    async def use_link(self, request: web.Request) -> web.StreamResponse:
        """Do what a button of a link's page says, and send the browser back to the merchant."""
        transaction = await self._find_link(request)
        wish = LINK_BUTTONS.get(request.match_info["action"])
        if transaction is None or wish is None:
            return pages.respond(pages.unknown(), status=404)
        return await self._act(transaction, wish)

    async def see_phone(self, request: web.Request) -> web.StreamResponse:
        """Show what the phone asks."""
        transaction = await self._find_prompt(request)
        if transaction is None:
            return pages.respond(pages.unknown(), status=404)
        base = answers.page_of(transaction, "")
        buttons = (("Confirm", f"{base}confirm/", "go"), ("Refuse", f"{base}refuse/", "stop"))
        return pages.respond(_page(transaction, buttons))

    async def use_phone(self, request: web.Request) -> web.StreamResponse:
        """Confirm or refuse on the phone."""
        transaction = await self._find_prompt(request)
        wish = PHONE_BUTTONS.get(request.match_info["action"])
        if transaction is None or wish is None:
            return pages.respond(pages.unknown(), status=404)
        return await self._act(transaction, wish)

    async def _act(self, transaction: Transaction, wish: str) -> web.StreamResponse:
        try:
            after = await customers.act(self._runtime, transaction.reference, wish)
        except NotFoundError:
            return pages.respond(pages.unknown(), status=404)
        except ConflictError as error:
            return pages.respond(pages.refused(error.message), status=409)
        has_failed = after.state is State.FAILED
        address = (after.failure_url if has_failed else "") or after.redirect_url
        return pages.respond(pages.done(_VERDICTS[after.state], address))

    async def _find_link(self, request: web.Request) -> Transaction | None:
        key = request.match_info["link_key"]
        if not key.isprintable():  # PostgreSQL could not even compare with it.
            return None
        async with self._runtime.core.database.connection() as connection:
            return await store.find_link(connection, key)

    async def _find_prompt(self, request: web.Request) -> Transaction | None:
        try:
            reference = UUID(request.match_info["reference"])
        except ValueError:
            return None
        async with self._runtime.core.database.connection() as connection:
            transaction = await store.find_transaction(connection, reference)
        is_prompt = transaction is not None and transaction.kind is Kind.COLLECT
        return transaction if is_prompt else None


def _page(transaction: Transaction, buttons: tuple[tuple[str, str, str], ...]) -> str:
    facts = [("Order", transaction.external_reference)]
    if transaction.phone:
        facts.append(("Phone", transaction.phone))
    if not transaction.is_open:
        facts.append(("State", _VERDICTS[transaction.state]))
    scenario = scenario_of(transaction.amount)
    return pages.payment(
        title=transaction.description,
        amount=f"{CURRENCY} {transaction.amount}",
        facts=facts,
        buttons=buttons if transaction.is_open else (),
        hint="" if scenario is PLAIN else f"Magic amount: {scenario.description}.",
    )
