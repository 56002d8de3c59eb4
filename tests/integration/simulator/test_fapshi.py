"""The simulator speaks Fapshi: links, prompts, statuses, listings, and notices sent once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from services.simulator.fapshi import store
from services.simulator.mobile_money import MAGIC
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.fapshi_world import (
    KEYS,
    PHONE,
    SECRET,
    Service,
    order,
    running_service,
)
from tests.integration.simulator.inbox import breaks, read_page
from tests.integration.simulator.test_checkout import Forms
from tests.integration.simulator.world import Merchant

QUERIES = [
    text
    for name, text in vars(store).items()
    if name.lstrip("_").isupper() and isinstance(text, str) and " " in text
]


@pytest.fixture
async def fapshi(settings: SimulatorSettings, merchant: Merchant) -> AsyncIterator[Service]:
    async with running_service(settings, merchant) as service:
        yield service


async def test_every_query_prepares(settings: SimulatorSettings) -> None:
    connection = await asyncpg.connect(
        settings.database_url, server_settings={"search_path": "simulator"}
    )
    assert len(QUERIES) > 10
    for query in QUERIES:
        await connection.prepare(query)
    await connection.close()


async def test_a_link_is_paid_in_a_browser(fapshi: Service) -> None:
    started = await fapshi.link(redirectUrl="http://shop.example/back?a=1&b=</script>")
    path = started["link"].removeprefix("http://gateway.example")
    assert started["message"] == "Request successful"
    assert len(path.rpartition("/")[2]) == 24
    assert (await fapshi.status(started["transId"]))["status"] == "CREATED"

    shown = await read_page(fapshi.client, "GET", fapshi.url + path)
    pay = Forms(shown).forms[0][0]
    after = await read_page(fapshi.client, "POST", fapshi.url + pay)

    assert "XAF 5000" in shown
    assert 'href="http://shop.example/back?a=1&amp;b=&lt;/script&gt;"' in after
    assert after.count("</script>") == 1
    told = await fapshi.status(started["transId"])
    assert (told["status"], told["amount"], told["transType"]) == (
        "SUCCESSFUL",
        5_000,
        "Collection",
    )
    (charge,) = await fapshi.charges(started["externalId"])
    assert (charge["amount"], charge["currency"]) == (5_000, "XAF")
    assert charge["gatewayPaymentId"] == started["transId"]
    assert Forms(await read_page(fapshi.client, "GET", fapshi.url + path)).forms == []
    await read_page(fapshi.client, "POST", fapshi.url + pay, status=409)


async def test_a_prompt_is_confirmed_on_the_phone(fapshi: Service) -> None:
    started = await fapshi.prompt()
    assert "link" not in started
    told = await fapshi.status(started["transId"])
    assert (told["status"], told["medium"]) == ("PENDING", "mobile money")

    phone = f"{fapshi.url}/fapshi/phone/{started['transId']}"
    shown = await read_page(fapshi.client, "GET", phone)
    assert PHONE in shown
    await read_page(fapshi.client, "POST", fapshi.url + Forms(shown).forms[0][0])

    told = await fapshi.status(started["transId"])
    assert told["status"] == "SUCCESSFUL"
    assert told["externalId"] == started["externalId"]
    assert told["userId"] == started["userId"]
    assert (told["revenue"], told["reason"]) == (4_850, None)
    assert told["dateConfirmed"].endswith("Z")
    assert len(await fapshi.charges(started["externalId"])) == 1


async def test_a_refused_prompt_has_failed_for_good(fapshi: Service) -> None:
    started = await fapshi.prompt()
    phone = f"{fapshi.url}/fapshi/phone/{started['transId']}"

    await read_page(fapshi.client, "POST", f"{phone}/refuse")
    await read_page(fapshi.client, "POST", f"{phone}/confirm", status=409)

    told = await fapshi.status(started["transId"])
    assert (told["status"], told["reason"]) == ("FAILED", "Payment cancelled by the customer")
    assert await fapshi.charges(started["externalId"]) == []


async def test_a_failed_link_can_still_be_paid(fapshi: Service) -> None:
    started = await fapshi.link()
    reference = started["externalId"]

    failed = await fapshi.pay(reference, "declined")
    assert failed["state"] == (await fapshi.status(started["transId"]))["status"] == "FAILED"
    await fapshi.pay(reference)

    assert (await fapshi.status(started["transId"]))["status"] == "SUCCESSFUL"
    assert (await fapshi.pay(reference, status=409))["details"] == {"state": "SUCCESSFUL"}
    statuses = [orjson.loads(each.body)["status"] for each in await fapshi.inbox.until(2)]
    assert sorted(statuses) == ["FAILED", "SUCCESSFUL"]


async def test_a_notice_is_the_transaction_and_carries_the_secret(fapshi: Service) -> None:
    started = await fapshi.prompt()
    await fapshi.pay(started["externalId"])

    (notice,) = await fapshi.inbox.until(1)

    assert (notice.method, notice.path) == ("POST", "/webhooks/fapshi")
    assert notice.content_type == "application/json"
    assert notice.headers["x-wh-secret"] == SECRET
    assert orjson.loads(notice.body) == await fapshi.status(started["transId"])
    await fapshi.until_sent(started["externalId"], 1)


@pytest.mark.parametrize(
    ("phone", "status"), [("670000000", "SUCCESSFUL"), ("690000001", "FAILED")]
)
async def test_magic_phones_answer_by_themselves(fapshi: Service, phone: str, status: str) -> None:
    started = await fapshi.prompt(phone=phone)

    await fapshi.until_state(started["externalId"], status)

    assert len(await fapshi.charges(started["externalId"])) == (status == "SUCCESSFUL")


async def test_one_reference_may_be_charged_twice(fapshi: Service) -> None:
    first = await fapshi.prompt()
    second = await fapshi.prompt(externalId=first["externalId"], userId=first["userId"])
    assert first["transId"] != second["transId"]

    for _ in range(2):
        await fapshi.pay(first["externalId"])

    assert len(await fapshi.charges(first["externalId"])) == 2
    status, listed = await fapshi.ask("GET", f"/transaction/{first['userId']}")
    assert status == 200
    assert [each["transId"] for each in listed] == [second["transId"], first["transId"]]


async def test_a_link_is_expired_once_and_then_cannot_be_paid(fapshi: Service) -> None:
    started = await fapshi.link()
    body = {"transId": started["transId"]}

    status, expired = await fapshi.ask("POST", "/expire-pay", body)
    again = await fapshi.ask("POST", "/expire-pay", body)

    assert (status, expired["status"]) == (200, "EXPIRED")
    assert again == (400, {"message": "Link already expired"})
    await fapshi.pay(started["externalId"], status=409)
    assert await fapshi.charges(started["externalId"]) == []
    (notice,) = await fapshi.inbox.until(1)
    assert orjson.loads(notice.body)["status"] == "EXPIRED"


async def test_only_open_links_can_be_expired(fapshi: Service) -> None:
    prompt, paid = await fapshi.prompt(), await fapshi.link()
    await fapshi.pay(paid["externalId"])

    bodies: list[dict[str, Any]] = [{"transId": each["transId"]} for each in (prompt, paid)]
    answers = [
        await fapshi.ask("POST", "/expire-pay", body)
        for body in [*bodies, {"transId": "unknown000"}, {"transId": "?"}, {}]
    ]

    assert [status for status, _ in answers] == [400, 400, 404, 400, 400]
    assert (await fapshi.status(paid["transId"]))["status"] == "SUCCESSFUL"


async def test_time_ends_links_and_prompts(fapshi: Service) -> None:
    link, failed, prompt = await fapshi.link(), await fapshi.link(), await fapshi.prompt()
    await fapshi.pay(failed["externalId"], "declined")
    await fapshi.simulator.execute("UPDATE fapshi_transaction SET expires_at = now()")

    await fapshi.until_state(link["externalId"], "EXPIRED")
    await fapshi.until_state(failed["externalId"], "EXPIRED")
    ended = await fapshi.until_state(prompt["externalId"], "FAILED")

    assert ended["reason"] == "Payment not confirmed in time"


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("/initiate-pay", {"amount": 99}, "less than 100"),
        ("/initiate-pay", {"amount": "5000"}, "integer"),
        ("/initiate-pay", {"amount": 5000.5}, "integer"),
        ("/initiate-pay", {"amount": True}, "integer"),
        ("/initiate-pay", {"amount": None}, "amount is required"),
        ("/initiate-pay", {"externalId": "a b"}, "externalId"),
        ("/initiate-pay", {"externalId": "x" * 101}, "externalId"),
        ("/initiate-pay", {"userId": "ü"}, "userId"),
        ("/initiate-pay", {"email": "nobody"}, "email"),
        ("/initiate-pay", {"redirectUrl": "javascript:alert(1)"}, "redirectUrl"),
        ("/initiate-pay", {"message": "\0"}, "message"),
        ("/direct-pay", {}, "phone is required"),
        ("/direct-pay", {"phone": "237677123456"}, "phone"),
        ("/direct-pay", {"phone": "622000000"}, "MTN or Orange"),
        ("/direct-pay", {"phone": PHONE, "medium": "orange money"}, "medium"),
    ],
)
async def test_wrong_members_are_refused(
    fapshi: Service, path: str, changes: dict[str, Any], message: str
) -> None:
    status, answer = await fapshi.ask("POST", path, order(**changes))

    assert status == 400
    assert message in answer["message"]


@pytest.mark.parametrize(
    "headers", [{}, {**KEYS, "apikey": "FAK_TEST_guessed"}, {**KEYS, "apiuser": "other"}]
)
async def test_wrong_credentials_are_refused(fapshi: Service, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/initiate-pay"), ("GET", "/balance")):
        answer = await fapshi.ask(method, path, headers=headers)
        assert answer == (403, {"message": "Invalid API credentials"})


@pytest.mark.parametrize(
    ("trans_id", "status", "message"),
    [
        ("Ab3dE6gH", 404, "Transaction not found"),
        ("Ab3dE6g", 400, "Invalid request URL"),
        ("%00", 400, "Invalid request URL"),
    ],
)
async def test_an_unknown_transaction_has_no_status(
    fapshi: Service, trans_id: str, status: int, message: str
) -> None:
    answer = await fapshi.ask("GET", f"/payment-status/{trans_id}")

    assert answer == (status, {"message": message})


async def test_a_get_with_a_body_is_refused(fapshi: Service) -> None:
    assert (await fapshi.ask("GET", "/balance", {}))[0] == 400


async def test_a_status_is_told_six_times_a_minute(fapshi: Service) -> None:
    started, other = await fapshi.prompt(), await fapshi.prompt()
    path = f"/payment-status/{started['transId']}"

    answers = [await fapshi.ask("GET", path) for _ in range(8)]

    assert [status for status, _ in answers] == [200] * 6 + [429] * 2
    await fapshi.status(other["transId"])
    await fapshi.simulator.execute(
        "UPDATE fapshi_transaction SET recent_reads[1] = now() - interval '61 s'"
    )
    assert [(await fapshi.ask("GET", path))[0] for _ in range(2)] == [200, 429]
    await fapshi.profile()
    assert (await fapshi.ask("GET", path))[0] == 200
    await fapshi.profile(limitsReads=True)
    assert (await fapshi.ask("GET", path))[0] == 429


async def test_the_limit_on_reads_can_be_off(
    settings: SimulatorSettings, merchant: Merchant
) -> None:
    async with running_service(settings, merchant, fapshi_reads_per_minute=0) as fapshi:
        started = await fapshi.prompt()
        for _ in range(8):
            await fapshi.status(started["transId"])


async def test_direct_pay_can_be_off(settings: SimulatorSettings, merchant: Merchant) -> None:
    async with running_service(settings, merchant, fapshi_direct_pay=False) as fapshi:
        status, answer = await fapshi.ask("POST", "/direct-pay", order(phone=PHONE))

    assert status == 403
    assert "not enabled" in answer["message"]


async def test_transactions_are_searched_and_wrong_values_ignored(fapshi: Service) -> None:
    link = await fapshi.link(amount=700)
    paid = await fapshi.prompt(amount=800)
    orange = await fapshi.prompt(amount=800, phone="699123456")
    await fapshi.pay(paid["externalId"])

    async def found(query: str) -> list[str]:
        status, answer = await fapshi.ask("GET", f"/search?{query}")
        assert status == 200
        return [each["transId"] for each in answer]

    ids = [each["transId"] for each in (link, paid, orange)]
    assert await found("sort=asc") == ids
    assert await found("sort=sideways&limit=0&start=tomorrow&status=lost") == ids[::-1]
    assert await found("status=successful") == [ids[1]]
    assert await found("amt=800&sort=asc") == ids[1:]
    assert await found("medium=orange%20money") == [ids[2]]
    assert await found("limit=1") == [ids[2]]
    assert await found("end=2020-01-01") == []
    assert len(await found("start=2020-01-01&end=2099-12-31")) == 3


async def test_the_balance_is_what_was_paid_without_the_share(fapshi: Service) -> None:
    paid = await fapshi.prompt(amount=1_000)
    await fapshi.pay(paid["externalId"])

    _, answer = await fapshi.ask("GET", "/balance")

    assert answer == {"service": "Sluice Demo", "balance": 970, "currency": "XAF"}


@pytest.mark.parametrize(
    ("digits", "status", "reason"),
    [
        (1, "FAILED", "Payment declined by the operator"),
        (2, "FAILED", "Payment cancelled by the customer"),
        (3, "FAILED", "Insufficient funds"),
    ],
)
async def test_magic_amounts_fail(fapshi: Service, digits: int, status: str, reason: str) -> None:
    started = await fapshi.prompt(amount=2_000 + digits)
    assert (await fapshi.prompt(amount=500 + digits))["message"]

    ended = await fapshi.pay(started["externalId"])

    assert (ended["state"], ended["reason"]) == (status, reason)


async def test_a_magic_customer_never_confirms(fapshi: Service) -> None:
    started = await fapshi.prompt(amount=2_004)

    error = await fapshi.pay(started["externalId"], status=409)

    assert error["details"] == {"state": "PENDING"}
    assert (await fapshi.pay(started["externalId"], "at_last"))["state"] == "SUCCESSFUL"


@pytest.mark.parametrize(
    ("digits", "count", "secrets"),
    [(5, 0, []), (6, 5, [SECRET] * 5), (7, 1, [None]), (21, 1, ["wh_of_another_service"])],
    ids=["never", "five times", "without a secret", "with a wrong secret"],
)
async def test_magic_amounts_spoil_notices(
    fapshi: Service, digits: int, count: int, secrets: list[str | None]
) -> None:
    started = await fapshi.prompt(amount=2_000 + digits)

    await fapshi.pay(started["externalId"])

    session = await fapshi.session(started["externalId"])
    assert len(session["notices"]) == count
    received = await fapshi.inbox.until(count)
    assert [each.headers.get("x-wh-secret") for each in received] == secrets


async def test_an_older_notice_can_come_last(fapshi: Service) -> None:
    for start, earlier in ((fapshi.prompt, "PENDING"), (fapshi.link, "FAILED")):
        fapshi.inbox.received.clear()
        started = await start(amount=2_012)
        await fapshi.pay(started["externalId"])
        received = await fapshi.inbox.until(2)
        statuses = [orjson.loads(each.body)["status"] for each in received]
        assert statuses == ["SUCCESSFUL", earlier]


async def test_less_than_the_amount_can_be_paid(fapshi: Service) -> None:
    started = await fapshi.prompt(amount=2_013)
    await fapshi.pay(started["externalId"])

    told = await fapshi.status(started["transId"])
    (charge,) = await fapshi.charges(started["externalId"])

    assert (told["status"], told["amount"], charge["amount"]) == ("SUCCESSFUL", 1_963, 1_963)


async def test_a_paid_transaction_can_be_pending_at_first(fapshi: Service) -> None:
    started = await fapshi.prompt(amount=2_016)
    assert (await fapshi.status(started["transId"]))["status"] == "PENDING"
    await fapshi.pay(started["externalId"])

    told = [(await fapshi.status(started["transId"]))["status"] for _ in range(3)]

    assert told == ["PENDING", "PENDING", "SUCCESSFUL"]


@pytest.mark.parametrize(("digits", "statuses"), [(9, [500] * 3), (17, [200])])
async def test_reads_of_a_status_fail_as_often_as_the_table_says(
    fapshi: Service, digits: int, statuses: list[int]
) -> None:
    started = await fapshi.prompt(amount=2_000 + digits)
    await fapshi.pay(started["externalId"])
    address = f"{fapshi.url}/fapshi/payment-status/{started['transId']}"

    for expected in statuses:
        async with fapshi.client.get(address, headers=KEYS) as response:
            assert (response.status, response.content_type) == (expected, "text/html")

    assert (await fapshi.status(started["transId"]))["status"] == "SUCCESSFUL"


@pytest.mark.parametrize(("digits", "status"), [(14, 500), (23, 429)], ids=["an error", "too many"])
async def test_the_first_call_can_be_refused(fapshi: Service, digits: int, status: int) -> None:
    members = order(amount=2_000 + digits, phone=PHONE)
    address = f"{fapshi.url}/fapshi/direct-pay"

    async with fapshi.client.post(address, json=members, headers=KEYS) as response:
        assert response.status == status
    assert await fapshi.ask("GET", f"/transaction/{members['userId']}") == (200, [])

    assert (await fapshi.ask("POST", "/direct-pay", members))[0] == 200


@pytest.mark.parametrize(("digits", "count"), [(15, 1), (20, 1), (22, 0), (24, 1)])
async def test_the_first_answer_can_be_lost(fapshi: Service, digits: int, count: int) -> None:
    members = order(amount=2_000 + digits, phone=PHONE)

    assert await breaks(fapshi.ask("POST", "/direct-pay", members))

    if digits == 20:
        await fapshi.until_state(members["externalId"], "SUCCESSFUL")
    _, listed = await fapshi.ask("GET", f"/transaction/{members['userId']}")
    assert len(listed) == count


async def test_answers_can_be_scripted(fapshi: Service) -> None:
    started = await fapshi.prompt()
    for operation, behaviour in (("status", "array"), ("listing", "empty"), ("search", "empty")):
        await fapshi.script(operation, behaviour)

    _, told = await fapshi.ask("GET", f"/payment-status/{started['transId']}")
    listed = [(await fapshi.ask("GET", f"/transaction/{started['userId']}"))[1] for _ in "12"]
    found = [(await fapshi.ask("GET", "/search"))[1] for _ in "12"]

    assert [each["status"] for each in told] == ["PENDING"]
    assert [len(each) for each in listed] == [0, 1]
    assert [len(each) for each in found] == [0, 1]


async def test_a_profile_decides_about_prompts(fapshi: Service) -> None:
    await fapshi.profile(fates={"late_success": 100}, customersAct=True, lateSeconds=600)
    prompt, link = await fapshi.prompt(), await fapshi.link()

    await fapshi.until_state(link["externalId"], "FAILED")
    await fapshi.until_acted(2)
    assert (await fapshi.status(prompt["transId"]))["status"] == "PENDING"
    await fapshi.simulator.execute("UPDATE act SET due_at = now()")

    for started in (prompt, link):
        ended = await fapshi.until_state(started["externalId"], "SUCCESSFUL")
        assert ended["fate"]["fate"] == "late_success"
        assert len(await fapshi.charges(started["externalId"])) == 1


async def test_concurrent_confirmations_charge_once(fapshi: Service) -> None:
    started = await fapshi.prompt()
    phone = f"{fapshi.url}/fapshi/phone/{started['transId']}/confirm"
    await asyncio.gather(*(fapshi.ask("GET", "/balance") for _ in range(8)))

    async def press() -> int:
        async with fapshi.client.post(phone) as response:
            return response.status

    assert sorted(await asyncio.gather(*(press() for _ in range(5)))) == [200] + [409] * 4

    assert len(await fapshi.charges(started["externalId"])) == 1


@pytest.mark.parametrize(
    "path", ["/fapshi/checkout/unknown", "/fapshi/phone/unknown000", "/fapshi/checkout/%00"]
)
async def test_an_unknown_page_is_not_found(fapshi: Service, path: str) -> None:
    await read_page(fapshi.client, "GET", fapshi.url + path, status=404)
    await read_page(fapshi.client, "POST", f"{fapshi.url}{path}/pay", status=404)


async def test_no_state_is_reached_but_by_the_protocol(fapshi: Service) -> None:
    started = await fapshi.prompt()
    await fapshi.pay(started["externalId"], "declined")

    with pytest.raises(asyncpg.CheckViolationError, match="fapshi_prompt has no step from"):
        await fapshi.simulator.execute(
            "UPDATE fapshi_transaction SET state = 'SUCCESSFUL', charged = 1, confirmed_at = now()"
        )


async def test_the_overview_lists_the_magic_numbers(fapshi: Service) -> None:
    shown = await read_page(fapshi.client, "GET", f"{fapshi.url}/simulator")

    assert all(f"…{digits:02d}" in shown for digits in MAGIC)
    assert "670000000" in shown
