"""Retries in races: two workers, a cancellation, a late answer. None of it charges twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from services.payments.domain.model import Payment
from services.payments.handlers import retry_steps, retry_worker
from services.payments.handlers.beginning import record_outcome
from services.payments.handlers.retry_steps import Position
from services.payments.runtime import Judgement, Runtime
from services.payments.store import attempts as attempt_store
from services.payments.store import payments as payment_store
from services.payments.store import retries as retry_store
from services.payments.store.attempts import StoredOrder
from services.payments.store.retries import Claim
from shared.contracts.priorities import Priority
from shared.database import Connection
from shared.gateways import send_deadline
from shared.gateways.interface import FailureKind, Order, Outcome
from tests.integration.payments.retrying import (
    LOST,
    PROMPT,
    PROMPTED,
    call,
    declined,
    facts,
    paid,
    processed,
    retry_of,
)
from tests.integration.payments.world import Payments, running_runtime
from tests.support.polling import eventually

BROKEN = declined(FailureKind.PROCESSING_ERROR)
SOON = (timedelta(seconds=1),) * 10_000


@pytest.fixture
async def other(payments: Payments, new_database: str, redis_url: str) -> AsyncIterator[Runtime]:
    """Run a second worker on the same database."""
    async with running_runtime(
        new_database, redis_url, payments.gateway, payments.clock
    ) as runtime:
        yield runtime


def retry_for_ever(*runtimes: Runtime) -> None:
    """Let every failure be followed by a retry a second later, without an end."""
    for runtime in runtimes:
        planner = runtime.retries
        delays = dict.fromkeys(FailureKind, SOON)
        planner.policy = replace(
            planner.policy, delays=delays, prompt_delays=SOON, tries_max=10_000
        )


async def claimed(payments: Payments) -> Claim:
    """Claim the one retry that is due, as a worker does."""
    async with payments.core.database.connection() as connection:
        (claim,) = await retry_store.claim_due(
            connection,
            payments.clock(),
            Priority.MEDIUM,
            {payments.gateway.name: 5},
            5,
            300,
        )
    return claim


async def lapse(payments: Payments) -> None:
    """Let every lease be over, by the clock of the database."""
    await payments.sql(
        "UPDATE retry SET leased_until = clock_timestamp() - interval '1 second'"
        " WHERE leased_until IS NOT NULL"
    )


async def take_over(runtime: Runtime) -> int:
    taken = await retry_worker.take_over_left(runtime, 10)
    await asyncio.gather(*taken)
    return len(taken)


CONTESTED, ROUNDS = 200, 10


async def contests(payments: Payments, other: Runtime, rounds: int) -> tuple[int, int]:
    """Let two workers claim the same retries; return the claims, and the retries among them."""
    one_id = (await processed(payments))["id"]
    await payments.sql("DELETE FROM retry")
    payments.gateway.next_starts.append(BROKEN)
    await processed(payments)
    await payments.sql(
        """
        INSERT INTO retry (payment_id, state, gateway, priority, customer_id, product_id, amount,
                           currency, kind, code, continues, next_attempt_at, created_at, updated_at)
        SELECT overlay($1 placing lpad(number::text, 6, '0') from 25), 'scheduled', gateway,
               priority, customer_id, product_id, amount, currency, kind, code, continues,
               created_at, created_at, updated_at
          FROM retry CROSS JOIN generate_series(1, $2::int) AS number
        """,
        one_id,
        CONTESTED,
    )
    await payments.sql("DELETE FROM retry WHERE next_attempt_at > created_at")
    claims: list[str] = []

    async def claim_all(runtime: Runtime, limit: int) -> None:
        allowed = {payments.gateway.name: limit}
        empty = 0
        while empty < 3:
            async with runtime.core.database.connection() as connection:
                found = await retry_store.claim_due(
                    connection, payments.clock(), Priority.MEDIUM, allowed, limit, 300
                )
            claims.extend(claim.retry.payment_id for claim in found)
            empty = 0 if found else empty + 1

    for round_ in range(rounds):
        limit = 1 + round_ % 5
        await asyncio.gather(claim_all(payments.runtime, limit), claim_all(other, limit))
        await payments.sql("UPDATE retry SET state = 'scheduled', leased_until = NULL")
    return len(claims), len(set(claims))


async def test_of_two_workers_one_claims_a_retry_thousands_of_times(
    payments: Payments, other: Runtime
) -> None:
    assert await contests(payments, other, ROUNDS) == (CONTESTED * ROUNDS, CONTESTED)


async def claimed_at_the_same_moment(payments: Payments, other: Runtime) -> tuple[int, int]:
    """Let a worker claim a retry while another one is about to commit its claim of the same."""
    payments.gateway.next_starts.append(BROKEN)
    await processed(payments)
    payments.clock.advance(60)

    async def claim(connection: Connection) -> int:
        found = await retry_store.claim_due(
            connection, payments.clock(), Priority.MEDIUM, {payments.gateway.name: 5}, 5, 300
        )
        return len(found)

    async with other.core.database.connection() as theirs:
        async with payments.core.database.transaction() as ours:
            first = await claim(ours)
            second = asyncio.create_task(claim(theirs))
            await asyncio.wait({second}, timeout=1)
        return first, await second


async def test_a_claim_at_the_same_moment_finds_nothing(payments: Payments, other: Runtime) -> None:
    assert await claimed_at_the_same_moment(payments, other) == (1, 0)


async def test_without_its_guards_a_claim_is_made_twice(
    payments: Payments, other: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above notice when they are missing."""
    query = retry_store._CLAIM_DUE
    unguarded = query.replace("FOR UPDATE SKIP LOCKED", "").replace(
        "LIMIT $5))\n       AND state = 'scheduled'\n", "LIMIT $5))\n"
    )
    assert len(query) - len(unguarded) > len("FOR UPDATE SKIP LOCKED")
    monkeypatch.setattr(retry_store, "_CLAIM_DUE", unguarded)

    assert await claimed_at_the_same_moment(payments, other) == (1, 1)


async def test_two_workers_make_each_retry_once(payments: Payments, other: Runtime) -> None:
    retry_for_ever(payments.runtime, other)
    payments.gateway.next_starts += [BROKEN] * 41
    await processed(payments, method=PROMPT)
    for made in range(1, 41):
        payments.clock.advance(1)
        for tasks in await asyncio.gather(
            retry_worker.take_up_due(payments.runtime, 5), retry_worker.take_up_due(other, 5)
        ):
            await asyncio.gather(*tasks)
        assert len(payments.gateway.orders) == made + 1


async def begun_by_both(payments: Payments, other: Runtime, rounds: int) -> int:
    """Let two workers that believe in the same claim make it; return how many tries that made."""
    retry_for_ever(payments.runtime, other)
    payments.gateway.next_starts += [BROKEN] * (2 * rounds + 1)
    await processed(payments, method=PROMPT)
    for _ in range(rounds):
        payments.clock.advance(1)
        claim = await claimed(payments)
        await asyncio.gather(
            retry_worker.make_retry(payments.runtime, claim),
            retry_worker.make_retry(other, claim),
        )
        await payments.sql(
            "UPDATE retry SET state = 'scheduled', next_attempt_at = $1, leased_until = NULL",
            payments.clock(),
        )
    return len(payments.gateway.orders) - 1


async def test_two_workers_with_one_claim_begin_one_try(payments: Payments, other: Runtime) -> None:
    assert await begun_by_both(payments, other, 30) == 30


async def begun_from_one_position(
    payments: Payments, other: Runtime, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Let two workers begin the same retry at once, without a look at claim or payment."""
    monkeypatch.setattr(retry_steps, "_lock", unguarded_lock)
    payments.gateway.next_starts.append(BROKEN)
    await processed(payments)
    payments.clock.advance(60)
    claim = await claimed(payments)
    position = await retry_steps.read_position(payments.runtime, claim)
    begun = await asyncio.gather(
        retry_steps.begin(payments.runtime, claim, position, is_counted=True),
        retry_steps.begin(other, claim, position, is_counted=True),
        return_exceptions=True,
    )
    return sum(isinstance(each, StoredOrder) for each in begun)


async def test_the_schema_alone_lets_one_of_two_begin(
    payments: Payments, other: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await begun_from_one_position(payments, other, monkeypatch) == 1


async def test_without_any_guard_two_begin(
    payments: Payments, other: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above notice when the guards are missing."""
    await payments.sql("ALTER TABLE retry_attempt DROP CONSTRAINT retry_attempt_pkey")

    assert await begun_from_one_position(payments, other, monkeypatch) == 2


async def unguarded_lock(
    _runtime: Runtime, connection: Connection, claim: Claim, _position: Position
) -> Payment:
    return await payment_store.lock_payment(connection, claim.retry.payment_id)


async def test_a_cancellation_and_a_retry_race_and_never_both_win(payments: Payments) -> None:
    outcomes = set()
    for number in range(24):
        payments.gateway.next_starts[:] = [BROKEN]
        payment = await processed(payments, customer={"id": f"cus_{number}"})
        payments.gateway.next_starts[:] = [paid(number)]
        payments.clock.advance(60)
        tries = len(payments.gateway.orders)

        async def cancel(payment_id: str = payment["id"], number: int = number) -> int:
            # Somewhere between before the claim and after the charge.
            await asyncio.sleep(number % 10 / 1_000)
            return (await call(payments, "DELETE", payment_id)).status

        status, _ = await asyncio.gather(cancel(), payments.retry())
        is_tried = len(payments.gateway.orders) > tries
        state = (await payments.read(payment["id"]))["state"]
        outcomes.add((status, is_tried, state))

    assert outcomes <= {(200, False, "failed"), (409, True, "succeeded")}


async def test_a_retry_that_is_cancelled_after_it_was_claimed_never_runs(
    payments: Payments,
) -> None:
    payments.gateway.next_starts += [BROKEN, paid()]
    payment = await processed(payments)
    payments.clock.advance(60)
    claim = await claimed(payments)
    assert (await call(payments, "DELETE", payment["id"])).status == 200
    await retry_worker.make_retry(payments.runtime, claim)
    await lapse(payments)
    payments.clock.advance(86_400)

    assert (await payments.retry(), await take_over(payments.runtime)) == (0, 0)
    assert len(payments.gateway.orders) == 1
    ended, retry = await payments.read(payment["id"]), await retry_of(payments, payment)
    assert (ended["state"], ended["reason"], retry["state"]) == (
        "failed",
        "processing_error:code_of_processing_error",
        "cancelled",
    )
    assert await facts(payments) == ["retry_scheduled", "retry_cancelled"]


async def test_a_retry_that_is_with_the_gateway_cannot_be_cancelled_moved_or_hurried(
    payments: Payments,
) -> None:
    payments.gateway.next_starts += [BROKEN, paid()]
    payment = await processed(payments)
    payments.clock.advance(60)
    payments.gateway.is_answering.clear()
    (making,) = await retry_worker.take_up_due(payments.runtime, 5)

    async def with_the_gateway() -> bool:
        return len(payments.gateway.orders) == 2

    await eventually(with_the_gateway)
    due = {"dueAt": payments.clock().isoformat()}
    replies = [
        await call(payments, "DELETE", payment["id"]),
        await call(payments, "POST", payment["id"], "/now"),
        await call(payments, "PATCH", payment["id"], body=due),
        await call(payments, "POST", payment["id"]),
    ]
    payments.gateway.is_answering.set()
    await making

    assert {(reply.status, reply.error["code"]) for reply in replies} == {(409, "retry_conflict")}
    assert (await retry_of(payments, payment))["state"] == "succeeded"


async def left_behind(payments: Payments) -> tuple[dict[str, Any], Claim, Position]:
    """Let a worker commit a retry and then not send it; return what it holds."""
    payments.gateway.next_starts += [BROKEN]
    payment = await processed(payments)
    payments.clock.advance(60)
    claim = await claimed(payments)
    position = await retry_steps.read_position(payments.runtime, claim)
    await retry_steps.begin(payments.runtime, claim, position, is_counted=True)
    return payment, claim, position


async def test_a_try_whose_worker_died_before_it_was_sent_is_made_once_more(
    payments: Payments, other: Runtime
) -> None:
    payment, _, _ = await left_behind(payments)
    payments.gateway.next_starts.append(paid())
    assert await take_over(other) == 0  # It is leased.
    await lapse(payments)
    payments.clock.advance(30)
    assert await take_over(other) == 1
    # Half a minute is not enough: its sender might be about to send it.
    assert len(payments.gateway.orders) == 1
    assert (await retry_of(payments, payment))["waitsFor"] == "sender_may_come_back"

    payments.clock.advance(30)
    assert await payments.retry() == 1
    retry = await retry_of(payments, payment)
    assert (retry["state"], len(payments.gateway.orders)) == ("succeeded", 2)
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    states = await payments.rows("SELECT state FROM attempt ORDER BY number")
    assert [row["state"] for row in states] == ["refused", "abandoned", "open"]


async def test_a_worker_that_died_after_the_money_was_taken_has_it_found(
    payments: Payments, other: Runtime
) -> None:
    payment, _, _ = await left_behind(payments)
    reference = (await payments.read(payment["id"]))["gatewayReference"]
    async with payments.core.database.connection() as connection:
        stored = (await attempt_store.find_orders(connection, [reference]))[reference]
    payments.gateway.orders.append(stored.order)
    payments.gateway.charge(reference)
    await lapse(payments)
    assert await take_over(other) == 1

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert (await retry_of(payments, payment))["state"] == "succeeded"
    assert len(payments.gateway.orders) == 2


async def test_a_worker_that_comes_back_late_changes_nothing(
    payments: Payments, other: Runtime
) -> None:
    """Its answer is about a try that was given up, and its claim is another's."""
    payment, claim, position = await left_behind(payments)
    reference = (await payments.read(payment["id"]))["gatewayReference"]
    async with payments.core.database.connection() as connection:
        stored = (await attempt_store.find_orders(connection, [reference]))[reference]
    await lapse(payments)
    payments.clock.advance(60)
    payments.gateway.next_starts.append(LOST)
    assert await take_over(other) == 1
    before = await retry_of(payments, payment)

    for answer in (LOST, BROKEN, PROMPTED):
        await record_outcome(payments.runtime, stored, answer, payments.clock(), None)
    await retry_steps.fail(payments.runtime, claim, position, "")
    await retry_steps.remain_silent(payments.runtime, claim, position)

    assert await retry_of(payments, payment) == before
    assert (await payments.read(payment["id"]))["state"] == "unknown"
    with pytest.raises(retry_steps.NotBegunError):
        await retry_steps.begin(payments.runtime, claim, position, is_counted=True)
    assert len(payments.gateway.orders) == 2


async def test_a_notice_of_money_that_comes_before_the_retry_stops_it(payments: Payments) -> None:
    payments.gateway.next_starts += [PROMPTED]
    payment = await processed(payments, method=PROMPT)
    payments.gateway.next_look_ups.append(BROKEN)
    payments.clock.advance(5)
    await payments.look()
    payments.clock.advance(60)
    await payments.paid(payment)

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert (await retry_of(payments, payment))["state"] == "succeeded"
    assert await payments.retry() == 0
    assert len(payments.gateway.orders) == 1


async def told_late(payments: Payments) -> tuple[str, str]:
    """Let a reconciler that was slow record what it heard of the first prompt after the second.

    Returns the states of the payment and of its retry.
    """
    payments.gateway.next_starts += [PROMPTED, PROMPTED]
    payment = await processed(payments, method=PROMPT)
    async with payments.core.database.connection() as connection:
        (read_before,) = (await payment_store.find_by_ids(connection, [payment["id"]])).values()
    payments.clock.advance(5)
    payments.gateway.next_look_ups.append(BROKEN)
    await payments.look()
    payments.clock.advance(60)
    await payments.retry()
    assert len(payments.gateway.orders) == 2
    late = Judgement(read_before, BROKEN, None, payments.clock(), None)
    await payments.runtime.results.submit(late)
    retry = await retry_of(payments, payment)
    return (await payments.read(payment["id"]))["state"], retry["state"]


async def test_what_was_said_of_one_try_says_nothing_of_the_next(payments: Payments) -> None:
    assert await told_late(payments) == ("pending", "running")


async def test_whoever_is_stopped_between_the_record_and_the_call_sends_nothing(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of first tries and of retries: the time runs from before the record."""
    seen: list[bool] = []
    insert_attempt, start = attempt_store.insert_attempt, payments.gateway.start

    async def stopped(*arguments: Any, **options: Any) -> None:
        await insert_attempt(*arguments, **options)
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 31, time=time.time)
        monkeypatch.setattr(send_deadline, "time", later)

    async def watched(order: Order) -> Outcome:
        seen.append(send_deadline.is_too_late())
        monkeypatch.undo()
        return await start(order)

    for making in (processed, lambda payments: payments.retry()):
        payments.gateway.next_starts.append(BROKEN)
        payments.clock.advance(60)
        monkeypatch.setattr(attempt_store, "insert_attempt", stopped)
        monkeypatch.setattr(payments.gateway, "start", watched)
        await making(payments)

    assert seen == [True, True]
