"""The simulator speaks SSLCommerz: sessions, validation, transaction query, signed notices."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from services.simulator import fates, ledger, notice_store
from services.simulator.settings import SimulatorSettings
from services.simulator.sslcommerz import refund_store, store
from services.simulator.sslcommerz.signing import sign
from tests.integration.simulator.world import SESSION_PATH, Simulator
from tests.unit.simulator.forms import PASSWORD, session_form

QUERIES = [
    pytest.param(text, id=f"{module.__name__}.{name}")
    for module in (fates, ledger, notice_store, refund_store, store)
    for name, text in vars(module).items()
    if name.lstrip("_").isupper() and isinstance(text, str) and " " in text
]


@pytest.mark.parametrize("query", QUERIES)
async def test_query_prepares(settings: SimulatorSettings, query: str) -> None:
    connection = await asyncpg.connect(
        settings.database_url, server_settings={"search_path": "simulator"}
    )
    await connection.prepare(query)
    await connection.close()


async def test_a_session_is_opened(simulator: Simulator) -> None:
    answer = await simulator.open()

    assert answer["status"] == "SUCCESS"
    assert answer["failedreason"] == ""
    key = answer["sessionkey"]
    assert answer["GatewayPageURL"] == f"http://gateway.example/EasyCheckOut/{key}"


async def test_a_refused_session_answers_200_with_the_reason(simulator: Simulator) -> None:
    answer = await simulator.open(cus_email="")

    assert answer["status"] == "FAILED"
    assert "cus_email" in answer["failedreason"]
    assert answer["GatewayPageURL"] == ""


@pytest.mark.parametrize(
    "changes",
    [{"store_passwd": "guessed"}, {"store_id": "other"}, {"store_passwd": ""}],
    ids=["wrong password", "wrong store", "no password"],
)
async def test_wrong_credentials_open_no_session(
    simulator: Simulator, changes: dict[str, str]
) -> None:
    answer = await simulator.open(**changes)

    assert answer["status"] == "FAILED"
    assert answer["failedreason"] == "Store Credential Error Or Store is De-active"


async def test_a_multipart_form_opens_no_session(simulator: Simulator) -> None:
    parts = {name: text.encode() for name, text in session_form().items()}
    async with simulator.client.post(simulator.url + SESSION_PATH, json=str(parts)) as response:
        answer = await response.json()

    assert answer["failedreason"] == "Store Credential Error Or Store is De-active"


async def test_a_reference_opens_one_session_only(simulator: Simulator) -> None:
    answers = await asyncio.gather(*(simulator.open(tran_id="INV-SAME") for _ in range(5)))

    statuses = sorted(answer["status"] for answer in answers)
    assert statuses == ["FAILED"] * 4 + ["SUCCESS"]


async def test_a_payment_is_charged_noticed_and_validated(simulator: Simulator) -> None:
    opened = await simulator.open(total_amount="1150.00", value_a="cus_1001", value_b="a & b = ü")
    reference = opened["tran_id"]

    paid = await simulator.pay(reference)

    (notice,) = await simulator.merchant.until_received(1)
    (charge,) = await simulator.charges(reference)
    assert notice["status"] == "VALID"
    assert notice["tran_id"] == reference
    assert notice["val_id"] == paid["valId"] == charge["valId"]
    assert notice["amount"] == notice["currency_amount"] == "1150.00"
    assert notice["store_amount"] == "1121.25"
    assert notice["value_b"] == "a & b = ü"
    assert (charge["amount"], charge["currency"], charge["riskLevel"]) == (115_000, "BDT", 0)
    validated = await simulator.validate(paid["valId"])
    assert validated["status"] == "VALID"
    assert validated["APIConnect"] == "DONE"
    unsigned = {"verify_key", "verify_sign", "verify_sign_sha2"}
    assert {**notice, **validated} == {**validated, **{name: notice[name] for name in unsigned}}
    assert (await simulator.validate(paid["valId"]))["status"] == "VALIDATED"


async def test_a_notice_is_signed_over_what_it_lists(simulator: Simulator) -> None:
    await simulator.paid(value_a="x")

    (notice,) = await simulator.merchant.until_received(1)

    names = notice["verify_key"].split(",")
    expected = sign(notice, names, PASSWORD)
    assert expected == {name: notice[name] for name in expected}
    assert set(notice) - set(names) == {*expected, "card_sub_brand"}


@pytest.mark.parametrize(
    ("fate", "status", "error"),
    [
        ("failed", "FAILED", "Declined by the issuer: insufficient balance"),
        ("cancelled", "CANCELLED", "Cancelled by User"),
        ("expired", "EXPIRED", "Payment time ran out"),
        ("unattempted", "UNATTEMPTED", "Customer did not choose to pay any channel"),
    ],
)
async def test_a_payment_that_was_not_made_is_noticed_and_not_charged(
    simulator: Simulator, fate: str, status: str, error: str
) -> None:
    opened = await simulator.open()

    await simulator.pay(opened["tran_id"], fate)

    (notice,) = await simulator.merchant.until_received(1)
    assert (notice["status"], notice["error"]) == (status, error)
    assert "val_id" not in notice
    assert await simulator.charges(opened["tran_id"]) == []
    found = await simulator.query(tran_id=opened["tran_id"])
    assert [element["status"] for element in found["element"]] == [status]


async def test_a_dollar_payment_is_charged_in_taka(simulator: Simulator) -> None:
    paid = await simulator.paid(total_amount="10.00", currency="USD")

    validated = await simulator.validate(paid["valId"])

    (charge,) = await simulator.charges(paid["reference"])
    assert (validated["amount"], validated["currency"]) == ("1220.00", "BDT")
    assert (validated["currency_amount"], validated["currency_type"]) == ("10.00", "USD")
    assert validated["currency_rate"] == "122.0000"
    assert (charge["amount"], charge["currency"]) == (122_000, "BDT")
    assert (charge["priceAmount"], charge["priceCurrency"]) == (1_000, "USD")


async def test_concurrent_validations_are_valid_once(simulator: Simulator) -> None:
    paid = await simulator.paid()

    answers = await asyncio.gather(*(simulator.validate(paid["valId"]) for _ in range(5)))

    assert sorted(each["status"] for each in answers) == ["VALID"] + ["VALIDATED"] * 4


@pytest.mark.parametrize(
    ("changes", "api_connect"),
    [
        ({"val_id": "260105120000UnKnOwN"}, "DONE"),
        ({"val_id": "\0"}, "INVALID_REQUEST"),
        ({"val_id": ""}, "INVALID_REQUEST"),
        ({"store_passwd": "guessed"}, "FAILED"),
        ({"format": "xml"}, "INVALID_REQUEST"),
    ],
    ids=["unknown", "not text", "missing", "wrong password", "XML"],
)
async def test_what_cannot_be_validated_is_an_invalid_transaction(
    simulator: Simulator, changes: dict[str, str], api_connect: str
) -> None:
    paid = await simulator.paid()

    answer = await simulator.validate(**{"val_id": paid["valId"], **changes})

    assert answer == {"status": "INVALID_TRANSACTION", "APIConnect": api_connect}
    assert (await simulator.validate(paid["valId"]))["status"] == "VALID"


async def test_an_open_session_is_pending(simulator: Simulator) -> None:
    opened = await simulator.open()

    by_reference = await simulator.query(tran_id=opened["tran_id"])
    by_session = await simulator.query(sessionkey=opened["sessionkey"])

    assert by_reference["no_of_trans_found"] == 1
    assert by_reference["element"][0]["status"] == "PENDING"
    assert (by_session["status"], by_session["sessionkey"]) == ("PENDING", opened["sessionkey"])


async def test_every_attempt_is_found_by_reference_and_the_last_by_session(
    simulator: Simulator,
) -> None:
    opened = await simulator.open()
    for fate in ("failed", "cancelled", "paid"):
        await simulator.pay(opened["tran_id"], fate)
    paid = (await simulator.session(opened["tran_id"]))["elements"][-1]
    await simulator.validate(paid["valId"])

    by_reference = await simulator.query(tran_id=opened["tran_id"])
    by_session = await simulator.query(sessionkey=opened["sessionkey"])

    statuses = [element["status"] for element in by_reference["element"]]
    assert statuses == ["FAILED", "CANCELLED", "VALIDATED"]
    assert by_reference["no_of_trans_found"] == 3
    assert by_session["status"] == "VALIDATED"
    assert by_session["val_id"] == paid["valId"]
    assert len(await simulator.charges(opened["tran_id"])) == 1


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        (
            {"tran_id": "INV-UNKNOWN"},
            {"APIConnect": "DONE", "no_of_trans_found": 0, "element": []},
        ),
        (
            {"sessionkey": "0" * 32},
            {"APIConnect": "DONE", "status": "INVALID_TRANSACTION", "sessionkey": ""},
        ),
        (
            {"tran_id": "INV-UNKNOWN", "store_passwd": "guessed"},
            {"APIConnect": "FAILED", "no_of_trans_found": 0, "element": []},
        ),
        ({}, {"APIConnect": "INVALID_REQUEST", "no_of_trans_found": 0, "element": []}),
    ],
    ids=["unknown reference", "unknown session", "wrong password", "nothing asked"],
)
async def test_a_query_that_finds_nothing_says_why(
    simulator: Simulator, parameters: dict[str, str], answer: dict[str, object]
) -> None:
    assert await simulator.query(**parameters) == answer


async def test_money_is_taken_once_however_often_the_customer_presses(
    simulator: Simulator,
) -> None:
    opened = await simulator.open()
    address = f"{simulator.url}/EasyCheckOut/{opened['sessionkey']}/pay"

    async def press() -> int:
        async with simulator.client.post(address) as response:
            return response.status

    assert await asyncio.gather(*(press() for _ in range(8))) == [200] * 8

    assert len(await simulator.charges(opened["tran_id"])) == 1
    assert len(await simulator.sent_notices(opened["tran_id"])) == 1
    assert len(simulator.merchant.notices) == 1


async def test_a_session_whose_time_is_over_expires(simulator: Simulator) -> None:
    opened = await simulator.open()
    await simulator.execute("UPDATE session SET expires_at = now()")

    (notice,) = await simulator.merchant.until_received(1)

    assert notice["status"] == "EXPIRED"
    error = await simulator.control("POST", "pay", {"reference": opened["tran_id"]}, status=409)
    assert error["details"] == {"state": "expired"}
    assert await simulator.charges(opened["tran_id"]) == []


async def test_a_session_without_a_notice_address_gets_no_notice(simulator: Simulator) -> None:
    paid = await simulator.paid(ipn_url="")

    assert (await simulator.session(paid["reference"]))["notices"] == []
    assert len(await simulator.charges(paid["reference"])) == 1
