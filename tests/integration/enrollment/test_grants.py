"""Succeeded payments become enrollments: once per payment, once per customer and product."""

from __future__ import annotations

import asyncio
import random

import pytest
from prometheus_client import REGISTRY

from shared.messaging import receiver as receiver_module
from shared.process import open_core
from tests.integration.enrollment.world import (
    Enrollments,
    running_enrollments,
    running_receiver,
)
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for
from tests.support.settings import service_settings
from tests.support.tcp_proxy import proxied


async def test_a_succeeded_payment_enrolls_its_customer(service: Enrollments) -> None:
    await service.pay()

    (enrollment,) = await service.enrollments()
    assert (enrollment["customer_id"], enrollment["product_id"]) == ("cus_1", "course_1")
    assert (enrollment["payment_id"], enrollment["state"]) == ("pay_1", "active")
    assert await service.story() == [("granted", "pay_1")]
    assert await service.further_payments() == {}
    whole_way = REGISTRY.get_sample_value("enrollment_whole_way_duration_seconds_count")
    assert (whole_way or 0) >= 1


async def test_a_repeated_payment_changes_nothing_at_any_point(service: Enrollments) -> None:
    for _ in range(2):
        await service.pay("pay_1")
    assert await service.story() == [("granted", "pay_1")]

    for _ in range(2):
        await service.pay("pay_2")
    assert await service.further_payments() == {"pay_2": "recorded"}

    (enrollment,) = await service.enrollments()
    assert (await service.revoke(enrollment["id"])).status == 200
    for payment_id in ("pay_1", "pay_2"):
        await service.pay(payment_id)
    assert (await service.enrollments())[0]["state"] == "revoked", "nothing was paid anew"

    for _ in range(2):
        await service.pay("pay_3")
    for payment_id in ("pay_1", "pay_2", "pay_3"):
        await service.pay(payment_id)

    (enrollment,) = await service.enrollments()
    assert enrollment["state"] == "active"
    assert await service.further_payments() == {"pay_2": "recorded", "pay_3": "regranted"}
    assert await service.story() == [
        ("granted", "pay_1"),
        ("revoked_by_hand", None),
        ("regranted", "pay_3"),
    ]


async def test_a_second_payment_for_a_product_is_recorded_with_its_money(
    service: Enrollments,
) -> None:
    await service.pay("pay_1")
    await service.pay("pay_2", amount=99, currency="USD")

    assert len(await service.enrollments()) == 1
    (further,) = await service.rows("SELECT * FROM further_payment")
    assert (further["payment_id"], further["effect"]) == ("pay_2", "recorded")
    assert (further["amount"], further["currency"]) == (99, "USD")
    assert await service.story() == [("granted", "pay_1")]


async def test_two_payments_for_a_product_in_one_batch_are_one_enrollment_and_one_record(
    service: Enrollments,
) -> None:
    await service.deliver(*(payment_succeeded(f"pay_{number}") for number in range(5)))

    (enrollment,) = await service.enrollments()
    further = await service.further_payments()
    assert set(further.values()) == {"recorded"}
    assert {enrollment["payment_id"], *further} == {f"pay_{number}" for number in range(5)}
    assert len(further) == 4


async def test_the_same_payment_twice_in_one_batch_is_one_enrollment(
    service: Enrollments,
) -> None:
    await service.deliver(payment_succeeded(), payment_succeeded())

    assert len(await service.enrollments()) == 1
    assert await service.further_payments() == {}


async def test_a_payment_for_what_was_granted_by_hand_is_recorded(service: Enrollments) -> None:
    assert (await service.grant()).status == 201
    await service.pay("pay_1")

    (enrollment,) = await service.enrollments()
    assert enrollment["payment_id"] is None
    assert await service.further_payments() == {"pay_1": "recorded"}


async def test_two_processes_with_the_same_payments_enroll_each_once(
    new_database: str, redis_url: str
) -> None:
    """And the two get them in different orders, as after a resend."""
    async with (
        running_enrollments(new_database, redis_url) as service,
        open_core(service_settings(redis_url), "enrollment", new_database) as second_core,
        running_receiver(second_core) as second,
    ):
        messages = [
            payment_succeeded(f"pay_{number}", customer_id=f"cus_{number}") for number in range(150)
        ]
        shuffled = random.Random(7).sample(messages, len(messages))
        await asyncio.gather(service.deliver(*messages), service.deliver(*shuffled, to=second))

        assert len(await service.enrollments()) == 150
        assert len(await service.story()) == 150
        assert await service.further_payments() == {}


async def test_two_processes_with_different_payments_for_the_same_products_lose_none(
    new_database: str, redis_url: str
) -> None:
    async with (
        running_enrollments(new_database, redis_url) as service,
        open_core(service_settings(redis_url), "enrollment", new_database) as second_core,
        running_receiver(second_core) as second,
    ):
        first_payments, second_payments = (
            [
                payment_succeeded(f"pay_{owner}_{number}", customer_id=f"cus_{number}")
                for number in range(100)
            ]
            for owner in "ab"
        )
        await asyncio.gather(
            service.deliver(*first_payments),
            service.deliver(*second_payments[::-1], to=second),
            service.deliver(*second_payments),
            service.deliver(*first_payments[::-1], to=second),
        )

        enrollments = await service.enrollments()
        further = await service.further_payments()
        assert len(enrollments) == len(further) == 100
        assert set(further.values()) == {"recorded"}
        known = {enrollment["payment_id"] for enrollment in enrollments} | further.keys()
        assert known == {message.payment_id for message in [*first_payments, *second_payments]}
        assert len(await service.story()) == 100


async def test_two_payments_for_a_revoked_product_at_once_grant_it_anew_once(
    new_database: str, redis_url: str
) -> None:
    async with (
        running_enrollments(new_database, redis_url) as service,
        open_core(service_settings(redis_url), "enrollment", new_database) as second_core,
        running_receiver(second_core) as second,
    ):
        await service.pay("pay_1")
        (enrollment,) = await service.enrollments()
        await service.revoke(enrollment["id"])
        await asyncio.gather(
            service.deliver(payment_succeeded("pay_2")),
            service.deliver(payment_succeeded("pay_3"), to=second),
        )

        assert sorted((await service.further_payments()).values()) == ["recorded", "regranted"]
        assert [event for event, _ in await service.story()].count("regranted") == 1


async def test_while_postgresql_is_away_payments_get_no_receipt_and_are_granted_afterwards(
    new_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.1,) * 50)
    async with (
        proxied(new_database) as (proxy, url),
        running_enrollments(url, redis_url) as service,
    ):
        await proxy.cut()
        batch = batch_of("payments", [(number, payment_succeeded()) for number in (1, 2)])
        service.receiver.accept("enrollment.grants", {"batch": batch})

        async def failed_once() -> bool:
            return bool(service.receiver._waiting)

        await eventually(failed_once)
        assert await receipts_for(service.core.redis, "payments") == []
        await proxy.mend()

        async def confirmed() -> bool:
            return set(await receipts_for(service.core.redis, "payments")) == {1, 2}

        await eventually(confirmed)
        assert len(await service.enrollments()) == 1
