"""Every movement of money is booked once, with what it is about, and the books are even."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from services.payments.handlers import ledger
from services.payments.store import ledger as ledger_store
from shared.gateways.interface import Paid
from shared.money import Money
from tests.integration.payments.world import Payments

PRICE = 115_000
GATEWAY = "gateway:sslcommerz"


async def booked(payments: Payments, payment: dict[str, Any]) -> list[tuple[str, str, str, int]]:
    """Return kind, debit, credit and amount of what was booked of a payment."""
    data = (await payments.api.call("GET", f"/api/ledger/transfers?paymentId={payment['id']}")).data
    assert data["nextCursor"] is None
    return [
        (each["kind"], each["debit"], each["credit"], each["amount"])
        for each in reversed(data["transfers"])
    ]


async def balances(payments: Payments) -> dict[str, int]:
    """Return what is on each account in BDT, and check that it all comes to nothing."""
    data = (await payments.api.call("GET", "/api/ledger/balances")).data
    assert {each["currency"] for each in data["balances"]} <= {"BDT"}
    found = {each["account"]: each["balance"] for each in data["balances"]}
    assert sum(found.values()) == 0
    assert sum(each["debits"] for each in data["balances"]) == sum(
        each["credits"] for each in data["balances"]
    )
    return found


async def test_a_confirmed_payment_is_booked_with_its_state(payments: Payments) -> None:
    payment = await payments.create()
    assert await booked(payments, payment) == []

    await payments.paid(payment)

    assert await booked(payments, payment) == [("capture", GATEWAY, "revenue", PRICE)]
    assert await balances(payments) == {GATEWAY: PRICE, "revenue": -PRICE}
    transfers = (await payments.api.call("GET", "/api/ledger/transfers")).data["transfers"]
    assert transfers[0]["gatewayReference"] == payment["gatewayReference"]
    assert transfers[0]["paymentId"] == payment["id"]


async def test_a_charge_that_is_paid_at_once_is_booked_with_what_the_gateway_keeps(
    payments: Payments,
) -> None:
    reference = "-"
    payments.gateway.next_starts.append(
        Paid(reference, Money(PRICE, "BDT"), "val_1", "bank_1", fee=Money(2_875, "BDT"))
    )

    payment = await payments.create(method={"type": "card", "paymentMethod": "pm_1"})

    assert payment["state"] == "succeeded"
    assert await booked(payments, payment) == [("capture", GATEWAY, "revenue", PRICE)]
    data = (await payments.api.call("GET", "/api/ledger/transfers?account=fees")).data
    assert [(each["amount"], each["fee"]) for each in data["transfers"]] == [(PRICE, 2_875)]
    assert await balances(payments) == {GATEWAY: PRICE - 2_875, "revenue": -PRICE, "fees": 2_875}


async def test_the_same_confirmation_again_books_nothing(payments: Payments) -> None:
    payment = await payments.create()
    charge = payments.gateway.charge(payment["gatewayReference"])
    for _ in range(3):
        await payments.notify_of(payment, validation_id=charge.validation_id)
    await payments.look()

    assert len(await booked(payments, payment)) == 1


async def test_notices_and_a_look_at_the_same_moment_book_once(payments: Payments) -> None:
    """Both decide on the same version; one saves, the other judges anew and finds it said."""
    created = [await payments.create() for _ in range(5)]
    charges = [payments.gateway.charge(payment["gatewayReference"]) for payment in created]
    payments.clock.advance(31)
    payments.gateway.is_answering.clear()
    look = asyncio.create_task(payments.look())
    notices = [
        asyncio.create_task(payments.notify_of(payment, validation_id=charge.validation_id))
        for payment, charge in zip(created, charges, strict=True)
    ]
    await asyncio.sleep(0)
    payments.gateway.is_answering.set()
    await asyncio.gather(look, *notices)

    for payment in created:
        assert await booked(payments, payment) == [("capture", GATEWAY, "revenue", PRICE)]


async def test_the_database_takes_no_movement_twice(payments: Payments) -> None:
    payment = await payments.create()
    await payments.paid(payment)

    with pytest.raises(asyncpg.UniqueViolationError):
        await payments.sql(
            "INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount,"
            " currency) VALUES ($1, 'capture', '', 'gateway:sslcommerz', 'revenue', 1, 'BDT')",
            payment["id"],
        )
    for debit, credit, amount in (("revenue", "revenue", 1), ("held", "revenue", 0)):
        with pytest.raises(asyncpg.CheckViolationError):
            await payments.sql(
                "INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount,"
                " currency) VALUES ($1, 'release', '', $2, $3, $4, 'BDT')",
                payment["id"],
                debit,
                credit,
                amount,
            )


async def test_what_cannot_be_booked_is_not_confirmed_either(payments: Payments) -> None:
    """State, announcement and books are one commit: here the books refuse."""
    payment = await payments.create()
    await payments.sql(
        "INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount, currency)"
        " VALUES ($1, 'capture', '', 'gateway:sslcommerz', 'revenue', 1, 'BDT')",
        payment["id"],
    )
    payments.gateway.charge(payment["gatewayReference"])
    payments.clock.advance(31)

    with pytest.raises(asyncpg.UniqueViolationError):
        await payments.look()

    assert (await payments.read(payment["id"]))["state"] == "pending"
    assert await payments.announcements() == []


async def test_held_money_becomes_revenue_when_the_gateway_takes_its_doubt_back(
    payments: Payments,
) -> None:
    payment = await payments.create()
    await payments.paid(payment, is_risky=True)
    assert await balances(payments) == {GATEWAY: PRICE, "held": -PRICE}

    payments.gateway.approve(payment["gatewayReference"])
    await payments.notify_of(payment)

    assert await booked(payments, payment) == [
        ("capture", GATEWAY, "held", PRICE),
        ("release", "held", "revenue", PRICE),
    ]
    assert await balances(payments) == {GATEWAY: PRICE, "held": 0, "revenue": -PRICE}


async def test_another_amount_is_held_as_it_was_taken(payments: Payments) -> None:
    payment = await payments.create()

    await payments.paid(payment, amount=Money(90_000, "BDT"))

    assert await booked(payments, payment) == [("capture", GATEWAY, "held", 90_000)]


async def test_a_good_charge_takes_the_place_of_a_held_one_which_is_owed_back(
    payments: Payments,
) -> None:
    payment = await payments.create()
    await payments.paid(payment, amount=Money(90_000, "BDT"))
    await payments.paid(payment)

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert await balances(payments) == {
        GATEWAY: 205_000,
        "held": 0,
        "revenue": -PRICE,
        "surplus": -90_000,
    }


async def test_a_further_charge_is_owed_back(payments: Payments) -> None:
    payment = await payments.create()
    await payments.paid(payment)
    await payments.paid(payment)

    assert await balances(payments) == {GATEWAY: 2 * PRICE, "revenue": -PRICE, "surplus": -PRICE}


async def test_money_that_comes_late_is_booked_like_any_other(payments: Payments) -> None:
    payment = await payments.create()
    payments.gateway.decline(payment["gatewayReference"])
    await payments.notify_of(payment, claim="failed")
    await payments.paid(payment)

    assert await booked(payments, payment) == [("capture", GATEWAY, "revenue", PRICE)]


async def test_balances_are_the_same_before_and_after_they_are_put_into_the_snapshot(
    payments: Payments,
) -> None:
    for _ in range(3):
        payment = await payments.create()
        await payments.paid(payment)
    reference = "-"
    payments.gateway.next_starts.append(
        Paid(reference, Money(PRICE, "BDT"), "val_f", "bank_f", fee=Money(2_875, "BDT"))
    )
    await payments.create(method={"type": "card", "paymentMethod": "pm_1"})
    older = await payments.create()
    await payments.paid(older, is_risky=True)
    await payments.sql("UPDATE ledger_transfer SET fee = 7 WHERE payment_id = $1", older["id"])
    expected = await balances(payments)
    await payments.sql(
        "UPDATE ledger_transfer SET at = at - interval '40 minutes' WHERE payment_id = $1",
        older["id"],
    )

    await asyncio.gather(*(ledger.advance_snapshot(payments.runtime) for _ in range(3)))
    await ledger.advance_snapshot(payments.runtime)

    assert expected["fees"] == 2_882
    rows = await payments.rows("SELECT account, debits, credits FROM ledger_balance")
    assert {row["account"]: (row["debits"], row["credits"]) for row in rows} == {
        GATEWAY: (PRICE - 7, 0),
        "fees": (7, 0),
        "held": (0, PRICE),
    }
    assert await balances(payments) == expected
    lag = await payments.sql(
        "SELECT extract(epoch FROM clock_timestamp() - until)::float FROM ledger_snapshot"
    )
    assert lag == pytest.approx(ledger_store.SNAPSHOT_LAG_SECONDS, abs=60)

    await payments.paid(older)
    assert (await balances(payments))["surplus"] == -PRICE


async def test_transfers_are_listed_page_by_page_and_by_account(payments: Payments) -> None:
    created = []
    for _ in range(4):
        payments.clock.advance(1)
        created.append(await payments.create())
        await payments.paid(created[-1])
    await payments.paid(created[1])

    seen: list[tuple[str, str]] = []
    path = "/api/ledger/transfers?limit=2"
    cursor: str | None = None
    while True:
        data = (await payments.api.call("GET", path + (f"&cursor={cursor}" if cursor else ""))).data
        assert len(data["transfers"]) <= 2
        seen += [(each["paymentId"], each["kind"]) for each in data["transfers"]]
        cursor = data["nextCursor"]
        if cursor is None:
            break

    ids = [payment["id"] for payment in created]
    assert seen == [
        (ids[3], "capture"),
        (ids[2], "capture"),
        (ids[1], "surplus"),
        (ids[1], "capture"),
        (ids[0], "capture"),
    ]
    for account, count in (("surplus", 1), ("revenue", 4), (GATEWAY, 5), ("refunds", 0)):
        data = (await payments.api.call("GET", f"/api/ledger/transfers?account={account}")).data
        assert len(data["transfers"]) == count, account


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cursor=x", "cursor"),
        ("cursor=pay_01KE70EHG0JY1QREBD77BRA2Z7", "cursor"),
        ("account=cash", "account"),
        ("account=gateway:", "account"),
        ("paymentId=1", "paymentId"),
        ("paymentId=pay_01KE70EHG0JY1QREBD77BRA2Z7&account=held", "account"),
        ("limit=0", "limit"),
    ],
)
async def test_a_query_that_is_not_right_names_its_field(
    payments: Payments, query: str, field: str
) -> None:
    reply = await payments.api.call("GET", f"/api/ledger/transfers?{query}")

    assert reply.status == 400
    assert list(reply.error["details"]) == [field]
