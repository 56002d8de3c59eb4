"""Stripe's notices: the known vectors verify, everything that deviates is refused.

Stripe's own library is the second opinion: what we accept, it accepts.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest
import stripe
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from shared.gateways.interface import Claim, Notice, NoticeRefusedError, UnreadableNoticeError
from shared.gateways.stripe.webhooks import BODY_BYTES_MAX, StripeNotices
from shared.money import Money
from tests.support.clocks import START, ManualClock
from tests.support.stripe_answers import (
    INTENT,
    REFERENCE,
    WEBHOOK_SECRET,
    event,
    intent,
    refund,
    signature,
)

#: The reference document's vector: body, time stamp, header, and the header during a roll.
VECTOR = (
    b'{"id":"evt_demo_0001","object":"event","type":"payment_intent.succeeded",'
    b'"created":1767614399,"livemode":false,"data":{"object":{"id":"pi_demo_0001",'
    b'"object":"payment_intent","amount":1999,"currency":"usd","status":"succeeded",'
    b'"metadata":{"invoice_id":"inv_123"}}}}'
)
VECTOR_TIME = 1_767_614_400
V1 = "v1=0b343d8d3bcbb84a7e65cd40d3d9bf75dbd408f600cff23c2a9b1f04143907de"
OLD_V1 = "v1=1a55b53557a9cc577644ba4117b3adadcbf7be7d3256295b431ff05acc3bd811"
VECTOR_HEADER = f"t={VECTOR_TIME},{V1}"
ROLLED_HEADER = f"t={VECTOR_TIME},{OLD_V1},{V1}"
OLD_SECRET = "whsec_test_OLD_0000000000000000"

NOW = int(START.timestamp())


def reader_at(now: int, *secrets: str, is_live: bool = False) -> StripeNotices:
    clock = ManualClock(datetime.fromtimestamp(now, UTC))
    return StripeNotices(secrets or (WEBHOOK_SECRET,), is_live=is_live, clock=clock)


READER = reader_at(NOW)
PAID_BODY = orjson.dumps(event("payment_intent.succeeded", intent()))


def read(body: bytes, header: str, reader: StripeNotices = READER) -> Notice:
    return reader.read({"Stripe-Signature": header}, body)


def read_event(fields: object) -> Notice:
    body = orjson.dumps(fields)
    return read(body, signature(body, NOW))


def refusal(body: bytes, header: str, reader: StripeNotices = READER) -> str:
    """Return the reason for which a notice is refused; neither it nor the message repeats it."""
    with pytest.raises(NoticeRefusedError) as caught:
        read(body, header, reader)
    assert str(caught.value) == "the notice is refused"
    assert caught.value.__cause__ is None
    return caught.value.reason


def test_the_vector_is_the_one_of_the_document() -> None:
    assert len(VECTOR) == 265
    digest = hashlib.sha256(VECTOR).hexdigest()
    assert digest == "bb9ccfe80bb485c02834e9cf692212bf9eb77445b2942e4f675959c801f57c6c"
    assert signature(VECTOR, VECTOR_TIME) == VECTOR_HEADER
    assert signature(VECTOR, VECTOR_TIME, OLD_SECRET, WEBHOOK_SECRET) == ROLLED_HEADER


@pytest.mark.parametrize("header", [VECTOR_HEADER, ROLLED_HEADER], ids=["plain", "rolled"])
@pytest.mark.parametrize("after_seconds", [-300, -1, 0, 1, 300])
def test_the_vector_verifies_within_five_minutes_both_ways(header: str, after_seconds: int) -> None:
    notice = read(VECTOR, header, reader_at(VECTOR_TIME + after_seconds))

    assert notice == Notice(
        event_key="evt_demo_0001",
        event_day=date(2026, 1, 5),
        reference="pi_demo_0001",
        claim="other",
        validation_id="pi_demo_0001",
        amount=Money(1_999, "USD"),
    )


VECTOR_REFUSALS = {
    "301 s later": (VECTOR, VECTOR_HEADER, 301, "too_old"),
    "a day later": (VECTOR, VECTOR_HEADER, 86_400, "too_old"),
    "301 s before": (VECTOR, VECTOR_HEADER, -301, "in_the_future"),
    "years before": (VECTOR, VECTOR_HEADER, -100_000_000, "in_the_future"),
    "a byte more": (VECTOR + b"\n", VECTOR_HEADER, 0, "wrong_signature"),
    "a byte less": (VECTOR[:-1], VECTOR_HEADER, 0, "wrong_signature"),
    "another byte": (VECTOR.replace(b"1999", b"9999"), VECTOR_HEADER, 0, "wrong_signature"),
    "only v0": (VECTOR, VECTOR_HEADER.replace("v1=", "v0="), 0, "not_signed"),
    "only the old secret's": (VECTOR, f"t={VECTOR_TIME},{OLD_V1}", 0, "wrong_signature"),
    "another time": (VECTOR, f"t={VECTOR_TIME + 1},{V1}", 0, "wrong_signature"),
    "in upper case": (VECTOR, f"t={VECTOR_TIME},v1={V1[3:].upper()}", 0, "wrong_signature"),
    "cut short": (VECTOR, VECTOR_HEADER[:-1], 0, "wrong_signature"),
    "of another notice": (VECTOR, signature(PAID_BODY, VECTOR_TIME), 0, "wrong_signature"),
    "with the secret decoded": (
        VECTOR,
        signature(VECTOR, VECTOR_TIME, WEBHOOK_SECRET.removeprefix("whsec_")),
        0,
        "wrong_signature",
    ),
    "empty": (VECTOR, "", 0, "malformed_signature"),
    "no time": (VECTOR, V1, 0, "malformed_signature"),
    "no signature": (VECTOR, f"t={VECTOR_TIME}", 0, "not_signed"),
    "two times": (VECTOR, f"t={VECTOR_TIME},{VECTOR_HEADER}", 0, "malformed_signature"),
    "a time in words": (VECTOR, f"t=now,{V1}", 0, "malformed_signature"),
    "a time below zero": (VECTOR, f"t=-{VECTOR_TIME},{V1}", 0, "malformed_signature"),
    "a time with zeros": (VECTOR, f"t=0{VECTOR_TIME},{V1}", 0, "malformed_signature"),
    "a time with a fraction": (VECTOR, f"t={VECTOR_TIME}.0,{V1}", 0, "malformed_signature"),
    "a huge time": (VECTOR, f"t={'9' * 400},{V1}", 0, "malformed_signature"),
    "beyond ASCII": (VECTOR, f"t={VECTOR_TIME},v1=\udcff{V1}", 0, "malformed_signature"),
    "Arabic digits": (VECTOR, f"t=\N{ARABIC-INDIC DIGIT ONE},{V1}", 0, "malformed_signature"),
    "an item without a value": (VECTOR, f"{VECTOR_HEADER},v1", 0, "malformed_signature"),
    "an oversized header": (VECTOR, f"{VECTOR_HEADER},{'v0=0,' * 2_000}", 0, "malformed_signature"),
}


@pytest.mark.parametrize(
    ("body", "header", "after_seconds", "reason"), VECTOR_REFUSALS.values(), ids=VECTOR_REFUSALS
)
def test_what_deviates_from_the_vector_is_refused(
    body: bytes, header: str, after_seconds: int, reason: str
) -> None:
    assert refusal(body, header, reader_at(VECTOR_TIME + after_seconds)) == reason


@pytest.mark.parametrize("headers", [{}, {"X-Signature": VECTOR_HEADER}], ids=["none", "another"])
def test_a_notice_without_the_header_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(NoticeRefusedError) as caught:
        READER.read(headers, PAID_BODY)

    assert caught.value.reason == "not_signed"


def test_a_header_given_twice_is_refused_though_both_are_right() -> None:
    header = signature(PAID_BODY, NOW)
    once = CIMultiDict({"stripe-signature": header})
    twice = CIMultiDict([("Stripe-Signature", header), ("STRIPE-SIGNATURE", header)])

    assert READER.read(once, PAID_BODY).claim == "paid"
    with pytest.raises(NoticeRefusedError) as caught:
        READER.read(twice, PAID_BODY)
    assert caught.value.reason == "signature_given_twice"


def test_an_oversized_body_is_refused_before_it_is_hashed() -> None:
    body = b" " * (BODY_BYTES_MAX + 1)

    assert refusal(body, signature(body, NOW)) == "too_large"
    assert refusal(body[1:], signature(body[1:], NOW)) == "not_json"


def test_during_a_rotation_the_old_and_the_new_secret_are_valid_and_no_third() -> None:
    reader = reader_at(NOW, "whsec_new", WEBHOOK_SECRET)

    for secret in ("whsec_new", WEBHOOK_SECRET):
        assert read(PAID_BODY, signature(PAID_BODY, NOW, secret), reader).claim == "paid"
    assert refusal(PAID_BODY, signature(PAID_BODY, NOW, "whsec_older"), reader) == "wrong_signature"


def test_without_a_secret_nothing_is_accepted() -> None:
    reader = StripeNotices([], is_live=False, clock=ManualClock())

    assert refusal(PAID_BODY, signature(PAID_BODY, NOW, ""), reader) == "wrong_signature"


@pytest.mark.parametrize("livemode", [True, None, 0, "false"], ids=repr)
def test_a_notice_of_the_other_world_is_refused(livemode: object) -> None:
    body = orjson.dumps(event("payment_intent.succeeded", intent(), livemode=livemode))

    assert refusal(body, signature(body, NOW)) == "other_environment"


def test_a_live_account_takes_live_notices_only() -> None:
    live = orjson.dumps(event("payment_intent.succeeded", intent(), livemode=True))
    reader = reader_at(NOW, is_live=True)

    assert read(live, signature(live, NOW), reader).claim == "paid"
    assert refusal(PAID_BODY, signature(PAID_BODY, NOW), reader) == "other_environment"


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not_json"),
    "no UTF-8": (b'{"object":"event","id":"\xff"}', "not_json"),
    "half a notice": (PAID_BODY[:-9], "not_json"),
    "very deep": (b"[" * 100_000, "not_json"),
    "a list": (b"[]", "not_an_event"),
    "a text": (b'"event"', "not_an_event"),
    "another object": (orjson.dumps(intent()), "not_an_event"),
    "an event of API v2": (b'{"object":"v2.core.event","livemode":false}', "not_an_event"),
    "no data": (orjson.dumps(event("x", None)), "not_an_event"),
    "data of another shape": (orjson.dumps(event("x", intent(), data=[])), "not_an_event"),
    "no id": (orjson.dumps(event("x", intent(), id=None)), "no_id"),
    "an id with a NUL": (orjson.dumps(event("x", intent(), id="evt_\0")), "no_id"),
    "a huge id": (orjson.dumps(event("x", intent(), id="e" * 101)), "no_id"),
    "an object without an id": (orjson.dumps(event("x", {})), "no_id"),
    "no time": (orjson.dumps(event("x", intent(), created=None)), "no_time"),
    "a time in words": (orjson.dumps(event("x", intent(), created="now")), "no_time"),
    "a time beyond dates": (orjson.dumps(event("x", intent(), created=2**60)), "no_time"),
    "a time below zero": (orjson.dumps(event("x", intent(), created=-1)), "no_time"),
    "true for a time": (orjson.dumps(event("x", intent(), created=True)), "no_time"),
}


@pytest.mark.parametrize(("body", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_genuine_notice_that_cannot_be_read_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(UnreadableNoticeError) as caught:
        read(body, signature(body, NOW))

    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("kind", "claim"),
    [
        ("payment_intent.succeeded", "paid"),
        ("payment_intent.payment_failed", "failed"),
        ("payment_intent.canceled", "cancelled"),
        ("payment_intent.processing", "other"),
        ("payment_intent.requires_action", "other"),
        ("payment_intent.created", "other"),
        ("something.new", "other"),
        (None, "other"),
    ],
)
def test_an_intents_notice_claims_what_its_type_says(kind: Any, claim: Claim) -> None:
    notice = read_event(event(kind, intent()))

    assert notice == Notice("evt_1", START.date(), REFERENCE, claim, INTENT, Money(1_999, "USD"))


CHARGE = {
    "id": "ch_1",
    "object": "charge",
    "amount": 1_999,
    "currency": "usd",
    "metadata": {"reference": REFERENCE},
    "payment_intent": INTENT,
}
DISPUTE = CHARGE | {"id": "du_1", "object": "dispute", "metadata": {}}


@pytest.mark.parametrize(
    ("kind", "subject", "reference"),
    [
        ("charge.succeeded", CHARGE, REFERENCE),
        ("charge.refunded", CHARGE, REFERENCE),
        ("radar.early_fraud_warning.created", DISPUTE | {"object": "warning"}, "du_1"),
        ("refund.created", refund(), REFERENCE),
        ("refund.failed", refund("failed"), REFERENCE),
        ("refund.updated", refund(metadata={}), "re_3Q0001"),
    ],
)
def test_what_is_no_intent_claims_nothing_and_names_ours_where_it_can(
    kind: str, subject: dict[str, Any], reference: str
) -> None:
    notice = read_event(event(kind, subject))

    assert (notice.claim, notice.reference, notice.validation_id) == ("other", reference, INTENT)


@pytest.mark.parametrize(
    "kind", ["created", "updated", "closed", "funds_withdrawn", "funds_reinstated"]
)
@pytest.mark.parametrize(
    ("change", "reference"),
    [
        ({}, INTENT),
        ({"payment_intent": None}, "du_1"),
        # Whatever an operator writes to it there, a dispute's own metadata is not the payment's.
        ({"metadata": {"reference": REFERENCE}}, INTENT),
    ],
    ids=["of an intent", "of a charge without one", "with metadata"],
)
def test_a_dispute_is_told_by_its_own_handle_and_by_the_intent(
    kind: str, change: dict[str, Any], reference: str
) -> None:
    notice = read_event(event(f"charge.dispute.{kind}", DISPUTE | change))

    assert notice == Notice(
        "evt_1", START.date(), reference, "dispute", "du_1", Money(1_999, "USD")
    )


@pytest.mark.parametrize(
    "metadata",
    [{}, None, [], {"reference": None}, {"reference": "inv_1"}, {"reference": "pay_" + "0" * 26}],
    ids=repr,
)
def test_another_systems_notice_is_known_by_stripes_id_and_claims_nothing(metadata: object) -> None:
    notice = read_event(event("payment_intent.succeeded", intent(metadata=metadata)))

    assert (notice.reference, notice.claim) == (INTENT, "other")


@pytest.mark.parametrize(
    "changes",
    [{"amount": None}, {"amount": -1}, {"amount": 1.5}, {"amount": 10**18}, {"amount": True}],
    ids=str,
)
def test_an_amount_that_cannot_be_read_is_no_reason_to_refuse_a_hint(
    changes: dict[str, Any],
) -> None:
    assert read_event(event("x", intent(**changes))).amount == Money(0, "USD")


def test_a_currency_that_we_do_not_know_is_no_reason_either() -> None:
    assert read_event(event("x", intent(currency="isk"))).amount == Money(0, "USD")


def test_each_delivery_of_a_notice_has_the_same_key_and_day() -> None:
    one = read(PAID_BODY, signature(PAID_BODY, NOW))
    later = reader_at(NOW + 86_400)
    other = read(PAID_BODY, signature(PAID_BODY, NOW + 86_400), later)

    assert one == other


def test_stripes_own_library_accepts_what_we_accept_and_signs_what_we_do() -> None:
    now = int(time.time())
    header = stripe.WebhookSignature.generate_signature_header(
        PAID_BODY.decode(), WEBHOOK_SECRET, now
    )
    assert header == signature(PAID_BODY, now)

    ours = read(PAID_BODY, header, reader_at(now))
    theirs = stripe.Webhook.construct_event(PAID_BODY, header, WEBHOOK_SECRET)

    assert (ours.event_key, ours.validation_id) == (theirs.id, theirs.data.object.id)


def test_only_ours_refuses_the_future() -> None:
    future = int(time.time()) + 86_400
    header = signature(PAID_BODY, future)

    assert stripe.Webhook.construct_event(PAID_BODY, header, WEBHOOK_SECRET).id == "evt_1"
    assert refusal(PAID_BODY, header, reader_at(int(time.time()))) == "in_the_future"


def is_accepted_by_the_library(body: bytes, header: str) -> bool:
    try:
        # No tolerance: the library measures by the machine's clock.
        stripe.WebhookSignature.verify_header(body, header, WEBHOOK_SECRET, None)
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False
    return True


items = st.sampled_from(
    [
        *(f"t={NOW}", f"t=0{NOW}", "t=1", "t=", "t", "t=\N{ARABIC-INDIC DIGIT ONE}"),
        *(V1, OLD_V1, "v0=0", "v1", "v1=", "v1=é", "v1==", "=", " ", ""),
        *signature(PAID_BODY, NOW).split(","),
    ]
)


@given(st.lists(items, max_size=6).map(",".join))
@example(signature(PAID_BODY, NOW))
def test_a_header_that_we_accept_the_library_accepts(header: str) -> None:
    try:
        read(PAID_BODY, header)
    except NoticeRefusedError:
        return
    assert is_accepted_by_the_library(PAID_BODY, header)


@given(st.binary(max_size=500), st.text(max_size=200) | st.lists(items).map(",".join))
def test_arbitrary_bytes_and_headers_are_refused_and_nothing_else(body: bytes, header: str) -> None:
    with pytest.raises(NoticeRefusedError):
        read(body + b"x", header)


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
subjects = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["object", "amount", "currency", "metadata", "payment_intent"], json)
).map(lambda changes: intent() | changes)
events = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("id", "object", "type", "created", "data"), json)
    | {"data": st.fixed_dictionaries({"object": json | subjects})},
).map(lambda changes: event("payment_intent.succeeded", intent()) | changes)


@given(json | events)
def test_arbitrary_json_with_a_genuine_signature_is_read_or_refused(fields: object) -> None:
    try:
        notice = read_event(fields)
    except NoticeRefusedError as error:
        # Of a genuine notice only its content can be wrong.
        assert error.reason in {"not_an_event", "no_id", "no_time", "other_environment"}  # noqa: PT017
        return
    assert "\0" not in notice.event_key + notice.reference + notice.validation_id
    assert 0 < len(notice.reference) <= 100
