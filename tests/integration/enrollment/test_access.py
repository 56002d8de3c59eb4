"""Enrollments follow subscriptions: the latest word of each holds, whatever order they come in."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from services.enrollment.handlers.revocations import revoke_due
from shared.contracts.scheduler import AccessGranted, AccessRevoked
from shared.messaging import receiver as receiver_module
from shared.messaging.receiver import Receiver
from shared.process import open_core
from tests.integration.enrollment.world import (
    Enrollments,
    running_enrollments,
    running_receiver,
)
from tests.support.clocks import START, ManualClock
from tests.support.messages import (
    access_granted,
    access_revoked,
    dispute_lost,
    payment_refunded,
    payment_succeeded,
)
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for
from tests.support.settings import service_settings
from tests.support.tcp_proxy import proxied

GRACE = timedelta(days=3)


async def states(service: Enrollments) -> dict[tuple[str, str], str]:
    return {
        (row["customer_id"], row["product_id"]): row["state"] for row in await service.enrollments()
    }


async def state(service: Enrollments) -> str:
    ((_, found),) = (await states(service)).items()
    return found


def counted(effect: str) -> float:
    return REGISTRY.get_sample_value("enrollment_access_total", {"effect": effect}) or 0


async def test_a_subscription_gives_takes_and_gives_back(service: Enrollments) -> None:
    before = {each: counted(each) for each in ("granted", "kept", "revoked", "regranted")}
    await service.hear(access_granted(1))
    await service.hear(access_granted(2))
    assert await state(service) == "active"
    await service.hear(access_revoked(3))
    assert await state(service) == "revoked"
    await service.hear(access_granted(4))

    assert await state(service) == "active"
    assert await service.lines() == [
        ("granted", "sub_1", None),
        ("revoked_with_subscription", "sub_1", "unpaid"),
        ("regranted", "sub_1", None),
    ]
    assert {each: counted(each) - number for each, number in before.items()} == dict.fromkeys(
        before, 1
    )


async def test_what_is_said_again_changes_nothing(service: Enrollments) -> None:
    before = counted("outdated")
    for message in (access_granted(1), access_revoked(2), access_granted(3)):
        for _ in range(2):
            await service.hear(message)
    await service.hear(access_granted(1), access_revoked(2), access_granted(3))

    assert await state(service) == "active"
    assert [event for event, _, _ in await service.lines()] == [
        "granted",
        "revoked_with_subscription",
        "regranted",
    ]
    assert counted("outdated") - before == 6


@pytest.mark.parametrize("seed", range(4))
async def test_in_any_order_and_any_batches_the_latest_word_of_each_subscription_holds(
    new_database: str, redis_url: str, seed: int
) -> None:
    """Two processes, each message to both of them in orders of their own."""
    chance = random.Random(seed)
    messages: list[AccessGranted | AccessRevoked] = []
    expected = {}
    for number in range(30):
        names = {"subscription_id": f"sub_{number}", "customer_id": f"cus_{number}"}
        length = chance.randint(1, 5)
        for sequence in range(1, length + 1):
            kind = access_granted if sequence % 2 else access_revoked
            messages.append(kind(sequence, **names))
        expected[f"cus_{number}"] = "active" if length % 2 else "revoked"
    async with (
        running_enrollments(new_database, redis_url) as service,
        open_core(service_settings(redis_url), "enrollment", new_database) as second_core,
        running_receiver(second_core) as second,
    ):

        async def hear_all(to: Receiver) -> None:
            rest = chance.sample(messages, len(messages))
            while rest:
                size = chance.randint(1, 25)
                batch, rest = rest[:size], rest[size:]
                await service.hear(*batch, to=to)

        await asyncio.gather(hear_all(service.receiver), hear_all(second))

        found = {customer: state for (customer, _), state in (await states(service)).items()}
        for customer, wanted in expected.items():
            # An end that came before anything was given has nothing to take away.
            assert found.get(customer, "revoked") == wanted, customer
        known = await service.rows("SELECT min(sequence), count(*) FROM subscription_access")
        assert (known[0]["count"], known[0]["min"] > 0) == (30, True)
        disagreeing = await service.rows(
            """
            SELECT enrollment_id
              FROM (SELECT enrollment_id, event,
                           lag(event) OVER (PARTITION BY enrollment_id ORDER BY id) AS before
                      FROM enrollment_history) line
             WHERE (event LIKE 'revoked%') = (coalesce(before, 'revoked') LIKE 'revoked%')
            """
        )
        assert disagreeing == [], "given what they had, or taken what they had not"


async def test_an_end_that_overtakes_its_beginning_enrolls_nobody(service: Enrollments) -> None:
    await service.hear(access_revoked(2))
    await service.hear(access_granted(1))

    assert await service.enrollments() == []
    (known,) = await service.rows("SELECT * FROM subscription_access")
    assert (known["sequence"], known["has_access"], known["reason"]) == (2, False, "unpaid")


async def test_two_subscriptions_to_one_product_hold_it_together(service: Enrollments) -> None:
    await service.hear(access_granted(1, "sub_a"), access_granted(1, "sub_b"))
    await service.hear(access_revoked(2, "sub_a"))
    assert await state(service) == "active"
    await service.hear(access_revoked(2, "sub_b"))

    assert await state(service) == "revoked"
    events = [(event, by) for event, by, _ in await service.lines()]
    assert events == [("granted", "sub_a"), ("revoked_with_subscription", "sub_b")]


async def test_the_end_of_one_and_the_beginning_of_another_at_once_leave_the_product(
    new_database: str, redis_url: str
) -> None:
    async with (
        running_enrollments(new_database, redis_url) as service,
        open_core(service_settings(redis_url), "enrollment", new_database) as second_core,
        running_receiver(second_core) as second,
    ):
        customers = [f"cus_{number}" for number in range(40)]
        await service.hear(
            *(access_granted(1, f"sub_a_{each}", customer_id=each) for each in customers)
        )
        await asyncio.gather(
            service.hear(
                *(access_revoked(2, f"sub_a_{each}", customer_id=each) for each in customers)
            ),
            service.hear(
                *(access_granted(1, f"sub_b_{each}", customer_id=each) for each in customers[::-1]),
                to=second,
            ),
        )

        assert set((await states(service)).values()) == {"active"}


async def test_a_subscription_that_goes_on_with_another_product_gives_up_the_first(
    service: Enrollments,
) -> None:
    """Also when the end of the first is never heard of, or comes afterwards."""
    await service.hear(access_granted(1))
    await service.hear(access_granted(3, product_id="course_2"))
    await service.hear(access_revoked(2))

    assert await states(service) == {
        ("cus_1", "course_1"): "revoked",
        ("cus_1", "course_2"): "active",
    }
    assert sorted(await service.lines()) == [
        ("granted", "sub_1", None),
        ("granted", "sub_1", None),
        ("revoked_with_subscription", "sub_1", "another_product"),
    ]


async def test_what_is_paid_or_granted_by_hand_stays_when_the_subscription_ends(
    service: Enrollments,
) -> None:
    await service.hear(access_granted(1, "sub_1"), access_granted(1, "sub_2", customer_id="cus_2"))
    await service.pay("pay_1")
    assert await service.further_payments() == {"pay_1": "recorded"}
    second = (await service.list("customerId=cus_2"))["enrollments"][0]
    await service.revoke(second["id"])
    assert (await service.grant("cus_2")).status == 201
    await service.hear(access_revoked(2, "sub_1"), access_revoked(2, "sub_2", customer_id="cus_2"))

    assert set((await states(service)).values()) == {"active"}


@pytest.mark.parametrize("message", [payment_refunded(), dispute_lost()], ids=["refund", "dispute"])
async def test_money_that_goes_back_takes_nothing_that_a_subscription_gives(
    service: Enrollments, message: object
) -> None:
    await service.pay("pay_1")
    await service.hear(access_granted(1))
    await service.deliver(message)  # type: ignore[arg-type]
    assert await state(service) == "active"
    assert [each for each, _ in (await service.reversals()).values()] == ["not_needed"]

    await service.hear(access_revoked(2))
    assert await state(service) == "revoked", "nothing holds it any more"


async def test_the_refund_of_a_charge_of_a_subscription_takes_nothing_away(
    service: Enrollments,
) -> None:
    """Its payment enrolls nobody here: who may use what is said by the subscription."""
    await service.hear(access_granted(1))
    await service.deliver(payment_refunded("pay_of_sub_1"))

    assert await state(service) == "active"
    assert await service.story() == [("granted", None)]


async def test_the_end_of_a_subscription_leaves_the_grace_of_a_refund(
    new_database: str, redis_url: str
) -> None:
    clock = ManualClock()
    settings = {"revocation": "after_grace", "revocation_grace": GRACE}
    async with running_enrollments(new_database, redis_url, clock, **settings) as service:
        await service.pay("pay_1")
        await service.hear(access_granted(1))
        await service.deliver(payment_refunded(refunded_at=START))
        await service.hear(access_revoked(2))
        assert await state(service) == "active"

        clock.advance(GRACE.total_seconds())
        await revoke_due(service.runtime)
        assert await state(service) == "revoked"
        assert [event for event, _ in await service.story()] == [
            "granted",
            "revocation_planned",
            "revoked_after_refund",
        ]


async def test_what_by_policy_is_never_taken_away_stays_when_the_subscription_ends(
    new_database: str, redis_url: str
) -> None:
    async with running_enrollments(new_database, redis_url, revocation="never") as service:
        await service.pay("pay_1")
        await service.hear(access_granted(1))
        await service.deliver(payment_refunded())
        await service.hear(access_revoked(2))

        assert await state(service) == "active"


async def test_what_an_operator_takes_away_stays_away_until_something_new_is_given(
    service: Enrollments,
) -> None:
    await service.hear(access_granted(1))
    (enrollment,) = await service.enrollments()
    assert (await service.revoke(enrollment["id"])).status == 200
    await service.hear(access_granted(1))
    assert await state(service) == "revoked", "the same word again is nothing new"
    await service.pay("pay_1")
    await service.deliver(payment_refunded())
    assert await state(service) == "revoked", "what was given before holds no more"

    await service.hear(access_granted(2))
    assert await state(service) == "active"
    assert [event for event, _ in await service.story()] == [
        "granted",
        "revoked_by_hand",
        "regranted",
        "revoked_after_refund",
        "regranted",
    ]


async def test_the_end_of_a_subscription_after_an_operator_took_it_away_changes_nothing(
    service: Enrollments,
) -> None:
    await service.hear(access_granted(1))
    (enrollment,) = await service.enrollments()
    await service.revoke(enrollment["id"])
    await service.hear(access_revoked(2))

    assert [event for event, _ in await service.story()] == ["granted", "revoked_by_hand"]
    (known,) = await service.rows("SELECT has_access FROM subscription_access")
    assert known["has_access"] is False


async def test_an_enrollment_names_its_subscription_and_is_found_by_it(
    service: Enrollments,
) -> None:
    await service.hear(
        access_granted(1, "sub_a"), access_granted(1, "sub_x", product_id="course_2")
    )
    await service.hear(access_revoked(2, "sub_a"))
    await service.pay("pay_1", product_id="course_3")

    async def found(query: str) -> list[tuple[str, str | None, str | None, str]]:
        listed = (await service.list(query))["enrollments"]
        return sorted(
            (each["productId"], each["subscriptionId"], each["paymentId"], each["state"])
            for each in listed
        )

    first = ("course_1", "sub_a", None, "revoked")
    assert await found("subscriptionId=sub_a") == [first]
    assert await found("subscriptionId=sub_a&customerId=cus_1&productId=course_1") == [first]
    assert await found("subscriptionId=sub_a&productId=course_2") == []
    assert await found("subscriptionId=sub_a&paymentId=pay_1") == []
    assert await found("subscriptionId=sub_unknown") == []
    await service.hear(access_granted(1, "sub_b"))
    assert await found("") == [
        ("course_1", "sub_b", None, "active"),
        ("course_2", "sub_x", None, "active"),
        ("course_3", None, "pay_1", "active"),
    ]
    (listed,) = (await service.list("subscriptionId=sub_b"))["enrollments"]
    assert (await service.api.call("GET", f"/api/enrollments/{listed['id']}")).data == listed
    (page,) = [await service.list(f"subscriptionId=sub_b&cursor={listed['id']}")]
    assert page == {"enrollments": [], "nextCursor": None}


async def test_a_payment_for_what_a_subscription_has_lost_grants_it_anew(
    service: Enrollments,
) -> None:
    await service.hear(access_granted(1), access_revoked(2))
    await service.hear(access_granted(3))
    await service.hear(access_revoked(4))
    await service.deliver(payment_succeeded("pay_1"))

    assert await state(service) == "active"
    assert await service.further_payments() == {"pay_1": "regranted"}


async def test_while_postgresql_is_away_nothing_is_confirmed_and_all_is_done_afterwards(
    new_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.1,) * 50)
    async with (
        proxied(new_database) as (proxy, url),
        running_enrollments(url, redis_url) as service,
    ):
        await proxy.cut()
        batch = batch_of("scheduler", [(1, access_granted(1)), (2, access_revoked(2, "sub_2"))])
        service.receiver.accept("enrollment.access", {"batch": batch})

        async def failed_once() -> bool:
            return bool(service.receiver._waiting)

        await eventually(failed_once)
        assert await receipts_for(service.core.redis, "scheduler") == []
        await proxy.mend()

        async def confirmed() -> bool:
            return set(await receipts_for(service.core.redis, "scheduler")) == {1, 2}

        await eventually(confirmed)
        assert await state(service) == "active"
