"""What payments came to is counted with them: at once, once, and cheaply to read."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain import durations
from services.payments.domain.model import PaymentState
from services.payments.domain.settlement import Change
from services.payments.domain.statistics import step
from services.payments.handlers import statistics
from services.payments.store import payments as payment_store
from services.payments.store import statistics as statistics_store
from shared.gateways.interface import Declined, FailureKind, Unknown
from shared.messaging.envelope import Outgoing
from shared.money import Money
from tests.integration.payments.world import Payments
from tests.support.clocks import START
from tests.support.messages import notice_received


async def read(payments: Payments, query: str = "") -> dict[str, Any]:
    data: dict[str, Any] = (await payments.api.call("GET", f"/api/payments/stats{query}")).data
    return data


async def fold(payments: Payments) -> int:
    return await statistics.fold(payments.runtime)


def declined() -> Declined:
    return Declined("do_not_honor", FailureKind.CARD_DECLINED, is_final=True)


async def some_of_each(payments: Payments) -> None:
    """Make two payments that succeed, one that fails, one that is held and one that waits."""
    for _ in range(2):
        await payments.paid(await payments.create())
    payments.gateway.next_starts.append(declined())
    await payments.create()
    await payments.paid(await payments.create(), amount=Money(1, "BDT"))
    await payments.create()


async def test_nothing_was_counted_where_nothing_was(payments: Payments) -> None:
    found = await read(payments)

    assert found["total"] == {
        "processed": 0,
        "successful": 0,
        "failed": 0,
        "onHold": 0,
        "retried": 0,
        "successRate": None,
        "averageSeconds": None,
    }
    assert found["gateways"] == {}
    assert found["queue"]["total"] == 0
    assert found["limits"]["maxConcurrentPayments"] == 10
    assert found["profile"] == "normal"


async def test_results_are_counted_at_once_and_stay_the_same_when_folded(
    payments: Payments,
) -> None:
    await some_of_each(payments)
    at_once = await read(payments)

    payments.clock.advance(120)
    assert await fold(payments) > 0
    assert await payments.sql("SELECT count(*) FROM step_count") == 0
    folded = await read(payments)

    for name in ("total", "window", "gateways"):
        assert at_once[name] == folded[name], name
    total = folded["total"]
    assert (total["processed"], total["successful"], total["failed"]) == (4, 2, 1)
    assert (total["onHold"], total["successRate"]) == (1, 50.0)
    assert list(folded["gateways"]) == ["sslcommerz"]


async def test_a_window_ends_and_the_total_stays(payments: Payments) -> None:
    await payments.paid(await payments.create())
    payments.clock.advance(3_600)
    await fold(payments)

    lately = await read(payments, "?windowSeconds=60")

    assert (lately["total"]["processed"], lately["window"]["processed"]) == (1, 0)
    assert (await read(payments, "?windowSeconds=7200"))["window"]["processed"] == 1


async def test_our_own_time_is_measured_from_the_notice_to_the_result(payments: Payments) -> None:
    for seconds in (1, 1, 1, 7):
        payment = await payments.create()
        charge = payments.gateway.charge(payment["gatewayReference"])
        payments.clock.advance(seconds)
        notice = notice_received(
            payment["gatewayReference"],
            validation_id=charge.validation_id,
            received_at=payments.clock.now - timedelta(seconds=seconds),
        )
        await payments.notify(notice)

    window = (await read(payments))["window"]

    assert window["averageSeconds"] == 2.5
    assert 1 <= window["p50Seconds"] < 1.2
    assert 7 <= window["p99Seconds"] < 8.4


async def test_a_late_success_counts_as_both_and_is_completed(payments: Payments) -> None:
    payments.gateway.next_starts.append(declined())
    payment = await payments.create()
    await payments.paid(payment)

    found = await read(payments)

    assert (found["total"]["successful"], found["total"]["failed"]) == (1, 1)
    assert (found["jobs"]["completed"], found["jobs"]["failed"]) == (1, 0)


async def test_counts_agree_with_the_states_of_all_payments(payments: Payments) -> None:
    await some_of_each(payments)

    async def stored(*states: str) -> Any:
        return await payments.sql(
            "SELECT count(*) FROM payment WHERE state = ANY($1::text[])", states
        )

    jobs = (await read(payments))["jobs"]

    assert jobs["completed"] == await stored("succeeded")
    assert jobs["failed"] == await stored("failed", "cancelled")
    assert jobs["held"] == await stored("on_hold")


async def test_of_many_folders_at_once_each_count_is_taken_once(payments: Payments) -> None:
    await some_of_each(payments)
    payments.clock.advance(120)

    folded = await asyncio.gather(*(fold(payments) for _ in range(8)))

    assert sum(folded) > 0
    assert (await read(payments))["total"]["processed"] == 4
    while await fold(payments):
        pass
    assert (await read(payments))["total"]["processed"] == 4


async def test_a_minute_that_is_not_over_is_not_folded(payments: Payments) -> None:
    await payments.paid(await payments.create())
    payments.clock.advance(59)

    assert await fold(payments) == 0
    assert (await read(payments))["total"]["processed"] == 1


async def test_what_another_writer_was_faster_with_is_not_counted(payments: Payments) -> None:
    """Of two changes one is decided on a version that is gone: only the other one counts."""
    first, second = await payments.create(), await payments.create()
    async with payments.core.database.connection() as connection:
        found = await payment_store.find_by_ids(connection, [first["id"], second["id"]])
        old = found[first["id"]]._replace(version=found[first["id"]].version - 1)
        decided = [(old, PaymentState.FAILED), (found[second["id"]], PaymentState.CANCELLED)]
        changes = [
            Change(payment._replace(state=state, reason="x", next_check_at=None), "declined")
            for payment, state in decided
        ]
        steps = [
            step(payment, change, START)
            for (payment, _), change in zip(decided, changes, strict=True)
        ]
        saved, _ = await payment_store.save_and_announce(
            connection, changes, {}, START, steps=steps
        )

    assert saved == {second["id"]}
    rows = await payments.rows("SELECT to_state, payments FROM step_count")
    assert [tuple(row) for row in rows] == [("cancelled", 1)]


async def test_percentiles_are_the_same_before_and_after_the_folding(payments: Payments) -> None:
    """PostgreSQL puts durations into the classes that the domain puts them into."""
    taken = [*range(400), *(2**power + offset for power in range(31) for offset in (-1, 0, 1))]
    await payments.sql(
        "INSERT INTO step_count (at, gateway, from_state, to_state, payments, measured,"
        " milliseconds, durations) VALUES ($1, 'stripe', 'pending', 'succeeded', $2, $2, $3, $4)",
        payments.clock.now,
        len(taken),
        sum(taken),
        taken,
    )
    expected = Counter(durations.class_of(milliseconds) for milliseconds in taken)

    async def classes() -> Any:
        async with payments.core.database.connection() as connection:
            (count,) = await statistics_store.read_since_by_class(connection, START)
        return count

    at_once = await classes()
    payments.clock.advance(120)
    assert await fold(payments) == 1
    folded = await classes()

    assert at_once == folded
    assert folded.classes == expected
    assert (folded.measured, folded.milliseconds) == (len(taken), sum(taken))


async def test_old_minutes_are_forgotten_and_the_total_stays(payments: Payments) -> None:
    await payments.paid(await payments.create())
    payments.clock.advance(120)
    await fold(payments)
    payments.clock.advance(statistics_store.MINUTES_KEPT.total_seconds())

    await fold(payments)

    assert await payments.sql("SELECT count(*) FROM step_minute") == 0
    assert (await read(payments))["total"]["processed"] == 1


async def test_what_waits_is_told_by_priority(payments: Payments) -> None:
    await payments.create(amount=300_000)
    payments.clock.advance(3_600)
    notice = notice_received("att_1")
    await payments.core.publisher.send(
        [Outgoing(1, "payments.medium", notice.name, notice.encode(), None)]
    )

    queue = (await read(payments))["queue"]

    assert queue["messages"] == {"high": 0, "medium": 1, "normal": 0}
    assert queue["dueLooks"] == {"high": 1, "medium": 0, "normal": 0}
    assert queue["total"] == 2


async def test_calls_of_gateways_are_told_with_their_failures(payments: Payments) -> None:
    await payments.sql(
        "INSERT INTO gateway_calls (gateway, second, calls, failures)"
        " VALUES ('stripe', $1, 40, 10)",
        payments.clock.now,
    )

    calls = (await read(payments))["gatewayCalls"]

    assert calls == {"calls": 40, "failures": 10, "errorRate": 25.0}


async def test_a_payment_without_an_answer_is_no_result(payments: Payments) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    await payments.post("key")

    assert (await read(payments))["total"]["processed"] == 0


@pytest.mark.parametrize("query", ["windowSeconds=59", "windowSeconds=86401", "window=60"])
async def test_a_wrong_window_is_refused(payments: Payments, query: str) -> None:
    reply = await payments.api.call("GET", f"/api/payments/stats?{query}")

    assert reply.status == 400
    assert query.partition("=")[0] in reply.error["details"]


async def test_money_that_goes_back_leaves_the_payment_completed(payments: Payments) -> None:
    payment = await payments.create()
    await payments.paid(payment)
    await payments.refund(payment)
    await payments.carry_out_refunds()

    found = await read(payments)

    assert (await payments.read(payment["id"]))["state"] == "refunded"
    assert (found["total"]["processed"], found["jobs"]["completed"]) == (1, 1)


#: What was counted into and out of each state, less the payments that are in it.
_DRIFT = """
    SELECT state, sum(payments) AS drift
      FROM (SELECT to_state AS state, payments FROM step_count
             UNION ALL SELECT from_state, -payments FROM step_count
             UNION ALL SELECT to_state, payments FROM step_total
             UNION ALL SELECT from_state, -payments FROM step_total
             UNION ALL SELECT state, -1 FROM payment) AS counted
     WHERE state NOT IN ('', 'created', 'pending', 'processing', 'unknown', 'retry_scheduled')
     GROUP BY state
    HAVING sum(payments) <> 0
"""


async def test_whoever_changes_a_state_counts_it(payments: Payments) -> None:
    """Customers, gateways and operators move payments through every state that is counted."""
    paid = [await payments.create() for _ in range(4)]
    for payment in paid:
        await payments.paid(payment)
    await payments.refund(paid[0])
    await payments.refund(paid[1], amount=1_000)
    await payments.carry_out_refunds()
    held, doubtful = await payments.create(), await payments.create()
    await payments.paid(doubtful, amount=Money(1, "BDT"))
    for payment, action in ((held, "hold"), (held, "release"), (doubtful, "release")):
        path = f"/api/payments/{payment['id']}/{action}"
        assert (await payments.api.call("POST", path, {"reason": "seen"})).status == 200
    payments.gateway.next_starts += [
        declined(),
        Declined("gone", FailureKind.CANCELLED, is_final=True),
    ]
    late = await payments.create()
    await payments.create()
    await payments.paid(late)

    assert await payments.rows(_DRIFT) == []
    payments.clock.advance(120)
    await fold(payments)
    assert await payments.rows(_DRIFT) == []
    states = await payments.rows("SELECT DISTINCT state FROM payment")
    assert {row["state"] for row in states} >= {
        *("succeeded", "refunded", "partially_refunded", "cancelled", "unknown")
    }
