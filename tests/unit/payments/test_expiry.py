"""When a payment ends because its time is over, and what becomes of money that comes after that."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.payments.domain.check_schedule import OPEN_LOOKED_AT_FOR, UNKNOWN_GIVEN_UP_AFTER
from services.payments.domain.ledger import HELD
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.settlement import GATEWAY_IS_OFF, LATE_SUCCESS, is_left_open, settle
from services.payments.domain.state_machine import RESTING
from shared.gateways.interface import Pending, Unknown
from shared.money import Money
from tests.support.payments import NOW, PRICE, paid, payment_in

S = PaymentState
OTHER_AMOUNT = paid(amount=Money(PRICE.minor_units - 1, "BDT"))
NOT_ATTEMPTED = Pending("not_attempted")
GATEWAY_PENDING = Pending("gateway_pending")
UNKNOWN = Unknown("timeout")


@pytest.mark.parametrize("state", [S.CREATED, S.PENDING, S.UNKNOWN])
def test_silence_ends_a_payment_a_week_after_its_time_and_not_before(state: PaymentState) -> None:
    expires_at = NOW - UNKNOWN_GIVEN_UP_AFTER
    early = settle(
        payment_in(state, expires_at=expires_at + timedelta(seconds=1)),
        UNKNOWN,
        claim=None,
        now=NOW,
    )
    late = settle(payment_in(state, expires_at=expires_at), UNKNOWN, claim=None, now=NOW)

    assert early is not None
    assert early.payment.state not in RESTING
    assert late is not None
    assert (late.payment.state, late.event) == (S.FAILED, "expired")
    assert late.payment.reason == f"expired_unknown:{UNKNOWN.reason}"
    assert late.payment.next_check_at is None


def test_a_gateway_that_is_switched_off_ends_nothing() -> None:
    long_over = payment_in(S.UNKNOWN, expires_at=NOW - timedelta(days=400))

    change = settle(long_over, Unknown(GATEWAY_IS_OFF), claim=None, now=NOW)

    assert change is not None
    assert change.payment.state is S.UNKNOWN
    assert change.payment.next_check_at is not None


def test_what_is_still_open_ends_with_its_time_and_money_is_looked_for_two_days_more() -> None:
    payment = payment_in(S.PENDING, expires_at=NOW)
    assert is_left_open(payment, GATEWAY_PENDING, NOW)
    assert not is_left_open(payment, GATEWAY_PENDING, NOW - timedelta(seconds=1))
    assert not is_left_open(payment, NOT_ATTEMPTED, NOW)
    assert not is_left_open(payment_in(S.PROCESSING, expires_at=NOW), GATEWAY_PENDING, NOW)

    change = settle(payment, GATEWAY_PENDING, claim=None, now=NOW)

    assert change is not None
    assert (change.payment.state, change.event) == (S.FAILED, "expired")
    looks, last = 0, NOW
    while change is not None and (due := change.payment.next_check_at) is not None:
        assert due <= NOW + OPEN_LOOKED_AT_FOR + timedelta(hours=1)
        looks, last = looks + 1, due
        change = settle(change.payment, GATEWAY_PENDING, claim=None, now=due)
    assert last >= NOW + OPEN_LOOKED_AT_FOR
    assert looks > 40
    assert change is not None
    assert change.event == "closed"


def test_a_notice_of_money_is_not_overtaken_by_the_end() -> None:
    change = settle(payment_in(S.PENDING, expires_at=NOW), GATEWAY_PENDING, claim="paid", now=NOW)

    assert change is not None
    assert change.payment.state is S.PROCESSING


@pytest.mark.parametrize("state", [S.FAILED, S.CANCELLED])
def test_money_after_the_end_is_kept_or_goes_back_by_policy(state: PaymentState) -> None:
    over = payment_in(state, expires_at=NOW)

    kept = settle(over, paid(), claim="paid", now=NOW)
    returned = settle(over, paid(), claim="paid", now=NOW, returns_late_money=True)

    assert kept is not None
    assert (kept.payment.state, kept.gives_back) == (S.SUCCEEDED, False)
    assert returned is not None
    assert (returned.payment.state, returned.payment.reason) == (S.ON_HOLD, LATE_SUCCESS)
    assert returned.gives_back
    assert not returned.is_success
    assert [transfer.credit for transfer in returned.transfers] == [HELD]


@pytest.mark.parametrize(
    "payment",
    [
        pytest.param(payment_in(S.FAILED, expires_at=NOW + timedelta(seconds=1)), id="in time"),
        pytest.param(payment_in(S.UNKNOWN, expires_at=NOW), id="not ended"),
    ],
)
def test_money_that_is_not_late_is_kept_under_either_policy(payment: Payment) -> None:
    change = settle(payment, paid(), claim="paid", now=NOW, returns_late_money=True)

    assert change is not None
    assert change.payment.state is S.SUCCEEDED
    assert not change.gives_back


def test_late_money_of_another_amount_waits_for_a_person() -> None:
    over = payment_in(S.FAILED, expires_at=NOW)

    change = settle(over, OTHER_AMOUNT, claim="paid", now=NOW, returns_late_money=True)

    assert change is not None
    assert (change.payment.reason, change.gives_back) == ("amount_differs", False)


def test_late_money_that_goes_back_is_not_released_when_it_is_confirmed_again() -> None:
    held = payment_in(S.ON_HOLD, reason=LATE_SUCCESS, expires_at=NOW)

    assert settle(held, paid(), claim="paid", now=NOW, returns_late_money=True) is None
    assert settle(held, paid(), claim="paid", now=NOW) is None
