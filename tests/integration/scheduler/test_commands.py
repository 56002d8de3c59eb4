"""What people do with subscriptions: each thing once, and a reason where it may not be."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from shared.contracts.scheduler import AccessRevoked, CancelCharge, ChargeSubscription
from tests.integration.scheduler.world import Scheduler, failed, succeeded
from tests.support.http_api import Reply

MONTH = timedelta(days=31)


@pytest.fixture
async def paid(service: Scheduler) -> dict[str, Any]:
    """Return a subscription whose first month is paid."""
    made = await service.subscribe(await service.plan())
    assert await service.pay_due() == 1
    return await service.read(made)


@pytest.fixture
async def unpaid(service: Scheduler) -> dict[str, Any]:
    """Return a subscription whose charge has failed for good."""
    made = await service.subscribe(await service.plan())
    await service.bill_due()
    (order,) = await service.orders()
    await service.hear(failed(order))
    return await service.read(made)


def refused(reply: Reply) -> str:
    """Return the reason of a refusal."""
    assert (reply.status, reply.error["code"]) == (409, "not_now"), reply.json
    reason = reply.error["details"]["reason"]
    assert isinstance(reason, str)
    return reason


async def test_nothing_is_billed_while_it_is_paused(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    reply = await service.ask(paid, "pause")
    assert (reply.status, reply.data["state"]) == (200, "paused")
    assert reply.data["access"]["isGranted"] is True, "what is paid stays theirs"

    service.clock.now += 3 * MONTH
    assert await service.pay_due() == 0
    assert (await service.read(paid))["access"]["isGranted"] is False

    resumed = (await service.ask(paid, "resume")).data
    assert await service.pay_due() == 0, "resuming has ordered the charge already"
    (order,) = [each for each in await service.orders() if isinstance(each, ChargeSubscription)]
    await service.hear(succeeded(order))

    assert resumed["anchor"] == paid["anchor"]
    assert resumed["currentPeriod"]["start"] == "2026-04-05T12:00:00Z"
    states = [(cycle["state"], cycle["periods"]) for cycle in await service.cycles(paid)]
    assert states == [("paid", 1), ("skipped", 2), ("paid", 1)]
    assert (await service.read(paid))["access"]["isGranted"] is True


async def test_pausing_and_resuming_twice_is_refused(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    assert refused(await service.ask(paid, "resume")) == "is_not_paused"
    replies = await asyncio.gather(*(service.ask(paid, "pause") for _ in range(3)))

    assert sorted(reply.status for reply in replies) == [200, 409, 409]
    assert (await service.story(paid)).count("paused") == 1
    assert refused(await service.ask(paid, "trigger-payment")) == "nothing_due"


async def test_a_command_that_was_cut_off_after_its_commit_is_done_once(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    path = f"/api/subscriptions/{paid['id']}/pause"
    first = await service.api.call("POST", path, idempotency_key="pause")
    await service.cut_off_requests()

    again = await service.api.call("POST", path, idempotency_key="pause")

    assert (first.status, again.status) == (200, 200)
    assert again.data == first.data
    assert (await service.story(paid)).count("paused") == 1


async def test_cancelled_now_it_is_over_at_once(service: Scheduler, paid: dict[str, Any]) -> None:
    await service.sent()
    reply = await service.ask(paid, "cancel")
    messages = await service.sent()

    assert (reply.data["state"], reply.data["nextDueAt"]) == ("cancelled", None)
    assert reply.data["access"]["isGranted"] is False
    assert [type(message) for message in messages] == [AccessRevoked]
    for what in ("pause", "resume", "cancel", "trigger-payment"):
        assert refused(await service.ask(paid, what)) == "is_cancelled"
    assert refused(await service.change(paid, autoPay=False)) == "is_cancelled"
    kept = await service.change(paid, metadata={"why": "moved away"})
    assert kept.data["metadata"] == {"why": "moved away"}


async def test_a_charge_in_flight_is_cancelled_with_it(service: Scheduler) -> None:
    made = await service.subscribe(await service.plan())
    await service.bill_due()
    (order,) = await service.orders()

    reply = await service.ask(made, "cancel", atPeriodEnd=False)
    cancellations = [each for each in await service.sent() if isinstance(each, CancelCharge)]

    assert reply.data["state"] == "cancelled"
    assert [each.payment_id for each in cancellations] == [order.payment_id]
    await service.hear(succeeded(order))  # It was paid all the same, and that is told.
    assert (await service.story(made))[-1] == "paid_after_end"
    assert (await service.read(made))["state"] == "cancelled"


async def test_deleting_is_cancelling_and_may_be_repeated(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    path = f"/api/subscriptions/{paid['id']}"
    replies = [await service.api.call("DELETE", path) for _ in range(2)]

    assert [reply.data["state"] for reply in replies] == ["cancelled", "cancelled"]
    assert (await service.story(paid)).count("cancelled") == 1


async def test_a_planned_end_comes_when_the_period_is_over_and_can_be_taken_back(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    planned = (await service.ask(paid, "cancel", atPeriodEnd=True)).data
    kept = (await service.change(paid, cancelAtPeriodEnd=False)).data
    again = (await service.change(paid, cancelAtPeriodEnd=True)).data

    assert (planned["state"], planned["cancelAtPeriodEnd"]) == ("active", True)
    assert kept["cancelAtPeriodEnd"] is False
    assert again["nextDueAt"] == paid["currentPeriod"]["end"]
    service.clock.now += MONTH
    assert await service.pay_due() == 0
    ended = await service.read(paid)
    assert (ended["state"], ended["reason"]) == ("cancelled", "cancelled_at_period_end")


async def test_what_failed_is_charged_when_somebody_says_so(
    service: Scheduler, unpaid: dict[str, Any]
) -> None:
    assert (unpaid["state"], unpaid["dunning"]["step"]) == ("past_due", 0)
    assert unpaid["dunning"]["nextAt"] == "2026-01-06T12:00:00Z"

    reply = await service.ask(unpaid, "trigger-payment")
    (order,) = await service.orders()
    in_flight = refused(await service.ask(unpaid, "trigger-payment"))
    await service.hear(succeeded(order))
    afterwards = refused(await service.ask(unpaid, "trigger-payment"))

    assert reply.status == 202
    assert reply.data["paymentId"] == order.payment_id
    assert reply.data["subscription"]["charge"]["jobId"] == reply.data["jobId"]
    jobs = await service.jobs(unpaid)
    assert [(job["occasion"], job["status"]) for job in jobs] == [
        ("period", "failed"),
        ("trigger", "completed"),
    ]
    assert jobs[1]["id"] == reply.data["jobId"]
    assert (in_flight, afterwards) == ("charge_unresolved", "nothing_due")
    assert (await service.read(unpaid))["reason"] == "recovered"


async def test_a_trigger_that_was_cut_off_orders_one_charge(
    service: Scheduler, unpaid: dict[str, Any]
) -> None:
    path = f"/api/subscriptions/{unpaid['id']}/trigger-payment"
    first = await service.api.call("POST", path, idempotency_key="now")
    (order,) = await service.orders()
    await service.hear(failed(order))  # So that nothing but the key stands in the way of a second.
    await service.cut_off_requests()

    again = await service.api.call("POST", path, idempotency_key="now")

    assert (again.status, again.data["jobId"]) == (202, first.data["jobId"])
    assert await service.orders() == []


async def test_what_may_not_be_charged_is_refused_with_the_reason(service: Scheduler) -> None:
    plan = await service.plan()
    without = await service.subscribe(plan, paymentMethodId=None)
    open_one = await service.subscribe(plan)
    paused = await service.subscribe(plan)
    await service.bill_due()
    orders = {order.subscription_id: order for order in await service.orders()}
    await service.hear(
        failed(orders[open_one["id"]], may_still_be_paid=True), failed(orders[paused["id"]])
    )
    await service.ask(paused, "pause")

    reasons = [
        refused(await service.ask(each, "trigger-payment")) for each in (without, open_one, paused)
    ]

    assert reasons == ["no_payment_method", "may_still_be_paid", "is_paused"]
    assert (await service.read(without))["reason"] == "no_payment_method"
    assert (await service.read(open_one))["mayStillBePaid"] is True
    assert await service.orders() == []


async def test_with_another_means_of_payment_it_is_charged_again(
    service: Scheduler, unpaid: dict[str, Any]
) -> None:
    method = await service.method()

    changed = (await service.change(unpaid, paymentMethodId=method)).data
    await service.ask(unpaid, "trigger-payment")
    (order,) = await service.orders()

    assert changed["paymentMethodId"] == order.payment_method_id == method


async def test_without_auto_pay_nothing_is_charged_by_itself(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    assert (await service.change(paid, autoPay=False)).data["autoPay"] is False
    service.clock.now += MONTH
    await service.bill_due()
    opened = await service.read(paid)

    assert await service.orders() == []
    assert (opened["state"], opened["reason"]) == ("past_due", "auto_pay_off")
    await service.ask(paid, "trigger-payment")
    (order,) = await service.orders()
    await service.hear(succeeded(order))
    assert (await service.read(paid))["state"] == "active"


async def test_another_plan_begins_with_the_next_period(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    dearer = await service.plan(amount=1_990)

    planned = (await service.change(paid, planId=dearer["id"])).data
    service.clock.now += MONTH
    await service.bill_due()
    (order,) = await service.orders()

    assert (planned["planId"], planned["nextPlanId"]) == (paid["planId"], dearer["id"])
    assert order.amount == 1_990
    changed = await service.read(paid)
    assert (changed["planId"], changed["nextPlanId"]) == (dearer["id"], None)
    assert changed["anchor"] == paid["anchor"]


async def test_a_planned_change_is_taken_back_also_to_an_archived_plan(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    dearer = await service.plan(amount=1_990)
    await service.change(paid, planId=dearer["id"])
    for plan_id in (dearer["id"], paid["planId"]):
        await service.api.call("DELETE", f"/api/plans/{plan_id}")

    kept = (await service.change(paid, planId=paid["planId"])).data
    again = await service.change(paid, planId=dearer["id"])

    assert (kept["planId"], kept["nextPlanId"]) == (paid["planId"], None)
    assert (again.status, again.error["details"]["field"]) == (409, "planId")


async def test_a_plan_of_another_gateway_comes_with_a_means_of_payment(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    other = await service.plan(gateway="x402", currency="USDC", amount=9_000_000)
    wallet = await service.method(gateway="x402", kind="wallet")

    alone = await service.change(paid, planId=other["id"])
    foreign = await service.change(paid, paymentMethodId=wallet)
    both = await service.change(paid, planId=other["id"], paymentMethodId=wallet)

    for reply in (alone, foreign):
        assert (reply.status, list(reply.error["details"])) == (400, ["paymentMethodId"])
    assert (both.data["nextPlanId"], both.data["paymentMethodId"]) == (other["id"], wallet)
    back = await service.change(paid, planId=paid["planId"])
    assert (back.status, list(back.error["details"])) == (400, ["paymentMethodId"])
    service.clock.now += MONTH
    await service.bill_due()
    (order,) = await service.orders()
    assert (order.gateway, order.payment_method_id) == ("x402", wallet)


async def test_the_gateway_does_not_change_under_a_period_that_is_unpaid(
    service: Scheduler, unpaid: dict[str, Any]
) -> None:
    other = await service.plan(gateway="x402", currency="USDC", amount=9_000_000)
    wallet = await service.method(gateway="x402", kind="wallet")

    reply = await service.change(unpaid, planId=other["id"], paymentMethodId=wallet)

    assert refused(reply) == "period_unpaid"
    assert (await service.read(unpaid))["nextPlanId"] is None


async def test_all_changes_are_made_or_none(service: Scheduler, paid: dict[str, Any]) -> None:
    archived = await service.plan()
    await service.api.call("DELETE", f"/api/plans/{archived['id']}")
    changes = {"autoPay": False, "cancelAtPeriodEnd": True, "metadata": {"a": "b"}}

    half = await service.change(paid, planId=archived["id"], **changes)
    assert half.status == 409
    assert await service.read(paid) == paid

    whole = (await service.change(paid, **changes)).data
    assert {name: whole[name] for name in changes} == changes
    story = await service.story(paid)
    again = (await service.change(paid, **changes)).data
    assert again["updatedAt"] >= whole["updatedAt"]
    assert await service.story(paid) == story, "what is so already is no change"


async def test_two_who_change_one_subscription_do_not_undo_each_other(
    service: Scheduler, paid: dict[str, Any]
) -> None:
    method = await service.method()

    replies = await asyncio.gather(
        service.change(paid, autoPay=False),
        service.change(paid, paymentMethodId=method),
        service.ask(paid, "cancel", atPeriodEnd=True),
    )

    assert [reply.status for reply in replies] == [200, 200, 200]
    found = await service.read(paid)
    assert (found["autoPay"], found["paymentMethodId"]) == (False, method)
    assert found["cancelAtPeriodEnd"] is True


@pytest.mark.parametrize(
    ("bill", "charges", "states"),
    [
        ("every", 3, [("paid", 1)] * 4),
        ("current", 1, [("paid", 1), ("skipped", 2), ("paid", 1)]),
    ],
)
async def test_what_went_by_is_billed_as_somebody_says(
    service: Scheduler, bill: str, charges: int, states: list[tuple[str, int]]
) -> None:
    made = await service.subscribe(await service.plan(catchUp={"policy": "ask"}))
    await service.pay_due()
    service.clock.now += 3 * MONTH

    assert await service.pay_due() == 0
    asking = await service.read(made)
    assert (asking["attention"], asking["nextDueAt"]) == ("catch_up_asked", None)
    assert asking["catchUp"] == {"since": asking["currentPeriod"]["end"]}
    listed = (await service.api.call("GET", "/api/subscriptions?attention=catch_up_asked")).data
    assert [each["id"] for each in listed["subscriptions"]] == [made["id"]]

    decided = await service.ask(made, "catch-up", bill=bill)
    made_charges = 0
    while orders := [each for each in await service.orders() if hasattr(each, "amount")]:
        made_charges += len(orders)
        await service.hear(*(succeeded(order) for order in orders))
        await service.bill_due()

    assert decided.data["catchUp"] is None
    assert made_charges == charges
    assert [(each["state"], each["periods"]) for each in await service.cycles(made)] == states
    assert refused(await service.ask(made, "catch-up", bill=bill)) == "nothing_asked"


async def test_a_decision_that_is_none_is_refused(service: Scheduler, paid: dict[str, Any]) -> None:
    for what, body, field in (
        ("catch-up", {"bill": "ask"}, "bill"),
        ("catch-up", {}, "bill"),
        ("cancel", {"atPeriodEnd": "no"}, "atPeriodEnd"),
        ("cancel", {"at": "once"}, "at"),
    ):
        reply = await service.ask(paid, what, **body)
        assert (reply.status, list(reply.error["details"])) == (400, [field])

    assert await service.read(paid) == paid
