"""What gateways list, against the real simulator: what its ledger has, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.clock import system_clock
from shared.gateways.interface import Paid, PaymentGateway, Unknown
from shared.gateways.listings import ListedPage, ListedPayment
from shared.gateways.registry import REGISTRY
from shared.money import Money
from tests.conformance.subjects import SUBJECTS
from tests.conformance.world import World, handle_of, new_order, open_world

LISTING = ("fapshi", "campay", "stripe")


@pytest.fixture
async def world(new_database: str) -> AsyncIterator[World]:
    async with open_world(new_database) as world:
        yield world


async def all_listed(gateway: PaymentGateway) -> set[ListedPayment]:
    """Read the whole list of today, page by page; a payment may come twice."""
    day = system_clock().date()
    found: set[ListedPayment] = set()
    cursor: str | None = None
    for _ in range(20):
        page = await gateway.list_paid(day, cursor)
        assert isinstance(page, ListedPage), page
        assert not page.is_cut
        found |= set(page.payments)
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("the list has no end")


@pytest.mark.parametrize("name", LISTING)
async def test_what_was_paid_is_listed_as_the_simulator_s_ledger_has_it(
    world: World, name: str
) -> None:
    gateway = world.gateway(name)
    orders = []
    for way in SUBJECTS[name].values():
        order = new_order(way.method, way.amount)
        started = await gateway.start(order)
        orders.append(order)
        if not isinstance(started, Paid):
            await world.act(name, replace(order, handle=handle_of(started)))
    waiting = next(way for way in SUBJECTS[name].values() if way.opens is not Paid)
    await gateway.start(new_order(waiting.method, waiting.amount))

    found = await all_listed(gateway)

    expected = set()
    for order in orders:
        (charge,) = await world.charges(name, order)
        amount = Money(charge["priceAmount"], charge["priceCurrency"])
        expected.add(ListedPayment(order.reference, charge["gatewayPaymentId"], amount))
    assert found == expected


@pytest.mark.parametrize("name", LISTING)
async def test_a_day_without_payments_has_an_empty_list(world: World, name: str) -> None:
    gateway = world.gateway(name)
    day = system_clock().date() - timedelta(days=30)
    cursor: str | None = None
    while True:
        page = await gateway.list_paid(day, cursor)
        assert isinstance(page, ListedPage), page
        assert page.payments == ()
        cursor = page.next_cursor
        if cursor is None:
            return


async def test_who_does_not_list_says_so(world: World) -> None:
    for name in REGISTRY:
        capable = world.gateway(name).capabilities.lists_payments
        assert capable is (name in LISTING)
        if not capable:
            listing = await world.gateway(name).list_paid(system_clock().date())
            assert listing == Unknown("not_supported")
