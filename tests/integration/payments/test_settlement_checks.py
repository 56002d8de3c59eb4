"""Our successes of a day are compared with what the gateway lists, and what differs is reported."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest

from services.payments.domain.settlement_check import TRY_DELAYS_SECONDS
from services.payments.handlers import settlement_checks
from services.payments.store import settlement_checks as check_store
from services.payments.store import settlement_lists as list_store
from shared.money import Money
from tests.integration.payments.world import Payments
from tests.support.clocks import START
from tests.support.polling import eventually

BASE = "/api/operations/settlement-checks"
DAY = START.date()


async def ask(payments: Payments, **changes: Any) -> dict[str, Any]:
    """Ask for a check of the day on which tests begin."""
    body = {"gateway": "sslcommerz", "day": DAY.isoformat(), "reason": "closing the books"}
    reply = await payments.api.call("POST", BASE, body | changes)
    assert reply.status == 202, reply.json
    data = reply.data
    assert isinstance(data, dict)
    return data


async def checked(payments: Payments, **changes: Any) -> dict[str, Any]:
    """Ask for a check, carry it to its end, and return it as the API shows it."""
    check = await ask(payments, **changes)
    await settlement_checks.work_at_due_check(payments.runtime)
    return await read(payments, check)


async def read(payments: Payments, check: dict[str, Any]) -> dict[str, Any]:
    data = (await payments.api.call("GET", f"{BASE}/{check['id']}")).data
    assert isinstance(data, dict)
    return data


async def findings(payments: Payments, check: dict[str, Any]) -> list[dict[str, Any]]:
    data = (await payments.api.call("GET", f"{BASE}/{check['id']}/findings")).data
    found = data["findings"]
    assert isinstance(found, list)
    return found


def counts(check: dict[str, Any]) -> dict[str, int]:
    names = ("matched", "mismatched", "missingHere", "missingThere", "duplicates", "unlisted")
    return {name: check[name] for name in names if check[name]}


async def pay(payments: Payments, **options: Any) -> dict[str, Any]:
    """Create a payment and let it be paid and confirmed."""
    payments.clock.advance(1)
    payment = await payments.create()
    await payments.paid(payment, **options)
    return payment


async def test_a_day_on_which_both_agree(payments: Payments) -> None:
    for _ in range(5):  # The list has pages of two.
        await pay(payments)
    await payments.create()
    payments.clock.advance(86_400)

    check = await checked(payments)

    assert (check["state"], check["listed"], check["isComplete"]) == ("done", 5, True)
    assert counts(check) == {"matched": 5}
    assert await findings(payments, check) == []
    assert await payments.sql("SELECT count(*) FROM settlement_listed") == 0


async def test_each_difference_is_reported_with_both_sides(payments: Payments) -> None:
    await pay(payments)
    not_listed = await pay(payments)
    payments.gateway.unlisted.add((await payments.read(not_listed["id"]))["gatewayPaymentId"])
    twice = await pay(payments)
    payments.gateway.charge(twice["gatewayReference"])
    held = await pay(payments, amount=Money(90_000, "BDT"))
    await payments.sql(
        "UPDATE ledger_transfer SET amount = 95000 WHERE payment_id = $1", held["id"]
    )
    payments.clock.advance(86_400)

    check = await checked(payments)

    assert counts(check) == {"matched": 1, "mismatched": 1, "missingThere": 1, "duplicates": 1}
    found = {each["kind"]: each for each in await findings(payments, check)}
    assert found["missing_there"]["paymentId"] == not_listed["id"]
    assert found["missing_there"]["ours"] == {"amount": 115_000, "currency": "BDT"}
    assert found["missing_there"]["theirs"] is None
    assert found["duplicate"]["paymentId"] == twice["id"]
    assert found["duplicate"]["gatewayReference"] == twice["gatewayReference"]
    assert (found["mismatch"]["ours"]["amount"], found["mismatch"]["theirs"]["amount"]) == (
        95_000,
        90_000,
    )


async def test_money_whose_notice_was_lost_for_good_is_asked_about_and_counts(
    payments: Payments,
) -> None:
    """Nobody looks at the payment any more: only the list can tell."""
    payment = await payments.create()
    payments.gateway.decline(payment["gatewayReference"])
    await payments.notify_of(payment, claim="failed", validation_id="")
    payments.clock.advance(90_000)
    await payments.look()
    assert (await payments.read(payment["id"]))["nextCheckAt"] is None
    payments.gateway.charge(payment["gatewayReference"])
    # The list names the charge; the fake confirms by another handle, as some gateways do.

    check = await checked(payments)

    assert counts(check) == {"missingHere": 1}
    assert (await findings(payments, check))[0]["paymentId"] == payment["id"]
    now = await payments.read(payment["id"])
    assert now["state"] == "succeeded"
    assert (await payments.story(payment))[-1] == "confirmed_late"
    assert counts(await checked(payments)) == {"matched": 1}


async def test_a_list_that_may_be_cut_accuses_nobody(payments: Payments) -> None:
    await pay(payments)
    not_listed = await pay(payments)
    payments.gateway.unlisted.add((await payments.read(not_listed["id"]))["gatewayPaymentId"])
    payments.gateway.cuts_lists = True
    payments.clock.advance(86_400)

    check = await checked(payments)

    assert counts(check) == {"matched": 1, "unlisted": 1}
    assert not check["isComplete"]


async def test_payments_of_the_days_around_are_left_out(payments: Payments) -> None:
    await pay(payments)
    payments.clock.advance(43_200)  # Midnight.
    await pay(payments)
    payments.clock.advance(86_400)

    first = await checked(payments)
    second = await checked(payments, day=(DAY + timedelta(days=1)).isoformat())

    assert (counts(first), counts(second)) == ({"matched": 1}, {"matched": 1})


async def test_more_references_than_one_slice_are_all_compared(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_store, "SLICE_ROWS", 2)
    paid = [await pay(payments) for _ in range(5)]
    for payment in paid[::2]:
        payments.gateway.unlisted.add((await payments.read(payment["id"]))["gatewayPaymentId"])
    payments.clock.advance(86_400)

    check = await checked(payments)

    assert counts(check) == {"matched": 2, "missingThere": 3}
    listed = [each["paymentId"] for each in await findings(payments, check)]
    assert listed == [payment["id"] for payment in paid[::2]]


async def test_a_gateway_that_does_not_answer_is_asked_again_ever_later_and_then_the_check_fails(
    payments: Payments,
) -> None:
    payments.clock.advance(86_400)
    check = await ask(payments)
    payments.gateway.is_silent = True

    for delay in TRY_DELAYS_SECONDS:
        assert await settlement_checks.work_at_due_check(payments.runtime)
        waiting = await read(payments, check)
        assert (waiting["state"], waiting["reason"]) == ("listing", "timeout")
        assert not await settlement_checks.work_at_due_check(payments.runtime), "not due yet"
        payments.clock.advance(delay)
    await settlement_checks.work_at_due_check(payments.runtime)

    ended = await read(payments, check)
    assert (ended["state"], ended["reason"], ended["nextTryAt"]) == ("failed", "timeout", None)


async def test_a_check_goes_on_where_it_was_when_its_process_died(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await pay(payments)
    payments.clock.advance(86_400)
    check = await ask(payments)
    pages = payments.gateway.list_paid
    asked: list[str | None] = []

    async def dies_after_the_first(day: date, cursor: str | None = None) -> Any:
        asked.append(cursor)
        if len(asked) == 2:
            raise asyncio.CancelledError
        return await pages(day, cursor)

    monkeypatch.setattr(payments.gateway, "list_paid", dies_after_the_first)
    with pytest.raises(asyncio.CancelledError):
        await settlement_checks.work_at_due_check(payments.runtime)
    assert not await settlement_checks.work_at_due_check(payments.runtime), "it is still leased"
    await payments.sql("UPDATE settlement_check SET leased_until = clock_timestamp()")

    await settlement_checks.work_at_due_check(payments.runtime)

    assert asked == [None, "2", "2", "4"]
    assert counts(await read(payments, check)) == {"matched": 5}


async def test_a_process_that_was_stopped_past_its_lease_changes_nothing(
    payments: Payments,
) -> None:
    payments.clock.advance(86_400)
    await ask(payments)
    async with payments.core.database.connection() as connection:
        stale = await check_store.claim_check(connection, payments.clock())
        assert stale is not None
        await connection.execute("UPDATE settlement_check SET leased_until = clock_timestamp()")
        fresh = await check_store.claim_check(connection, payments.clock())
        assert fresh is not None

        assert (
            await check_store.save_page(connection, stale, listed=1, next_cursor=None, is_cut=False)
            is None
        )
        await check_store.fail_check(connection, stale, reason="x", now=payments.clock())
        found = await check_store.find_check(connection, stale.id)

    assert found is not None
    assert (found.state, found.listed) == ("listing", 0)


async def test_many_workers_take_one_check_once(payments: Payments) -> None:
    payments.clock.advance(86_400)
    check = await ask(payments)

    worked = await asyncio.gather(
        *(settlement_checks.work_at_due_check(payments.runtime) for _ in range(5))
    )

    assert sum(worked) == 1
    assert (await read(payments, check))["state"] == "done"
    assert len([name for name, _ in payments.gateway.questions if name == "list_paid"]) == 1


async def test_each_day_is_checked_by_itself_on_the_next_two(payments: Payments) -> None:
    for _ in range(3):
        payments.clock.advance(86_400)
        for _ in range(2):
            await settlement_checks.schedule_checks(payments.runtime)
        while await settlement_checks.work_at_due_check(payments.runtime):
            pass

    rows = await payments.rows("SELECT day, state FROM settlement_check ORDER BY day")
    begun = DAY - timedelta(days=1)
    assert [(row["day"] - begun).days for row in rows] == [0, 1, 1, 2, 2, 3]
    assert {row["state"] for row in rows} == {"done"}


async def test_a_repeated_request_is_one_check_and_one_recorded_action(payments: Payments) -> None:
    payments.clock.advance(86_400)
    body = {"gateway": "sslcommerz", "day": DAY.isoformat(), "reason": "closing the books"}
    first, second = [
        await payments.api.call("POST", BASE, body, idempotency_key="key-1") for _ in range(2)
    ]

    assert first.data == second.data
    rows = await payments.rows("SELECT action, target, reason, actor FROM operator_action")
    assert [(row["action"], row["target"], row["reason"]) for row in rows] == [
        ("settlement_check", "gateway:sslcommerz", "closing the books")
    ]
    listed = (await payments.api.call("GET", f"{BASE}?gateway=sslcommerz")).data
    assert [each["id"] for each in listed["settlementChecks"]] == [first.data["id"]]


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"gateway": "nobody"}, 400, "gateway"),
        ({"day": "2026-01-06"}, 400, "day"),
        ({"day": "2024-01-01"}, 400, "day"),
        ({"day": "yesterday"}, 400, "day"),
        ({"reason": ""}, 400, "reason"),
        ({"extra": 1}, 400, "extra"),
    ],
)
async def test_a_request_that_is_not_right_names_its_field(
    payments: Payments, changes: dict[str, Any], status: int, field: str
) -> None:
    payments.clock.advance(86_400)
    body = {"gateway": "sslcommerz", "day": DAY.isoformat(), "reason": "closing", **changes}

    reply = await payments.api.call("POST", BASE, body)

    assert reply.status == status
    assert list(reply.error["details"]) == [field]
    assert await payments.sql("SELECT count(*) FROM settlement_check") == 0


async def test_a_check_that_is_not_there_is_not_found(payments: Payments) -> None:
    for check_id in ("chk_01KE70EHG0JY1QREBD77BRA2Z7", "x", "%00"):
        for path in (f"{BASE}/{check_id}", f"{BASE}/{check_id}/findings"):
            assert (await payments.api.call("GET", path)).status == 404


async def test_the_loop_makes_the_checks_of_a_day_from_its_hour_on(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement_checks, "INTERVAL_SECONDS", 0.05)
    payments.clock.advance(14 * 3_600)  # To 2 o'clock of the next day.
    loop = asyncio.create_task(settlement_checks.check_settlements(payments.runtime))
    try:
        await asyncio.sleep(0.3)
        assert await payments.sql("SELECT count(*) FROM settlement_check") == 0

        payments.clock.advance(3_600)

        async def both_are_done() -> bool:
            done = await payments.sql("SELECT count(*) FROM settlement_check WHERE state = 'done'")
            return bool(done == 2)

        await eventually(both_are_done)
    finally:
        loop.cancel()
