"""Money is given back once, never more than was taken, and whatever happens it is found out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.contracts.payments import PaymentRefunded
from shared.gateways.interface import RefundFailed, RefundPending
from tests.integration.payments.world import Payments, running_payments
from tests.support.clocks import START
from tests.support.fake_gateway import EVERYTHING_IN_BDT, FakeGateway

PRICE = 115_000
MISSING = "pay_01KE70EHG0JY1QREBD77BRA2Z7"


@pytest.fixture
async def paid(payments: Payments) -> dict[str, Any]:
    return await paid_payment(payments)


async def paid_payment(payments: Payments, **charge: Any) -> dict[str, Any]:
    payment = await payments.create()
    await payments.paid(payment, **charge)
    return await payments.read(payment["id"])


async def returned(payments: Payments, payment: dict[str, Any]) -> tuple[int, int]:
    (row,) = await payments.rows(
        "SELECT refunded_amount, refund_reserved FROM payment WHERE id = $1", payment["id"]
    )
    return row["refunded_amount"], row["refund_reserved"]


async def test_all_of_a_payment_is_given_back(payments: Payments, paid: dict[str, Any]) -> None:
    refund = await payments.refund(paid)

    assert (refund["state"], refund["amount"], refund["currency"]) == ("succeeded", PRICE, "BDT")
    assert refund["gatewayRefundId"] == f"refund_of_{refund['id']}"
    assert (refund["reason"], refund["requestedBy"]) == ("changed their mind", "admin")
    assert (await payments.read(paid["id"]))["state"] == "refunded"
    assert (await payments.story(paid))[-2:] == ["refund_requested", "refunded"]
    (order,) = payments.gateway.refund_calls
    assert (order.reference, order.amount.minor_units) == (refund["id"], PRICE)
    assert order.payment_reference == paid["gatewayReference"]
    assert order.gateway_payment_id == paid["gatewayPaymentId"]
    (fact,) = await payments.facts(PaymentRefunded)
    assert fact == {
        "paymentId": paid["id"],
        "refundId": refund["id"],
        "customerId": "cus_1",
        "productId": "course_1",
        "amount": PRICE,
        "currency": "BDT",
        "refundedTotal": PRICE,
        "isFull": True,
        "refundedAt": "2026-01-05T12:00:00Z",
    }


async def test_parts_are_given_back_until_nothing_is_left(
    payments: Payments, paid: dict[str, Any]
) -> None:
    first = await payments.refund(paid, amount=15_000)
    half_way = await payments.read(paid["id"])
    rest = await payments.refund(paid)
    too_much = await payments.try_refund(paid, amount=1)

    assert (half_way["state"], half_way["refundedAmount"]) == ("partially_refunded", 15_000)
    assert (first["amount"], rest["amount"]) == (15_000, 100_000)
    assert (await payments.read(paid["id"]))["state"] == "refunded"
    assert too_much.status == 409
    assert too_much.error["details"].keys() == {"paymentId"}
    facts = await payments.facts(PaymentRefunded)
    assert [(fact["refundedTotal"], fact["isFull"]) for fact in facts] == [
        (15_000, False),
        (PRICE, True),
    ]
    assert await returned(payments, paid) == (PRICE, 0)


async def test_more_than_is_left_is_refused_by_the_field(
    payments: Payments, paid: dict[str, Any]
) -> None:
    await payments.refund(paid, amount=100_000)

    reply = await payments.try_refund(paid, amount=15_001)

    assert reply.status == 409
    assert reply.error["details"]["left"] == 15_000
    assert "15" in reply.error["details"]["amount"]
    assert len(payments.gateway.refund_calls) == 1


async def test_what_was_not_paid_is_not_given_back(payments: Payments) -> None:
    payment = await payments.create()

    reply = await payments.try_refund(payment)

    assert reply.status == 409
    assert "pending" in reply.error["details"]["paymentId"]
    assert payments.gateway.refund_calls == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({"amount": 0}, "amount", id="nothing"),
        pytest.param({"amount": -5}, "amount", id="less than nothing"),
        pytest.param({"amount": "100"}, "amount", id="text"),
        pytest.param({"amount": 10.5}, "amount", id="a fraction"),
        pytest.param({"amount": 10**16}, "amount", id="more than there is"),
        pytest.param({"reason": ""}, "reason", id="no reason"),
        pytest.param({"reason": "a\u0000b"}, "reason", id="NUL"),
        pytest.param({"currency": "BDT"}, "currency", id="an unknown field"),
    ],
)
async def test_bad_input_is_refused_by_the_name_of_the_field(
    payments: Payments, paid: dict[str, Any], body: dict[str, Any], field: str
) -> None:
    reply = await payments.try_refund(paid, **body)

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert field in reply.error["details"]
    assert await returned(payments, paid) == (0, 0)


async def test_only_admins_give_money_back(payments: Payments, paid: dict[str, Any]) -> None:
    path = f"/api/payments/{paid['id']}/refunds"

    reply = await payments.api.call("POST", path, {"reason": "x"}, key="writer")

    assert reply.status == 403


@pytest.mark.parametrize("id_", [MISSING, "ref_1", "%00", "x" * 4_000])
async def test_unknown_ids_are_not_found(payments: Payments, id_: str) -> None:
    for path in (f"/api/refunds/{id_}", f"/api/payments/{id_}/refunds", f"/api/disputes/{id_}"):
        assert (await payments.api.call("GET", path)).status in {400, 404}
    reply = await payments.api.call("POST", f"/api/payments/{id_}/refunds", {"reason": "x"})
    assert reply.status in {400, 404}


async def test_a_gateway_without_refunds_says_so_up_front(
    new_database: str, redis_url: str
) -> None:
    gateway = FakeGateway(capabilities=replace(EVERYTHING_IN_BDT, refunds=False))
    async with running_payments(new_database, redis_url, gateway=gateway) as payments:
        paid = await paid_payment(payments)

        reply = await payments.try_refund(paid)

        assert (reply.status, reply.error["code"]) == (422, "not_supported")
        assert reply.error["details"].keys() == {"gateway"}
        assert await returned(payments, paid) == (0, 0)
        assert gateway.refund_calls == []


async def test_a_currency_that_is_not_given_back_is_refused_up_front(
    new_database: str, redis_url: str
) -> None:
    gateway = FakeGateway(
        capabilities=replace(EVERYTHING_IN_BDT, refund_currencies=frozenset({"USD"}))
    )
    async with running_payments(new_database, redis_url, gateway=gateway) as payments:
        reply = await payments.try_refund(await paid_payment(payments))

        assert reply.status == 422
        assert reply.error["details"].keys() == {"currency"}


async def test_a_repeated_request_is_the_same_refund(
    payments: Payments, paid: dict[str, Any]
) -> None:
    first = await payments.refund(paid, "key-1", amount=40_000)
    again = await payments.refund(paid, "key-1", amount=40_000)
    other = await payments.try_refund(paid, "key-1", amount=40_001)

    assert again == first
    assert other.status == 409
    assert len(payments.gateway.refund_calls) == 1
    assert await returned(payments, paid) == (40_000, 0)


async def test_refunds_are_listed_and_filtered(payments: Payments, paid: dict[str, Any]) -> None:
    payments.gateway.next_refunds = [RefundFailed("no_balance")]
    failed = await payments.refund(paid, amount=10)
    payments.clock.advance(1)
    done = await payments.refund(paid, amount=20)
    other = await payments.refund(await paid_payment(payments), amount=30)

    async def listed(path: str) -> list[str]:
        data = (await payments.api.call("GET", path)).data
        return [each["id"] for each in data["refunds"]]

    assert set(await listed("/api/refunds")) == {other["id"], done["id"], failed["id"]}
    assert await listed("/api/refunds?state=failed") == [failed["id"]]
    assert await listed(f"/api/refunds?paymentId={paid['id']}") == [done["id"], failed["id"]]
    assert await listed(f"/api/payments/{paid['id']}/refunds?state=succeeded") == [done["id"]]
    assert await listed(f"/api/refunds?paymentId={paid['id']}&cursor={done['id']}") == [
        failed["id"]
    ]
    assert (await payments.api.call("GET", "/api/refunds?state=none")).status == 400
    assert (await payments.api.call("GET", "/api/refunds?cursor=pay_1")).status == 400


async def test_a_refusal_frees_what_was_reserved(payments: Payments, paid: dict[str, Any]) -> None:
    payments.gateway.next_refunds = [RefundFailed("no_balance")]

    failed = await payments.refund(paid)

    assert (failed["state"], failed["detail"]) == ("failed", "no_balance")
    assert failed["nextLookAt"] is None
    assert (await payments.read(paid["id"]))["state"] == "succeeded"
    assert await returned(payments, paid) == (0, 0)
    assert await payments.facts(PaymentRefunded) == []
    assert (await payments.refund(paid))["state"] == "succeeded"


async def test_an_accepted_refund_is_asked_about_until_the_bank_has_it(
    payments: Payments, paid: dict[str, Any]
) -> None:
    payments.gateway.next_refunds = [RefundPending("processing", "re_7")] * 2
    refund = await payments.refund(paid)
    assert (refund["state"], refund["gatewayRefundId"]) == ("pending", "re_7")
    assert (await payments.read(paid["id"]))["state"] == "succeeded"
    assert await returned(payments, paid) == (0, PRICE)
    assert (await payments.try_refund(paid, amount=1)).status == 409

    assert await payments.carry_out_refunds() == 0, "it is not due yet"
    payments.clock.advance(30)
    assert await payments.carry_out_refunds() == 1
    assert (await payments.read_refund(refund))["state"] == "pending"
    payments.clock.advance(120)
    assert await payments.carry_out_refunds() == 1

    assert (await payments.read_refund(refund))["state"] == "succeeded"
    assert (await payments.read(paid["id"]))["state"] == "refunded"
    assert len(payments.gateway.refund_calls) == 1
    assert [each for each in payments.gateway.questions if each[0] == "look_up_refund"] == [
        ("look_up_refund", refund["id"])
    ] * 2


async def test_an_answer_that_is_lost_is_asked_for_under_the_same_name(
    payments: Payments, paid: dict[str, Any]
) -> None:
    payments.gateway.is_silent = True
    refund = await payments.refund(paid)
    assert (refund["state"], refund["detail"]) == ("unknown", "timeout")
    for _ in range(5):
        payments.clock.advance(3_600)
        assert await payments.carry_out_refunds() == 1

    payments.gateway.is_silent = False
    payments.clock.advance(3_600)
    assert await payments.carry_out_refunds() == 1

    assert (await payments.read_refund(refund))["state"] == "succeeded"
    assert payments.gateway.given_back.keys() == {refund["id"]}
    started = {order.started_at for order in payments.gateway.given_back.values()}
    assert started == {START}, "the age of a key is told from its first use"
    assert len(await payments.facts(PaymentRefunded)) == 1
