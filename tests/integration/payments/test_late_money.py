"""A payment ends when its time is over, and money that comes after that is kept or goes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.payments.domain.check_schedule import UNKNOWN_GIVEN_UP_AFTER
from shared.contracts.payments import PaymentRefunded
from shared.gateways.interface import Declined, FailureKind, Outcome, Pending
from tests.integration.payments.world import Payments, running_payments

PRICE = 115_000
OPEN = Pending("gateway_pending", "handle_1")
CLOSED = Declined("EXPIRED", FailureKind.EXPIRED, is_final=True)


@pytest.fixture
async def returning(
    new_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Payments]:
    """Run the service where late money goes back."""
    monkeypatch.setenv("LATE_SUCCESS_POLICY", "refund")
    async with running_payments(new_database, redis_url) as payments:
        yield payments


def lets_cancel(payments: Payments, *answers: Outcome) -> None:
    """Let the gateway close what is open, with these answers."""
    payments.gateway.capabilities = replace(payments.gateway.capabilities, cancels=True)
    payments.gateway.next_cancels += answers


async def waits(payments: Payments) -> dict[str, object]:
    """Create a payment whose customer leaves the gateway's page open past its time."""
    payment = await payments.create()
    payments.gateway.next_look_ups.append(OPEN)
    payments.clock.advance(86_401)
    await payments.look()
    return await payments.read(str(payment["id"]))


async def test_what_the_gateway_can_close_is_closed_and_that_is_the_end(
    payments: Payments,
) -> None:
    lets_cancel(payments, CLOSED)

    payment = await waits(payments)

    assert [order.handle for order in payments.gateway.cancelled] == ["session_1"]
    assert (payment["state"], payment["reason"]) == ("failed", "expired:EXPIRED")
    assert payment["nextCheckAt"] is None


async def test_who_paid_at_the_last_moment_has_paid(payments: Payments) -> None:
    payment = await payments.create()
    paid = payments.gateway.charge(payment["gatewayReference"])
    lets_cancel(payments, paid)
    payments.gateway.next_look_ups.append(OPEN)
    payments.clock.advance(86_401)

    await payments.look()

    assert (await payments.read(payment["id"]))["state"] == "succeeded"


@pytest.mark.parametrize("gateway", ["cannot close", "does not say"])
async def test_what_stays_open_ends_too_and_money_is_looked_for_a_while(
    payments: Payments, gateway: str
) -> None:
    if gateway == "does not say":
        lets_cancel(payments)

    payment = await waits(payments)

    assert (payment["state"], payment["reason"]) == ("failed", "expired_open:gateway_pending")
    assert payment["nextCheckAt"] is not None
    assert len(payments.gateway.cancelled) == (gateway == "does not say")
    payments.gateway.charge(str(payment["gatewayReference"]))
    payments.clock.advance(3_600)
    await payments.look()
    assert (await payments.read(str(payment["id"])))["state"] == "succeeded"


async def test_nothing_is_closed_in_time(payments: Payments) -> None:
    lets_cancel(payments, CLOSED)
    await payments.create()
    payments.gateway.next_look_ups.append(OPEN)
    payments.clock.advance(3_600)

    await payments.look()

    assert payments.gateway.cancelled == []


async def test_a_gateway_that_never_says_ends_a_payment_after_a_week(payments: Payments) -> None:
    payment = await payments.create()
    payments.gateway.is_silent = True
    payments.clock.advance(86_401)
    await payments.look()
    assert (await payments.read(payment["id"]))["nextCheckAt"] is not None

    payments.clock.advance(UNKNOWN_GIVEN_UP_AFTER.total_seconds())
    await payments.look()

    now = await payments.read(payment["id"])
    assert (now["state"], now["reason"]) == ("failed", "expired_unknown:timeout")


async def test_by_default_late_money_counts(payments: Payments) -> None:
    payment = await waits(payments)

    await payments.paid(payment)

    assert (await payments.read(str(payment["id"])))["state"] == "succeeded"
    assert len(await payments.announcements()) == 1
    assert await payments.sql("SELECT count(*) FROM refund") == 0


async def test_late_money_goes_back_and_enrolls_nobody_where_that_is_the_policy(
    returning: Payments,
) -> None:
    payments = returning
    payment = await waits(payments)

    await payments.paid(payment)

    held = await payments.read(str(payment["id"]))
    assert (held["state"], held["reason"]) == ("on_hold", "late_success")
    refunds = (await payments.api.call("GET", f"/api/payments/{payment['id']}/refunds")).data
    (refund,) = refunds["refunds"]
    assert (refund["amount"], refund["requestedBy"]) == (PRICE, "late_success_policy")

    assert await payments.carry_out_refunds() == 1

    assert (await payments.read(str(payment["id"])))["state"] == "refunded"
    assert await payments.announcements() == []
    assert len(await payments.facts(PaymentRefunded)) == 1
    data = (await payments.api.call("GET", "/api/ledger/balances")).data
    assert {each["balance"] for each in data["balances"]} == {0}


async def test_late_money_is_given_back_once_however_often_it_is_told(returning: Payments) -> None:
    payments = returning
    payment = await waits(payments)
    charge = payments.gateway.charge(str(payment["gatewayReference"]))

    for _ in range(3):
        await payments.notify_of(payment, validation_id=charge.validation_id)
    payments.clock.advance(3_600)
    await payments.look()

    assert await payments.sql("SELECT count(*) FROM refund") == 1
    assert await payments.sql("SELECT count(*) FROM ledger_transfer") == 1


async def test_money_in_time_counts_under_either_policy(returning: Payments) -> None:
    payment = await returning.create()
    returning.gateway.decline(payment["gatewayReference"])
    await returning.notify_of(payment, claim="failed", validation_id="")

    await returning.paid(payment)

    assert (await returning.read(payment["id"]))["state"] == "succeeded"
