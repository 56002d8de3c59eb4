"""A Campay notice is believed to be one only with a valid token, and never for what it claims."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import jwt
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.campay.keys import REGISTRATION, CampayKeys
from shared.gateways.campay.webhooks import FIELDS_MAX, NOTICE_BYTES_MAX, CampayNotices
from shared.gateways.interface import Notice, NoticeRefusedError, UnreadableNoticeError
from shared.identifiers import as_uuid, new_id
from shared.money import Money
from tests.support.campay import EXTERNAL_REFERENCE, HANDLE, OTHER
from tests.support.clocks import START, ManualClock
from tests.support.gateway_answers import json_values
from tests.support.mobile_money import assert_nothing_personal
from tests.support.payments import REFERENCE

#: The vector of the documents: accepted at one time, expired at the other.
KEY = "demo-campay-webhook-key-0123456789abcdef"
TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
    ".eyJzb3VyY2UiOiJDYW1QYXkiLCJpYXQiOjE3Njc2MTQ0MDAsImV4cCI6MTc2NzYxNDcwMH0"
    ".EG5eLqMFRROPymn-QLSDbawvKAdzzG5dtMOQD73kRgo"
)
ISSUED, EXPIRES = 1767614400, 1767614700
ACCEPTED_AT, REJECTED_AT = 1767614500, 1767614800
UNSIGNED = (
    "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    ".eyJzb3VyY2UiOiJDYW1QYXkiLCJpYXQiOjE3Njc2MTQ0MDAsImV4cCI6MTc2NzYxNDcwMH0."
)

#: The callback of the documents, about a payment of ours.
FIELDS: dict[str, Any] = {
    "status": "SUCCESSFUL",
    "reference": HANDLE,
    "amount": "5000",
    "currency": "XAF",
    "operator": "MTN",
    "code": "CP260105T0001A",
    "operator_reference": "1234567890",
    "endpoint": "collect",
    "external_reference": EXTERNAL_REFERENCE,
    "phone_number": "237670000000",
    "signature": TOKEN,
}
NOTICE = Notice(
    event_key=f"{HANDLE}:SUCCESSFUL",
    event_day=date(2026, 1, 5),
    reference=REFERENCE,
    claim="paid",
    validation_id=HANDLE,
    amount=Money(5_000, "XAF"),
)


def at(timestamp: float) -> ManualClock:
    return ManualClock(datetime.fromtimestamp(timestamp, UTC))


@pytest.fixture
def clock() -> ManualClock:
    return at(ACCEPTED_AT)


@pytest.fixture
def reader(clock: ManualClock) -> CampayNotices:
    return CampayNotices([KEY], clock)


def signed(claims: Mapping[str, Any], key: str = KEY, algorithm: str = "HS256") -> str:
    """Sign claims with the library that others use."""
    return jwt.encode(dict(claims), key, algorithm=algorithm)


def handmade(header: bytes, payload: bytes, key: str = KEY) -> str:
    """Sign any bytes at all, as no library would."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload)]
    digest = hmac.new(key.encode(), b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(digest).rstrip(b"=")]).decode()


CLAIMS = {"source": "CamPay", "iat": ISSUED, "exp": EXPIRES}
HEADER = b'{"alg":"HS256","typ":"JWT"}'


def as_json(**changes: Any) -> bytes:
    return orjson.dumps(FIELDS | changes)


def as_form(**changes: Any) -> bytes:
    return urlencode(FIELDS | changes).encode()


def refusal(reader: CampayNotices, body: bytes) -> str:
    with pytest.raises(NoticeRefusedError) as caught:
        reader.read({}, body)
    assert_nothing_personal(caught.value, KEY)
    return caught.value.reason


@pytest.mark.parametrize("body", [as_json(), as_form(), b" \r\n" + as_json()], ids=repr)
def test_the_documented_callback_is_read_as_json_as_form_and_as_query(
    reader: CampayNotices, body: bytes
) -> None:
    assert reader.read({}, body) == NOTICE


def test_the_documented_token_expires(reader: CampayNotices, clock: ManualClock) -> None:
    clock.now = datetime.fromtimestamp(REJECTED_AT, UTC)

    assert refusal(reader, as_json()) == "expired"


def test_the_documented_token_is_the_librarys(reader: CampayNotices) -> None:
    options = {"verify_exp": False, "verify_iat": False}
    assert jwt.decode(TOKEN, KEY, algorithms=["HS256"], options=options) == CLAIMS  # type: ignore[arg-type]
    assert reader.read({}, as_json(signature=signed(CLAIMS))) == NOTICE


@pytest.mark.parametrize(
    ("shift", "reason"),
    [
        (ISSUED - 61, "not_yet_valid"),
        (ISSUED - 60, None),
        (EXPIRES + 60, None),
        (EXPIRES + 61, "expired"),
    ],
)
def test_a_token_is_valid_for_its_time_and_a_minute_around_it(
    reader: CampayNotices, clock: ManualClock, shift: float, reason: str | None
) -> None:
    clock.now = datetime.fromtimestamp(shift, UTC)

    if reason is None:
        assert reader.read({}, as_json()) == NOTICE
    else:
        assert refusal(reader, as_json()) == reason


TIMES: dict[str, tuple[dict[str, Any], str]] = {
    "no expiry": ({"exp": None}, "no_expiry"),
    "an expiry as text": ({"exp": str(EXPIRES)}, "no_expiry"),
    "a truth as expiry": ({"exp": True}, "no_expiry"),
    "an expiry long past": ({"exp": -(10**18)}, "expired"),
    "issued in the future": ({"iat": ACCEPTED_AT + 61}, "not_yet_valid"),
    "valid in the future": ({"nbf": ACCEPTED_AT + 61}, "not_yet_valid"),
    "issued at some text": ({"iat": "now"}, "not_yet_valid"),
}


@pytest.mark.parametrize(("changes", "reason"), TIMES.values(), ids=TIMES)
def test_a_token_with_other_times_is_refused(
    reader: CampayNotices, changes: dict[str, Any], reason: str
) -> None:
    payload = orjson.dumps(CLAIMS | changes)

    assert refusal(reader, as_json(signature=handmade(HEADER, payload))) == reason


def test_a_token_that_says_only_when_it_ends_is_enough(reader: CampayNotices) -> None:
    assert reader.read({}, as_json(signature=signed({"exp": float(EXPIRES)}))) == NOTICE


FORGED: dict[str, tuple[object, str]] = {
    "missing": (None, "not_signed"),
    "empty": ("", "not_signed"),
    "the text None": ("None", "not_signed"),
    "a list": ([TOKEN], "not_signed"),
    "no algorithm": (UNSIGNED, "wrong_signature"),
    "no algorithm, any signature": (f"{UNSIGNED}AAAA", "wrong_signature"),
    "another key": (signed(CLAIMS, "another-key-" * 4), "wrong_signature"),
    "another algorithm": (signed(CLAIMS, KEY * 2, "HS512"), "wrong_signature"),
    "another algorithm under our key": (
        handmade(b'{"alg":"HS384","typ":"JWT"}', orjson.dumps(CLAIMS)),
        "wrong_signature",
    ),
    "a list as algorithm": (
        handmade(b'{"alg":["HS256"]}', orjson.dumps(CLAIMS)),
        "wrong_signature",
    ),
    "no header": (handmade(b"", orjson.dumps(CLAIMS)), "wrong_signature"),
    "a header that is no object": (handmade(b"[]", orjson.dumps(CLAIMS)), "wrong_signature"),
    "a header very deep": (handmade(b"[" * 1_000, b"{}"), "wrong_signature"),
    "a header with a huge number": (
        handmade(b'{"alg":"HS256","a":' + b"9" * 1_200 + b"}", b"{}"),
        "no_expiry",  # Our own key signed it: what it says counts, and that is nothing.
    ),
    "an unknown demand in the header": (
        handmade(b'{"alg":"HS256","crit":["x"],"x":1}', orjson.dumps(CLAIMS)),
        "wrong_signature",
    ),
    "claims that are no object": (handmade(HEADER, b"[1]"), "wrong_signature"),
    "claims that are no JSON": (handmade(HEADER, b"{"), "wrong_signature"),
    "claims that are no UTF-8": (handmade(HEADER, b'{"exp":"\xff"}'), "wrong_signature"),
    "claims very deep": (handmade(HEADER, b"[" * 1_200), "wrong_signature"),
    "other claims under the same signature": (
        ".".join(
            [
                TOKEN.split(".", maxsplit=1)[0],
                signed({"exp": 2**40}).split(".")[1],
                TOKEN.split(".")[2],
            ]
        ),
        "wrong_signature",
    ),
    "a signature cut short": (TOKEN[:-1], "wrong_signature"),
    "no signature": (TOKEN.rpartition(".")[0] + ".", "wrong_signature"),
    "a space after it": (f"{TOKEN} ", "wrong_signature"),
    "a newline after it": (f"{TOKEN}\n", "wrong_signature"),
    "five parts": (f"{TOKEN}.a.b", "wrong_signature"),
    "letters beyond ASCII": (TOKEN.replace("e", "é"), "wrong_signature"),
    "oversized": (
        handmade(HEADER, json.dumps(CLAIMS | {"a": "x" * 2_000}).encode()),
        "wrong_signature",
    ),
}


@pytest.mark.parametrize(("token", "reason"), FORGED.values(), ids=FORGED)
def test_what_carries_no_valid_token_is_refused(
    reader: CampayNotices, token: object, reason: str
) -> None:
    assert refusal(reader, as_json(signature=token)) == reason


def test_a_valid_token_on_invented_fields_is_a_hint_like_any_other(reader: CampayNotices) -> None:
    """Nothing in a token names the payment, so one seen once fits all: hence the re-reading."""
    notice = reader.read({}, as_json(reference=OTHER, amount="1", status="FAILED"))

    assert (notice.validation_id, notice.claim) == (OTHER, "failed")


def test_each_copy_of_a_notice_is_the_same_event_and_another_status_is_another(
    reader: CampayNotices,
) -> None:
    one = reader.read({}, as_json())
    again = signed(CLAIMS | {"iat": ISSUED + 30})
    copy = reader.read({}, as_form(signature=again, operator_reference="2"))
    other = reader.read({}, as_json(status="FAILED"))

    assert (copy.event_key, copy.event_day) == (one.event_key, one.event_day)
    assert other.event_key != one.event_key


def test_during_a_rotation_the_old_and_the_new_key_are_valid_and_no_older_one(
    clock: ManualClock,
) -> None:
    new = "new-campay-webhook-key-0123456789abcdef0"
    reader = CampayNotices([new, KEY], clock)

    assert reader.read({}, as_json()) == NOTICE
    assert reader.read({}, as_json(signature=signed(CLAIMS, new))) == NOTICE
    assert refusal(CampayNotices([new], clock), as_json()) == "wrong_signature"


@pytest.mark.parametrize("configured", ["", ",", ",,"])
def test_without_a_configured_key_everything_is_refused(
    clock: ManualClock, configured: str
) -> None:
    keys = CampayKeys(CAMPAY_TOKEN="token", CAMPAY_WEBHOOK_KEY=configured)
    assert REGISTRATION.notices is not None
    reader = REGISTRATION.notices(keys, clock)

    for one in (reader, CampayNotices([""], clock)):
        for token in (TOKEN, UNSIGNED, handmade(HEADER, orjson.dumps(CLAIMS), key="")):
            with pytest.raises(NoticeRefusedError) as caught:
                one.read({}, as_json(signature=token))
            assert caught.value.reason == "no_key_configured"


@pytest.mark.parametrize(
    ("status", "claim"),
    [("SUCCESSFUL", "paid"), ("FAILED", "failed"), ("PENDING", "other"), ("NEW", "other")],
)
def test_a_status_is_a_claim(reader: CampayNotices, status: str, claim: str) -> None:
    assert reader.read({}, as_form(status=status)).claim == claim


FOREIGN: dict[str, object] = {
    "missing": None,
    "the text None": "None",
    "another system's text": "INV-1",
    "another system's UUID": "3f0c7f3e-9a7b-4d57-8a4b-0d9f6a0e1c11",
    "a UUID of a time before us": as_uuid(new_id("att", datetime(2025, 12, 31, tzinfo=UTC))),
    "a UUID of a time to come": as_uuid(new_id("att", START + timedelta(days=2))),
    "in braces": f"{{{EXTERNAL_REFERENCE}}}",
    "without dashes": EXTERNAL_REFERENCE.replace("-", ""),
    "in other digits": EXTERNAL_REFERENCE.replace("4", "٤"),
    "a list": [EXTERNAL_REFERENCE],
    "a number": 7,
}


@pytest.mark.parametrize("reference", FOREIGN.values(), ids=FOREIGN)
def test_what_names_no_payment_of_ours_claims_nothing(
    reader: CampayNotices, reference: object
) -> None:
    notice = reader.read({}, as_json(external_reference=reference))

    assert (notice.reference, notice.claim) == (HANDLE, "other")
    assert notice.event_day == date(1970, 1, 1)


def test_our_reference_may_come_in_capitals(reader: CampayNotices) -> None:
    assert reader.read({}, as_json(external_reference=EXTERNAL_REFERENCE.upper())) == NOTICE


@pytest.mark.parametrize(
    ("changes", "amount"),
    [
        ({"amount": 5000}, Money(5_000, "XAF")),
        ({"amount": "5000.00"}, Money(5_000, "XAF")),
        ({"currency": "EUR"}, Money(500_000, "EUR")),
        ({"amount": "4999.5"}, Money(0, "XAF")),
        ({"amount": "None"}, Money(0, "XAF")),
        ({"amount": ["5000"]}, Money(0, "XAF")),
        ({"currency": "XXX"}, Money(0, "XAF")),
        ({"currency": None}, Money(0, "XAF")),
        ({"currency": ["XAF"]}, Money(0, "XAF")),
    ],
    ids=str,
)
def test_an_amount_that_cannot_be_read_is_no_reason_to_refuse_a_hint(
    reader: CampayNotices, changes: dict[str, Any], amount: Money
) -> None:
    assert reader.read({}, as_json(**changes)).amount == amount


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "cut short": (as_json()[:-1], "not_json"),
    "JSON with bytes that are no UTF-8": (as_json().replace(b"MTN", b"\xff"), "not_json"),
    "JSON with a lone surrogate": (as_json().replace(b"MTN", b"\\ud800"), "not_json"),
    "JSON with a raw NUL": (as_json().replace(b"MTN", b"\x00"), "not_json"),
    "JSON with a NUL": (as_json().replace(b"MTN", b"\\u0000"), "not_text"),
    "very deep JSON": (b'{"a":' * 10_000, "not_json"),
    "oversized JSON": (as_json(code="x" * NOTICE_BYTES_MAX), "too_large"),
    "an oversized form": (as_form(code="x" * NOTICE_BYTES_MAX), "too_large"),
    "a field twice": (as_form() + b"&status=FAILED", "field_given_twice"),
    "a field twice, once encoded": (as_form() + b"&%73tatus=FAILED", "field_given_twice"),
    "raw bytes beyond ASCII": (as_form() + b"&a=\xff", "not_a_form"),
    "encoded bytes that are no UTF-8": (as_form() + b"&a=%FF", "not_a_form"),
    "a raw NUL": (as_form() + b"&a=\x00", "not_text"),
    "an encoded NUL": (as_form() + b"&a=%00", "not_text"),
    "too many fields": (b"&".join(b"a%d=" % n for n in range(FIELDS_MAX + 1)), "not_a_form"),
    "no transaction": (as_json(reference=None), "no_reference"),
    "a path as transaction": (as_form(reference="../balance"), "no_reference"),
    "no status": (as_json(status="None"), "no_status"),
    "an empty status": (as_form(status=""), "no_status"),
}


@pytest.mark.parametrize(("body", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_in_one_way_only_is_refused(
    reader: CampayNotices, body: bytes, reason: str
) -> None:
    with pytest.raises(UnreadableNoticeError) as caught:
        reader.read({}, body)

    assert caught.value.reason == reason


READER = CampayNotices([KEY], at(ACCEPTED_AT))

token_parts = st.binary(max_size=60).map(lambda part: base64.urlsafe_b64encode(part).decode())
tokens = st.lists(token_parts | st.text(max_size=20), max_size=4).map(".".join)


@given(st.binary(max_size=500) | st.text('&=%+{}"a.:,', max_size=500).map(str.encode))
def test_arbitrary_bytes_are_refused_and_nothing_else(body: bytes) -> None:
    with pytest.raises(NoticeRefusedError):
        READER.read({}, body)


@given(tokens | json_values)
def test_arbitrary_tokens_are_refused_and_nothing_else(token: object) -> None:
    with pytest.raises(NoticeRefusedError):
        READER.read({}, orjson.dumps(FIELDS | {"signature": token}))


@given(st.binary(max_size=60) | json_values.map(orjson.dumps), st.binary(max_size=60))
def test_arbitrary_parts_under_our_key_are_read_or_refused(header: bytes, payload: bytes) -> None:
    for token in (handmade(header, payload), handmade(HEADER, payload), handmade(header, header)):
        with pytest.raises(NoticeRefusedError):
            READER.read({}, as_json(signature=token))


@given(st.dictionaries(st.sampled_from(sorted(FIELDS.keys() - {"signature"})), json_values))
def test_arbitrary_fields_with_a_valid_token_are_read_or_refused(changes: dict[str, Any]) -> None:
    try:
        notice = READER.read({}, orjson.dumps(FIELDS | changes))
    except UnreadableNoticeError:
        return
    assert "\0" not in notice.event_key
    assert 0 < len(notice.reference) <= 100
    assert len(notice.event_key) <= 110


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"CAMPAY_USERNAME": "user"},
        {"CAMPAY_PASSWORD": "password"},
        {"CAMPAY_TOKEN": "a\r\nHost: b"},
        {"CAMPAY_TOKEN": "ü"},
        {"CAMPAY_TOKEN": "a", "CAMPAY_VISIBLE_AFTER_SECONDS": "-1"},
    ],
    ids=str,
)
def test_keys_that_cannot_work_are_refused_at_start(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"CAMPAY|campay"):
        CampayKeys.model_validate(values)


def test_a_permanent_token_comes_before_name_and_password_and_none_is_shown() -> None:
    both = {"CAMPAY_USERNAME": "secret-u", "CAMPAY_PASSWORD": "secret-p"}

    assert CampayKeys.model_validate(both).credentials() == ("secret-u", "secret-p")
    keys = CampayKeys.model_validate(both | {"CAMPAY_TOKEN": "secret-t"})
    assert keys.credentials() == "secret-t"
    assert "secret" not in repr(keys)
    assert REGISTRATION.is_on({"CAMPAY_USERNAME": "u"})
    assert not REGISTRATION.is_on({"CAMPAY_WEBHOOK_KEY": "k"})
