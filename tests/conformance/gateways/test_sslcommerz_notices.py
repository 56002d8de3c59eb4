"""SSLCommerz notices: the known vectors verify, everything that deviates is refused.

A genuine notice is still only a hint, so a notice that claims no money may be signed more loosely.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.interface import Notice, NoticeRefusedError, UnreadableNoticeError
from shared.gateways.sslcommerz.webhooks import FIELDS_MAX, SslcommerzNotices, parse_form
from shared.identifiers import new_id
from shared.money import Money
from tests.support.settings import STORE_ID, STORE_PASSWORD
from tests.support.sslcommerz import (
    FAILED,
    OFFICIAL_PASSWORD,
    OFFICIAL_SAMPLE,
    OFFICIAL_STORE_ID,
    PAID,
    PAID_BODY,
    PAID_IN_USD,
    SIGNED_KEYS,
    encode,
    signed,
)

VECTORS = {
    "official sample": (OFFICIAL_STORE_ID, OFFICIAL_PASSWORD, OFFICIAL_SAMPLE),
    "paid": (STORE_ID, STORE_PASSWORD, PAID),
    "paid in USD, risky": (STORE_ID, STORE_PASSWORD, PAID_IN_USD),
    "failed": (STORE_ID, STORE_PASSWORD, FAILED),
}

SIGNED_FIELDS = [
    pytest.param(vector, field, id=f"{vector}: {field}")
    for vector, (_, _, form) in VECTORS.items()
    for field in form["verify_key"].split(",")
]


def reader_of(vector: str) -> SslcommerzNotices:
    store_id, password, _ = VECTORS[vector]
    return SslcommerzNotices(store_id, [password])


@pytest.fixture
def reader() -> SslcommerzNotices:
    return SslcommerzNotices(STORE_ID, [STORE_PASSWORD])


def refusal(reader: SslcommerzNotices, body: bytes) -> str:
    """Return the reason for which a notice is refused; neither it nor the message repeats it."""
    with pytest.raises(NoticeRefusedError) as caught:
        reader.read({}, body)
    assert str(caught.value) == "the notice is refused"
    return caught.value.reason


@pytest.mark.parametrize("vector", VECTORS)
def test_a_known_vector_verifies(vector: str) -> None:
    form = VECTORS[vector][2]

    assert reader_of(vector).read({}, encode(form)).reference == form["tran_id"]


def test_a_raw_notice_verifies_byte_for_byte(reader: SslcommerzNotices) -> None:
    assert reader.read({}, PAID_BODY) == Notice(
        event_key="INV-000123-A1:VALID:260105120000VaLiDaTiOnId01",
        event_day=date(2026, 1, 5),
        reference="INV-000123-A1",
        claim="paid",
        validation_id="260105120000VaLiDaTiOnId01",
        amount=Money(115_000, "BDT"),
    )


@pytest.mark.parametrize("vector", ["paid", "paid in USD, risky", "failed"])
def test_the_second_reading_of_the_protocol_signs_the_vectors_alike(vector: str) -> None:
    form = VECTORS[vector][2]

    assert signed(form, keys=form["verify_key"]) == form


@pytest.mark.parametrize(("vector", "field"), SIGNED_FIELDS)
def test_a_signed_field_that_was_changed_is_refused(vector: str, field: str) -> None:
    form = dict(VECTORS[vector][2])
    form[field] += "0"

    expected = "other_store" if field == "store_id" else "wrong_signature"
    assert refusal(reader_of(vector), encode(form)) == expected


@pytest.mark.parametrize(("vector", "field"), SIGNED_FIELDS)
def test_a_signed_field_that_is_missing_is_refused(vector: str, field: str) -> None:
    form = dict(VECTORS[vector][2])
    del form[field]

    expected = "other_store" if field == "store_id" else "signed_field_missing"
    assert refusal(reader_of(vector), encode(form)) == expected


@pytest.mark.parametrize("field", ["verify_sign", "verify_sign_sha2"])
@pytest.mark.parametrize("change", ["flipped", "upper case", "empty", "of the other"])
def test_each_of_the_two_signatures_must_be_right(
    reader: SslcommerzNotices, field: str, change: str
) -> None:
    right = PAID[field]
    wrong = {
        "flipped": ("0" if right[0] != "0" else "1") + right[1:],
        "upper case": right.upper(),
        "empty": "",
        "of the other": FAILED[field],
    }[change]

    is_unsigned = field == "verify_sign" and not wrong
    expected = "not_signed" if is_unsigned else "wrong_signature"
    assert refusal(reader, encode(PAID | {field: wrong})) == expected


def test_the_newer_signature_may_be_absent_but_not_the_older(reader: SslcommerzNotices) -> None:
    form = dict(PAID)
    del form["verify_sign_sha2"]
    assert reader.read({}, encode(form)).claim == "paid"

    form = dict(PAID)
    del form["verify_sign"]
    assert refusal(reader, encode(form)) == "not_signed"


@pytest.mark.parametrize("keys", [None, "", ",", ",,,"])
def test_a_notice_that_lists_no_signed_fields_is_refused(
    reader: SslcommerzNotices, keys: str | None
) -> None:
    form = dict(PAID)
    del form["verify_key"]
    if keys is not None:
        form["verify_key"] = keys

    assert refusal(reader, encode(form)) == "not_signed"


def test_another_stores_notice_is_refused_though_its_password_is_known(
    reader: SslcommerzNotices,
) -> None:
    assert refusal(reader, encode(signed(PAID | {"store_id": "other"}))) == "other_store"
    assert refusal(reader, encode(OFFICIAL_SAMPLE)) == "other_store"


def test_a_stores_own_notice_under_another_password_is_refused(reader: SslcommerzNotices) -> None:
    assert refusal(reader, encode(signed(PAID, password="guessed"))) == "wrong_signature"


MUST_BE_SIGNED = [
    *("tran_id", "status", "amount", "currency", "store_id", "currency_type"),
    *("currency_amount", "val_id", "risk_level"),
]


@pytest.mark.parametrize("status", ["VALID", "VALIDATED"])
@pytest.mark.parametrize("field", MUST_BE_SIGNED)
def test_a_claim_of_money_must_sign_what_we_rely_on(
    reader: SslcommerzNotices, field: str, status: str
) -> None:
    keys = ",".join(name for name in SIGNED_KEYS.split(",") if name != field)

    body = encode(signed(PAID | {"status": status}, keys=keys))

    assert refusal(reader, body) == "too_little_signed"


@pytest.mark.parametrize(
    ("status", "claim"),
    [
        ("FAILED", "failed"),
        ("CANCELLED", "cancelled"),
        ("UNATTEMPTED", "expired"),
        ("EXPIRED", "expired"),
        ("SOMETHING_NEW", "other"),
    ],
)
def test_a_notice_that_claims_no_money_may_sign_less(
    reader: SslcommerzNotices, status: str, claim: str
) -> None:
    form = {"tran_id": "INV-1", "status": status, "store_id": STORE_ID, "error": "why"}

    notice = reader.read({}, encode(signed(form, keys="status,tran_id")))

    assert notice.claim == claim
    assert notice.amount == Money(0, "BDT")
    assert notice.validation_id == ""


def test_during_a_rotation_the_old_and_the_new_password_are_valid_and_no_third() -> None:
    reader = SslcommerzNotices(STORE_ID, ["new", STORE_PASSWORD])

    assert reader.read({}, encode(PAID)).claim == "paid"
    assert reader.read({}, encode(signed(PAID, password="new"))).claim == "paid"
    assert refusal(reader, encode(signed(PAID, password="older"))) == "wrong_signature"


def test_the_two_signatures_must_be_of_one_password() -> None:
    reader = SslcommerzNotices(STORE_ID, ["new", STORE_PASSWORD])
    mixed = PAID | {"verify_sign_sha2": signed(PAID, password="new")["verify_sign_sha2"]}

    assert refusal(reader, encode(mixed)) == "wrong_signature"


def test_a_store_without_a_password_accepts_nothing() -> None:
    reader = SslcommerzNotices(STORE_ID, [])

    assert refusal(reader, encode(signed(PAID, password=""))) == "wrong_signature"


def test_blank_values_stay_in_a_form_because_they_are_signed() -> None:
    assert parse_form(b"a=&b&c=1&d==") == {"a": "", "b": "", "c": "1", "d": "="}


def test_values_are_decoded_once_and_not_trimmed() -> None:
    assert parse_form(b"a=+x%20%2B%26%3D%2520+&%62=%C3%A9") == {"a": " x +&=%20 ", "b": "é"}


UNREADABLE = {
    "a field twice": (PAID_BODY + b"&status=FAILED", "field_given_twice"),
    "a field twice, once encoded": (PAID_BODY + b"&%73tatus=FAILED", "field_given_twice"),
    "the same field and value twice": (PAID_BODY + b"&status=VALID", "field_given_twice"),
    "raw bytes beyond ASCII": (PAID_BODY + b"&a=\xff", "not_a_form"),
    "encoded bytes that are no UTF-8": (PAID_BODY + b"&a=%FF", "not_a_form"),
    "an encoded surrogate": (PAID_BODY + b"&a=%ED%A0%80", "not_a_form"),
    "a raw NUL": (PAID_BODY + b"&a=\x00", "not_a_form"),
    "an encoded NUL": (PAID_BODY + b"&a=%00", "not_a_form"),
    "too many fields": (b"&".join(b"a%d=" % n for n in range(FIELDS_MAX + 1)), "too_many_fields"),
    "very many separators": (b"&" * 256 * 1024, "too_many_fields"),
}


@pytest.mark.parametrize(("body", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_in_one_way_only_is_refused(
    reader: SslcommerzNotices, body: bytes, reason: str
) -> None:
    with pytest.raises(UnreadableNoticeError) as caught:
        reader.read({}, body)

    assert caught.value.reason == reason


@pytest.mark.parametrize("body", [b"", b"{}", b"<xml/>", b"store_id", b"=&"], ids=repr)
def test_what_is_no_notice_at_all_is_refused(reader: SslcommerzNotices, body: bytes) -> None:
    refusal(reader, body)


def test_a_genuine_notice_without_a_reference_cannot_be_read(reader: SslcommerzNotices) -> None:
    form = signed({"status": "FAILED", "store_id": STORE_ID, "tran_id": ""})

    assert refusal(reader, encode(form)) == "no_reference"


@pytest.mark.parametrize(
    ("form", "amount"),
    [
        (PAID, Money(115_000, "BDT")),
        (PAID_IN_USD, Money(1_000, "USD")),
        (FAILED, Money(115_000, "BDT")),
    ],
    ids=["BDT", "USD", "failed"],
)
def test_a_notice_claims_the_amount_that_we_asked_for(
    reader: SslcommerzNotices, form: dict[str, str], amount: Money
) -> None:
    assert reader.read({}, encode(form)).amount == amount


@pytest.mark.parametrize("amount", ["", "free", "1e9", "-1", "10.001", "9" * 40])
def test_an_amount_that_cannot_be_read_is_no_reason_to_refuse_a_hint(
    reader: SslcommerzNotices, amount: str
) -> None:
    form = signed(PAID | {"currency_amount": amount, "amount": amount}, keys=SIGNED_KEYS)

    assert reader.read({}, encode(form)).amount == Money(0, "BDT")


def test_each_copy_of_a_notice_has_the_same_key_and_day(reader: SslcommerzNotices) -> None:
    reference = new_id("att", datetime(2026, 1, 5, 23, 59, 59, tzinfo=UTC))
    first = PAID | {"tran_id": reference}
    later = first | {"tran_date": "2026-01-06 06:00:00", "value_a": "anything"}

    one, other = (
        reader.read({}, encode(signed(form, keys=SIGNED_KEYS))) for form in (first, later)
    )

    assert (one.event_key, one.event_day) == (other.event_key, other.event_day)
    assert one.event_day == date(2026, 1, 5)


@pytest.mark.parametrize(
    "change", [{"status": "FAILED"}, {"val_id": "other"}, {"tran_id": "INV-2"}], ids=str
)
def test_what_says_something_else_is_another_event(
    reader: SslcommerzNotices, change: dict[str, str]
) -> None:
    one = reader.read({}, encode(PAID))
    other = reader.read({}, encode(signed(PAID | change, keys=SIGNED_KEYS)))

    assert one.event_key != other.event_key


@pytest.mark.parametrize("moment", ["", "yesterday", "0000-00-00 00:00:00", "2026-01-05T12:00:00Z"])
def test_a_foreign_reference_without_a_readable_time_still_has_one_day(
    reader: SslcommerzNotices, moment: str
) -> None:
    form = signed(PAID | {"tran_date": moment, "tran_id": "att_7" + "Z" * 25}, keys=SIGNED_KEYS)

    assert reader.read({}, encode(form)).event_day == date(1970, 1, 1)


READER = SslcommerzNotices(STORE_ID, [STORE_PASSWORD])

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
fields = st.dictionaries(st.sampled_from(sorted(PAID)) | texts, texts, max_size=40)


@given(st.binary(max_size=2_000) | st.text("&=%+abc0", max_size=2_000).map(str.encode))
def test_arbitrary_bytes_are_refused_and_nothing_else(body: bytes) -> None:
    with pytest.raises(NoticeRefusedError):
        READER.read({}, body)


@given(fields)
def test_arbitrary_forms_are_refused_and_nothing_else(changes: dict[str, str]) -> None:
    with pytest.raises(NoticeRefusedError):
        READER.read({}, encode(PAID | changes | {"tran_id": "INV-other"}))


@given(fields)
def test_arbitrary_forms_with_a_genuine_signature_are_read_or_refused(
    changes: dict[str, str],
) -> None:
    plain = {name: value for name, value in changes.items() if not name.startswith("verify_")}
    named = {name: value for name, value in (PAID | plain).items() if name and "," not in name}
    form = signed(named | {"store_id": STORE_ID})
    try:
        notice = READER.read({}, encode(form))
    except NoticeRefusedError as error:
        assert error.reason == "no_reference"  # noqa: PT017 - the only one that may happen
        return
    assert notice.reference == form["tran_id"][:100]
    assert "\0" not in notice.event_key + notice.validation_id
