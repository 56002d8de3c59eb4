"""A random profile decides about every payment, once, and can be compared with what happened."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import aiohttp
import pytest

from services.simulator.profiles import Profile, plan_of
from tests.integration.simulator.world import SESSION_PATH, Simulator, eventually
from tests.unit.simulator.forms import session_form

QUICK = {"timeoutSeconds": 0.1, "slowSeconds": 0.3, "lateSeconds": 0.2}


async def put(simulator: Simulator, **profile: Any) -> None:
    await simulator.control("PUT", "profile", {**QUICK, **profile})


async def until_charged(simulator: Simulator, reference: str) -> list[dict[str, Any]]:
    async def charged() -> list[dict[str, Any]]:
        return await simulator.charges(reference)

    return await eventually(charged)


async def test_a_profile_is_stored_read_and_cleared(simulator: Simulator) -> None:
    assert await simulator.control("GET", "profile") is None

    await put(simulator, seed=7, fates={"declined": 10}, latencyMs={"p50": 20, "p99": 400})

    stored = await simulator.control("GET", "profile")
    assert (stored["seed"], stored["fates"]) == (7, {"declined": 10})
    assert stored["latencyMs"] == {"p50": 20, "p99": 400}
    await put(simulator, seed=8)
    assert (await simulator.control("GET", "profile"))["seed"] == 8
    assert await simulator.control("DELETE", "profile") is None
    assert await simulator.control("GET", "profile") is None


async def test_a_wrong_profile_is_refused(simulator: Simulator) -> None:
    profile = {"fates": {"declined": 60, "reset": 60}}
    error = await simulator.control("PUT", "profile", profile, status=400)

    assert error["code"] == "invalid_input"


async def test_what_happened_is_what_the_function_says(simulator: Simulator) -> None:
    document = {"seed": 3, "customersAct": True, "fates": {"declined": 30, "expired": 20}}
    document |= {"notices": {"never": 30}, **QUICK}
    await simulator.control("PUT", "profile", document)
    profile = Profile.model_validate(document)

    opened = [(await simulator.open())["tran_id"] for _ in range(40)]

    async def all_acted() -> bool:
        return await simulator.execute("SELECT count(*) = 0 FROM act") is True

    await eventually(all_acted)
    recorded = {
        each["reference"]: each for each in (await simulator.control("GET", "fates"))["fates"]
    }
    words = {"paid": "VALID", "declined": "FAILED", "expired": "EXPIRED"}
    for reference in opened:
        plan = plan_of(profile, "sslcommerz", reference)
        session = await simulator.session(reference)
        assert recorded[reference]["fate"] == plan.fate == session["fate"]["fate"]
        assert recorded[reference]["noticeFate"] == plan.notice_fate
        assert [each["status"] for each in session["elements"]] == [words[plan.fate]]
        assert bool(session["notices"]) == (plan.notice_fate == "on_time")
    seen = Counter(each["fate"] for each in recorded.values())
    assert all(seen[fate] for fate in words), "every fate should have been dealt"


@pytest.mark.parametrize(
    ("fate", "status"), [("error_500", 500), ("rate_limited", 429), ("in_use_409", 409)]
)
async def test_the_first_call_is_refused_and_the_second_works(
    simulator: Simulator, fate: str, status: int
) -> None:
    await put(simulator, fates={fate: 100})
    form = session_form()

    async with simulator.client.post(simulator.url + SESSION_PATH, data=form) as response:
        assert response.status == status
        assert ("Retry-After" in response.headers) == (status == 429)
    assert (await simulator.query(tran_id=form["tran_id"]))["element"] == []

    again = await simulator.open(tran_id=form["tran_id"])
    assert again["status"] == "SUCCESS"
    assert (await simulator.pay(form["tran_id"]))["status"] == "VALID"


@pytest.mark.parametrize(
    ("fate", "found"),
    [("timeout_before", []), ("timeout_after", ["PENDING"]), ("reset", ["PENDING"])],
)
async def test_an_answer_is_lost_before_or_after_the_work(
    simulator: Simulator, fate: str, found: list[str]
) -> None:
    await put(simulator, fates={fate: 100})
    form = session_form()

    async def open_session() -> bytes:
        async with simulator.client.post(simulator.url + SESSION_PATH, data=form) as response:
            return await response.read()

    with pytest.raises(aiohttp.ClientError):
        await open_session()

    elements = (await simulator.query(tran_id=form["tran_id"]))["element"]
    assert [each["status"] for each in elements] == found


async def test_half_an_answer_arrives_before_the_connection_breaks(simulator: Simulator) -> None:
    script = {"operation": "session", "behaviour": "reset"}
    await simulator.control("POST", "script", script)

    async with simulator.client.post(simulator.url + SESSION_PATH, data=session_form()) as response:
        assert response.status == 200
        half = await response.content.readexactly(20)
        assert half.startswith(b'{"status":"SUCCESS"')
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()


async def test_a_slow_fate_takes_its_time_once(simulator: Simulator) -> None:
    await put(simulator, fates={"slow": 100})
    started = time.monotonic()

    opened = await simulator.open()

    assert time.monotonic() - started >= 0.3
    assert opened["status"] == "SUCCESS"


async def test_every_call_of_a_payment_has_its_latency(simulator: Simulator) -> None:
    await put(simulator, latencyMs={"p50": 150, "p99": 150})
    opened = await simulator.open()
    started = time.monotonic()

    await simulator.query(tran_id=opened["tran_id"])

    assert time.monotonic() - started >= 0.15


async def test_a_late_success_is_declined_first(simulator: Simulator) -> None:
    await put(simulator, fates={"late_success": 100}, customersAct=True)
    opened = await simulator.open()

    await until_charged(simulator, opened["tran_id"])

    found = await simulator.query(tran_id=opened["tran_id"])
    assert [each["status"] for each in found["element"]] == ["FAILED", "VALID"]


async def test_a_customer_who_never_confirms_does_nothing(simulator: Simulator) -> None:
    await put(simulator, fates={"never_confirms": 100}, customersAct=True)
    opened = await simulator.open()

    error = await simulator.control("POST", "pay", {"reference": opened["tran_id"]}, status=409)

    assert error["details"] == {"state": "open"}
    page = f"{simulator.url}/EasyCheckOut/{opened['sessionkey']}/pay"
    async with simulator.client.post(page) as response:
        assert (response.status, response.content_type) == (409, "text/html")
    assert (await simulator.session(opened["tran_id"]))["elements"] == []
    assert await simulator.execute("SELECT count(*) FROM act") == 0
    assert (await simulator.pay(opened["tran_id"], "at_last"))["status"] == "VALID"


async def test_a_payment_keeps_its_fate_when_the_profile_goes(simulator: Simulator) -> None:
    await put(simulator, fates={"declined": 100})
    before = await simulator.open()
    await simulator.control("DELETE", "profile")
    after = await simulator.open()

    assert (await simulator.pay(before["tran_id"]))["status"] == "FAILED"
    assert (await simulator.pay(after["tran_id"]))["status"] == "VALID"
    assert (await simulator.session(after["tran_id"]))["fate"] is None


async def test_a_script_goes_before_a_fate(simulator: Simulator) -> None:
    await put(simulator, fates={"error_500": 100})
    await simulator.control("POST", "script", {"operation": "session", "behaviour": "rate_limited"})
    form = session_form()

    async with simulator.client.post(simulator.url + SESSION_PATH, data=form) as response:
        assert response.status == 429

    assert (await simulator.open(tran_id=form["tran_id"]))["status"] == "SUCCESS"


async def test_concurrent_first_calls_meet_one_fault(simulator: Simulator) -> None:
    # Every connection to the database is open before, so that the calls really meet.
    await asyncio.gather(*(simulator.query(tran_id="INV-UNKNOWN") for _ in range(8)))
    await put(simulator, fates={"error_500": 100})
    form = session_form()

    async def post() -> int:
        async with simulator.client.post(simulator.url + SESSION_PATH, data=form) as response:
            return response.status

    statuses = await asyncio.gather(*(post() for _ in range(6)))

    assert sorted(statuses) == [200] * 5 + [500]


async def test_an_act_whose_customer_came_too_late_is_forgotten(simulator: Simulator) -> None:
    opened = await simulator.open()
    await simulator.pay(opened["tran_id"])
    await simulator.execute(
        "INSERT INTO act (gateway, reference, wish, due_at)"
        " VALUES ('sslcommerz', $1, 'paid', now()),"
        " ('sslcommerz', 'INV-UNKNOWN', 'paid', now()), ('forgotten', 'x', 'paid', now())",
        opened["tran_id"],
    )

    async def none_left() -> bool:
        return await simulator.execute("SELECT count(*) = 0 FROM act") is True

    await eventually(none_left)
    assert len(await simulator.charges(opened["tran_id"])) == 1
