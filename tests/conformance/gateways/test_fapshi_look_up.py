"""After a lost answer the customer's transactions tell what became of it; nothing is sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.gateways.fapshi.client import FapshiGateway, user_id
from shared.gateways.interface import Declined, FailureKind, Outcome, Pending, Unknown
from tests.support.clocks import START, ManualClock
from tests.support.fapshi import (
    CERTAIN_AFTER,
    HANDLE,
    OTHER,
    PAID,
    TRANSACTION,
    fapshi_at,
    transaction,
)
from tests.support.gateway_answers import reply, split
from tests.support.mobile_money import CUSTOMER, PAGE, PROMPT, prompt
from tests.support.scripted_server import ScriptedServer, answer, scripted_server

#: Transactions of the same customer that are not the one looked for.
STRANGERS: list[dict[str, Any]] = [
    transaction(transId=OTHER, externalId="att_01KE70EHG0JY1QREBD77BRA2Z9"),
    transaction(transId=OTHER, externalId=None),
    transaction(transId=OTHER, transType="Payout"),
    transaction(transId=None),
    transaction(transId={"$ne": 1}),
    {},
]

FAILED = Declined("FAILED", is_final=True, handle=HANDLE)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + CERTAIN_AFTER)


@pytest.fixture
async def gateway(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[FapshiGateway]:
    gateway = fapshi_at(server.url, clock)
    yield gateway
    await gateway.close()


def targets(server: ScriptedServer) -> list[str]:
    """Return what was asked for, after proving that it was only asked."""
    parts = [split(request) for request in server.requests]
    assert {method for method, *_ in parts} <= {"GET"}
    assert all(body is None for *_, body in parts)
    return [urlsplit(target).path for _, target, *_ in parts]


async def test_a_transaction_is_found_by_our_reference_and_read(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    server.then(reply([*STRANGERS, TRANSACTION]), reply(TRANSACTION))

    assert await gateway.look_up(PROMPT) == PAID
    assert targets(server) == ["/transaction/cus_1001", f"/payment-status/{HANDLE}"]


async def test_a_customer_is_asked_for_as_it_was_named(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    server.then(reply([]))

    await gateway.look_up(prompt(customer=replace(CUSTOMER, id="a/../b?c=ü")))

    assert targets(server) == [f"/transaction/{user_id('a/../b?c=ü')}"]


async def test_the_listing_alone_is_no_proof_of_money(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    server.then(reply([TRANSACTION]), answer(b"", status="503 Service Unavailable"))
    server.then(reply([TRANSACTION]), reply(transaction(status="PENDING")))

    assert await gateway.look_up(PROMPT) == Unknown("http_503")
    assert await gateway.look_up(PROMPT) == Pending("gateway_pending", HANDLE)


#: What is decided when our reference came several times, by the statuses listed; the first is ours.
SEVERAL: dict[str, tuple[list[str], Outcome]] = {
    "paid once": (["SUCCESSFUL", "FAILED"], PAID),
    "paid once, one open": (["SUCCESSFUL", "CREATED"], PAID),
    "one open": (["PENDING", "FAILED"], Pending("gateway_pending", HANDLE)),
    "one of a new status": (["REFUNDED", "EXPIRED"], Unknown("unknown_status")),
    "all failed": (["FAILED", "EXPIRED"], FAILED),
}


@pytest.mark.parametrize(("statuses", "expected"), SEVERAL.values(), ids=SEVERAL)
@pytest.mark.parametrize("is_reversed", [False, True], ids=["in order", "reversed"])
async def test_of_several_the_paid_one_decides_then_one_that_may_be_paid(
    server: ScriptedServer,
    gateway: FapshiGateway,
    statuses: list[str],
    expected: Outcome,
    is_reversed: bool,  # noqa: FBT001 - a parameter of the table above
) -> None:
    names = [HANDLE, OTHER]
    rows = [transaction(transId=n, status=s) for n, s in zip(names, statuses, strict=True)]
    listed = rows[::-1] if is_reversed else rows
    server.then(reply(listed), reply(rows[0]))

    assert await gateway.look_up(PROMPT) == expected


async def test_two_paid_transactions_are_a_double_charge(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    server.then(reply([TRANSACTION, transaction(transId=OTHER)]), reply(TRANSACTION))

    assert await gateway.look_up(PROMPT) == replace(PAID, is_repeated=True)


async def test_the_same_paid_transaction_listed_twice_is_one(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    server.then(reply([TRANSACTION, TRANSACTION]), reply(TRANSACTION))

    assert await gateway.look_up(PROMPT) == PAID


async def test_a_failure_is_not_final_while_another_of_our_reference_is_open(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    open_one = transaction(transId=OTHER, status="CREATED")
    pending = transaction(status="PENDING")
    failed = transaction(status="FAILED")
    server.then(reply([pending, open_one]), reply(failed))

    assert await gateway.look_up(PROMPT) == replace(FAILED, is_final=False)


async def test_an_expired_page_is_not_final_while_a_failed_one_may_be_tried_again(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    failed, expired = transaction(status="FAILED"), transaction(status="EXPIRED")
    server.then(reply([transaction(transId=OTHER, status="FAILED"), failed]))
    server.then(reply(expired | {"transId": OTHER}))

    outcome = await gateway.look_up(PAGE)

    assert outcome == Declined("EXPIRED", FailureKind.EXPIRED, is_final=False, handle=OTHER)


CREATED = transaction(status="CREATED")


#: What becomes of a page whose address was lost, by what closing it and reading it again say.
LOST_PAGES: dict[str, tuple[bytes, bytes, Outcome]] = {
    "closed": (
        reply(transaction(status="EXPIRED")),
        reply(transaction(status="EXPIRED")),
        Pending("not_attempted"),
    ),
    "closed, and that was not heard": (
        answer(b"", status="502 Bad Gateway"),
        reply(transaction(status="EXPIRED")),
        Pending("not_attempted"),
    ),
    "still open": (
        answer(b"", status="502 Bad Gateway"),
        reply(CREATED),
        Unknown("page_unknown"),
    ),
    "in use after all": (
        reply({"message": "no"}, status="400 Bad Request"),
        reply(transaction(status="PENDING")),
        Pending("gateway_pending", HANDLE),
    ),
    "paid after all": (
        reply({"message": "no"}, status="400 Bad Request"),
        reply(TRANSACTION),
        PAID,
    ),
    "tried in vain": (
        reply({"message": "no"}, status="400 Bad Request"),
        reply(transaction(status="FAILED")),
        replace(FAILED, is_final=False),
    ),
    "not known": (
        reply(transaction(status="EXPIRED")),
        answer(b"", status="503 Service Unavailable"),
        Unknown("http_503"),
    ),
}


@pytest.mark.parametrize(("closed", "read", "expected"), LOST_PAGES.values(), ids=LOST_PAGES)
async def test_a_page_whose_address_was_lost_is_closed_so_that_another_may_be_opened(  # noqa: PLR0917 - a table
    server: ScriptedServer,
    gateway: FapshiGateway,
    clock: ManualClock,
    closed: bytes,
    read: bytes,
    expected: Outcome,
) -> None:
    server.then(reply([CREATED]), reply([CREATED]), closed, read)
    clock.now = START + CERTAIN_AFTER - timedelta(milliseconds=1)
    assert await gateway.look_up(PAGE) == Unknown("page_unknown")
    assert targets(server) == ["/transaction/cus_1001"]

    clock.now = START + CERTAIN_AFTER
    assert await gateway.look_up(PAGE) == expected
    method, target, _, fields = split(server.requests[2])
    assert (method, target, fields) == ("POST", "/expire-pay", {"transId": HANDLE})
    assert len(server.requests) == 4


async def test_no_page_is_closed_that_may_be_the_customers(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    other = CREATED | {"transId": OTHER}
    server.then(reply([transaction(status="PENDING")]), reply(transaction(status="PENDING")))
    server.then(reply(CREATED))
    server.then(reply([CREATED, other]), reply(CREATED))

    assert await gateway.look_up(PAGE) == Pending("gateway_pending", HANDLE)
    assert await gateway.look_up(replace(PAGE, handle=HANDLE)) == Pending("gateway_created", HANDLE)
    assert await gateway.look_up(PAGE) == Pending("gateway_created", HANDLE)
    assert "/expire-pay" not in targets(server)


@pytest.mark.parametrize("listing", [[], STRANGERS], ids=["empty", "of others"])
async def test_what_is_not_listed_does_not_exist_only_after_a_while(
    server: ScriptedServer,
    gateway: FapshiGateway,
    clock: ManualClock,
    listing: list[dict[str, Any]],
) -> None:
    server.then(reply(listing), reply(listing))

    clock.now = START + CERTAIN_AFTER - timedelta(milliseconds=1)
    assert await gateway.look_up(PROMPT) == Unknown("not_visible_yet")

    clock.now = START + CERTAIN_AFTER
    assert await gateway.look_up(PROMPT) == Pending("not_attempted")


async def test_a_customer_whom_fapshi_does_not_know_has_no_transactions(
    server: ScriptedServer, gateway: FapshiGateway, clock: ManualClock
) -> None:
    unknown = reply({"message": "User not found"}, status="404 Not Found")
    server.then(unknown, unknown, answer(b"<html>", status="404 Not Found"))

    assert await gateway.look_up(PROMPT) == Pending("not_attempted")
    clock.now = START
    assert await gateway.look_up(PROMPT) == Unknown("not_visible_yet")
    clock.now = START + CERTAIN_AFTER
    assert await gateway.look_up(PROMPT) == Unknown("http_404")  # A proxy said so.


@pytest.mark.parametrize("length", [10, 100])
async def test_a_listing_that_may_be_cut_is_not_believed_alone(
    server: ScriptedServer, gateway: FapshiGateway, length: int
) -> None:
    cut = reply([STRANGERS[0]] * length)
    server.then(cut, reply([*STRANGERS, TRANSACTION]), reply(TRANSACTION))
    server.then(cut, reply(STRANGERS))
    server.then(cut, reply([STRANGERS[0]] * 100))
    server.then(cut, answer(b"", status="429 Too Many Requests"))

    assert await gateway.look_up(PROMPT) == PAID
    assert await gateway.look_up(PROMPT) == Pending("not_attempted")
    assert await gateway.look_up(PROMPT) == Unknown("listing_may_be_cut")
    assert await gateway.look_up(PROMPT) == Unknown("http_429")

    assert targets(server)[1] == "/search"
    query = parse_qs(urlsplit(split(server.requests[1])[1]).query, strict_parsing=True)
    assert query == {
        "start": ["2026-01-04"],
        "end": ["2026-01-06"],
        "amt": ["5000"],
        "limit": ["100"],
    }


@pytest.mark.parametrize("length", [9, 11, 37])
async def test_a_listing_of_another_length_is_whole(
    server: ScriptedServer, gateway: FapshiGateway, length: int
) -> None:
    server.then(reply([STRANGERS[0]] * length))

    assert await gateway.look_up(PROMPT) == Pending("not_attempted")
    assert len(server.requests) == 1
