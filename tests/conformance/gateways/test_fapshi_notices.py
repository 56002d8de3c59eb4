"""A Fapshi notice is believed to be one only with our secret, and read in one way or not at all."""

from __future__ import annotations

from datetime import date
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from shared.gateways.fapshi.keys import REGISTRATION, FapshiKeys
from shared.gateways.fapshi.webhooks import NOTICE_BYTES_MAX, FapshiNotices
from shared.gateways.interface import Notice, NoticeRefusedError, UnreadableNoticeError
from shared.money import Money
from tests.support.clocks import ManualClock
from tests.support.fapshi import HANDLE, TRANSACTION, transaction
from tests.support.gateway_answers import json_values
from tests.support.mobile_money import assert_nothing_personal
from tests.support.payments import REFERENCE

#: The test case of the documents.
SECRET = "wh_demo_secret_123"
HEADERS = CIMultiDict({"X-Wh-Secret": SECRET, "Content-Type": "application/json"})

NOTICE = Notice(
    event_key=f"{HANDLE}:SUCCESSFUL",
    event_day=date(2026, 1, 5),
    reference=REFERENCE,
    claim="paid",
    validation_id=HANDLE,
    amount=Money(5_000, "XAF"),
)


@pytest.fixture
def reader() -> FapshiNotices:
    return FapshiNotices([SECRET])


def body(**changes: Any) -> bytes:
    return orjson.dumps(transaction(**changes))


def refusal(reader: FapshiNotices, headers: CIMultiDict[str], data: bytes) -> str:
    with pytest.raises(NoticeRefusedError) as caught:
        reader.read(headers, data)
    assert_nothing_personal(caught.value, SECRET)
    return caught.value.reason


def test_a_genuine_notice_is_read(reader: FapshiNotices) -> None:
    assert reader.read(HEADERS, body()) == NOTICE


@pytest.mark.parametrize("name", ["x-wh-secret", "X-WH-SECRET", "X-Wh-Secret"])
def test_the_name_of_the_header_has_no_case(reader: FapshiNotices, name: str) -> None:
    assert reader.read({name: SECRET}, body()) == NOTICE


WRONG: dict[str, tuple[list[tuple[str, str]], str]] = {
    "missing": ([], "not_signed"),
    "missing, another there": ([("X-Fapshi-Signature", SECRET)], "not_signed"),
    "empty": ([("x-wh-secret", "")], "wrong_signature"),
    "wrong": ([("x-wh-secret", "wh_demo_secret_124")], "wrong_signature"),
    "of another case": ([("x-wh-secret", SECRET.upper())], "wrong_signature"),
    "a space after it": ([("x-wh-secret", f"{SECRET} ")], "wrong_signature"),
    "a space before it": ([("x-wh-secret", f" {SECRET}")], "wrong_signature"),
    "only its beginning": ([("x-wh-secret", SECRET[:-1])], "wrong_signature"),
    "twice": ([("x-wh-secret", SECRET)] * 2, "signed_twice"),
    "twice, the second wrong": (
        [("x-wh-secret", SECRET), ("X-WH-SECRET", "guess")],
        "signed_twice",
    ),
    "bytes that are no UTF-8": ([("x-wh-secret", "\udcff\ud800")], "wrong_signature"),
    "oversized": ([("x-wh-secret", SECRET * 10_000)], "wrong_signature"),
}


@pytest.mark.parametrize(("headers", "reason"), WRONG.values(), ids=WRONG)
def test_what_does_not_carry_our_secret_once_is_refused(
    reader: FapshiNotices, headers: list[tuple[str, str]], reason: str
) -> None:
    assert refusal(reader, CIMultiDict(headers), body()) == reason


def test_during_a_rotation_the_old_and_the_new_secret_are_valid_and_no_older_one() -> None:
    reader = FapshiNotices(["new", SECRET])

    assert reader.read(HEADERS, body()) == NOTICE
    assert reader.read({"x-wh-secret": "new"}, body()) == NOTICE
    assert refusal(reader, CIMultiDict({"x-wh-secret": "older"}), body()) == "wrong_signature"
    assert refusal(FapshiNotices(["new"]), HEADERS, body()) == "wrong_signature"


@pytest.mark.parametrize("configured", ["", ",", ",,"])
@pytest.mark.parametrize("given_headers", [{}, {"x-wh-secret": ""}, {"x-wh-secret": ","}], ids=str)
def test_without_a_configured_secret_everything_is_refused(
    configured: str, given_headers: dict[str, str]
) -> None:
    keys = FapshiKeys(
        FAPSHI_API_USER="user", FAPSHI_API_KEY="FAK_TEST_key", FAPSHI_WEBHOOK_SECRET=configured
    )
    assert REGISTRATION.notices is not None
    reader = REGISTRATION.notices(keys, ManualClock())

    with pytest.raises(NoticeRefusedError) as caught:
        reader.read(given_headers, body())

    assert caught.value.reason == "no_secret_configured"


@pytest.mark.parametrize("header", [{}, {"x-wh-secret": ""}], ids=str)
def test_an_empty_secret_is_none(header: dict[str, str]) -> None:
    with pytest.raises(NoticeRefusedError) as caught:
        FapshiNotices(["", ""]).read(header, body())

    assert caught.value.reason == "no_secret_configured"


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({}, "paid"),
        ({"status": "FAILED"}, "failed"),
        ({"status": "EXPIRED"}, "expired"),
        ({"status": "CREATED"}, "other"),
        ({"status": "SOMETHING_NEW"}, "other"),
    ],
    ids=str,
)
def test_a_status_is_a_claim(reader: FapshiNotices, changes: dict[str, Any], claim: str) -> None:
    assert reader.read(HEADERS, body(**changes)).claim == claim


@pytest.mark.parametrize(
    "changes",
    [
        {"externalId": "INV-1"},
        {"externalId": None},
        {"externalId": "pay_01KE70EHG0JY1QREBD77BRA2Z8"},
        {"externalId": {"$ne": 1}},
        {"transType": "Payout"},
        {"transType": None},
    ],
    ids=str,
)
def test_what_is_not_about_a_payment_of_ours_claims_nothing(
    reader: FapshiNotices, changes: dict[str, Any]
) -> None:
    notice = reader.read(HEADERS, body(**changes))

    assert (notice.reference, notice.claim) == (HANDLE, "other")
    assert notice.event_day == date(2026, 1, 5)


def test_each_copy_of_a_notice_is_the_same_event_and_another_status_is_another(
    reader: FapshiNotices,
) -> None:
    """The secret can be sent again with the same body for ever: only the key tells a copy."""
    one = reader.read(HEADERS, body())
    copy = reader.read(HEADERS, body(dateConfirmed=None, reason="x", dateInitiated="2030-01-01"))
    other = reader.read(HEADERS, body(status="FAILED"))

    assert (copy.event_key, copy.event_day) == (one.event_key, one.event_day)
    assert other.event_key != one.event_key


@pytest.mark.parametrize(
    ("initiated", "day"),
    [
        ("2026-01-05", date(2026, 1, 5)),
        ("2030-12-31T23:59:59.999Z", date(2030, 12, 31)),
        ("yesterday", date(1970, 1, 1)),
        ("", date(1970, 1, 1)),
        (None, date(1970, 1, 1)),
        (1767614400, date(1970, 1, 1)),
    ],
)
def test_a_foreign_transaction_has_the_day_that_the_gateway_gives_it(
    reader: FapshiNotices, initiated: object, day: date
) -> None:
    notice = reader.read(HEADERS, body(externalId="INV-1", dateInitiated=initiated))

    assert notice.event_day == day


@pytest.mark.parametrize("amount", [None, "free", -1, 10**30, 4999.5, True, [5000]], ids=repr)
def test_an_amount_that_cannot_be_read_is_no_reason_to_refuse_a_hint(
    reader: FapshiNotices, amount: object
) -> None:
    data = body().replace(b":5000,", b":%s," % orjson.dumps(str(amount)))

    assert reader.read(HEADERS, data).amount == Money(0, "XAF")


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not_json"),
    "a form": (b"transId=Ab3dE6gH&status=SUCCESSFUL", "not_json"),
    "cut short": (body()[:-1], "not_json"),
    "bytes that are no UTF-8": (body().replace(b"Demo", b"\xff\xfe"), "not_json"),
    "a lone surrogate": (body().replace(b"Demo", b"\\ud800"), "not_json"),
    "a raw NUL": (body().replace(b"Demo", b"\x00"), "not_json"),
    "a NUL": (body().replace(b"Demo", b"\\u0000"), "not_text"),
    "a number beyond all bounds": (body().replace(b":5000,", b":1e999,"), "not_json"),
    "very deep": (b"[" * 60_000, "not_json"),
    "oversized": (body(reason="x" * NOTICE_BYTES_MAX), "too_large"),
    "a list": (b"[]", "not_an_object"),
    "a list of one": (b"[" + body() + b"]", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "no transaction": (body(transId=None), "no_transaction_id"),
    "a path as transaction": (body(transId="../balance"), "no_transaction_id"),
    "a long transaction": (body(transId="a" * 41), "no_transaction_id"),
    "no status": (body(status=None), "no_status"),
    "a list as status": (body(status=["SUCCESSFUL"]), "no_status"),
}


@pytest.mark.parametrize(("data", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_refused_but_not_before_it_is_verified(
    reader: FapshiNotices, data: bytes, reason: str
) -> None:
    with pytest.raises(UnreadableNoticeError) as caught:
        reader.read(HEADERS, data)

    assert caught.value.reason == reason
    assert refusal(reader, CIMultiDict(), data) == "not_signed"


READER = FapshiNotices([SECRET])

texts = st.text(st.characters(exclude_categories=()), max_size=40)


@given(st.dictionaries(st.just("x-wh-secret") | texts, texts), st.binary(max_size=500))
def test_arbitrary_requests_are_refused_and_nothing_else(
    headers: dict[str, str], data: bytes
) -> None:
    with pytest.raises(NoticeRefusedError):
        READER.read(headers, data)


@given(
    st.binary(max_size=500)
    | json_values.map(orjson.dumps)
    | st.dictionaries(st.sampled_from(sorted(TRANSACTION)), json_values).map(
        lambda changes: body(**changes)
    )
)
def test_arbitrary_bodies_with_our_secret_are_read_or_refused(data: bytes) -> None:
    try:
        notice = READER.read(HEADERS, data)
    except NoticeRefusedError:
        return
    assert "\0" not in notice.event_key
    assert 0 < len(notice.reference) <= 100
    assert len(notice.event_key) <= 100


def keys(**values: str) -> FapshiKeys:
    given = {"FAPSHI_API_USER": "user", "FAPSHI_API_KEY": "FAK_TEST_key"} | values
    return FapshiKeys.model_validate(given)


@pytest.mark.parametrize(
    "values",
    [
        {"FAPSHI_API_KEY": ""},
        {"FAPSHI_API_USER": ""},
        {"FAPSHI_API_KEY": "FAK_TEST_a\r\nHost: b"},
        {"FAPSHI_API_KEY": "FAK_TEST_ü"},
        {"FAPSHI_API_KEY": "FAK_live"},
        {"FAPSHI_BASE_URL": "https://live.fapshi.com"},
        {"FAPSHI_VISIBLE_AFTER_SECONDS": "-1"},
    ],
    ids=str,
)
def test_keys_that_cannot_work_are_refused_at_start(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"FAPSHI|fapshi"):
        keys(**values)


async def test_live_keys_at_the_live_host_make_both_sides() -> None:
    live = keys(FAPSHI_BASE_URL="https://live.fapshi.com", FAPSHI_API_KEY="FAK_live")

    assert live.fapshi_base_url == "https://live.fapshi.com"
    assert "FAK_live" not in repr(live)
    assert REGISTRATION.is_on({"FAPSHI_API_USER": "u"})
    assert not REGISTRATION.is_on({"FAPSHI_WEBHOOK_SECRET": "s"})
