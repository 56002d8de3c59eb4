"""The simulator speaks Campay: tokens, prompts, links, statuses, lists and withdrawals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import jwt
import pytest

from services.simulator.campay import store
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.campay_world import (
    CREDENTIALS,
    PHONE,
    TOKEN,
    Application,
    order,
    running_application,
)
from tests.integration.simulator.inbox import breaks, read_page
from tests.integration.simulator.test_checkout import Forms
from tests.integration.simulator.world import Merchant, eventually

QUERIES = [
    text
    for name, text in vars(store).items()
    if name.lstrip("_").isupper() and isinstance(text, str) and " " in text
]


@pytest.fixture
async def campay(settings: SimulatorSettings, merchant: Merchant) -> AsyncIterator[Application]:
    async with running_application(settings, merchant) as application:
        yield application


def today() -> dict[str, str]:
    """Return a history's days; in Cameroon it may be tomorrow already."""
    now = datetime.now(UTC)
    return {"start_date": f"{now:%Y-%m-%d}", "end_date": f"{now + timedelta(days=1):%Y-%m-%d}"}


async def test_every_query_prepares(settings: SimulatorSettings) -> None:
    connection = await asyncpg.connect(
        settings.database_url, server_settings={"search_path": "simulator"}
    )
    assert len(QUERIES) > 10
    for query in QUERIES:
        await connection.prepare(query)
    await connection.close()


async def test_a_prompt_is_confirmed_on_the_phone(campay: Application) -> None:
    started = await campay.collect()
    assert (started["operator"], started["ussd_code"]) == ("mtn", "*126#")
    assert (await campay.status(started["reference"]))["status"] == "PENDING"

    phone = f"{campay.url}/campay/phone/{started['reference']}/"
    shown = await read_page(campay.client, "GET", phone)
    assert PHONE in shown
    await read_page(campay.client, "POST", campay.url + Forms(shown).forms[0][0])

    told = await campay.status(started["reference"])
    assert told["external_reference"] == started["external_reference"]
    assert (told["status"], told["amount"], told["currency"]) == ("SUCCESSFUL", 5_000, "XAF")
    assert (told["operator"], told["app_amount"], told["reason"]) == ("MTN", 4_900, "None")
    (charge,) = await campay.charges(started["external_reference"])
    assert (charge["amount"], charge["gatewayPaymentId"]) == (5_000, started["reference"])
    await read_page(campay.client, "POST", f"{phone}confirm/", status=409)


async def test_a_refused_prompt_has_failed(campay: Application) -> None:
    started = await campay.collect(**{"from": "237699123456"})
    assert (started["operator"], started["ussd_code"]) == ("orange", "#150*50#")

    phone = f"{campay.url}/campay/phone/{started['reference']}/refuse/"
    await read_page(campay.client, "POST", phone)

    told = await campay.status(started["reference"])
    assert (told["status"], told["reason"]) == ("FAILED", "Payment cancelled by the customer")
    assert await campay.charges(started["external_reference"]) == []


@pytest.mark.parametrize(
    ("button", "status", "back"),
    [(0, "SUCCESSFUL", "http://shop.example/back"), (1, "FAILED", "http://shop.example/failed")],
    ids=["pay", "decline"],
)
async def test_a_link_is_used_in_a_browser(
    campay: Application, button: int, status: str, back: str
) -> None:
    started = await campay.link(
        redirect_url="http://shop.example/back", failure_redirect_url="http://shop.example/failed"
    )
    path = started["link"].removeprefix("http://gateway.example")
    assert (await campay.status(started["reference"]))["status"] == "PENDING"

    shown = await read_page(campay.client, "GET", campay.url + path)
    address = campay.url + Forms(shown).forms[button][0]
    after = await read_page(campay.client, "POST", address)

    assert f'href="{back}"' in after
    assert (await campay.status(started["reference"]))["status"] == status
    assert Forms(await read_page(campay.client, "GET", campay.url + path)).forms == []


async def test_a_token_is_given_and_expires(
    settings: SimulatorSettings, merchant: Merchant
) -> None:
    async with running_application(settings, merchant, campay_token_seconds=3) as campay:
        status, answer = await campay.ask("POST", "token/", CREDENTIALS, "")
        assert (status, answer["expires_in"]) == (200, 3)
        claims = jwt.decode(answer["token"], options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == 3

        async def is_refused() -> bool:
            found = await campay.ask("GET", "balance/", authorization=f"Token {answer['token']}")
            return found[0] == 401

        assert not await is_refused()
        await eventually(is_refused)


async def test_wrong_credentials_get_no_token(campay: Application) -> None:
    for change in ({"password": "guessed"}, {"username": "other"}, {"password": None}):
        status, answer = await campay.ask("POST", "token/", {**CREDENTIALS, **change}, "")
        assert status == 400
        assert "token" not in answer


@pytest.mark.parametrize("authorization", ["", f"Bearer {TOKEN}", TOKEN, "Token guessed", "Token "])
async def test_only_our_token_is_admitted(campay: Application, authorization: str) -> None:
    for method, path in (("POST", "collect/"), ("GET", "balance/"), ("POST", "history/")):
        assert (await campay.ask(method, path, order(), authorization))[0] == 401


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"from": "677123456"}, "ER101"),
        ({"from": "+237677123456"}, "ER101"),
        ({"from": None}, "ER101"),
        ({"from": "237622123456"}, "ER102"),
        ({"amount": "100.5"}, "ER201"),
        ({"amount": 100.0}, "ER201"),
        ({"amount": 0}, "ER201"),
        ({"amount": True}, "ER201"),
        ({"amount": None}, "ER201"),
        ({"description": "<script>"}, "malicious_payload_rejected"),
        ({"description": None}, "description"),
        ({"currency": "EUR"}, "currency"),
        ({"external_reference": "a b"}, "external_reference"),
    ],
)
async def test_wrong_members_are_refused_with_their_code(
    campay: Application, changes: dict[str, Any], code: str
) -> None:
    members = order(**changes)

    status, answer = await campay.ask("POST", "collect/", members)

    assert status == 400
    assert code in answer["message"]
    assert (answer.get("error_code") == code) == code.startswith("ER")
    assert (await campay.ask("POST", "history/", today()))[1] == {"data": []}


async def test_the_same_reference_gives_the_same_first_answer(campay: Application) -> None:
    members = order(amount=700)
    # Every connection to the database is open before, so that the calls really meet.
    await asyncio.gather(*(campay.ask("GET", "balance/") for _ in range(8)))

    answers = await asyncio.gather(*(campay.ask("POST", "collect/", members) for _ in range(5)))
    changed = await campay.ask("POST", "collect/", {**members, "amount": 900})

    assert [*answers, changed] == [answers[0]] * 6
    await campay.pay(members["external_reference"])
    (charge,) = await campay.charges(members["external_reference"])
    assert charge["amount"] == 700


async def test_an_account_may_not_look_for_repetitions(
    settings: SimulatorSettings, merchant: Merchant
) -> None:
    async with running_application(settings, merchant, campay_is_idempotent=False) as campay:
        members = order()
        references = [
            (await campay.ask("POST", "collect/", members))[1]["reference"] for _ in range(2)
        ]
        for _ in range(2):
            await campay.pay(members["external_reference"])

        assert len(set(references)) == 2
        assert len(await campay.charges(members["external_reference"])) == 2


@pytest.mark.parametrize(
    ("behaviour", "amount"), [("amount_text", "5000.00"), ("amount_float", 5000.0)]
)
async def test_an_amount_can_be_text_or_a_fraction(
    campay: Application, behaviour: str, amount: object
) -> None:
    started = await campay.collect()
    await campay.script("status", behaviour)

    told = await campay.status(started["reference"])

    assert (told["amount"], type(told["amount"])) == (amount, type(amount))
    assert (await campay.status(started["reference"]))["amount"] == 5_000


async def test_statuses_and_lists_can_be_scripted(campay: Application) -> None:
    started = await campay.collect()
    path = f"transaction/{started['reference']}/"

    await campay.script("status", "none_texts")
    told = await campay.status(started["reference"])
    assert (told["operator_reference"], told["external_user"]) == ("None", "None")
    for operation, behaviour, status in (
        ("status", "not_found", 404),
        ("status", "unauthorized", 401),
    ):
        await campay.script(operation, behaviour)
        assert (await campay.ask("GET", path))[0] == status
    await campay.script("history", "empty")
    histories = [(await campay.ask("POST", "history/", today()))[1]["data"] for _ in "12"]
    assert [len(each) for each in histories] == [0, 1]


async def test_an_unknown_transaction_is_not_found(campay: Application) -> None:
    for reference in ("0b6f2c1e-5a55-4c39-9d0e-3f1f7f0a1b2c", "unknown", "%00"):
        assert (await campay.ask("GET", f"transaction/{reference}/"))[0] == 404


async def test_a_history_tells_everything_but_our_reference(campay: Application) -> None:
    paid = await campay.collect(external_user="cus_1")
    await campay.collect()
    await campay.pay(paid["external_reference"])

    _, answer = await campay.ask("POST", "history/", today())

    assert [each["status"] for each in answer["data"]] == ["PENDING", "SUCCESSFUL"]
    line = answer["data"][1]
    assert line["reference_uuid"] == paid["reference"]
    assert (line["amount"], line["credit"], line["charge_amount"]) == (5_000, 4_900, 100)
    assert (line["phone_number"], line["external_user"]) == (PHONE, "cus_1")
    assert paid["external_reference"] not in str(answer)
    old = {"start_date": "2020-01-01", "end_date": "2020-01-02"}
    assert (await campay.ask("POST", "history/", old))[1] == {"data": []}
    assert (await campay.ask("POST", "history/", {"start_date": "today"}))[0] == 400


async def test_what_was_collected_can_be_withdrawn_once(campay: Application) -> None:
    paid = await campay.collect(amount=10_000)
    await campay.pay(paid["external_reference"])
    assert (await campay.ask("GET", "balance/"))[1] == {
        "total_balance": 9_800.0,
        "mtn_balance": 9_800,
        "orange_balance": 0,
        "currency": "XAF",
    }
    withdrawal = order(**{"from": None}, to=PHONE, amount=9_000)
    await asyncio.gather(*(campay.ask("GET", "balance/") for _ in range(8)))

    answers = await asyncio.gather(
        campay.ask("POST", "withdraw/", withdrawal),
        campay.ask("POST", "withdraw/", withdrawal),
        campay.ask("POST", "withdraw/", order(**{"from": None}, to=PHONE, amount=9_000)),
    )

    refused = [answer for status, answer in answers if status == 400]
    accepted = [answer for status, answer in answers if status == 200]
    assert {answer["error_code"] for answer in refused} == {"ER301"}
    assert {answer["status"] for answer in accepted} == {"PENDING"}
    assert len({answer["reference"] for answer in accepted}) == 1
    assert (await campay.ask("GET", "balance/"))[1]["mtn_balance"] == 800
    reference = await campay.simulator.execute(
        "SELECT external_reference FROM campay_transaction WHERE kind = 'withdraw'"
    )
    await campay.until_state(reference, "SUCCESSFUL")
    assert await campay.charges(reference) == []


async def test_withdrawals_can_be_off(settings: SimulatorSettings, merchant: Merchant) -> None:
    async with running_application(settings, merchant, campay_withdraw=False) as campay:
        withdrawal = order(**{"from": None}, to=PHONE)
        assert (await campay.ask("POST", "withdraw/", withdrawal))[0] == 403


@pytest.mark.parametrize(("method", "path"), [("POST", "collect"), ("GET", "transaction/x")])
async def test_a_path_without_a_slash_leads_to_the_one_with(
    campay: Application, method: str, path: str
) -> None:
    address = f"{campay.url}/campay/api/{path}"

    async with campay.client.request(method, address, allow_redirects=False) as response:
        assert response.status == 301
        assert response.headers["Location"] == f"/campay/api/{path}/"


@pytest.mark.parametrize(
    ("phone", "status"), [("237670000002", "SUCCESSFUL"), ("237656000001", "FAILED")]
)
async def test_magic_phones_answer_by_themselves(
    campay: Application, phone: str, status: str
) -> None:
    started = await campay.collect(**{"from": phone})

    await campay.until_state(started["external_reference"], status)

    assert len(await campay.charges(started["external_reference"])) == (status == "SUCCESSFUL")


async def test_a_prompt_stays_pending_until_its_time_is_over(campay: Application) -> None:
    never, link = await campay.collect(amount=2_004), await campay.link()
    reference = never["external_reference"]

    assert (await campay.pay(reference, status=409))["details"] == {"state": "PENDING"}
    assert (await campay.status(never["reference"]))["status"] == "PENDING"
    await campay.simulator.execute("UPDATE campay_transaction SET expires_at = now()")

    for started in (never, link):
        ended = await campay.until_state(started["external_reference"], "FAILED")
        assert ended["reason"] == "Payment not confirmed in time"


async def test_less_than_the_amount_can_be_paid(campay: Application) -> None:
    started = await campay.collect(amount=2_013)
    await campay.pay(started["external_reference"])

    (charge,) = await campay.charges(started["external_reference"])

    assert (await campay.status(started["reference"]))["amount"] == charge["amount"] == 1_963


async def test_a_paid_transaction_can_be_pending_at_first(campay: Application) -> None:
    started = await campay.collect(amount=2_016)
    await campay.pay(started["external_reference"])

    told = [(await campay.status(started["reference"]))["status"] for _ in range(3)]

    assert told == ["PENDING", "PENDING", "SUCCESSFUL"]


@pytest.mark.parametrize(("digits", "count"), [(15, 1), (20, 1), (22, 0), (24, 1)])
async def test_the_first_answer_can_be_lost(campay: Application, digits: int, count: int) -> None:
    members = order(amount=2_000 + digits)

    assert await breaks(campay.ask("POST", "collect/", members))

    if digits == 20:
        await campay.until_state(members["external_reference"], "SUCCESSFUL")
    assert len((await campay.ask("POST", "history/", today()))[1]["data"]) == count
    status, again = await campay.ask("POST", "collect/", members)
    assert status == 200
    session = await campay.session(members["external_reference"])
    assert [each["gatewayReference"] for each in session["transactions"]] == [again["reference"]]


async def test_a_profile_decides_about_prompts(campay: Application) -> None:
    await campay.profile(fates={"late_success": 100}, customersAct=True, lateSeconds=0.2)
    started = await campay.collect()

    ended = await campay.until_state(started["external_reference"], "SUCCESSFUL")

    assert ended["fate"]["fate"] == "late_success"
    assert len(await campay.charges(started["external_reference"])) == 1


async def test_concurrent_confirmations_charge_once(campay: Application) -> None:
    started = await campay.collect()
    phone = f"{campay.url}/campay/phone/{started['reference']}/confirm/"
    await asyncio.gather(*(campay.ask("GET", "balance/") for _ in range(8)))

    async def press() -> int:
        async with campay.client.post(phone) as response:
            return response.status

    assert sorted(await asyncio.gather(*(press() for _ in range(5)))) == [200] + [409] * 4

    assert len(await campay.charges(started["external_reference"])) == 1


async def test_no_state_is_reached_but_by_the_protocol(campay: Application) -> None:
    started = await campay.collect()
    await campay.pay(started["external_reference"], "declined")

    with pytest.raises(asyncpg.CheckViolationError, match="campay has no step from"):
        await campay.simulator.execute(
            "UPDATE campay_transaction SET state = 'SUCCESSFUL', charged = 1, confirmed_at = now()"
        )
