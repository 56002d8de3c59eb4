"""A notice of a dispute is a hint: the gateway is asked, and the payment follows what it says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from shared.contracts.payments import DisputeLost, DisputeWon
from shared.contracts.webhook import DisputeNoticed
from shared.gateways.disputes import Disputed, DisputeState
from shared.gateways.interface import Paid, RefundPending
from shared.money import Money
from tests.integration.payments.test_refunds import PRICE, paid_payment
from tests.integration.payments.world import Payments
from tests.support.clocks import START
from tests.support.polling import eventually

D = DisputeState


def noticed(disputed: Disputed) -> DisputeNoticed:
    return DisputeNoticed(
        gateway="sslcommerz",
        dispute=disputed.handle,
        reference=disputed.reference or disputed.gateway_payment_id,
        amount=disputed.amount.minor_units,
        currency=disputed.amount.currency,
        received_at=START,
    )


@pytest.fixture
async def payment(payments: Payments) -> dict[str, Any]:
    return await paid_payment(payments)


def charge_of(payment: dict[str, Any]) -> Paid:
    return Paid(
        reference=payment["gatewayReference"],
        amount=Money(payment["amount"], payment["currency"]),
        validation_id="val_1",
        gateway_payment_id=payment["gatewayPaymentId"],
    )


async def dispute(
    payments: Payments, payment: dict[str, Any], state: DisputeState, **options: Any
) -> None:
    """Let the bank do something and the notice of it arrive."""
    await payments.notify(noticed(payments.gateway.dispute(charge_of(payment), state, **options)))


async def listed(payments: Payments, path: str = "/api/disputes") -> list[dict[str, Any]]:
    data = (await payments.api.call("GET", path)).data
    found: list[dict[str, Any]] = data["disputes"]
    return found


async def state_of(payments: Payments, payment: dict[str, Any]) -> tuple[str, str | None]:
    found = await payments.read(payment["id"])
    return found["state"], found["reason"]


async def announced(payments: Payments) -> list[str]:
    found = await payments.rows(
        "SELECT message_name FROM outbox WHERE message_name LIKE 'payments.dispute%' ORDER BY id"
    )
    return [row["message_name"] for row in found]


async def booked(payments: Payments, payment: dict[str, Any]) -> dict[str, int]:
    """Return what each account has, debits less credits."""
    found = await payments.rows(
        "SELECT account, sum(amount)::bigint AS balance"
        "  FROM (SELECT debit AS account, amount FROM ledger_transfer WHERE payment_id = $1"
        "         UNION ALL"
        "        SELECT credit, -amount FROM ledger_transfer WHERE payment_id = $1) AS side"
        " GROUP BY account HAVING sum(amount) <> 0",
        payment["id"],
    )
    return {row["account"]: row["balance"] for row in found}


async def test_a_dispute_is_opened_and_won(payments: Payments, payment: dict[str, Any]) -> None:
    await dispute(payments, payment, D.OPENED)
    assert await state_of(payments, payment) == ("disputed", "disputed:fraudulent")
    assert await booked(payments, payment) == {"disputed": PRICE, "revenue": -PRICE}
    await dispute(payments, payment, D.WON)

    assert await state_of(payments, payment) == ("succeeded", None)
    assert await booked(payments, payment) == {"gateway:sslcommerz": PRICE, "revenue": -PRICE}
    assert (await payments.story(payment))[-2:] == ["dispute_opened", "dispute_won"]
    (found,) = await listed(payments, f"/api/payments/{payment['id']}/disputes")
    assert (found["state"], found["amount"], found["reason"]) == ("won", PRICE, "fraudulent")
    assert (await payments.api.call("GET", f"/api/disputes/{found['id']}")).data == found
    (won,) = await payments.facts(DisputeWon)
    assert (won["paymentId"], won["disputeId"]) == (payment["id"], found["id"])
    assert (won["customerId"], won["amount"], won["currency"]) == ("cus_1", PRICE, "BDT")


async def test_a_dispute_is_lost(payments: Payments, payment: dict[str, Any]) -> None:
    await dispute(payments, payment, D.OPENED)
    await dispute(payments, payment, D.LOST)

    assert await state_of(payments, payment) == ("disputed", "dispute_lost")
    assert await booked(payments, payment) == {"dispute_losses": PRICE, "revenue": -PRICE}
    (lost,) = await payments.facts(DisputeLost)
    assert (lost["paymentId"], lost["reason"]) == (payment["id"], "fraudulent")


async def test_one_that_is_first_seen_when_it_is_lost_was_opened_too(
    payments: Payments, payment: dict[str, Any]
) -> None:
    await dispute(payments, payment, D.LOST)

    assert (await payments.story(payment))[-2:] == ["dispute_opened", "dispute_lost"]
    assert await booked(payments, payment) == {"dispute_losses": PRICE, "revenue": -PRICE}


async def test_what_was_lost_may_be_heard_again_and_won(
    payments: Payments, payment: dict[str, Any]
) -> None:
    for state in (D.OPENED, D.LOST, D.OPENED, D.WON):
        await dispute(payments, payment, state)

    assert await state_of(payments, payment) == ("succeeded", None)
    assert await booked(payments, payment) == {"gateway:sslcommerz": PRICE, "revenue": -PRICE}


async def test_an_inquiry_changes_nothing(payments: Payments, payment: dict[str, Any]) -> None:
    await dispute(payments, payment, D.INQUIRY)
    await dispute(payments, payment, D.WON)

    assert await state_of(payments, payment) == ("succeeded", None)
    assert await announced(payments) == []
    assert [found["state"] for found in await listed(payments, "/api/disputes")] == ["won"]
    assert await listed(payments, "/api/disputes?state=opened") == []


async def test_copies_of_a_notice_are_one_dispute(
    payments: Payments, payment: dict[str, Any]
) -> None:
    notice = noticed(payments.gateway.dispute(charge_of(payment), D.LOST))

    await payments.notify(notice, notice, notice, notice)
    await payments.notify(notice)

    assert len(await listed(payments)) == 1
    assert (await payments.story(payment)).count("dispute_lost") == 1
    assert len(await payments.facts(DisputeLost)) == 1


async def test_the_truth_is_what_the_gateway_says_and_not_the_notice(
    payments: Payments, payment: dict[str, Any]
) -> None:
    disputed = payments.gateway.dispute(charge_of(payment), D.OPENED)

    await payments.notify(
        replace_notice(noticed(disputed), amount=1, reference="att_of_somebody_else")
    )

    (found,) = await listed(payments)
    assert (found["paymentId"], found["amount"]) == (payment["id"], PRICE)


def replace_notice(notice: DisputeNoticed, **changes: Any) -> DisputeNoticed:
    return notice.model_copy(update=changes)


async def test_a_part_may_be_disputed_and_the_fee_is_booked(
    payments: Payments, payment: dict[str, Any]
) -> None:
    part, fee = Money(15_000, "BDT"), Money(1_500, "BDT")
    await dispute(payments, payment, D.OPENED, amount=part, fee=fee)
    opened = await booked(payments, payment)
    await dispute(payments, payment, D.WON, amount=part, fee=Money(0, "BDT"))

    assert opened == {
        "disputed": 15_000,
        "fees": 1_500,
        "gateway:sslcommerz": PRICE - 16_500,
        "revenue": -PRICE,
    }
    assert await booked(payments, payment) == {"gateway:sslcommerz": PRICE, "revenue": -PRICE}
    (found,) = await listed(payments)
    assert found["fee"] == {"amount": 0, "currency": "BDT"}


async def test_what_a_bank_has_taken_back_is_not_given_back_as_well(
    payments: Payments, payment: dict[str, Any]
) -> None:
    await dispute(payments, payment, D.OPENED)
    while_open = await payments.try_refund(payment)
    await dispute(payments, payment, D.LOST)
    when_lost = await payments.try_refund(payment)

    assert (while_open.status, when_lost.status) == (409, 409)
    assert "disputed" in while_open.error["details"]["paymentId"]
    assert payments.gateway.given_back == {}


async def test_a_refund_on_its_way_when_the_dispute_comes_is_recorded(
    payments: Payments, payment: dict[str, Any]
) -> None:
    payments.gateway.next_refunds = [RefundPending("processing", "re_1")]
    refund = await payments.refund(payment, amount=40_000)
    await dispute(payments, payment, D.OPENED)
    payments.clock.advance(30)
    await payments.carry_out_refunds()
    between = await state_of(payments, payment)
    await dispute(payments, payment, D.WON)

    assert between == ("disputed", "disputed:fraudulent")
    assert (await payments.read_refund(refund))["state"] == "succeeded"
    assert await state_of(payments, payment) == ("partially_refunded", None)


async def test_a_dispute_races_a_refund_and_one_of_them_has_the_money(
    payments: Payments, payment: dict[str, Any]
) -> None:
    """Whichever takes the payment's row first; both orders are right, both at once never."""
    payments.gateway.is_answering.clear()
    opened = payments.gateway.dispute(charge_of(payment), D.OPENED)
    notice = asyncio.create_task(payments.notify(noticed(opened)))
    reply = asyncio.create_task(payments.try_refund(payment))

    async def both_ask() -> bool:
        asked = {operation for operation, _ in payments.gateway.questions}
        return "look_up_dispute" in asked and (reply.done() or "refund" in asked)

    await eventually(both_ask)
    payments.gateway.is_answering.set()
    await notice

    given_back = PRICE if (await reply).status == 201 else 0
    assert sum(each.amount.minor_units for each in payments.gateway.given_back.values()) == (
        given_back
    )
    assert (await state_of(payments, payment))[0] == "disputed"


async def test_a_dispute_that_is_heard_before_the_payment_is_confirmed(
    payments: Payments,
) -> None:
    created = await payments.create()
    paid = payments.gateway.charge(created["gatewayReference"])

    await payments.notify(noticed(payments.gateway.dispute(paid, D.OPENED)))

    assert (await payments.story(created))[-2:] == ["confirmed", "dispute_opened"]
    assert (await state_of(payments, created))[0] == "disputed"


async def test_held_money_that_is_disputed_stays_on_hold(payments: Payments) -> None:
    held = await paid_payment(payments, is_risky=True)

    await dispute(payments, held, D.OPENED)

    assert await state_of(payments, held) == ("on_hold", "gateway_says_risky")
    assert (await payments.try_refund(held)).status == 409


async def test_the_dispute_of_a_surplus_charge_is_not_the_payments(
    payments: Payments, payment: dict[str, Any]
) -> None:
    other = payments.gateway.charge(payment["gatewayReference"])

    await payments.notify(noticed(payments.gateway.dispute(other, D.OPENED)))

    assert (await state_of(payments, payment))[0] == "succeeded"
    assert (await payments.story(payment))[-1] == "dispute_opened_of_surplus"
    assert await announced(payments) == []


async def test_a_dispute_of_another_system_is_counted_and_ended(
    payments: Payments, payment: dict[str, Any]
) -> None:
    disputed = payments.gateway.dispute(charge_of(payment), D.OPENED)
    payments.gateway.disputes[disputed.handle] = replace(disputed, reference=None)

    await payments.notify(noticed(disputed))

    assert await listed(payments) == []
    assert await payments.dead_letters() == []


async def test_a_dispute_in_another_currency_is_a_dead_letter(
    payments: Payments, payment: dict[str, Any]
) -> None:
    disputed = payments.gateway.dispute(charge_of(payment), D.OPENED, amount=Money(1, "USD"))

    await payments.notify(noticed(disputed))

    (letter,) = await payments.dead_letters()
    assert "USD" in letter["reason"]
    assert (await state_of(payments, payment))[0] == "succeeded"


async def test_the_end_of_a_dispute_is_found_without_a_notice(
    payments: Payments, payment: dict[str, Any]
) -> None:
    await dispute(payments, payment, D.OPENED)
    assert await payments.look_at_disputes() == 0
    payments.gateway.dispute(charge_of(payment), D.LOST)
    payments.clock.advance(6 * 3_600)

    payments.gateway.is_silent = True
    assert await payments.look_at_disputes() == 1
    assert (await state_of(payments, payment))[1] == "disputed:fraudulent"
    payments.gateway.is_silent = False
    payments.clock.advance(600)
    assert await payments.look_at_disputes() == 1

    assert await state_of(payments, payment) == ("disputed", "dispute_lost")
