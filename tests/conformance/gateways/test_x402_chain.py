"""The chain decides what no facilitator says, and only when it is certain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.gateways.interface import (
    Declined,
    FailureKind,
    Unknown,
)
from shared.gateways.x402.client import X402Gateway
from shared.money import Money
from tests.support.clocks import ManualClock
from tests.support.scripted_server import (
    ScriptedServer,
    answer,
    scripted_server,
)
from tests.support.x402 import (
    REFERENCE,
    STARTED_AT,
    TRANSACTION,
    VALID,
    FakeWorld,
    invalid,
    supported,
    unsettled,
)
from tests.support.x402_gateway import (
    NONCE,
    NONCE_USED,
    PAID,
    look_up,
    quiet_gateway,
    start,
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
async def with_chain(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[X402Gateway]:
    """A client that also asks a node of the chain."""
    async with quiet_gateway(server.url, clock, X402_RPC_URL=f"{server.url}/rpc") as gateway:
        yield gateway


async def test_a_used_nonce_is_looked_for_on_the_chain_at_once(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.then("/supported", supported())
    world.then("/verify", VALID, invalid(NONCE_USED))
    world.then("/settle", unsettled(NONCE_USED))
    world.chain.use(NONCE, 703)

    assert await start(with_chain) == PAID
    assert await start(with_chain) == PAID


async def test_a_refusal_to_settle_stays_unknown_while_the_nonce_is_unused(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.then("/supported", supported())
    world.then("/settle", unsettled("insufficient_funds"))
    world.chain.finalized = world.chain.block_at(STARTED_AT)

    assert await look_up(with_chain) == Unknown("insufficient_funds; chain: nonce_unused_so_far")


async def test_what_was_never_used_is_declined_for_good_once_its_window_is_finally_over(
    world: FakeWorld, with_chain: X402Gateway, clock: ManualClock
) -> None:
    over = world.chain.block_at(STARTED_AT + timedelta(seconds=300))
    world.chain.latest = over + 100
    clock.advance(600)

    world.chain.finalized = over
    assert await look_up(with_chain) == Unknown("window_is_over; chain: nonce_unused_so_far")
    world.chain.finalized = over + 1
    assert await look_up(with_chain) == Declined(
        "authorization_expired_unused", FailureKind.EXPIRED, is_final=True
    )
    assert world.asked == []


async def test_a_payment_is_found_on_the_chain_when_the_facilitator_is_away(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.then("/supported", supported())
    world.then("/settle", answer(b"", status="503 Service Unavailable"))
    world.chain.use(NONCE, 703)

    assert await look_up(with_chain) == PAID


async def test_a_payment_is_confirmed_by_its_transaction(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.chain.use(NONCE, 703, value=19_990_000)

    confirmed = await with_chain.confirm(REFERENCE, TRANSACTION)

    assert confirmed == replace(PAID, amount=Money(19_990_000, "USDC"))


@pytest.mark.parametrize(
    ("reference", "handle", "reason"),
    [
        ("att_other", TRANSACTION, "reference_differs"),
        (REFERENCE, f"0x{'cd' * 32}", "reference_differs"),
        (REFERENCE, "0xabab", "unreadable_transaction"),
        (REFERENCE, "", "unreadable_transaction"),
    ],
)
async def test_a_transaction_that_is_not_ours_confirms_nothing(
    world: FakeWorld, with_chain: X402Gateway, reference: str, handle: str, reason: str
) -> None:
    world.chain.use(NONCE, 703)

    assert await with_chain.confirm(reference, handle) == Unknown(reason)
