"""HTTP of Fapshi: the merchant's calls, and the pages and phones that customers see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import orjson
from aiohttp import web

from services.simulator import faults, pages
from services.simulator.core import Treatment
from services.simulator.fapshi import answers, customers, handlers, store
from services.simulator.fapshi.domain import NAME, Kind, Operation, State, Transaction
from services.simulator.fapshi.payment_request import TRANS_ID, read_members
from services.simulator.fapshi.runtime import Runtime
from services.simulator.faults import Reply
from services.simulator.mobile_money import CURRENCY, PLAIN, scenario_of
from shared.errors import ConflictError, NotFoundError
from shared.web.routes import Route, json_response, read_body

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: What the buttons of a link's page and of a phone do.
LINK_BUTTONS: Final[Mapping[str, str]] = MappingProxyType(
    {"pay": "paid", "decline": "declined", "cancel": "cancelled"}
)
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
        State.EXPIRED: "The time to pay is over",
    }
)


def protocol_routes(runtime: Runtime) -> list[Route]:
    """Return the routes of the protocol; none needs a key of ours."""
    merchant, customer = _Merchant(runtime), _Customer(runtime)
    calls: list[tuple[str, str, Handler]] = [
        ("POST", "/initiate-pay", partial(merchant.start, Kind.LINK)),
        ("POST", "/direct-pay", partial(merchant.start, Kind.PROMPT)),
        ("GET", "/payment-status/{trans_id}", merchant.status),
        ("POST", "/expire-pay", merchant.expire),
        ("GET", "/transaction/{user_id}", merchant.listing),
        ("GET", "/search", merchant.search),
        ("GET", "/balance", merchant.balance),
    ]
    return [
        *(Route(method, f"/fapshi{path}", merchant.guarded(work)) for method, path, work in calls),
        Route("GET", "/fapshi/checkout/{link_key}", customer.see_link),
        Route("POST", "/fapshi/checkout/{link_key}/{action}", customer.use_link),
        Route("GET", "/fapshi/phone/{trans_id}", customer.see_phone),
        Route("POST", "/fapshi/phone/{trans_id}/{action}", customer.use_phone),
    ]


class _Merchant:
    """The calls that a merchant's server makes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def guarded(self, work: Handler) -> Handler:
        """Check the headers of every call first, and that a GET has no body."""

        async def handle(request: web.Request) -> web.StreamResponse:
            user, key = (request.headers.get(name, "") for name in ("apiuser", "apikey"))
            if not self._runtime.knows(user, key):
                return _respond(handlers.refused("Invalid API credentials", status=403))
            if request.method == "GET" and request.can_read_body:
                return _respond(handlers.refused("Invalid request"))
            return await work(request)

        return handle

    async def start(self, kind: Kind, request: web.Request) -> web.StreamResponse:
        members = read_members(await read_body(request))
        treatment = await handlers.start_treatment(self._runtime, kind, members)
        return await faults.answer(
            request,
            treatment,
            lambda: handlers.start(self._runtime, kind, members, treatment.plan),
        )

    async def status(self, request: web.Request) -> web.StreamResponse:
        trans_id = request.match_info["trans_id"]
        read, treatment = await handlers.read_status(self._runtime, trans_id)

        async def work() -> Reply:
            return handlers.tell_status(self._runtime, trans_id, read, treatment)

        return await faults.answer(request, treatment, work)

    async def expire(self, request: web.Request) -> web.StreamResponse:
        members = read_members(await read_body(request))
        reference = await handlers.find_reference(self._runtime, members)
        treatment = await self._treatment(Operation.EXPIRE, reference)
        return await faults.answer(
            request, treatment, lambda: handlers.expire(self._runtime, members)
        )

    async def listing(self, request: web.Request) -> web.StreamResponse:
        user_id = request.match_info["user_id"]
        treatment = await self._treatment(Operation.LISTING)
        return await faults.answer(
            request,
            treatment,
            lambda: handlers.list_of_user(self._runtime, user_id, treatment),
        )

    async def search(self, request: web.Request) -> web.StreamResponse:
        treatment = await self._treatment(Operation.SEARCH)
        return await faults.answer(
            request,
            treatment,
            lambda: handlers.search(self._runtime, request.query, treatment),
        )

    async def balance(self, request: web.Request) -> web.StreamResponse:
        treatment = await self._treatment(Operation.BALANCE)
        return await faults.answer(request, treatment, lambda: handlers.balance(self._runtime))

    async def _treatment(self, operation: Operation, reference: str = "") -> Treatment:
        async with self._runtime.core.database.connection() as connection:
            return await self._runtime.core.treatment(connection, NAME, operation, reference)


class _Customer:
    """The pages in the customer's browser, and the prompt on the phone."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def see_link(self, request: web.Request) -> web.StreamResponse:
        """Show what is to be paid."""
        transaction = await self._find_link(request)
        if transaction is None:
            return pages.respond(pages.unknown(), status=404)
        base = answers.link_of(transaction, "")
        buttons = (
            ("Pay", f"{base}/pay", "go"),
            ("Decline", f"{base}/decline", "stop"),
            ("Cancel", f"{base}/cancel", ""),
        )
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
        base = answers.link_of(transaction, "")
        buttons = (("Confirm", f"{base}/confirm", "go"), ("Refuse", f"{base}/refuse", "stop"))
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
            after = await customers.act(self._runtime, transaction.trans_id, wish)
        except NotFoundError:
            return pages.respond(pages.unknown(), status=404)
        except ConflictError as error:
            return pages.respond(pages.refused(error.message), status=409)
        return pages.respond(pages.done(_VERDICTS[after.state], after.redirect_url or ""))

    async def _find_link(self, request: web.Request) -> Transaction | None:
        key = request.match_info["link_key"]
        if not key.isprintable():  # PostgreSQL could not even compare with it.
            return None
        async with self._runtime.core.database.connection() as connection:
            return await store.find_link(connection, key)

    async def _find_prompt(self, request: web.Request) -> Transaction | None:
        trans_id = request.match_info["trans_id"]
        if TRANS_ID.fullmatch(trans_id) is None:
            return None
        async with self._runtime.core.database.connection() as connection:
            transaction = await store.find_transaction(connection, trans_id)
        is_prompt = transaction is not None and transaction.kind is Kind.PROMPT
        return transaction if is_prompt else None


def _page(transaction: Transaction, buttons: tuple[tuple[str, str, str], ...]) -> str:
    facts = [("Shop", answers.SERVICE_NAME), ("Order", transaction.reference)]
    if transaction.phone:
        facts.append(("Phone", transaction.phone))
    scenario = scenario_of(transaction.amount)
    if not transaction.is_open:
        facts.append(("State", _VERDICTS[transaction.state]))
    return pages.payment(
        title=transaction.message or "Payment",
        amount=f"{CURRENCY} {transaction.amount}",
        facts=facts,
        buttons=buttons if transaction.is_open else (),
        hint="" if scenario is PLAIN else f"Magic amount: {scenario.description}.",
    )


def _respond(reply: Reply) -> web.Response:
    return json_response(orjson.dumps(reply.data), status=reply.status)
