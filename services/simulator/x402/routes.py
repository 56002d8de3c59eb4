"""HTTP of x402: the facilitator, the node, the paid resource, and what only the simulator has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Final

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from services.simulator import faults
from services.simulator.behaviours import Behaviour
from services.simulator.core import Treatment
from services.simulator.faults import Reply
from services.simulator.x402 import facilitator, resource, rpc, store
from services.simulator.x402.payment import Address, Nonce, NotReadableError, Payment, read_payment
from services.simulator.x402.resource import PAYMENTS, RECEIPTS, REQUIRED, Offer
from services.simulator.x402.runtime import Runtime
from services.simulator.x402.scenarios import LAGGING, NAME, RESOURCE, RPC, SUPPORTED
from shared.money import MINOR_UNITS_MAX
from shared.web.routes import Answer, Route, json_response, parse, parse_query, read_body

PREFIX: Final = "/x402"
CONTROL: Final = "/simulator/x402"

Amount = Annotated[int, Field(ge=0, le=MINOR_UNITS_MAX)]


class _Body(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class BalanceRequest(_Body):
    """Let an address have so much, in atomic units."""

    address: Address
    amount: Amount


class BalanceQuery(_Body):
    """Whose balance to read."""

    address: Address


class CancelRequest(_Body):
    """Let a payer cancel an authorization on the chain."""

    payer: Address
    nonce: Nonce


class ResourceQuery(_Body):
    """What the resource is to cost, and who is paid."""

    amount: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}$")] = str(resource.AMOUNT)
    pay_to: Address = resource.PAY_TO


def protocol_routes(runtime: Runtime) -> list[Route]:
    """Return the routes of the protocol; none needs a key."""
    calls, control = _Calls(runtime), _Control(runtime)
    return [
        Route("GET", PREFIX + "/supported", calls.supported),
        Route("POST", PREFIX + "/verify", calls.verify),
        Route("POST", PREFIX + "/settle", calls.settle),
        Route("POST", PREFIX + "/rpc", calls.rpc),
        Route("GET", PREFIX + "/resource", calls.resource),
        Route("PUT", CONTROL + "/balance", control.save_balance),
        Route("GET", CONTROL + "/balance", control.balance),
        Route("POST", CONTROL + "/cancel", control.cancel),
    ]


class _Calls:
    """The calls of the protocol."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def supported(self, request: web.Request) -> web.StreamResponse:
        async def work() -> Reply:
            return Reply(facilitator.supported())

        return await faults.answer(request, await self._treatment(SUPPORTED), work)

    async def verify(self, request: web.Request) -> web.StreamResponse:
        async def work(payment: Payment, treatment: Treatment) -> Reply:
            return Reply(await facilitator.verify(self._runtime, payment, treatment.plan))

        return await self._judge(request, facilitator.verify_treatment, work, settles=False)

    async def settle(self, request: web.Request) -> web.StreamResponse:
        async def work(payment: Payment, treatment: Treatment) -> Reply:
            verdict = await facilitator.settle(self._runtime, payment, treatment.plan)
            return Reply(verdict.rendered())

        return await self._judge(request, facilitator.settle_treatment, work, settles=True)

    async def rpc(self, request: web.Request) -> web.StreamResponse:
        question = _parsed(await read_body(request))
        treatment = await self._treatment(RPC)

        async def work() -> Reply:
            now = self._runtime.core.clock()
            if treatment.fault is not None and treatment.is_told(LAGGING):
                now -= timedelta(seconds=treatment.fault.delay_seconds)
            return Reply(await rpc.respond(self._runtime, question, now))

        return await faults.answer(request, treatment, work)

    async def resource(self, request: web.Request) -> web.StreamResponse:
        """Sell a page; what the buyer sends decides the version."""
        wish = parse_query(ResourceQuery, request)
        offer = Offer(
            self._runtime.network,
            f"{self._runtime.core.public_url}{PREFIX}/resource",
            int(wish.amount),
            wish.pay_to,
        )
        version = next((each for each, name in PAYMENTS.items() if name in request.headers), 0)
        bought = _bought(offer, version, request.headers.get(PAYMENTS.get(version, ""), ""))
        if isinstance(bought, Reply):
            return await faults.answer(request, await self._treatment(RESOURCE), _always(bought))
        treatment = await facilitator.settle_treatment(self._runtime, bought, RESOURCE)
        is_flattened = treatment.is_told(Behaviour.ERROR_AFTER)

        async def work() -> Reply:
            judged = await facilitator.verify(self._runtime, bought, treatment.plan)
            if not judged["isValid"]:
                return _wanted(offer, judged["invalidReason"])
            verdict = await facilitator.settle(self._runtime, bought, treatment.plan)
            return _sold(verdict.rendered(), version, is_flattened=is_flattened)

        if is_flattened:
            treatment = replace(treatment, fault=None)
        return await faults.answer(request, treatment, work)

    async def _judge(
        self,
        request: web.Request,
        treat: Callable[[Runtime, Payment], Awaitable[Treatment]],
        work: Callable[[Payment, Treatment], Awaitable[Reply]],
        *,
        settles: bool,
    ) -> web.StreamResponse:
        body = _parsed(await read_body(request))
        if body is None:
            return json_response(orjson.dumps({"error": "the body is no JSON"}), status=400)
        try:
            payment = read_payment(body)
        except NotReadableError as error:
            return json_response(orjson.dumps(facilitator.unreadable(error, settles=settles)))
        treatment = await treat(self._runtime, payment)
        return await faults.answer(request, treatment, lambda: work(payment, treatment))

    async def _treatment(self, operation: str) -> Treatment:
        """Return what is in store for a call that is about no payment."""
        async with self._runtime.core.database.connection() as connection:
            return await self._runtime.core.treatment(connection, NAME, operation, "")


class _Control:
    """What the control API has for x402 alone."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def save_balance(self, request: web.Request) -> web.StreamResponse:
        wish, network = parse(BalanceRequest, await read_body(request)), self._runtime.network
        async with self._runtime.core.database.connection() as connection:
            await store.save_balance(
                connection,
                network.caip,
                network.token.lower(),
                wish.address.lower(),
                wish.amount,
            )
        return Answer({"address": wish.address.lower(), "amount": wish.amount}).response()

    async def balance(self, request: web.Request) -> web.StreamResponse:
        address, network = parse_query(BalanceQuery, request).address, self._runtime.network
        async with self._runtime.core.database.connection() as connection:
            amount = await store.find_balance(
                connection, network.caip, network.token.lower(), address.lower()
            )
        return Answer({"address": address.lower(), "amount": amount}).response()

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        wish = parse(CancelRequest, await read_body(request))
        done = await facilitator.cancel(self._runtime, wish.payer.lower(), wish.nonce.lower())
        return Answer({"reference": done.nonce, "state": done.state}).response()


def _wanted(offer: Offer, error: str) -> Reply:
    body, header = offer.wanted(error)
    return Reply(body, status=402, headers={REQUIRED: header, "Cache-Control": "no-store"})


def _bought(offer: Offer, version: int, header: str) -> Payment | Reply:
    """Read the payment for an offer, or refuse it; there is none in version 0."""
    if not version:
        return _wanted(offer, "PAYMENT-SIGNATURE or X-PAYMENT header is required")
    payload, requirements = resource.decode(header), offer.requirements(version)
    if payload is None:
        return Reply({"error": "the payment header cannot be read"}, status=400)
    if requirements is None or payload.get("accepted", requirements) != requirements:
        return _wanted(offer, "No matching payment requirements")
    try:
        return read_payment(
            {
                "x402Version": version,
                "paymentPayload": payload,
                "paymentRequirements": requirements,
            }
        )
    except NotReadableError as error:
        return _wanted(offer, error.reason)


def _sold(settlement: facilitator.Json, version: int, *, is_flattened: bool) -> Reply:
    """Hand out the page, or not.

    A seller with the x402 package tells of a facilitator's 500 as of a refusal, although the
    transfer may have been made: the settlement is flattened.
    """
    if is_flattened:
        settlement = {
            **settlement,
            "success": False,
            "errorReason": "Facilitator settle failed (500): Internal Server Error",
            "transaction": "",
        }
    receipt = {RECEIPTS[version]: resource.encode(settlement)}
    if not settlement["success"]:
        return Reply({}, status=402, headers=receipt)
    return Reply({"content": "what was paid for"}, headers=receipt)


def _always(reply: Reply) -> Callable[[], Awaitable[Reply]]:
    async def work() -> Reply:
        return reply

    return work


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
