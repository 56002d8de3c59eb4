"""What our wallet does not pay is refused before anything is signed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from shared.gateways.interface import (
    Checkout,
    Declined,
    FailureKind,
    RefundFailed,
    RefundOrder,
    Refusal,
    Unknown,
    Wallet,
)
from shared.gateways.x402.client import X402Gateway
from shared.gateways.x402.signer import SigningError, TypedData
from shared.money import Money
from tests.support.clocks import ManualClock
from tests.support.scripted_server import (
    ScriptedServer,
    scripted_server,
)
from tests.support.x402 import (
    PAYER,
    RECIPIENT,
    REFERENCE,
    STARTED_AT,
    TOKEN,
    TRANSACTION,
    FakeWorld,
    order,
    supported,
)
from tests.support.x402_gateway import (
    gateway_at,
    look_up,
    quiet_gateway,
    start,
)

ORDER = order()
REFUND = RefundOrder(
    "rfd_01KE70EHG0JY1QREBD77BRA2Z8", REFERENCE, TRANSACTION, Money(1, "USDC"), "x", STARTED_AT
)


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


@pytest.fixture
async def server(world: FakeWorld) -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        server.then(*[world] * 200)
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(STARTED_AT + timedelta(seconds=1))


@pytest.fixture
async def gateway(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[X402Gateway]:
    """A client without a node of the chain."""
    async with quiet_gateway(server.url, clock) as gateway:
        yield gateway


NO_ADDRESS = "it is no EVM address, or its capitals are not its checksum"
NOBODY = "it is nobody's wallet, or our own"
RANGE = "x402 takes 0.000001 USDC to 0.050000 USDC"

REFUSED_ORDERS: dict[str, tuple[dict[str, Any], Refusal]] = {
    "another method": (
        {"method": Checkout()},
        Refusal("method.type", "x402 takes wallet, not checkout"),
    ),
    "another currency": (
        {"amount": Money(10_000, "USD")},
        Refusal("currency", "x402 takes USDC, not USD"),
    ),
    "nothing": ({"amount": Money(0, "USDC")}, Refusal("amount", RANGE)),
    "too much": ({"amount": Money(50_001, "USDC")}, Refusal("amount", RANGE)),
    "no address": ({"method": Wallet("0x12")}, Refusal("method.recipient", NO_ADDRESS)),
    "a wrong checksum": (
        {"method": Wallet(RECIPIENT.replace("A", "a", 1))},
        Refusal("method.recipient", NO_ADDRESS),
    ),
    "nobody": ({"method": Wallet("0x" + "0" * 40)}, Refusal("method.recipient", NOBODY)),
    "the token itself": (
        {"method": Wallet(TOKEN.lower())},
        Refusal("method.recipient", NOBODY),
    ),
    "ourselves": ({"method": Wallet(PAYER)}, Refusal("method.recipient", NOBODY)),
    "not on the list": (
        {"method": Wallet("0x" + "12" * 20)},
        Refusal("method.recipient", "it is not one of X402_RECIPIENTS"),
    ),
}


class CountingSigner:
    """Counts what it is asked to sign, and signs nothing."""

    address = PAYER
    asked = 0

    async def sign(self, typed_data: TypedData) -> bytes:
        self.asked += 1
        raise SigningError("the key service is away")


def unsigning(url: str, clock: ManualClock, **changes: Any) -> tuple[X402Gateway, CountingSigner]:
    gateway = gateway_at(url, clock, **changes)
    signer = CountingSigner()
    gateway._signer = signer
    return gateway, signer


@pytest.mark.parametrize(("changes", "refusal"), REFUSED_ORDERS.values(), ids=REFUSED_ORDERS)
async def test_what_we_do_not_pay_is_refused_before_anything_is_signed(
    server: ScriptedServer,
    world: FakeWorld,
    clock: ManualClock,
    changes: dict[str, Any],
    refusal: Refusal,
) -> None:
    gateway, signer = unsigning(
        server.url, clock, X402_MAX_PER_PAYMENT=50_000, X402_RECIPIENTS=f" {RECIPIENT.lower()} ,"
    )
    refused = order(**changes)

    assert gateway.refusal(refused) == refusal
    outcome = await start(gateway, refused)
    looked_up = await look_up(gateway, refused)

    reason = f"{refusal.field}: {refusal.problem}"
    assert outcome == Declined(reason, FailureKind.CONFIGURATION, is_final=True)
    assert isinstance(looked_up, Unknown)
    assert (signer.asked, world.asked) == (0, [])
    assert gateway.refusal(ORDER) is None
    await gateway.close()


async def test_a_signer_that_signs_nothing_leaves_the_payment_unknown(
    server: ScriptedServer, world: FakeWorld, clock: ManualClock
) -> None:
    gateway, signer = unsigning(server.url, clock)
    world.then("/supported", supported())

    assert await start(gateway) == Unknown("signing_failed")
    assert await look_up(gateway) == Unknown("signing_failed")
    assert (signer.asked, world.paths) == (2, ["/supported"])
    await gateway.close()


async def test_an_order_from_before_the_keys_were_changed_is_never_signed_anew(
    server: ScriptedServer, world: FakeWorld, clock: ManualClock
) -> None:
    """Another wallet or nonce key would make a second payment of an order that may be paid."""
    changed_at = STARTED_AT + timedelta(seconds=1)
    gateway, signer = unsigning(
        server.url, clock, X402_KEYS_SINCE=changed_at, X402_RPC_URL=f"{server.url}/rpc"
    )
    world.then("/supported", supported())
    reason = "order_is_older_than_the_keys"

    outcome = await start(gateway)

    assert outcome == Declined(reason, FailureKind.SERVICE_UNAVAILABLE, is_final=True)
    assert await look_up(gateway) == Unknown(reason)
    assert (signer.asked, world.asked, world.chain.calls) == (0, [], [])
    await start(gateway, order(started_at=changed_at))
    assert signer.asked == 1
    await gateway.close()


async def test_what_x402_cannot_do_is_declared_and_said(gateway: X402Gateway) -> None:
    assert gateway.capabilities.methods == ("wallet",)
    assert gateway.capabilities.charges_off_session
    assert not gateway.capabilities.refunds
    assert not gateway.capabilities.cancels
    assert await gateway.cancel(ORDER) == Unknown("not_supported")
    assert await gateway.refund(REFUND) == RefundFailed("not_supported")
    assert await gateway.look_up_refund(REFUND) == RefundFailed("not_supported")
    assert await gateway.confirm(REFERENCE, TRANSACTION) == Unknown("no_chain_configured")
