"""What a confirmed intent of the simulated Stripe comes to, and how its events are signed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.simulator.profiles import Fate, NoticeFate, Plan
from services.simulator.stripe import answers
from services.simulator.stripe.cards import CARDS, DECLINE_PREFIX, DECLINES
from services.simulator.stripe.charging import charge, come_due, wish_of
from services.simulator.stripe.domain import Intent, IntentStatus
from services.simulator.stripe.scenarios import MAGIC, PAID, WISHES
from services.simulator.stripe.signing import sign

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def intent(card_name: str = "pm_card_visa", amount: int = 1999) -> Intent:
    return Intent(
        id="pi_1",
        status=IntentStatus.REQUIRES_CONFIRMATION,
        amount=amount,
        currency="usd",
        client_secret="pi_1_secret_x",
        created_at=NOW,
        payment_method="pm_1",
        card_name=card_name,
        metadata={"reference": "INV-1"},
    )


def plan(fate: Fate) -> Plan:
    return Plan(fate, NoticeFate.ON_TIME, 0.0, 5.0, customer_acts=False)


def test_a_good_card_is_charged() -> None:
    after, decline = charge(intent(), PAID, NOW)

    assert decline is None
    assert (after.status, after.amount_received) == (IntentStatus.SUCCEEDED, 1999)
    assert after.latest_charge is not None


@pytest.mark.parametrize("code", sorted(DECLINES))
def test_every_decline_says_why(code: str) -> None:
    after, decline = charge(intent(DECLINE_PREFIX + code), PAID, NOW)

    assert decline is not None
    error = answers.card_error(after, decline, "http://gateway.example")
    assert (error["type"], error["decline_code"]) == ("card_error", code)
    assert error["payment_intent"]["status"] == "requires_payment_method"
    assert error["payment_intent"]["last_payment_error"]["decline_code"] == code
    assert (after.amount_received, error["charge"]) == (0, after.latest_charge)


def test_hard_declines_say_not_to_try_again() -> None:
    stops = {code for code, each in DECLINES.items() if each.advice_code == "do_not_try_again"}

    assert {"lost_card", "stolen_card", "pickup_card", "transaction_not_allowed"} <= stops
    assert not {"insufficient_funds", "do_not_honor", "processing_error"} & stops


@pytest.mark.parametrize(
    ("is_off_session", "status"),
    [
        (True, IntentStatus.REQUIRES_PAYMENT_METHOD),
        (False, IntentStatus.REQUIRES_ACTION),
    ],
)
def test_an_authentication_needs_the_customer(
    is_off_session: bool,  # noqa: FBT001 - a parameter
    status: IntentStatus,
) -> None:
    wants = replace(intent("pm_card_authenticationRequired"), is_off_session=is_off_session)

    after, decline = charge(wants, PAID, NOW)
    authenticated, _ = charge(wants, PAID, NOW, is_authenticated=True)

    assert after.status is status
    assert (decline is not None) == is_off_session
    assert authenticated.status is IntentStatus.SUCCEEDED


def test_the_page_is_told_only_with_a_way_back() -> None:
    wants = replace(intent("pm_card_authenticationRequired"), return_url="https://shop.example/")
    after, _ = charge(wants, PAID, NOW)

    action = answers.payment_intent(after, "http://sim")["next_action"]
    without = answers.payment_intent(replace(after, return_url=None), "http://sim")["next_action"]

    assert action["redirect_to_url"]["url"] == "http://sim/stripe/authenticate/pi_1/pi_1_secret_x"
    assert without["type"] == "use_stripe_sdk"


@pytest.mark.parametrize(
    ("digits", "status"),
    [(4, IntentStatus.SUCCEEDED), (11, IntentStatus.REQUIRES_PAYMENT_METHOD)],
)
def test_what_is_processing_comes_to_its_end_when_due(digits: int, status: IntentStatus) -> None:
    one = intent(amount=1900 + digits)
    after, _ = charge(one, wish_of(one, None), NOW)
    assert (after.status, after.due_at) == (IntentStatus.PROCESSING, NOW + timedelta(seconds=20))

    settled = come_due(after, NOW)

    assert (settled.status, settled.due_at, settled.due_status) == (status, None, None)


@pytest.mark.parametrize(
    ("fate", "wish"),
    [
        (Fate.PAID, "paid"),
        (Fate.DECLINED, "declined"),
        (Fate.INSUFFICIENT_FUNDS, "insufficient_funds"),
        (Fate.LATE_SUCCESS, "late_success"),
        (Fate.NEVER_CONFIRMS, "never_confirms"),
        (Fate.EXPIRED, "expired"),
        (Fate.TIMEOUT_AFTER, "paid"),
    ],
)
def test_a_recorded_fate_decides_unless_the_amount_is_magic(fate: Fate, wish: str) -> None:
    assert wish_of(intent(), plan(fate)) == wish
    assert wish_of(intent(amount=1901), plan(fate)) == "declined"


def test_every_magic_amount_has_a_wish_that_means_something() -> None:
    for digits, scenario in MAGIC.items():
        assert scenario.wish in WISHES | {"never_confirms"}, digits
        charge(intent(amount=1900 + digits), scenario.wish, NOW)


def test_the_test_cards_are_there() -> None:
    assert len(DECLINES) == 50
    assert {"pm_card_visa", "pm_card_chargeCustomerFail", "pm_card_radarBlock"} <= CARDS.keys()


def test_the_vector_of_the_reference_is_signed_alike() -> None:
    body = (
        b'{"id":"evt_demo_0001","object":"event","type":"payment_intent.succeeded",'
        b'"created":1767614399,"livemode":false,"data":{"object":{"id":"pi_demo_0001",'
        b'"object":"payment_intent","amount":1999,"currency":"usd","status":"succeeded",'
        b'"metadata":{"invoice_id":"inv_123"}}}}'
    )
    new, old = "whsec_test_7f3b1c9d2e4a6058", "whsec_test_OLD_0000000000000000"
    by_new = "v1=0b343d8d3bcbb84a7e65cd40d3d9bf75dbd408f600cff23c2a9b1f04143907de"
    by_old = "v1=1a55b53557a9cc577644ba4117b3adadcbf7be7d3256295b431ff05acc3bd811"

    assert sign(body, [new], 1_767_614_400) == f"t=1767614400,{by_new}"
    assert sign(body, [old, new], 1_767_614_400) == f"t=1767614400,{by_old},{by_new}"
