"""Profiles of limits: written by operators, switched by schedule and load, each switch recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from services.payments.handlers import profiles
from services.payments.handlers.flow_sync import FlowSync
from services.payments.handlers.profiles import follow_conditions, switch_if_due
from services.payments.settings import PaymentsSettings
from shared.settings import SettingsError, load
from tests.integration.payments.world import Payments, running_runtime
from tests.support.http_api import Reply
from tests.support.polling import eventually
from tests.support.settings import gateways_of_tests

PATH = "/api/operations/profiles"

FLASH: dict[str, Any] = {
    "limits": {"maxConcurrentPayments": 40, "gateways": {"sslcommerz": {"concurrency": 80}}},
    "rank": 20,
    "load": {"above": 100, "below": 20},
    "minimumStaySeconds": 300,
}
#: The clock of the tests starts on a Monday at 12:00 UTC.
NOON: dict[str, Any] = {
    "limits": {"batchSize": 200},
    "rank": 10,
    "schedule": [{"days": ["mon"], "from": "12:00", "to": "13:00"}],
    "minimumStaySeconds": 0,
}


async def write(payments: Payments, name: str, body: dict[str, Any]) -> Reply:
    reply = await payments.api.call("PUT", f"{PATH}/{name}", {"reason": "a sale", **body})
    payments.clock.advance(0.001)  # Actions are listed in the order of their milliseconds.
    return reply


async def choose(payments: Payments, what: str) -> Reply:
    reply = await payments.api.call("POST", f"{PATH}/{what}", {"reason": "by hand"})
    payments.clock.advance(0.001)
    return reply


async def delete(payments: Payments, name: str) -> Reply:
    return await payments.api.call("DELETE", f"{PATH}/{name}?reason=over")


async def in_force(payments: Payments) -> Any:
    return (await payments.api.call("GET", "/api/operations/controls")).data


async def switches(payments: Payments) -> list[tuple[str, str, Any, Any]]:
    data = (await payments.api.call("GET", "/api/operations/profile-switches")).data
    return [
        (each["profile"], each["cause"], each["queueLength"], each["by"])
        for each in data["switches"][::-1]
    ]


async def recorded(payments: Payments) -> list[tuple[str, str]]:
    data = (await payments.api.call("GET", "/api/operations/actions")).data
    return [(each["action"], each["target"]) for each in data["actions"][::-1]]


async def test_a_profile_is_shown_as_it_was_written(payments: Payments) -> None:
    await write(payments, "noon", NOON)
    shown = (await write(payments, "flash-sale", FLASH)).data

    assert shown["timeZone"] == "UTC"
    assert shown["inForce"] == {
        "name": "normal",
        "mode": "automatic",
        "cause": "nothing",
        "since": None,
        "by": None,
    }
    flash, noon = shown["profiles"]
    assert flash == {
        "name": "flash-sale",
        "schedule": [],
        "reason": "a sale",
        "by": "admin",
        "at": "2026-01-05T12:00:00.001000Z",
        **FLASH,
    }
    assert (noon["schedule"], noon["load"]) == (NOON["schedule"], None)
    assert (await payments.api.call("GET", PATH)).data == shown


async def test_load_brings_a_profile_and_its_limits_into_force_and_takes_them_back(
    payments: Payments,
) -> None:
    await write(payments, "flash-sale", FLASH)

    assert await switch_if_due(payments.runtime, 99) is None
    assert await switch_if_due(payments.runtime, 100) is not None
    during = await in_force(payments)
    await FlowSync(payments.runtime, "worker").synchronize()
    assert payments.runtime.flow.controls.charges == 40

    payments.clock.advance(299)
    assert await switch_if_due(payments.runtime, 0) is None
    payments.clock.advance(1)
    assert await switch_if_due(payments.runtime, 21) is None
    assert await switch_if_due(payments.runtime, 20) is not None
    await FlowSync(payments.runtime, "worker").synchronize()

    assert during["limits"]["inForce"] == {
        "maxConcurrentPayments": 40,
        "batchSize": 50,
        "gateways": {"sslcommerz": {"concurrency": 80}},
    }
    assert (during["profile"]["name"], during["profile"]["cause"]) == ("flash-sale", "load")
    assert payments.runtime.flow.controls.charges == 10
    assert await switches(payments) == [
        ("flash-sale", "load", 100, None),
        ("normal", "nothing", 20, None),
    ]


async def test_the_clock_of_the_operator_brings_a_rush_hour(payments: Payments) -> None:
    settings = payments.runtime.settings.model_copy(update={"operator_time_zone": "Asia/Dhaka"})
    in_dhaka = replace(payments.runtime, settings=settings)
    evening = {"schedule": [{"days": ["mon"], "from": "18:00", "to": "19:00"}]}
    await write(payments, "evening", NOON | evening)

    assert await switch_if_due(payments.runtime, 0) is None  # It is noon in UTC.
    assert await switch_if_due(in_dhaka, 0) is not None
    payments.clock.advance(3_600)
    assert await switch_if_due(in_dhaka, 0) is not None

    assert await switches(payments) == [
        ("evening", "schedule", 0, None),
        ("normal", "nothing", 0, None),
    ]


async def test_a_queue_in_redis_and_due_looks_are_the_load(payments: Payments) -> None:
    await write(payments, "flash-sale", FLASH | {"load": {"above": 3, "below": 1}})
    for _ in range(3):
        await payments.create()
    following = asyncio.create_task(follow_conditions(payments.runtime))

    async def has_switched() -> bool:
        return bool(await switches(payments))

    payments.clock.advance(60)
    await eventually(has_switched)
    following.cancel()

    assert await switches(payments) == [("flash-sale", "load", 3, None)]


async def test_of_workers_that_see_it_at_once_one_switches(
    payments: Payments, new_database: str, redis_url: str
) -> None:
    await write(payments, "flash-sale", FLASH)
    other = running_runtime(new_database, redis_url, payments.gateway, payments.clock)
    async with other as second:
        for length in [100, 0] * 10:
            payments.clock.advance(301)
            found = await asyncio.gather(
                *(switch_if_due(each, length) for each in [payments.runtime, second] * 3)
            )
            assert len([each for each in found if each is not None]) == 1

    assert len(await switches(payments)) == 20


async def test_what_an_operator_activates_stays_until_it_is_automatic_again(
    payments: Payments,
) -> None:
    await write(payments, "flash-sale", FLASH)
    activated = (await choose(payments, "flash-sale/activate")).data
    payments.clock.advance(3_600)

    assert await switch_if_due(payments.runtime, 0) is None

    assert activated["inForce"]["mode"] == "manual"
    assert activated["inForce"]["by"] == "admin"
    automatic = (await choose(payments, "automatic")).data["inForce"]
    assert (automatic["name"], automatic["mode"]) == ("flash-sale", "automatic")
    payments.clock.advance(301)
    assert await switch_if_due(payments.runtime, 0) is not None
    assert await switches(payments) == [
        ("flash-sale", "operator", None, "admin"),
        ("flash-sale", "operator", None, "admin"),
        ("normal", "nothing", 0, None),
    ]
    assert await recorded(payments) == [
        ("set_profile", "profile:flash-sale"),
        ("activate_profile", "profile:flash-sale"),
        ("automatic_profiles", "profile:flash-sale"),
    ]


async def test_an_operator_is_not_refused_because_a_worker_switches_at_that_moment(
    payments: Payments,
) -> None:
    await write(payments, "flash-sale", FLASH)

    await asyncio.gather(
        *(switch_if_due(payments.runtime, 100) for _ in range(3)),
        *(choose(payments, f"{name}/activate") for name in ("normal", "flash-sale") * 3),
    )

    manual = [each for each in await switches(payments) if each[1] == "operator"]
    assert len(manual) == 6
    assert (await in_force(payments))["profile"]["mode"] == "manual"


async def test_the_normal_profile_may_have_limits_but_no_condition(payments: Payments) -> None:
    limits = {"limits": {"batchSize": 33}}
    assert (await write(payments, "normal", limits)).status == 200
    assert (await in_force(payments))["limits"]["inForce"]["batchSize"] == 50
    await choose(payments, "normal/activate")
    assert (await in_force(payments))["limits"]["inForce"]["batchSize"] == 33

    for field in ("schedule", "load"):
        body = {**limits, field: {**NOON, **FLASH}[field]}
        refused = await write(payments, "normal", body)
        assert (refused.status, list(refused.error["details"])) == (400, [field])

    assert (await delete(payments, "normal")).status == 200
    assert (await in_force(payments))["limits"]["inForce"]["batchSize"] == 50


async def test_a_profile_in_force_cannot_be_deleted(payments: Payments) -> None:
    await write(payments, "flash-sale", FLASH)
    await choose(payments, "flash-sale/activate")

    refused = await delete(payments, "flash-sale")
    await choose(payments, "normal/activate")
    deleted = await delete(payments, "flash-sale")

    assert (refused.status, refused.error["code"]) == (409, "conflict")
    assert deleted.data["profiles"] == []
    for reply in (await delete(payments, "flash-sale"), await choose(payments, "gone/activate")):
        assert (reply.status, reply.error["code"]) == (404, "not_found")


async def test_a_change_of_the_profile_in_force_holds_at_once(payments: Payments) -> None:
    await write(payments, "flash-sale", FLASH)
    await choose(payments, "flash-sale/activate")

    await write(payments, "flash-sale", FLASH | {"limits": {"maxConcurrentPayments": 7}})

    assert (await in_force(payments))["limits"]["inForce"] == {
        "maxConcurrentPayments": 7,
        "batchSize": 50,
    }


async def test_there_is_an_end_to_the_number_of_profiles(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "PROFILES_MAX", 2)
    for name in ("one", "two"):
        assert (await write(payments, name, NOON)).status == 200

    assert (await write(payments, "three", NOON)).status == 409
    assert (await write(payments, "two", FLASH)).status == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rank": -1}, "rank"),
        ({"rank": True}, "rank"),
        ({"load": {"above": 10, "below": 10}}, "load"),
        ({"load": {"above": 10}}, "load.below"),
        ({"minimumStaySeconds": 86_401}, "minimumStaySeconds"),
        ({"schedule": [{"days": [], "from": "07:00", "to": "08:00"}]}, "schedule.0.days"),
        ({"schedule": [{"days": ["x"], "from": "07:00", "to": "08:00"}]}, "schedule.0.days.0"),
        ({"schedule": [{"days": ["mon"], "from": "24:00", "to": "08:00"}]}, "schedule.0.from"),
        ({"schedule": [{"days": ["mon"], "from": "07:00"}]}, "schedule.0.to"),
        ({"limits": {"batchSize": 0}}, "limits.batchSize"),
        ({"limits": {"gateways": {"paypal": {}}}}, "gateways.paypal"),
        ({"reason": " "}, "reason"),
    ],
)
async def test_a_wrong_value_is_named_and_changes_nothing(
    payments: Payments, change: dict[str, Any], field: str
) -> None:
    reply = await write(payments, "flash-sale", FLASH | change)

    assert (reply.status, list(reply.error["details"])) == (400, [field])
    assert (await payments.api.call("GET", PATH)).data["profiles"] == []
    assert await recorded(payments) == []


@pytest.mark.parametrize("name", ["Flash", "a" * 41, "%00", "9", "a%20b", "%ff"])
async def test_a_name_that_no_profile_can_have_is_not_found(payments: Payments, name: str) -> None:
    assert (await write(payments, name, FLASH)).status == 404
    assert (await delete(payments, name)).status == 404
    assert (await choose(payments, f"{name}/activate")).status == 404


async def test_switches_are_paged(payments: Payments) -> None:
    await write(payments, "flash-sale", FLASH)
    for _ in range(2):
        for name in ("flash-sale", "normal"):
            await choose(payments, f"{name}/activate")

    path = "/api/operations/profile-switches"
    first = (await payments.api.call("GET", f"{path}?limit=3")).data
    rest = (await payments.api.call("GET", f"{path}?cursor={first['nextCursor']}")).data

    numbers = [each["number"] for each in [*first["switches"], *rest["switches"]]]
    assert numbers == [4, 3, 2, 1]
    for cursor in ("0", "-1", "x", "9" * 19):
        reply = await payments.api.call("GET", f"{path}?cursor={cursor}")
        assert (reply.status, list(reply.error["details"])) == (400, ["cursor"])


@pytest.mark.parametrize("name", ["Mars/Base", "../etc/passwd", "", "Europe", "a\x00b"])
def test_a_time_zone_that_there_is_not_is_refused_at_start(name: str) -> None:
    with pytest.raises(SettingsError, match="OPERATOR_TIME_ZONE"):
        load(
            PaymentsSettings,
            database_url="postgresql://x",
            gateways=gateways_of_tests(),
            OPERATOR_TIME_ZONE=name,
        )
