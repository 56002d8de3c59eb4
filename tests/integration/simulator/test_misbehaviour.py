"""The simulator misbehaves exactly as told: by magic amounts and by scripts."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from services.simulator.sslcommerz.signing import sign
from tests.integration.simulator.world import (
    QUERY_PATH,
    SESSION_PATH,
    VALIDATION_PATH,
    Simulator,
)
from tests.unit.simulator.forms import PASSWORD, STORE, session_form


@pytest.mark.parametrize(
    ("amount", "status"),
    [("1000.01", "FAILED"), ("1000.02", "CANCELLED"), ("1000.03", "UNATTEMPTED")],
)
async def test_pressing_pay_does_not_always_pay(
    simulator: Simulator, amount: str, status: str
) -> None:
    tried = await simulator.paid(total_amount=amount)

    (notice,) = await simulator.merchant.until_received(1)
    assert notice["status"] == status
    assert await simulator.charges(tried["reference"]) == []


async def test_a_magic_amount_does_not_turn_a_cancellation_into_something_else(
    simulator: Simulator,
) -> None:
    opened = await simulator.open(total_amount="1000.01")

    cancelled = await simulator.pay(opened["tran_id"], "cancelled")

    assert cancelled["status"] == "CANCELLED"


async def test_a_risky_payment_says_so_everywhere(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.04")

    (notice,) = await simulator.merchant.until_received(1)
    (charge,) = await simulator.charges(paid["reference"])
    validated = await simulator.validate(paid["valId"])
    assert (notice["risk_level"], notice["risk_title"]) == ("1", "Risky")
    assert validated["risk_level"] == "1"
    assert charge["riskLevel"] == 1


async def test_a_notice_can_be_missing(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.05")

    assert (await simulator.session(paid["reference"]))["notices"] == []
    assert len(await simulator.charges(paid["reference"])) == 1


async def test_a_notice_can_come_five_times(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.06")

    notices = await simulator.sent_notices(paid["reference"])

    assert len(notices) == 5
    assert simulator.merchant.notices == [simulator.merchant.notices[0]] * 5
    assert len(await simulator.charges(paid["reference"])) == 1


async def test_a_notice_can_be_badly_signed(simulator: Simulator) -> None:
    await simulator.paid(total_amount="1000.07")

    (notice,) = await simulator.merchant.until_received(1)

    right = sign(notice, notice["verify_key"].split(","), PASSWORD)
    assert notice["verify_key"] == right["verify_key"]
    assert notice["verify_sign"] != right["verify_sign"]
    assert notice["verify_sign_sha2"] != right["verify_sign_sha2"]


async def test_a_notice_can_be_late(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.08")

    (notice,) = (await simulator.session(paid["reference"]))["notices"]

    assert notice["dueAt"] > paid["createdAt"]
    assert notice["sentAt"] is None
    await simulator.execute("UPDATE notice SET due_at = due_at - interval '20 s'")
    await simulator.sent_notices(paid["reference"])
    assert len(simulator.merchant.notices) == 1


async def test_the_first_three_validations_can_fail(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.09")

    statuses = [await simulator.status_of(VALIDATION_PATH, val_id=paid["valId"]) for _ in "123"]

    assert statuses == [500] * 3
    assert (await simulator.validate(paid["valId"]))["status"] == "VALID"


async def test_a_validation_can_fall_silent(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.10")

    async def give_up_soon() -> None:
        async with asyncio.timeout(0.2):
            await simulator.validate(paid["valId"])

    for _ in range(2):
        with pytest.raises(TimeoutError):
            await give_up_soon()

    assert (await simulator.validate(paid["valId"]))["status"] == "VALIDATED"


async def test_a_notice_of_an_earlier_decline_can_come_last(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.12")

    await simulator.sent_notices(paid["reference"])

    found = await simulator.query(tran_id=paid["reference"])
    assert [each["status"] for each in simulator.merchant.notices] == ["VALID", "FAILED"]
    assert [each["status"] for each in found["element"]] == ["FAILED", "VALID"]
    assert len(await simulator.charges(paid["reference"])) == 1


async def test_less_than_the_price_can_be_paid(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.13")

    (notice,) = await simulator.merchant.until_received(1)
    (charge,) = await simulator.charges(paid["reference"])
    validated = await simulator.validate(paid["valId"])
    found = await simulator.query(tran_id=paid["reference"])
    assert (notice["amount"], notice["currency_amount"]) == ("1000.13", "1000.13")
    assert (validated["amount"], validated["currency_amount"]) == ("999.63", "999.63")
    assert found["element"][0]["amount"] == "999.63"
    assert charge["amount"] == 99_963


async def test_a_session_can_fail_to_open(simulator: Simulator) -> None:
    form = session_form(total_amount="1000.14")
    async with simulator.client.post(simulator.url + SESSION_PATH, data=form) as response:
        assert response.status == 500

    assert (await simulator.query(tran_id=form["tran_id"]))["element"] == []


async def test_a_session_can_be_opened_and_the_answer_lost(simulator: Simulator) -> None:
    form = session_form(total_amount="1000.15")
    with pytest.raises(aiohttp.ClientError):
        await simulator.client.post(simulator.url + SESSION_PATH, data=form)

    found = await simulator.query(tran_id=form["tran_id"])
    assert found["element"][0]["status"] == "PENDING"


async def test_a_paid_payment_can_be_pending_at_first(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.16")

    answers = [await simulator.validate(paid["valId"]) for _ in range(4)]

    assert [each["status"] for each in answers] == ["PENDING", "PENDING", "VALID", "VALIDATED"]
    assert answers[0]["val_id"] == paid["valId"]
    assert answers[0]["validated_on"] == ""


async def test_a_validation_can_be_dropped(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1000.18")

    # Both drops at once: aiohttp by itself repeats a GET whose connection broke, one time.
    with pytest.raises(aiohttp.ClientError):
        await simulator.validate(paid["valId"])

    assert (await simulator.validate(paid["valId"]))["status"] == "VALIDATED"


@pytest.mark.parametrize(
    ("behaviour", "status", "then"),
    [
        ("error", 500, "VALID"),
        ("too_many_requests", 429, "VALID"),
        ("error_after", 500, "VALIDATED"),
        ("html", 200, "VALIDATED"),
        ("malformed", 200, "VALIDATED"),
    ],
)
async def test_a_call_can_be_scripted(
    simulator: Simulator, behaviour: str, status: int, then: str
) -> None:
    paid = await simulator.paid()
    script = {"operation": "validate", "behaviour": behaviour, "reference": paid["reference"]}
    await simulator.control("POST", "script", script)
    address = simulator.url + VALIDATION_PATH

    parameters = {**STORE, "val_id": paid["valId"]}
    async with simulator.client.get(address, params=parameters) as response:
        assert response.status == status
        assert not (await response.text()).endswith("}")

    validated = await simulator.validate(paid["valId"])
    assert validated["status"] == then


async def test_a_script_serves_as_many_calls_as_it_says(simulator: Simulator) -> None:
    await simulator.control(
        "POST", "script", {"operation": "query", "behaviour": "error", "times": 3}
    )

    calls = (simulator.status_of(QUERY_PATH, tran_id="INV-1") for _ in range(8))

    assert sorted(await asyncio.gather(*calls)) == [200] * 5 + [500] * 3


async def test_a_script_for_one_reference_leaves_others_alone(simulator: Simulator) -> None:
    await simulator.control(
        "POST", "script", {"operation": "query", "behaviour": "error", "reference": "INV-A"}
    )

    assert await simulator.status_of(QUERY_PATH, tran_id="INV-B") == 200
    assert await simulator.status_of(QUERY_PATH, tran_id="INV-A") == 500
    assert await simulator.status_of(QUERY_PATH, tran_id="INV-A") == 200


async def test_cleared_scripts_have_no_effect(simulator: Simulator) -> None:
    script = {"operation": "session", "behaviour": "error", "times": 100}
    await simulator.control("POST", "script", script)

    assert await simulator.control("DELETE", "script") == {"cleared": 1}

    assert (await simulator.open())["status"] == "SUCCESS"


async def test_a_slow_call_takes_its_time_and_answers(simulator: Simulator) -> None:
    script = {"operation": "session", "behaviour": "slow", "delaySeconds": 0.3}
    await simulator.control("POST", "script", script)
    started = time.monotonic()

    assert (await simulator.open())["status"] == "SUCCESS"

    assert time.monotonic() - started >= 0.3


async def test_a_scripted_notice_behaves_as_told(simulator: Simulator) -> None:
    opened = await simulator.open()
    script = {"operation": "notice", "behaviour": "never", "reference": opened["tran_id"]}
    await simulator.control("POST", "script", script)

    await simulator.pay(opened["tran_id"], "failed")
    assert (await simulator.session(opened["tran_id"]))["notices"] == []

    await simulator.pay(opened["tran_id"])
    assert len(await simulator.sent_notices(opened["tran_id"])) == 1


@pytest.mark.parametrize(
    "script",
    [
        {"operation": "validate", "behaviour": "late"},
        {"operation": "notice", "behaviour": "html"},
        {"operation": "payout", "behaviour": "error"},
        {"operation": "query", "behaviour": "error", "times": 0},
        {"operation": "query", "behaviour": "slow", "delaySeconds": -1},
        {"operation": "query", "behaviour": "error", "reference": "a\0"},
        {"operation": "query", "behaviour": "error", "colour": "red"},
    ],
)
async def test_a_script_that_means_nothing_is_refused(
    simulator: Simulator, script: dict[str, object]
) -> None:
    error = await simulator.control("POST", "script", script, status=400)

    assert error["code"] == "invalid_input"
    assert await simulator.control("DELETE", "script") == {"cleared": 0}


async def test_only_an_open_session_can_be_paid(simulator: Simulator) -> None:
    paid = await simulator.paid()

    again = {"reference": paid["reference"]}
    assert (await simulator.control("POST", "pay", again, status=409))["code"] == "conflict"
    unknown = {"reference": "INV-UNKNOWN"}
    assert (await simulator.control("POST", "pay", unknown, status=404))["code"] == "not_found"
    assert len(await simulator.charges(paid["reference"])) == 1


async def test_a_refused_notice_is_recorded_and_not_repeated(simulator: Simulator) -> None:
    simulator.merchant.status = 503

    paid = await simulator.paid()

    (notice,) = await simulator.sent_notices(paid["reference"])
    assert (notice["responseStatus"], notice["error"]) == (503, None)
    assert len(simulator.merchant.notices) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/ipn", "http://a..b/ipn"])
async def test_a_notice_that_reaches_nobody_is_recorded(simulator: Simulator, address: str) -> None:
    paid = await simulator.paid(ipn_url=address)

    (notice,) = await simulator.sent_notices(paid["reference"])
    assert notice["responseStatus"] is None
    assert notice["error"]


async def test_a_merchant_that_stalls_does_not_delay_others(simulator: Simulator) -> None:
    simulator.merchant.is_open.clear()
    await simulator.paid()
    await simulator.merchant.until_received(1)

    await simulator.paid()

    await simulator.merchant.until_received(2)
    simulator.merchant.is_open.set()


async def test_two_hundred_payments_at_once_are_all_noticed(simulator: Simulator) -> None:
    references = [(await simulator.open())["tran_id"] for _ in range(200)]

    await asyncio.gather(*(simulator.pay(reference) for reference in references))

    notices = await simulator.merchant.until_received(200)
    assert sorted(each["tran_id"] for each in notices) == sorted(references)
    ledger = await simulator.control("GET", "ledger")
    assert ledger["count"] == 200

    for reference in references[-5:]:
        await simulator.sent_notices(reference)
