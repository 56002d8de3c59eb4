"""Every gateway of the registry, against the real simulator over HTTP: every outcome there is.

The simulator shares no code with our clients, so each of these tests compares two readings of one
protocol. What must be true in the end is what the simulator's ledger says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import pytest
import pytest_asyncio

from deploy.local.postgres_server import PostgresServer
from shared.clock import system_clock
from shared.gateways.disputes import Disputed, DisputeState
from shared.gateways.interface import (
    ActionRequired,
    Card,
    Declined,
    FailureKind,
    NoticeRefusedError,
    Order,
    Outcome,
    Paid,
    Pending,
    Refunded,
    RefundFailed,
    RefundOrder,
    RefundOutcome,
    RefundPending,
    Unknown,
)
from shared.gateways.registry import REGISTRY
from shared.identifiers import new_id
from shared.money import Money
from tests.conformance.subjects import ANY_METHOD, FAULTS, FAULTS_OF_LOOKS, SUBJECTS, Decline, Way
from tests.conformance.world import World, handle_of, new_order, open_world
from tests.support.databases import fresh_database

#: Between two looks at one payment: of some gateways half a dozen a minute are too many.
LOOK_SECONDS = 0.4
LOOKS_MAX = 20

T = TypeVar("T")

WAYS = [
    pytest.param(gateway, way, id=f"{gateway} {name}")
    for gateway, ways in SUBJECTS.items()
    for name, way in ways.items()
]

DECLINES = [
    pytest.param(gateway, way, decline, id=f"{gateway} {name} {what}")
    for gateway, ways in SUBJECTS.items()
    for name, way in ways.items()
    for what, decline in way.declines.items()
]

SPOILT_STARTS = [
    pytest.param(gateway, way, operation, fault, id=f"{gateway} {name} {operation} {fault}")
    for gateway, ways in SUBJECTS.items()
    for name, way in ways.items()
    for operation in way.starts
    for fault in FAULTS
]

SPOILT_LOOKS = [
    pytest.param(gateway, way, group, id=f"{gateway} {name} {' '.join(group)}")
    for gateway, ways in SUBJECTS.items()
    for name, way in ways.items()
    for group in way.looks
]

DOUBTS = [
    pytest.param(gateway, way, amount, id=f"{gateway} {name} {what}")
    for gateway, ways in SUBJECTS.items()
    for name, way in ways.items()
    for what, amount in way.doubts.items()
]

with_every_gateway = pytest.mark.parametrize("gateway", REGISTRY)
with_every_way = pytest.mark.parametrize(("gateway", "way"), WAYS)


# One simulator for all of these tests: each has payments of its own.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def shared_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    with fresh_database(postgres, template_database) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(shared_database: str) -> AsyncIterator[World]:
    async with open_world(shared_database) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def world(shared_world: World) -> AsyncIterator[World]:
    yield shared_world
    await shared_world.forget_scripts()


async def test_every_gateway_of_the_registry_is_tried() -> None:
    assert SUBJECTS.keys() == REGISTRY.keys()


@with_every_gateway
async def test_every_method_that_a_gateway_declares_is_tried(world: World, gateway: str) -> None:
    declared = world.gateway(gateway).capabilities.methods

    assert {way.method.kind for way in SUBJECTS[gateway].values()} == set(declared)


@with_every_way
async def test_a_payment_is_paid_once(world: World, gateway: str, way: Way) -> None:
    client = world.gateway(gateway)
    order = new_order(way.method, way.amount)

    started = await client.start(order)

    assert isinstance(started, way.opens), started
    order = replace(order, handle=handle_of(started))
    if not isinstance(started, Paid):
        await world.act(gateway, order)
    paid = await until_paid(world, gateway, order)
    assert (paid.reference, paid.amount) == (order.reference, way.amount)
    assert not paid.is_risky
    assert not paid.is_repeated
    (charge,) = await world.charges(gateway, order)
    assert charge["gatewayPaymentId"] == paid.gateway_payment_id
    assert Money(charge["priceAmount"], charge["priceCurrency"]) == way.amount
    assert await client.confirm(order.reference, paid.validation_id) == paid


@with_every_way
async def test_the_handle_of_another_payment_confirms_nothing(
    world: World, gateway: str, way: Way
) -> None:
    client = world.gateway(gateway)
    order = await pay(world, gateway, way)
    paid = await until_paid(world, gateway, order)

    other = new_id("att", system_clock())

    assert await client.confirm(other, paid.validation_id) == Unknown("reference_differs")


@with_every_way
async def test_a_payment_waits_until_the_customer_acts(
    world: World, gateway: str, way: Way
) -> None:
    client = world.gateway(gateway)
    order = new_order(way.method, way.amount)
    started = await client.start(order)
    order = replace(order, handle=handle_of(started))

    seen = await client.look_up(order)

    if way.opens is Paid:
        assert seen == started
        return
    assert isinstance(seen, (Pending, ActionRequired)), seen
    assert await world.charges(gateway, order) == []
    if isinstance(started, ActionRequired):
        async with world.session.get(started.url) as page:
            assert page.status == 200
            assert page.content_type == "text/html"


@pytest.mark.parametrize(("gateway", "way", "decline"), DECLINES)
async def test_a_decline_is_called_by_its_kind(
    world: World, gateway: str, way: Way, decline: Decline
) -> None:
    client = world.gateway(gateway)
    order = new_order(decline.method or way.method, decline.amount or way.amount)

    outcome = await client.start(order)
    if decline.wish is not None:
        order = replace(order, handle=handle_of(outcome))
        await world.act(gateway, order, decline.wish)
        outcome = await client.look_up(order)

    assert isinstance(outcome, Declined), outcome
    assert (outcome.kind, outcome.is_final) == (decline.kind, decline.is_final)
    assert outcome.reason
    assert await world.charges(gateway, order) == []


@pytest.mark.parametrize(("gateway", "way", "operation", "fault"), SPOILT_STARTS)
async def test_a_start_without_an_answer_charges_once(
    world: World, gateway: str, way: Way, operation: str, fault: str
) -> None:
    client = world.gateway(gateway)
    order = new_order(way.method, way.amount)
    await world.spoil(gateway, operation, fault)

    outcome = await client.start(order)

    if (kind := way.certain.get(fault)) is not None:
        assert isinstance(outcome, Declined)
        assert (outcome.kind, outcome.is_final) == (kind, True)
        assert await world.charges(gateway, order) == []
        return
    # A start that makes several calls may do without the one that went wrong.
    assert isinstance(outcome, (Unknown, Paid)), outcome
    again = await carry_on(world, gateway, way, order)
    assert len(await world.charges(gateway, order, again)) == 1


@pytest.mark.parametrize(("gateway", "way", "amount"), DOUBTS)
async def test_a_doubt_is_resolved_without_a_second_charge(
    world: World, gateway: str, way: Way, amount: Money
) -> None:
    order = new_order(way.method, amount)

    outcome = await world.gateway(gateway).start(order)

    assert isinstance(outcome, (Unknown, Paid)), outcome
    paid = await until_paid(world, gateway, order)
    (charge,) = await world.charges(gateway, order)
    assert charge["gatewayPaymentId"] == paid.gateway_payment_id


@pytest.mark.parametrize("fault", FAULTS_OF_LOOKS)
@pytest.mark.parametrize(("gateway", "way", "group"), SPOILT_LOOKS)
async def test_a_look_without_an_answer_decides_nothing(
    world: World, gateway: str, way: Way, group: tuple[str, ...], fault: str
) -> None:
    client = world.gateway(gateway)
    order = new_order(way.method, way.amount)
    started = await client.start(order)
    order = replace(order, handle=handle_of(started))
    for operation in group:
        await world.spoil(gateway, operation, fault, times=10)

    outcome = await client.look_up(order)

    # What was said before may be said again, from the memory of an idempotency key.
    assert isinstance(outcome, Unknown) or outcome == started


@with_every_gateway
async def test_what_a_gateway_cannot_do_is_refused_by_its_field(world: World, gateway: str) -> None:
    client = world.gateway(gateway)
    capabilities = client.capabilities
    for way in SUBJECTS[gateway].values():
        order = new_order(way.method, way.amount)
        assert client.refusal(order) is None
        limits = capabilities.limits[way.amount.currency]
        refused = {
            "currency": replace(order, amount=Money(way.amount.minor_units, "JPY")),
            "amount": replace(order, amount=Money(limits.minimum - 1, way.amount.currency)),
        }
        if "JPY" in capabilities.limits:
            refused["currency"] = replace(order, amount=Money(100, "USDC"))
        for kind, method in ANY_METHOD.items():
            if kind not in capabilities.methods:
                refused["method.type"] = replace(order, method=method)
        if isinstance(way.method, Card) and not capabilities.charges_off_session:
            refused["method.offSession"] = replace(
                order, method=replace(way.method, off_session=True)
            )
        for field, wrong in refused.items():
            refusal = client.refusal(wrong)
            assert refusal is not None, field
            assert (refusal.field, bool(refusal.problem)) == (field, True)


@with_every_way
async def test_what_was_cancelled_cannot_be_paid(world: World, gateway: str, way: Way) -> None:
    client = world.gateway(gateway)
    order = new_order(way.method, way.amount)
    started = await client.start(order)
    order = replace(order, handle=handle_of(started))

    outcome = await client.cancel(order)

    if not client.capabilities.cancels:
        assert outcome == Unknown("not_supported")
    elif way.opens is Paid:
        assert outcome == started
    elif way.opens is ActionRequired:
        assert isinstance(outcome, Declined), outcome
        assert outcome.is_final
        assert outcome.kind in {FailureKind.CANCELLED, FailureKind.EXPIRED}
        with pytest.raises(AssertionError, match="conflict"):
            await world.act(gateway, order)
        assert await world.charges(gateway, order) == []
    else:
        # A prompt cannot be called back, so that is what is said of it.
        assert isinstance(outcome, Pending), outcome


@with_every_way
async def test_money_is_given_back_once(world: World, gateway: str, way: Way) -> None:
    client = world.gateway(gateway)
    order = await pay(world, gateway, way)
    paid = await until_paid(world, gateway, order)
    refund = RefundOrder(
        reference=new_id("ref", system_clock()),
        payment_reference=order.reference,
        gateway_payment_id=paid.gateway_payment_id,
        amount=way.amount,
        reason="changed their mind",
        started_at=system_clock(),
    )

    outcome = await client.refund(refund)

    if not client.capabilities.refunds:
        assert outcome == RefundFailed("not_supported")
        assert await client.look_up_refund(refund) == RefundFailed("not_supported")
        return
    assert isinstance(outcome, (Refunded, RefundPending)), outcome
    refund = replace(refund, handle=outcome.handle)
    # Repeated it is the same refund: all of the money can be given back only once.
    again = await client.refund(refund)
    assert isinstance(again, (Refunded, RefundPending)), again
    if outcome.handle is not None and again.handle is not None:
        assert again.handle == outcome.handle

    async def refunded() -> RefundOutcome | None:
        seen = await client.look_up_refund(refund)
        assert not isinstance(seen, RefundFailed), seen
        return seen if isinstance(seen, Refunded) else None

    assert isinstance(await patiently(refunded), Refunded)


@with_every_way
async def test_a_dispute_is_followed_to_its_end(world: World, gateway: str, way: Way) -> None:
    client = world.gateway(gateway)
    if not client.capabilities.disputes:
        assert await client.look_up_dispute("du_1") == Unknown("not_supported")
        return
    order = await pay(world, gateway, way)
    paid = await until_paid(world, gateway, order)
    name = world.name_of(order, gateway)
    await world.control("POST", gateway, "dispute", {"reference": name})

    notice = await world.dispute_notice_of(gateway, order)

    assert notice.amount == way.amount
    opened = await client.look_up_dispute(notice.validation_id)
    assert isinstance(opened, Disputed)
    assert (opened.state, opened.amount) == (DisputeState.OPENED, way.amount)
    assert (opened.reference, opened.handle) == (order.reference, notice.validation_id)
    assert opened.gateway_payment_id == paid.gateway_payment_id
    assert opened.fee is not None
    for status, state in (
        ("won", DisputeState.WON),
        ("appeal_needs_response", DisputeState.OPENED),
        ("lost", DisputeState.LOST),
    ):
        decision = {"reference": name, "status": status}
        await world.control("POST", gateway, "dispute/decide", decision)
        assert await client.look_up_dispute(notice.validation_id) == replace(opened, state=state)


@with_every_way
async def test_the_notice_of_a_payment_names_it(world: World, gateway: str, way: Way) -> None:
    if REGISTRY[gateway].notices is None:
        return  # It sends none; the chain and the answers say everything.
    await world.spoil(gateway, "notice", "duplicate", times=10)
    order = await pay(world, gateway, way)

    first, *others = await world.paid_notices_of(gateway, order, count=2)

    assert first.reference == order.reference
    assert first.amount == way.amount
    assert isinstance(
        await world.gateway(gateway).confirm(order.reference, first.validation_id), Paid
    )
    assert all(other.reference == first.reference for other in others)


@pytest.mark.parametrize("fault", ["badly_signed", "wrong_secret"])
@with_every_way
async def test_a_notice_that_somebody_else_signed_is_refused(
    world: World, gateway: str, way: Way, fault: str
) -> None:
    if REGISTRY[gateway].notices is None:
        return
    await world.spoil(gateway, "notice", fault, times=10)
    order = await pay(world, gateway, way)

    received = (await world.notices_of(gateway, order))[0]

    with pytest.raises(NoticeRefusedError):
        world.reader(gateway).read(received.headers, received.body)


async def patiently(look: Callable[[], Awaitable[T | None]]) -> T:
    """Look again, not too often, until there is something to see."""
    for _ in range(LOOKS_MAX):
        if (seen := await look()) is not None:
            return seen
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(f"nothing to see after {LOOKS_MAX} looks")


async def pay(world: World, gateway: str, way: Way) -> Order:
    """Start a payment and let the customer pay; return the order with its handle."""
    order = new_order(way.method, way.amount)
    started = await world.gateway(gateway).start(order)
    order = replace(order, handle=handle_of(started))
    if not isinstance(started, Paid):
        await world.act(gateway, order)
    return order


async def until_paid(world: World, gateway: str, order: Order) -> Paid:
    async def look() -> Paid | None:
        outcome = await world.gateway(gateway).look_up(order)
        assert not (isinstance(outcome, Declined) and outcome.is_final), outcome
        return outcome if isinstance(outcome, Paid) else None

    return await patiently(look)


async def carry_on(world: World, gateway: str, way: Way, order: Order) -> Order:
    """Do what payments does about an order whose start was not answered, until it is paid.

    Returns:
        The order that was paid: another one when nothing was tried under the first.
    """
    client = world.gateway(gateway)

    async def decided() -> Outcome | None:
        outcome = await client.look_up(order)
        assert not isinstance(outcome, Declined), outcome
        return None if isinstance(outcome, Unknown) else outcome

    outcome: Outcome = await patiently(decided)
    if outcome == Pending("not_attempted"):
        # Whatever is open under the first name, nobody was told where.
        assert await world.charges(gateway, order) == []
        return await paid_anew(world, gateway, way)
    if not isinstance(outcome, Paid):
        await world.act(gateway, order)
        order = replace(order, handle=handle_of(outcome))
    await until_paid(world, gateway, order)
    return order


async def paid_anew(world: World, gateway: str, way: Way) -> Order:
    order = await pay(world, gateway, way)
    await until_paid(world, gateway, order)
    return order
