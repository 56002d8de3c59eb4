"""Money that went back takes the enrollment away: once, by the policy, and only if nothing else
holds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from services.enrollment.handlers import revocations
from services.enrollment.handlers.revocations import revoke_due
from services.enrollment.store.revocations import list_due
from shared.process import open_core
from tests.integration.enrollment.world import (
    Enrollments,
    running_enrollments,
    running_receiver,
)
from tests.support.clocks import START, ManualClock
from tests.support.messages import (
    dispute_lost,
    dispute_won,
    payment_refunded,
    payment_succeeded,
    refund_returned,
)
from tests.support.polling import eventually
from tests.support.settings import service_settings

LATER = START + timedelta(days=1)
GRACE = timedelta(days=3)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def with_grace(
    new_database: str, redis_url: str, clock: ManualClock
) -> AsyncIterator[Enrollments]:
    settings = {"revocation": "after_grace", "revocation_grace": GRACE}
    async with running_enrollments(new_database, redis_url, clock, **settings) as service:
        yield service


async def state(service: Enrollments) -> str:
    (enrollment,) = await service.enrollments()
    return str(enrollment["state"])


@pytest.mark.parametrize(
    ("message", "occasion", "event"),
    [
        (payment_refunded(), "refund", "revoked_after_refund"),
        (dispute_lost(), "du_of_pay_1", "revoked_after_dispute"),
    ],
    ids=["refunded in full", "lost in a dispute"],
)
async def test_a_payment_that_went_back_takes_its_enrollment_away_once(
    service: Enrollments, message: object, occasion: str, event: str
) -> None:
    await service.pay()
    for _ in range(3):
        await service.deliver(message)  # type: ignore[arg-type]

    assert await state(service) == "revoked"
    assert await service.story() == [("granted", "pay_1"), (event, "pay_1")]
    assert await service.reversals() == {("pay_1", occasion): ("done", None)}


async def test_a_partial_refund_and_a_dispute_that_is_won_take_nothing_away(
    service: Enrollments,
) -> None:
    await service.pay()
    await service.deliver(payment_refunded(is_full=False, amount=1, refunded_total=1))
    await service.deliver(dispute_won())

    assert await state(service) == "active"
    assert await service.story() == [("granted", "pay_1")]
    assert await service.reversals() == {
        ("pay_1", "du_of_pay_1"): ("not_needed", "dispute_won"),
    }


async def test_by_policy_nothing_is_ever_taken_away(new_database: str, redis_url: str) -> None:
    async with running_enrollments(new_database, redis_url, revocation="never") as service:
        await service.pay()
        await service.deliver(payment_refunded(), dispute_lost())

        assert await state(service) == "active"
        assert set((await service.reversals()).values()) == {("never", "policy")}
        assert await service.story() == [("granted", "pay_1")]


async def test_with_a_grace_it_is_shown_and_taken_away_when_that_is_over(
    with_grace: Enrollments, clock: ManualClock
) -> None:
    service = with_grace
    await service.pay()
    await service.deliver(payment_refunded())
    (listed,) = (await service.list())["enrollments"]

    assert listed["state"] == "active"
    assert listed["revocation"] == {
        "paymentId": "pay_1",
        "cause": "refunded",
        "dueAt": "2026-01-08T12:00:00Z",
    }
    read = await service.api.call("GET", f"/api/enrollments/{listed['id']}")
    assert read.data == listed
    clock.advance(GRACE.total_seconds() - 1)
    assert await revoke_due(service.runtime) == 0

    clock.advance(1)
    assert await revoke_due(service.runtime) == 1
    assert await revoke_due(service.runtime) == 0
    (listed,) = (await service.list())["enrollments"]
    assert (listed["state"], listed["revocation"]) == ("revoked", None)
    assert [event for event, _ in await service.story()] == [
        "granted",
        "revocation_planned",
        "revoked_after_refund",
    ]


async def test_a_won_dispute_cancels_the_waiting_revocation(
    with_grace: Enrollments, clock: ManualClock
) -> None:
    service = with_grace
    await service.pay()
    await service.deliver(dispute_lost())
    await service.deliver(dispute_won(noticed_at=LATER))
    # The older news again, as after a resend.
    await service.deliver(dispute_lost())
    clock.advance(2 * GRACE.total_seconds())
    await revoke_due(service.runtime)

    assert await state(service) == "active"
    assert await service.reversals() == {("pay_1", "du_of_pay_1"): ("cancelled", "dispute_won")}
    assert [event for event, _ in await service.story()][1:] == [
        "revocation_planned",
        "revocation_cancelled",
    ]


async def test_news_that_overtook_older_ones_stand(service: Enrollments) -> None:
    await service.pay()
    await service.deliver(dispute_won(noticed_at=LATER))
    await service.deliver(dispute_lost())

    assert await state(service) == "active"
    assert await service.reversals() == {("pay_1", "du_of_pay_1"): ("not_needed", "dispute_won")}


async def test_a_new_payment_cancels_the_waiting_revocation(
    with_grace: Enrollments, clock: ManualClock
) -> None:
    service = with_grace
    await service.pay("pay_1")
    await service.deliver(payment_refunded("pay_1"))
    await service.pay("pay_2")

    assert await service.reversals() == {("pay_1", "refund"): ("cancelled", "paid_again")}
    assert (await service.list())["enrollments"][0]["revocation"] is None
    clock.advance(2 * GRACE.total_seconds())
    assert await revoke_due(service.runtime) == 0
    assert await state(service) == "active"
    await service.deliver(payment_refunded("pay_2"))
    clock.advance(2 * GRACE.total_seconds())
    await revoke_due(service.runtime)
    assert await state(service) == "revoked", "both went back"


async def test_an_operator_lets_the_customer_keep_what_would_be_taken_away(
    with_grace: Enrollments, clock: ManualClock
) -> None:
    service = with_grace
    await service.pay()
    assert (await service.grant()).status == 409
    await service.deliver(payment_refunded())
    kept = await service.grant()
    clock.advance(2 * GRACE.total_seconds())
    await revoke_due(service.runtime)

    assert (kept.status, kept.data["revocation"]) == (201, None)
    assert await state(service) == "active"
    assert await service.reversals() == {("pay_1", "refund"): ("cancelled", "granted_by_hand")}
    assert (await service.grant()).status == 409


async def test_what_another_payment_holds_is_left_until_that_goes_back_too(
    service: Enrollments,
) -> None:
    await service.pay("pay_1")
    await service.pay("pay_2")
    await service.deliver(payment_refunded("pay_1"))
    assert await state(service) == "active"
    assert await service.reversals() == {("pay_1", "refund"): ("not_needed", "held_otherwise")}

    await service.deliver(payment_refunded("pay_2"))
    assert await state(service) == "revoked"


async def test_what_an_operator_granted_is_not_taken_away_with_a_payment(
    service: Enrollments,
) -> None:
    await service.grant()
    await service.pay("pay_1")
    await service.deliver(payment_refunded("pay_1"))

    assert await state(service) == "active"


async def test_payments_from_before_a_revocation_by_hand_hold_nothing(
    service: Enrollments,
) -> None:
    await service.pay("pay_1")
    await service.pay("pay_2")
    (enrollment,) = await service.enrollments()
    await service.revoke(enrollment["id"])
    await service.pay("pay_3")
    assert await state(service) == "active"
    await service.deliver(payment_refunded("pay_3"))

    assert await state(service) == "revoked"


async def test_a_dispute_won_after_all_gives_back_what_it_took(service: Enrollments) -> None:
    await service.pay()
    await service.deliver(dispute_lost())
    for _ in range(2):
        await service.deliver(dispute_won(noticed_at=LATER))

    assert await state(service) == "active"
    assert await service.story() == [
        ("granted", "pay_1"),
        ("revoked_after_dispute", "pay_1"),
        ("restored", "pay_1"),
    ]
    await service.deliver(dispute_lost(noticed_at=LATER + timedelta(days=1)))
    assert await state(service) == "revoked", "an appeal was lost in the end"


async def test_a_refund_that_comes_back_gives_back_what_it_took(service: Enrollments) -> None:
    await service.pay()
    await service.deliver(payment_refunded())
    assert await state(service) == "revoked"
    await service.deliver(refund_returned(returned_at=LATER))

    assert await state(service) == "active"
    assert (await service.story())[-1] == ("restored", "pay_1")
    assert await service.reversals() == {("pay_1", "refund"): ("cancelled", "refund_returned")}


async def test_a_refund_that_comes_back_cancels_the_waiting_revocation(
    with_grace: Enrollments, clock: ManualClock
) -> None:
    await with_grace.pay()
    await with_grace.deliver(payment_refunded())
    await with_grace.deliver(refund_returned(returned_at=LATER))
    clock.advance(2 * GRACE.total_seconds())

    assert await revoke_due(with_grace.runtime) == 0
    assert await state(with_grace) == "active"


async def test_a_won_dispute_gives_nothing_back_that_was_refunded_or_taken_by_hand(
    service: Enrollments,
) -> None:
    await service.pay()
    await service.deliver(payment_refunded(), dispute_lost())
    await service.deliver(dispute_won(noticed_at=LATER))
    assert await state(service) == "revoked", "it was refunded"

    other = {"customer_id": "cus_2"}
    await service.pay("pay_2", **other)
    await service.deliver(dispute_lost("pay_2", **other))
    await service.grant("cus_2")
    (enrollment,) = (await service.list("customerId=cus_2"))["enrollments"]
    await service.revoke(enrollment["id"])
    await service.deliver(dispute_won("pay_2", noticed_at=LATER, **other))
    (enrollment,) = (await service.list("customerId=cus_2"))["enrollments"]
    assert enrollment["state"] == "revoked", "an operator has taken it away since"


async def test_what_was_paid_after_a_revocation_by_hand_is_given_when_its_dispute_is_won(
    service: Enrollments,
) -> None:
    await service.pay("pay_1")
    (enrollment,) = await service.enrollments()
    await service.revoke(enrollment["id"])
    await service.deliver(dispute_lost("pay_2"))
    await service.pay("pay_2")
    assert await state(service) == "revoked"
    assert await service.further_payments() == {"pay_2": "recorded"}

    await service.deliver(dispute_won("pay_2", noticed_at=LATER))
    assert await state(service) == "active"


async def test_news_that_come_before_the_grant_are_carried_out_after_it(
    new_database: str, redis_url: str, clock: ManualClock
) -> None:
    async with running_enrollments(new_database, redis_url, clock) as service:
        await service.deliver(payment_refunded())
        assert await service.reversals() == {("pay_1", "refund"): ("waiting", "grant_may_come")}
        await service.pay()
        clock.advance(60)
        assert await revoke_due(service.runtime) == 1

        assert await state(service) == "revoked"


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [([], ("done", None)), (["pay_0"], ("not_needed", "revoked_already"))],
    ids=["the first payment", "a further one"],
)
async def test_news_of_what_was_never_granted_rest_until_it_is(
    new_database: str,
    redis_url: str,
    clock: ManualClock,
    earlier: list[str],
    expected: tuple[str, str | None],
) -> None:
    """A payment that was held back and refunded is never granted; its news wait for nothing."""
    async with running_enrollments(new_database, redis_url, clock) as service:
        for payment_id in earlier:
            await service.pay(payment_id)
            await service.deliver(payment_refunded(payment_id))
        await service.deliver(payment_refunded("pay_1"))
        clock.advance(60)
        assert await revoke_due(service.runtime) == 1
        assert (await service.reversals())["pay_1", "refund"] == ("ungranted", None)
        assert await revoke_due(service.runtime) == 0

        await service.pay("pay_1")
        assert await revoke_due(service.runtime) == 1
        assert await state(service) == "revoked"
        assert (await service.reversals())["pay_1", "refund"] == expected


async def test_a_grant_and_news_at_the_same_moment_end_in_a_revocation(
    new_database: str, redis_url: str, clock: ManualClock
) -> None:
    async with (
        running_enrollments(new_database, redis_url, clock) as service,
        open_core(service_settings(redis_url), "enrollment", new_database) as second_core,
        running_receiver(second_core) as second,
    ):
        customers = [f"cus_{number}" for number in range(60)]
        await asyncio.gather(
            service.deliver(*(payment_succeeded(f"pay_{c}", customer_id=c) for c in customers)),
            service.deliver(
                *(payment_refunded(f"pay_{c}", customer_id=c) for c in customers[::-1]), to=second
            ),
        )
        clock.now = service.runtime.core.clock() + timedelta(days=30_000)
        while await revoke_due(service.runtime):
            pass

        assert {row["state"] for row in await service.enrollments()} == {"revoked"}
        assert len(await service.story()) == 2 * len(customers)


async def test_two_processes_and_a_new_payment_race_for_what_is_due(
    new_database: str, redis_url: str, clock: ManualClock
) -> None:
    """Whoever wins: who has paid anew is enrolled, and each is taken away at most once."""
    settings = {"revocation": "after_grace", "revocation_grace": GRACE}
    async with running_enrollments(new_database, redis_url, clock, **settings) as service:
        customers = [f"cus_{number}" for number in range(60)]
        payments = [payment_succeeded(f"pay_{c}", customer_id=c) for c in customers]
        await service.deliver(*payments)
        await service.deliver(*(payment_refunded(f"pay_{c}", customer_id=c) for c in customers))
        clock.advance(GRACE.total_seconds())
        await asyncio.gather(
            revoke_due(service.runtime),
            service.deliver(
                *(payment_succeeded(f"pay_new_{c}", customer_id=c) for c in customers[:30])
            ),
            revoke_due(service.runtime),
        )

        states = {row["customer_id"]: row["state"] for row in await service.enrollments()}
        assert {states[customer] for customer in customers[:30]} == {"active"}
        assert {states[customer] for customer in customers[30:]} == {"revoked"}
        taken = [id_ for event, id_ in await service.story() if event == "revoked_after_refund"]
        assert len(taken) == len(set(taken))
        ends = await service.reversals()
        assert {ends[f"pay_{customer}", "refund"] for customer in customers[30:]} == {
            ("done", None)
        }
        assert {ends[f"pay_{customer}", "refund"][0] for customer in customers[:30]} <= {
            "done",
            "cancelled",
        }


async def test_the_worker_takes_away_what_is_due_on_its_own(
    with_grace: Enrollments, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = with_grace
    monkeypatch.setattr(revocations, "INTERVAL_SECONDS", 0.05)
    await service.pay()
    await service.deliver(payment_refunded())
    loop = asyncio.create_task(revocations.revoke_due_for_ever(service.runtime))
    try:
        clock.advance(GRACE.total_seconds())

        async def is_revoked() -> bool:
            return await state(service) == "revoked"

        await eventually(is_revoked)
    finally:
        loop.cancel()
    async with service.core.database.connection() as connection:
        assert await list_due(connection, clock() + timedelta(days=999), 10) == []
