"""After a lost answer the history tells what became of it; nothing is sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.gateways.campay.client import CampayGateway
from shared.gateways.interface import Declined, Order, Outcome, Pending, Unknown
from tests.support.campay import (
    HANDLE,
    OTHER,
    PAID,
    ROW,
    TIMEOUT_SECONDS,
    TRANSACTION,
    VISIBLE_AFTER,
    campay_at,
    history,
    transaction,
)
from tests.support.clocks import START, ManualClock
from tests.support.gateway_answers import reply, split
from tests.support.mobile_money import PAGE, PROMPT, prompt
from tests.support.payments import REFERENCE
from tests.support.scripted_server import ScriptedServer, answer, scripted_server

CALL_MAX = timedelta(seconds=TIMEOUT_SECONDS)

FAILED = Declined("FAILED", is_final=True, handle=HANDLE)

#: Rows of the same day that are not the one looked for.
STRANGERS: list[dict[str, Any]] = [
    {"description": "att_01KE70EHG0JY1QREBD77BRA2Z9 Cours", "reference_uuid": OTHER},
    {"description": REFERENCE[:-1], "reference_uuid": OTHER},
    {"description": None, "reference_uuid": OTHER},
    {"description": [REFERENCE], "reference_uuid": OTHER},
    {"reference_uuid": None},
    {"reference_uuid": "None/.."},
]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + VISIBLE_AFTER)


@pytest.fixture
async def gateway(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[CampayGateway]:
    gateway = campay_at(server.url, clock)
    yield gateway
    await gateway.close()


def targets(server: ScriptedServer) -> list[str]:
    return [split(request)[1] for request in server.requests]


async def test_a_transaction_is_found_by_our_reference_in_its_description_and_read(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(reply(history(*STRANGERS, {})), reply(TRANSACTION))

    assert await gateway.look_up(PROMPT) == PAID
    assert targets(server) == ["/api/history/", f"/api/transaction/{HANDLE}/"]
    assert split(server.requests[0])[3] == {"start_date": "2026-01-04", "end_date": "2026-01-05"}


@pytest.mark.parametrize(
    ("started_at", "asked_at", "first", "last"),
    [
        ("2026-01-05T12:00", "2026-01-05T12:20", "2026-01-04", "2026-01-05"),
        ("2026-01-05T12:00", "2026-02-05T12:00", "2026-01-04", "2026-01-06"),
        # The day has begun in Douala, and the history may count days there.
        ("2026-01-05T23:30", "2026-01-05T23:50", "2026-01-04", "2026-01-06"),
        ("2026-01-05T22:40", "2026-01-05T22:59", "2026-01-04", "2026-01-05"),
        ("2026-01-05T23:59", "2026-01-06T00:20", "2026-01-04", "2026-01-06"),
    ],
)
async def test_the_days_asked_for_hold_the_start_in_any_zone_and_no_day_to_come(  # noqa: PLR0917 - a table
    server: ScriptedServer,
    gateway: CampayGateway,
    clock: ManualClock,
    started_at: str,
    asked_at: str,
    first: str,
    last: str,
) -> None:
    clock.now = datetime.fromisoformat(asked_at).replace(tzinfo=UTC)
    server.then(reply(history()))

    await gateway.look_up(prompt(started_at=datetime.fromisoformat(started_at).replace(tzinfo=UTC)))

    assert split(server.requests[0])[3] == {"start_date": first, "end_date": last}


async def test_the_history_alone_is_no_proof_of_money(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(reply(history({})), answer(b"", status="503 Service Unavailable"))
    server.then(reply(history({})), reply(transaction(status="PENDING")))
    server.then(reply(history({})), reply({"message": "no"}, status="404 Not Found"))

    assert await gateway.look_up(PROMPT) == Unknown("http_503")
    assert await gateway.look_up(PROMPT) == Pending("gateway_pending", HANDLE)
    assert await gateway.look_up(PROMPT) == Unknown("http_404")


#: What is decided when our reference came several times, by the statuses listed; the first is ours.
SEVERAL: dict[str, tuple[list[str], Outcome]] = {
    "paid once": (["SUCCESSFUL", "FAILED"], PAID),
    "paid once, one open": (["SUCCESSFUL", "PENDING"], PAID),
    "one open": (["PENDING", "FAILED"], Pending("gateway_pending", HANDLE)),
    "one of a new status": (["REVERSED", "FAILED"], Unknown("unknown_status")),
}


@pytest.mark.parametrize(("statuses", "expected"), SEVERAL.values(), ids=SEVERAL)
@pytest.mark.parametrize("step", [1, -1], ids=["in order", "reversed"])
async def test_of_several_the_paid_one_decides_then_one_that_may_be_paid(
    server: ScriptedServer,
    gateway: CampayGateway,
    statuses: list[str],
    expected: Outcome,
    step: int,
) -> None:
    rows = [
        {"reference_uuid": name, "status": status}
        for name, status in zip([HANDLE, OTHER], statuses, strict=True)
    ]
    server.then(reply(history(*rows[::step])), reply(transaction(status=statuses[0])))

    assert await gateway.look_up(PROMPT) == expected


async def test_two_paid_transactions_are_a_double_charge_and_one_listed_twice_is_none(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(reply(history({}, {"reference_uuid": OTHER})), reply(TRANSACTION))
    server.then(reply(history({}, {})), reply(TRANSACTION))

    assert await gateway.look_up(PROMPT) == replace(PAID, is_repeated=True)
    assert await gateway.look_up(PROMPT) == PAID


async def test_a_failure_is_not_final_while_another_of_our_reference_is_open(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    rows = {"status": "PENDING"}, {"status": "PENDING", "reference_uuid": OTHER}
    failed = reply(transaction(status="FAILED"))
    server.then(reply(history(*rows)), failed)
    server.then(reply(history({"status": "FAILED"})), failed)

    assert await gateway.look_up(PROMPT) == replace(FAILED, is_final=False)
    assert await gateway.look_up(PROMPT) == FAILED


@pytest.mark.parametrize(
    ("order", "certain_after"),
    [(PROMPT, VISIBLE_AFTER + CALL_MAX), (PAGE, CALL_MAX)],
    ids=["prompt", "page"],
)
async def test_what_is_not_in_the_history_does_not_exist_only_after_a_while(
    server: ScriptedServer,
    gateway: CampayGateway,
    clock: ManualClock,
    order: Order,
    certain_after: timedelta,
) -> None:
    server.then(reply(history(*STRANGERS)), reply(history()), reply(history(*STRANGERS)))

    clock.now = START + certain_after - timedelta(milliseconds=1)
    assert await gateway.look_up(order) == Unknown("not_visible_yet")
    assert await gateway.look_up(order) == Unknown("not_visible_yet")

    clock.now = START + certain_after
    assert await gateway.look_up(order) == Pending("not_attempted")
    assert targets(server) == ["/api/history/"] * 3


@pytest.mark.parametrize(
    "content",
    [{}, {"data": None}, {"data": ROW}, {"data": [[ROW]]}, {"data": "None"}, [ROW]],
    ids=str,
)
async def test_a_history_of_another_shape_proves_nothing(
    server: ScriptedServer, gateway: CampayGateway, content: object
) -> None:
    server.then(reply(content))

    assert isinstance(await gateway.look_up(PROMPT), Unknown)
