"""Refunds of SSLCommerz: promised once, paid back later, never more than was paid."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.integration.simulator.world import QUERY_PATH, Simulator


async def refund(
    simulator: Simulator, paid: dict[str, Any], amount: str, name: str = "ref-1", **changes: str
) -> dict[str, Any]:
    parameters = {
        "bank_tran_id": paid["bankTranId"],
        "refund_trans_id": name,
        "refund_amount": amount,
        "refund_remarks": "cancelled",
    }
    return await simulator.query(**{**parameters, **changes})


async def open_every_connection(simulator: Simulator) -> None:
    """Let calls to come really meet in the database."""
    await asyncio.gather(*(simulator.query(tran_id="INV-UNKNOWN") for _ in range(8)))


async def told(simulator: Simulator, started: dict[str, Any]) -> dict[str, Any]:
    return await simulator.query(refund_ref_id=started["refund_ref_id"])


async def test_a_refund_is_accepted_then_processed_then_paid_back(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="1150.00")

    started = await refund(simulator, paid, "150.00")

    assert started["APIConnect"] == "DONE"
    assert (started["status"], started["errorReason"]) == ("success", "")
    assert (started["bank_tran_id"], started["trans_id"]) == (
        paid["bankTranId"],
        paid["reference"],
    )
    first, second = await told(simulator, started), await told(simulator, started)
    assert (first["status"], first["refunded_on"]) == ("processing", "")
    assert (second["status"], second["tran_id"]) == ("refunded", paid["reference"])
    assert second["refunded_on"] >= second["initiated_on"]
    assert await told(simulator, started) == second
    (stored,) = (await simulator.session(paid["reference"]))["refunds"]
    assert (stored["amount"], stored["state"]) == (15_000, "refunded")
    ledger = await simulator.control("GET", f"ledger?reference={paid['reference']}")
    (line,) = ledger["movements"]
    assert (line["kind"], line["name"], line["amount"]) == ("refund", "ref-1", 15_000)
    assert line["gatewayPaymentId"] == paid["bankTranId"]


async def test_a_repeated_refund_is_recognised_by_its_name(simulator: Simulator) -> None:
    paid = await simulator.paid()
    await open_every_connection(simulator)

    answers = await asyncio.gather(*(refund(simulator, paid, "10.00") for _ in range(5)))

    assert sorted(each["status"] for each in answers) == ["processing"] * 4 + ["success"]
    assert len({each["refund_ref_id"] for each in answers}) == 1


async def test_no_more_is_refunded_than_was_paid(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="100.00")
    await open_every_connection(simulator)

    names = [f"ref-{number}" for number in range(5)]
    answers = await asyncio.gather(*(refund(simulator, paid, "30.00", name) for name in names))

    assert sorted(each["status"] for each in answers) == ["failed"] * 2 + ["success"] * 3


@pytest.mark.parametrize(
    ("amount", "end"), [("10.22", "cancelled"), ("10.23", "processing")], ids=["not", "not yet"]
)
async def test_a_refund_need_not_be_paid_back(simulator: Simulator, amount: str, end: str) -> None:
    started = await refund(simulator, await simulator.paid(), amount)

    answers = [await told(simulator, started) for _ in range(3)]

    assert [each["status"] for each in answers] == ["processing", end, end]
    assert answers[-1]["refunded_on"] == ""


async def test_a_cancelled_refund_frees_its_amount(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="100.22")
    started = await refund(simulator, paid, "100.22")
    assert (await refund(simulator, paid, "100.00", "ref-2"))["status"] == "failed"

    for _ in range(2):
        await told(simulator, started)

    assert (await refund(simulator, paid, "100.00", "ref-2"))["status"] == "success"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bank_tran_id": "unknown"}, "not known"),
        ({"refund_trans_id": ""}, "'refund_trans_id' is missing"),
        ({"refund_trans_id": "x" * 31}, "must not exceed 30"),
        ({"refund_remarks": "x" * 256}, "must not exceed 255"),
        ({"refund_amount": "ten"}, "'refund_amount' is invalid"),
        ({"refund_amount": "0.00"}, "'refund_amount' is invalid"),
        ({"refund_amount": "10.21"}, "the bank refuses"),
    ],
)
async def test_a_refund_that_cannot_be_made_fails_with_the_reason(
    simulator: Simulator, changes: dict[str, str], reason: str
) -> None:
    answer = await refund(simulator, await simulator.paid(), "10.00", **changes)

    assert (answer["status"], answer["refund_ref_id"]) == ("failed", "")
    assert reason in answer["errorReason"]


async def test_refunds_need_the_password(simulator: Simulator) -> None:
    answer = await refund(simulator, await simulator.paid(), "1.00", store_passwd="guessed")

    assert answer == {"APIConnect": "FAILED", "no_of_trans_found": 0, "element": []}


async def test_an_unknown_refund_is_not_told_about(simulator: Simulator) -> None:
    answer = await simulator.query(refund_ref_id="5f1c0de0a1b2c")

    assert answer["status"] == ""
    assert "not known" in answer["errorReason"]


async def test_the_answer_to_a_refund_can_be_lost(simulator: Simulator) -> None:
    paid = await simulator.paid()
    for operation in ("refund", "refund_query"):
        script = {
            "operation": operation,
            "behaviour": "error_after",
            "reference": paid["reference"],
        }
        await simulator.control("POST", "script", script)
    parameters = {
        "bank_tran_id": paid["bankTranId"],
        "refund_trans_id": "ref-1",
        "refund_amount": "10.00",
        "refund_remarks": "cancelled",
    }

    assert await simulator.status_of(QUERY_PATH, **parameters) == 500

    again = await refund(simulator, paid, "10.00")
    assert again["status"] == "processing"
    parameters = {"refund_ref_id": again["refund_ref_id"]}
    assert await simulator.status_of(QUERY_PATH, **parameters) == 500
    assert (await told(simulator, again))["status"] == "refunded"


async def test_no_state_is_reached_but_by_the_protocol(simulator: Simulator) -> None:
    started = await refund(simulator, await simulator.paid(), "10.00")
    for _ in range(2):
        await told(simulator, started)

    for step in (
        "UPDATE sslcommerz_refund SET state = 'processing', ended_on = NULL",
        "UPDATE session SET state = 'open'",
    ):
        with pytest.raises(asyncpg.CheckViolationError, match="has no step from"):
            await simulator.execute(step)
