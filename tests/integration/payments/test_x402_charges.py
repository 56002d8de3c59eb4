"""Charges that our own wallet pays, from the order to the chain and back.

What was signed is taken from the wire and checked with a library that shares no code with ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from eth_account import Account
from eth_account.messages import encode_typed_data

from deploy.local.ports import free_port
from shared.clock import system_clock
from shared.gateways.interface import Wallet
from shared.gateways.registration import SpendingLimits
from tests.conformance.world import World, open_world
from tests.integration.payments.charging import Charging, open_receiver, retry_of
from tests.integration.payments.world import running_payments
from tests.support.clocks import ManualClock
from tests.support.fake_gateway import FakeGateway

RECIPIENT = "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"
AMOUNT = 2_500_000

#: As the token on Base Sepolia signs (EIP-712, EIP-3009).
DOMAIN = {
    "name": "USDC",
    "version": "2",
    "chainId": 84_532,
    "verifyingContract": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
}
TYPES = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


@dataclass
class Wire:
    """What our client sent to the facilitator, on the way there."""

    url: str
    settled: list[dict[str, Any]] = field(default_factory=list)


@asynccontextmanager
async def tapped(facilitator: str) -> AsyncIterator[Wire]:
    """Listen between a client and the facilitator."""
    wire = Wire(f"http://127.0.0.1:{free_port()}")

    async def forward(request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == "/settle":
            wire.settled.append(await request.json())
        async with session.request(
            request.method,
            f"{facilitator}{request.path}",
            data=body,
            headers={"Content-Type": "application/json"},
        ) as answer:
            return web.Response(
                body=await answer.read(), status=answer.status, content_type=answer.content_type
            )

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    async with aiohttp.ClientSession() as session:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(wire.url.rpartition(":")[2])).start()
        yield wire
        await runner.cleanup()


@dataclass
class Paying:
    """Payments with the real client of x402, before the simulated facilitator and its chain."""

    charging: Charging
    world: World
    wire: Wire

    async def charges(self) -> list[dict[str, Any]]:
        """Return what the chain has carried out of what was signed, each nonce once."""
        nonces = {authorization_of(body)["nonce"] for body in self.wire.settled}
        found = []
        for nonce in nonces:
            answer = await self.world.control("GET", "x402", f"ledger?reference={nonce}")
            found += answer["charges"]
        return found

    async def settle(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send what was signed once more, as whoever saw it could."""
        async with self.world.session.post(f"{self.world.url}/x402/settle", json=body) as answer:
            result = await answer.json()
        assert isinstance(result, dict)
        return result

    async def fund(self, units: int) -> None:
        """Let our wallet have so much."""
        payer = Account.from_key(self.world.environment["X402_PRIVATE_KEY"]).address
        balance = {"address": payer, "amount": units}
        await self.world.control("PUT", "x402", "balance", balance)


def authorization_of(body: dict[str, Any]) -> dict[str, str]:
    return cast("dict[str, str]", body["paymentPayload"]["payload"]["authorization"])


def signer_of(body: dict[str, Any]) -> str:
    """Return whose signature moves the money."""
    signed = authorization_of(body)
    message = encode_typed_data(
        domain_data=DOMAIN,
        message_types=TYPES,
        message_data={
            "from": signed["from"],
            "to": signed["to"],
            "value": int(signed["value"]),
            "validAfter": int(signed["validAfter"]),
            "validBefore": int(signed["validBefore"]),
            "nonce": bytes.fromhex(signed["nonce"].removeprefix("0x")),
        },
    )
    signature = body["paymentPayload"]["payload"]["signature"]
    return str(Account.recover_message(message, signature=signature))


@pytest.fixture
async def paying(new_database: str, redis_url: str) -> AsyncIterator[Paying]:
    async with open_world(new_database) as world, tapped(f"{world.url}/x402") as wire:
        world.environment = {**world.environment, "X402_FACILITATOR_URL": wire.url}
        gateway = cast("FakeGateway", world.gateway("x402"))
        async with (
            running_payments(
                new_database,
                redis_url,
                gateway=gateway,
                # What is signed holds for minutes by the chain's clock.
                clock=ManualClock(system_clock()),
                spending_limits={"x402": SpendingLimits(10**9, 10**9)},
            ) as payments,
            open_receiver(payments.runtime) as receiver,
        ):
            charging = Charging(payments, receiver)
            await charging.store(Wallet(RECIPIENT), gateway="x402")
            yield Paying(charging, world, wire)


def order_of(paying: Paying, **changes: Any) -> Any:
    values = {"gateway": "x402", "amount": AMOUNT, "currency": "USDC"} | changes
    return paying.charging.new(**values)


async def test_a_charge_is_settled_on_the_chain_and_told_with_its_transaction(
    paying: Paying,
) -> None:
    order = order_of(paying)

    await paying.charging.order(order)

    (body,) = paying.wire.settled
    signed = authorization_of(body)
    payer = Account.from_key(paying.world.environment["X402_PRIVATE_KEY"]).address
    assert signer_of(body) == signed["from"] == payer
    assert (signed["to"], int(signed["value"])) == (RECIPIENT, AMOUNT)
    (charge,) = await paying.charges()
    assert (charge["amount"], charge["currency"]) == (AMOUNT, "USDC")
    assert await paying.charging.words() == ["accepted", "succeeded"]
    fact = await paying.charging.last()
    assert fact["gatewayPaymentId"] == charge["gatewayPaymentId"]
    assert len(fact["gatewayPaymentId"]) == len("0x") + 64
    payment = await paying.charging.payments.read(order.payment_id)
    assert payment["gatewayPaymentId"] == fact["gatewayPaymentId"]


async def test_what_was_settled_cannot_be_settled_again(paying: Paying) -> None:
    order = order_of(paying)
    await paying.charging.order(order)
    (body,) = paying.wire.settled

    replay = await paying.settle(body)
    body["paymentPayload"]["payload"]["authorization"]["value"] = str(AMOUNT - 1)
    forged = await paying.settle(body)
    await paying.charging.order(order)

    assert (replay["success"], replay["errorReason"]) == (
        False,
        "invalid_exact_evm_nonce_already_used",
    )
    assert forged["success"] is False
    assert len(await paying.charges()) == 1
    assert len(paying.wire.settled) == 1, "an order that comes again signs nothing"


async def test_a_wallet_without_funds_is_charged_when_it_has_some(paying: Paying) -> None:
    await paying.fund(0)
    order = order_of(paying, is_on_test_clock=True)
    await paying.charging.order(order)
    fact = await paying.charging.last()
    assert (fact["kind"], fact["waitsForOrder"]) == ("insufficient_funds", True)
    assert await paying.charges() == []

    await paying.fund(10 * AMOUNT)
    await paying.charging.order(retry_of(order))

    assert await paying.charging.words() == ["accepted", "failed", "succeeded"]
    assert (await paying.charging.last())["attemptsMade"] == 2
    (charge,) = await paying.charges()
    assert charge["gatewayPaymentId"] == (await paying.charging.last())["gatewayPaymentId"]
    assert {signer_of(body) for body in paying.wire.settled} == {
        authorization_of(body)["from"] for body in paying.wire.settled
    }


async def test_a_payment_whose_answer_was_lost_is_made_once(paying: Paying) -> None:
    await paying.world.spoil("x402", "settle", "error_after")
    order = order_of(paying)
    await paying.charging.order(order)
    assert (await paying.charging.state(order))[0] == "unknown"

    payments = paying.charging.payments
    payments.clock.advance(66)
    await payments.retry()

    assert await paying.charging.words() == ["accepted", "failed", "succeeded"]
    assert len(await paying.charges()) == 1
    assert len({authorization_of(body)["nonce"] for body in paying.wire.settled}) == 1
