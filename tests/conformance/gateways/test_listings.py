"""How the lists of gateways are read: nothing is taken for ours that is not, and gaps are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.gateways.fapshi.listing import SEARCH_MAX
from shared.gateways.interface import PaymentGateway, Unknown
from shared.gateways.listings import ListedPage, ListedPayment
from shared.money import Money
from tests.support import campay, fapshi, stripe_answers
from tests.support.clocks import ManualClock
from tests.support.gateway_answers import SILENCES, reply, split
from tests.support.payments import REFERENCE
from tests.support.scripted_server import ScriptedServer, scripted_server

DAY = date(2026, 1, 5)
LATER = datetime(2026, 1, 7, 3, tzinfo=UTC)

CLIENTS: dict[str, Callable[[str, ManualClock], PaymentGateway]] = {
    "fapshi": fapshi.fapshi_at,
    "campay": campay.campay_at,
    "stripe": stripe_answers.gateway_at,
}

with_every_gateway = pytest.mark.parametrize("name", CLIENTS)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def gateway(server: ScriptedServer, name: str) -> AsyncIterator[PaymentGateway]:
    gateway = CLIENTS[name](server.url, ManualClock(LATER))
    yield gateway
    await gateway.close()


def queries(server: ScriptedServer) -> list[dict[str, str]]:
    """Return the query of each request."""
    return [
        {key: value for key, (value,) in parse_qs(urlsplit(split(request)[1]).query).items()}
        for request in server.requests
    ]


@with_every_gateway
@pytest.mark.parametrize("silence", SILENCES)
async def test_a_list_that_is_not_to_be_had_is_never_an_empty_one(
    server: ScriptedServer, gateway: PaymentGateway, silence: str
) -> None:
    server.then(SILENCES[silence][0])

    assert isinstance(await gateway.list_paid(DAY), Unknown)


@with_every_gateway
@pytest.mark.parametrize("content", [{"data": 1}, {"data": [1]}, ["x"], "x", None], ids=str)
async def test_an_answer_of_another_shape_is_no_list(
    server: ScriptedServer, gateway: PaymentGateway, content: object
) -> None:
    server.then(reply(content))

    assert isinstance(await gateway.list_paid(DAY), Unknown)


@pytest.mark.parametrize("name", ["fapshi"])
async def test_fapshi_is_asked_for_the_days_around_and_for_none_to_come(
    server: ScriptedServer, gateway: PaymentGateway
) -> None:
    cursor: str | None = None
    for _ in range(3):
        server.then(reply([]))
        page = await gateway.list_paid(DAY, cursor)
        assert isinstance(page, ListedPage)
        cursor = page.next_cursor

    assert cursor is None
    assert [(query["start"], query["end"]) for query in queries(server)] == [
        ("2026-01-04", "2026-01-05"),
        ("2026-01-05", "2026-01-06"),
        ("2026-01-06", "2026-01-07"),
    ]
    assert {query["status"] for query in queries(server)} == {"successful"}


@pytest.mark.parametrize("name", ["fapshi"])
@pytest.mark.parametrize(
    ("changes", "listed", "is_cut"),
    [
        pytest.param({}, 1, False, id="ours"),
        pytest.param({"externalId": "order-7"}, 0, False, id="of another system"),
        pytest.param({"externalId": None}, 0, False, id="without a name"),
        pytest.param({"transType": "Payout"}, 0, False, id="money from us"),
        pytest.param({"status": "FAILED"}, 0, False, id="not paid"),
        pytest.param({"amount": 5000.5}, 0, True, id="an amount that is none"),
        pytest.param({"transId": "a/b"}, 0, True, id="a name that is none"),
    ],
)
async def test_of_fapshi_s_rows_ours_are_read(
    server: ScriptedServer,
    gateway: PaymentGateway,
    changes: dict[str, Any],
    listed: int,
    is_cut: bool,  # noqa: FBT001 - a column of the table
) -> None:
    server.then(reply([fapshi.transaction(**changes)]))

    page = await gateway.list_paid(DAY)

    assert isinstance(page, ListedPage)
    expected = ListedPayment(REFERENCE, fapshi.HANDLE, Money(5_000, "XAF"))
    assert page.payments == (expected,) * listed
    assert page.is_cut is is_cut


@pytest.mark.parametrize("name", ["fapshi"])
@pytest.mark.parametrize(
    ("others", "is_cut"),
    [
        pytest.param(["Zz0000", *(f"B{number:05}" for number in range(50))], False, id="meet"),
        pytest.param([f"B{number:05}" for number in range(SEARCH_MAX)], True, id="leave a gap"),
    ],
)
async def test_busy_days_of_fapshi_are_read_from_both_ends(
    server: ScriptedServer,
    gateway: PaymentGateway,
    others: list[str],
    is_cut: bool,  # noqa: FBT001 - a column of the table
) -> None:
    newest = [f"A{number:05}" for number in range(SEARCH_MAX - 1)] + ["Zz0000"]
    server.then(
        *(reply([fapshi.transaction(transId=id_) for id_ in ids]) for ids in (newest, others))
    )

    first = await gateway.list_paid(DAY)
    assert isinstance(first, ListedPage)
    second = await gateway.list_paid(DAY, first.next_cursor)

    assert isinstance(second, ListedPage)
    assert [query["sort"] for query in queries(server)] == ["desc", "asc"]
    assert len({query["start"] for query in queries(server)}) == 1
    assert (first.is_cut, second.is_cut) == (False, is_cut)
    assert len(first.payments) == SEARCH_MAX


@pytest.mark.parametrize("name", ["campay"])
@pytest.mark.parametrize(
    ("changes", "listed", "is_cut"),
    [
        pytest.param({}, 1, False, id="ours"),
        pytest.param({"amount": "5000.00"}, 1, False, id="an amount as text"),
        pytest.param({"description": "att_1 Course"}, 0, False, id="of another system"),
        pytest.param({"description": None}, 0, False, id="without a description"),
        pytest.param({"debit": 5000, "credit": 0}, 0, False, id="money from us"),
        pytest.param({"status": "PENDING"}, 0, False, id="not paid"),
        pytest.param({"amount": None}, 0, True, id="without an amount"),
        pytest.param({"reference_uuid": "None"}, 0, True, id="without a name"),
    ],
)
async def test_of_campay_s_rows_ours_are_read(
    server: ScriptedServer,
    gateway: PaymentGateway,
    changes: dict[str, Any],
    listed: int,
    is_cut: bool,  # noqa: FBT001 - a column of the table
) -> None:
    server.then(reply(campay.history(changes)))

    page = await gateway.list_paid(DAY)

    assert isinstance(page, ListedPage)
    expected = ListedPayment(REFERENCE, campay.HANDLE, Money(5_000, "XAF"))
    assert page.payments == (expected,) * listed
    assert page.is_cut is is_cut
    assert split(server.requests[0])[3] == {"start_date": "2026-01-04", "end_date": "2026-01-05"}


@pytest.mark.parametrize("name", ["campay"])
async def test_a_history_of_a_round_length_may_be_cut(
    server: ScriptedServer, gateway: PaymentGateway
) -> None:
    server.then(reply(campay.history(*({"description": "x"} for _ in range(100)))))

    page = await gateway.list_paid(DAY)

    assert isinstance(page, ListedPage)
    assert page.is_cut


@pytest.mark.parametrize("name", ["stripe"])
@pytest.mark.parametrize(
    ("changes", "listed", "is_cut"),
    [
        pytest.param({}, 1, False, id="ours"),
        pytest.param({"metadata": {"reference": "order-7"}}, 0, False, id="of another system"),
        pytest.param({"metadata": {}}, 0, False, id="without a name"),
        pytest.param({"status": "requires_payment_method"}, 0, False, id="not paid"),
        pytest.param({"amount_received": None}, 0, True, id="without an amount"),
        pytest.param({"livemode": True}, 0, True, id="of the other mode"),
    ],
)
async def test_of_stripe_s_intents_ours_are_read(
    server: ScriptedServer,
    gateway: PaymentGateway,
    changes: dict[str, Any],
    listed: int,
    is_cut: bool,  # noqa: FBT001 - a column of the table
) -> None:
    server.then(reply(stripe_answers.listed(stripe_answers.intent(**changes))))

    page = await gateway.list_paid(DAY)

    assert isinstance(page, ListedPage)
    expected = ListedPayment(stripe_answers.REFERENCE, stripe_answers.INTENT, Money(1_999, "USD"))
    assert page.payments == (expected,) * listed
    assert page.is_cut is is_cut
    (query,) = queries(server)
    # From a quarter of an hour before the day to a day and half an hour after it.
    assert int(query["created[gte]"]) == datetime(2026, 1, 4, 23, 45, tzinfo=UTC).timestamp()
    assert int(query["created[lte]"]) == datetime(2026, 1, 7, 0, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("name", ["stripe"])
async def test_stripe_s_pages_follow_each_other(
    server: ScriptedServer, gateway: PaymentGateway
) -> None:
    server.then(
        reply(stripe_answers.listed(stripe_answers.intent(), has_more=True)),
        reply(stripe_answers.listed()),
    )

    first = await gateway.list_paid(DAY)
    assert isinstance(first, ListedPage)
    second = await gateway.list_paid(DAY, first.next_cursor)

    assert isinstance(second, ListedPage)
    assert second.next_cursor is None
    assert queries(server)[1]["starting_after"] == stripe_answers.INTENT
