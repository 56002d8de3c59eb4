"""Refunds and disputes by the real clients, at a simulator that loses answers: both ledgers agree.

What must be true in the end is what the simulator's ledger says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from services.payments.domain.refunds import Refund, RefundState
from services.payments.handlers import disputes, orders, reconciler, refunds
from services.payments.handlers.orders import Purchase
from services.payments.handlers.refunds import RefundWish
from services.payments.runtime import Runtime, open_runtime
from services.payments.store import disputes as dispute_store
from services.payments.store.payment_views import PaymentView
from shared.contracts.webhook import DisputeNoticed
from shared.errors import ConflictError
from shared.gateways.interface import Card, Checkout, Method, Order
from shared.identifiers import created_at, new_id
from shared.messaging.receiver import Delivery
from shared.money import Money
from shared.process import open_core
from tests.conformance.world import CUSTOMER, World, open_world
from tests.integration.payments.world import payments_settings
from tests.support.polling import eventually
from tests.support.settings import service_settings

METHODS: dict[str, tuple[Method, Money]] = {
    "stripe": (Card("pm_card_visa"), Money(50_000, "USD")),
    "sslcommerz": (Checkout(), Money(150_000, "BDT")),
}

#: What may happen to a call that gives money back: before it acts, and after.
FAULTS = ("timeout_before", "error", "timeout", "error_after", "drop", "malformed")


@dataclass
class Subject:
    """One payments process with real clients, and the simulator that they call."""

    runtime: Runtime
    world: World

    async def pay(self, gateway: str) -> PaymentView:
        method, amount = METHODS[gateway]
        purchase = Purchase(
            gateway=gateway,
            method=method,
            amount=amount,
            customer={"id": "cus_1", "name": "A", "email": "a@shop.example", "phone": "017"},
            product={"id": "course_1", "name": "Course"},
            return_url=None,
            metadata={},
        )
        payment_id = new_id("pay", self.runtime.core.clock())
        view = await orders.create_payment(self.runtime, payment_id, purchase)
        if view.payment.state != "succeeded":
            await self.world.act(gateway, order_named(view.payment.reference))
            await self._sql("UPDATE payment SET next_check_at = clock_timestamp()")
            await asyncio.gather(*await reconciler.take_up_due(self.runtime, 10))
        view = await self.read(payment_id)
        assert view.payment.state == "succeeded"
        return view

    async def refund(self, view: PaymentView, amount: int | None = None) -> Refund:
        refund_id = new_id("ref", self.runtime.core.clock())
        wish = RefundWish(amount, "changed their mind", "operator")
        return await refunds.request_refund(self.runtime, view.payment.id, refund_id, wish)

    async def decided(self, refund: Refund) -> Refund:
        """Look, as often as it takes, until the refund is decided."""

        async def look() -> list[Refund]:
            await self._sql(
                "UPDATE refund SET next_look_at = clock_timestamp()"
                " WHERE state NOT IN ('succeeded', 'failed')"
            )
            await asyncio.gather(*await refunds.take_up_refunds(self.runtime, 50))
            found = await refunds.read_refund(self.runtime, refund.id)
            return [found] if found.state in {RefundState.SUCCEEDED, RefundState.FAILED} else []

        return (await eventually(look))[0]

    async def read(self, payment_id: str) -> PaymentView:
        return await orders.read_payment(self.runtime, payment_id)

    async def moved(self, view: PaymentView, kind: str = "refund") -> list[int]:
        """Return the amounts of what moved at the gateway after the charge."""
        name = self.world.name_of(order_named(view.payment.reference), view.payment.gateway)
        ledger = await self.world.control("GET", view.payment.gateway, f"ledger?reference={name}")
        return sorted(each["amount"] for each in ledger["movements"] if each["kind"] == kind)

    async def _sql(self, statement: str) -> None:
        async with self.runtime.core.database.connection() as connection:
            await connection.execute(statement)


def order_named(reference: str) -> Order:
    """Return an order of this name: more of it the simulator's controls do not need."""
    method, amount = METHODS["stripe"]
    return Order(reference, amount, method, CUSTOMER, "Course", created_at(reference))


@pytest.fixture
async def subject(new_database: str, redis_url: str) -> AsyncIterator[Subject]:
    settings = payments_settings(new_database, redis_url)
    async with (
        open_world(new_database) as world,
        open_core(service_settings(redis_url), "payments", new_database) as core,
        open_runtime(core, settings) as runtime,
    ):
        gateways = {name: world.gateway(name) for name in METHODS}
        yield Subject(replace(runtime, gateways=gateways), world)


@pytest.mark.parametrize("gateway", METHODS)
async def test_parts_and_the_rest_are_given_back(subject: Subject, gateway: str) -> None:
    view = await subject.pay(gateway)
    total = view.payment.amount.minor_units

    first = await subject.decided(await subject.refund(view, 20_000))
    half_way = await subject.read(view.payment.id)
    rest = await subject.decided(await subject.refund(view))

    assert (first.state, rest.state) == (RefundState.SUCCEEDED, RefundState.SUCCEEDED)
    assert half_way.payment.state == "partially_refunded"
    assert (await subject.read(view.payment.id)).payment.state == "refunded"
    assert await subject.moved(view) == sorted([20_000, total - 20_000])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("gateway", METHODS)
async def test_whatever_happens_to_the_call_the_money_is_given_back_once(
    subject: Subject, gateway: str, fault: str
) -> None:
    view = await subject.pay(gateway)
    await subject.world.spoil(gateway, "refund", fault)

    refund = await subject.decided(await subject.refund(view))

    assert refund.state is RefundState.SUCCEEDED
    assert await subject.moved(view) == [view.payment.amount.minor_units]
    assert (await subject.read(view.payment.id)).payment.state == "refunded"


async def test_refunds_that_race_give_back_no_more_than_was_paid(subject: Subject) -> None:
    view = await subject.pay("stripe")
    await subject.world.spoil("stripe", "refund", "error_after", times=3)

    asked = await asyncio.gather(
        *(subject.refund(view, 15_000) for _ in range(8)), return_exceptions=True
    )

    refused = [each for each in asked if isinstance(each, ConflictError)]
    accepted = [each for each in asked if isinstance(each, Refund)]
    assert (len(accepted), len(refused)) == (3, 5)
    for refund in accepted:
        assert (await subject.decided(refund)).state is RefundState.SUCCEEDED
    assert await subject.moved(view) == [15_000] * 3


async def test_a_dispute_is_followed_from_its_notice_to_its_end(subject: Subject) -> None:
    view = await subject.pay("stripe")
    order, control = order_named(view.payment.reference), subject.world.control
    name = subject.world.name_of(order, "stripe")

    await control("POST", "stripe", "dispute", {"reference": name})
    notice = await subject.world.dispute_notice_of("stripe", order)
    await deliver(subject, notice.validation_id)
    opened = await subject.read(view.payment.id)
    with pytest.raises(ConflictError):
        await subject.refund(view)
    await control("POST", "stripe", "dispute/decide", {"reference": name, "status": "lost"})
    await deliver(subject, notice.validation_id)

    assert opened.payment.state == "disputed"
    assert (await subject.read(view.payment.id)).payment.reason == "dispute_lost"
    async with subject.runtime.core.database.connection() as connection:
        dispute = await dispute_store.lock_by_handle(connection, "stripe", notice.validation_id)
    assert dispute is not None
    assert (dispute.state, dispute.amount) == ("lost", view.payment.amount)
    assert await subject.moved(view, "dispute") == [view.payment.amount.minor_units]


@dataclass
class Holder:
    """Whoever waits for the end of a delivery."""

    finished: int = 0

    def finish(self, _delivery: Delivery[Any]) -> None:
        """Take note that it is done."""
        self.finished += 1

    def put_back(self, _delivery: Delivery[Any], error: Exception) -> None:
        """Fail: nothing here should have to be tried again."""
        raise error


async def deliver(subject: Subject, handle: str) -> None:
    """Hand the message of a notice to its handler."""
    message = DisputeNoticed(
        gateway="stripe",
        dispute=handle,
        reference="whatever the notice says",
        amount=1,
        currency="USD",
        received_at=subject.runtime.core.clock(),
    )
    holder = Holder()
    delivery = Delivery(holder, "payments.disputes", "webhook", 1, message, None)
    await disputes.check_disputes(subject.runtime, [delivery])
    assert holder.finished == 1
