"""What a gateway's verdict makes of a payment: never less than the truth, never twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain.check_schedule import (
    CONFIRMATION_DELAYS,
)
from services.payments.domain.ledger import REVENUE, SURPLUS
from services.payments.domain.model import Deferred, PaymentState
from services.payments.domain.settlement import settle
from services.payments.domain.starting import settle_start
from services.payments.domain.state_machine import RESTING, TRANSITIONS
from shared.gateways.interface import (
    ActionRequired,
    Claim,
    Declined,
    FailureKind,
    MethodKind,
    Outcome,
    Paid,
    Pending,
    Unknown,
)
from shared.money import Money
from tests.support.payments import NOW, PRICE, paid, payment_in

S = PaymentState
WAITING = sorted(set(PaymentState) - RESTING)
#: Those of which the live attempt decides; of a scheduled retry the next one will.
UNDECIDED = sorted(set(WAITING) - {S.RETRY_SCHEDULED})
#: Those in which an order may just have been sent.
STARTABLE = [S.CREATED, S.PENDING, S.UNKNOWN]
CLAIMS: list[Claim | None] = [None, "paid", "failed", "cancelled", "expired", "other"]
ENDED: list[Claim] = ["failed", "cancelled", "expired"]

RISKY = paid(is_risky=True)
OTHER_AMOUNT = paid(amount=Money(PRICE.minor_units - 1, "BDT"))
OTHER_CURRENCY = paid(amount=Money(PRICE.minor_units, "USD"))
DECLINED = Declined("Insufficient balance")
CANCELLED = Declined("Cancelled by User", FailureKind.CANCELLED)
NOT_ATTEMPTED = Pending("not_attempted")
GATEWAY_PENDING = Pending("gateway_pending")
UNKNOWN = Unknown("timeout")


def check(
    state: PaymentState, verdict: Outcome, claim: Claim | None
) -> tuple[PaymentState, str | None, str] | None:
    """Return the state, the reason and the event that a verdict leads to; None for no change."""
    change = settle(payment_in(state), verdict, claim=claim, now=NOW)
    return None if change is None else (change.payment.state, change.payment.reason, change.event)


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
@pytest.mark.parametrize("state", WAITING)
def test_confirmed_money_succeeds_whatever_was_claimed(
    state: PaymentState, claim: Claim | None
) -> None:
    change = settle(payment_in(state), paid(), claim=claim, now=NOW)

    assert change is not None
    assert change.is_success
    assert not change.is_surplus
    assert change.event == "confirmed"
    assert change.payment.state is S.SUCCEEDED
    assert change.payment.reason is None
    assert change.payment.next_check_at is None
    assert change.payment.gateway_payment_id == "bank_1"


@pytest.mark.parametrize("state", [S.FAILED, S.CANCELLED])
def test_money_that_comes_late_still_succeeds(state: PaymentState) -> None:
    assert check(state, paid(), "paid") == (S.SUCCEEDED, None, "confirmed_late")


def test_money_is_released_when_the_gateway_takes_its_doubt_back() -> None:
    held = payment_in(S.ON_HOLD, reason="gateway_says_risky")

    change = settle(held, paid(), claim="paid", now=NOW)

    assert change is not None
    assert (change.payment.state, change.event) == (S.SUCCEEDED, "released")
    assert (change.transfers, change.frees_held_to) == ((), REVENUE)


@pytest.mark.parametrize("reason", ["amount_differs", "currency_differs"])
def test_money_is_not_released_when_the_gateway_tells_another_sum_than_before(reason: str) -> None:
    held = payment_in(S.ON_HOLD, reason=reason)

    assert settle(held, paid(), claim="paid", now=NOW) is None


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        pytest.param(RISKY, "gateway_says_risky", id="risky"),
        pytest.param(OTHER_AMOUNT, "amount_differs", id="other amount"),
        pytest.param(OTHER_CURRENCY, "currency_differs", id="other currency"),
    ],
)
@pytest.mark.parametrize("state", [*WAITING, S.FAILED, S.CANCELLED])
def test_money_with_an_objection_is_held_and_not_announced(
    state: PaymentState, verdict: Paid, reason: str
) -> None:
    change = settle(payment_in(state), verdict, claim="paid", now=NOW)

    assert change is not None
    assert not change.is_success
    assert (change.payment.state, change.payment.reason) == (S.ON_HOLD, reason)
    assert change.event == "held"


@pytest.mark.parametrize("verdict", [RISKY, OTHER_AMOUNT, OTHER_CURRENCY])
def test_the_same_objection_again_changes_nothing(verdict: Paid) -> None:
    assert settle(payment_in(S.ON_HOLD), verdict, claim="paid", now=NOW) is None


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_the_same_money_again_changes_nothing(claim: Claim | None) -> None:
    assert settle(payment_in(S.SUCCEEDED), paid(), claim=claim, now=NOW) is None


@pytest.mark.parametrize(
    "verdict",
    [
        pytest.param(paid(gateway_payment_id="bank_2", validation_id="val_2"), id="another charge"),
        pytest.param(paid(is_repeated=True), id="the gateway says twice"),
    ],
)
@pytest.mark.parametrize("state", [S.SUCCEEDED, S.ON_HOLD])
def test_money_taken_twice_is_flagged_once_and_the_first_charge_stays_known(
    state: PaymentState, verdict: Paid
) -> None:
    verdict = replace(verdict, is_risky=state is S.ON_HOLD)

    change = settle(payment_in(state), verdict, claim="paid", now=NOW)

    assert change is not None
    assert change.is_surplus
    assert not change.is_success
    assert change.payment == payment_in(state)._replace(reason="surplus_charge")
    assert settle(change.payment, verdict, claim="paid", now=NOW) is None


def test_a_good_charge_beside_a_held_one_succeeds_and_is_flagged() -> None:
    change = settle(payment_in(S.ON_HOLD), paid(gateway_payment_id="bank_2"), claim="paid", now=NOW)

    assert change is not None
    assert change.is_success
    assert change.is_surplus
    assert change.payment.reason == "surplus_charge"
    assert [(each.kind, each.occasion, each.credit) for each in change.transfers] == [
        ("capture", "bank_2", REVENUE)
    ]
    assert change.frees_held_to == SURPLUS


def test_a_payment_that_was_charged_twice_from_the_start_succeeds_and_is_flagged() -> None:
    change = settle(payment_in(S.PENDING), paid(is_repeated=True), claim="paid", now=NOW)

    assert change is not None
    assert change.is_success
    assert change.is_surplus


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
@pytest.mark.parametrize("verdict", [DECLINED, CANCELLED, NOT_ATTEMPTED, GATEWAY_PENDING, UNKNOWN])
@pytest.mark.parametrize("state", sorted(RESTING))
def test_only_money_moves_a_payment_at_rest(
    state: PaymentState, verdict: Outcome, claim: Claim | None
) -> None:
    assert settle(payment_in(state), verdict, claim=claim, now=NOW) is None


@pytest.mark.parametrize("state", [S.FAILED, S.CANCELLED])
def test_a_declined_payment_is_looked_at_until_it_expires_in_case_the_customer_paid_after_all(
    state: PaymentState,
) -> None:
    declined = settle(payment_in(S.PENDING), DECLINED, claim="failed", now=NOW)
    assert declined is not None
    assert declined.payment.next_check_at == NOW + timedelta(minutes=5)

    ended = declined.payment._replace(state=state)
    looked = settle(ended, DECLINED, claim=None, now=NOW + timedelta(minutes=5))
    assert looked is not None
    assert (looked.payment.state, looked.payment.reason) == (state, declined.payment.reason)
    assert looked.payment.next_check_at == NOW + timedelta(minutes=15)

    late = settle(looked.payment, paid(), claim=None, now=NOW + timedelta(minutes=15))
    assert late is not None
    assert (late.payment.state, late.event, late.is_success) == (
        S.SUCCEEDED,
        "confirmed_late",
        True,
    )

    closed = settle(ended, NOT_ATTEMPTED, claim=None, now=ended.expires_at)
    assert closed is not None
    assert (closed.payment.state, closed.payment.next_check_at) == (state, None)


TABLE: list[tuple[PaymentState, Outcome, Claim | None, tuple[PaymentState, str, str]]] = [
    # The notice and the gateway agree: it is over.
    *((S.PENDING, DECLINED, c, (S.FAILED, DECLINED.reason, "declined")) for c in ENDED),
    *((S.PENDING, CANCELLED, c, (S.CANCELLED, CANCELLED.reason, "declined")) for c in ENDED),
    (S.PENDING, NOT_ATTEMPTED, "failed", (S.FAILED, "notice_failed", "declined")),
    (S.PENDING, NOT_ATTEMPTED, "expired", (S.FAILED, "notice_expired", "declined")),
    (S.PENDING, NOT_ATTEMPTED, "cancelled", (S.CANCELLED, "notice_cancelled", "declined")),
    (S.UNKNOWN, DECLINED, "failed", (S.FAILED, DECLINED.reason, "declined")),
    # The gateway alone: on its page the customer may try again.
    (S.PENDING, DECLINED, None, (S.PENDING, f"declined_once:{DECLINED.reason}", "checked")),
    (S.PENDING, DECLINED, "paid", (S.PENDING, f"declined_once:{DECLINED.reason}", "checked")),
    (S.UNKNOWN, DECLINED, None, (S.PENDING, f"declined_once:{DECLINED.reason}", "checked")),
    (S.PROCESSING, DECLINED, None, (S.PENDING, f"declined_once:{DECLINED.reason}", "checked")),
    # Nobody has acted yet.
    (S.CREATED, NOT_ATTEMPTED, None, (S.CREATED, "not_attempted", "checked")),
    (S.PENDING, NOT_ATTEMPTED, None, (S.PENDING, "not_attempted", "checked")),
    (S.UNKNOWN, NOT_ATTEMPTED, None, (S.PENDING, "not_attempted", "checked")),
    (S.PENDING, GATEWAY_PENDING, "failed", (S.PENDING, "gateway_pending", "checked")),
    # A notice says paid, and the gateway does not say so yet.
    (S.CREATED, UNKNOWN, "paid", (S.PROCESSING, "timeout", "checked")),
    (S.PENDING, UNKNOWN, "paid", (S.PROCESSING, "timeout", "checked")),
    (S.PENDING, GATEWAY_PENDING, "paid", (S.PROCESSING, "gateway_pending", "checked")),
    (S.PENDING, NOT_ATTEMPTED, "paid", (S.PROCESSING, "not_attempted", "checked")),
    (S.UNKNOWN, UNKNOWN, "paid", (S.PROCESSING, "timeout", "checked")),
    (S.PROCESSING, UNKNOWN, None, (S.PROCESSING, "timeout", "checked")),
    # A notice says it failed, and the gateway says nothing: doubt, not failure.
    *((S.PENDING, UNKNOWN, c, (S.PROCESSING, "timeout", "checked")) for c in ENDED),
    # Nothing is known, nothing changes.
    (S.CREATED, UNKNOWN, None, (S.CREATED, "timeout", "checked")),
    (S.PENDING, UNKNOWN, None, (S.PENDING, "timeout", "checked")),
    (S.UNKNOWN, UNKNOWN, None, (S.UNKNOWN, "timeout", "checked")),
]


@pytest.mark.parametrize(("state", "verdict", "claim", "expected"), TABLE, ids=str)
def test_a_waiting_payment_follows_the_table(
    state: PaymentState,
    verdict: Outcome,
    claim: Claim | None,
    expected: tuple[PaymentState, str, str],
) -> None:
    assert check(state, verdict, claim) == expected


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (DECLINED, DECLINED.reason),
        (CANCELLED, CANCELLED.reason),
        (NOT_ATTEMPTED, "never_attempted"),
    ],
    ids=str,
)
@pytest.mark.parametrize("state", [S.CREATED, S.PENDING, S.UNKNOWN])
def test_a_payment_without_money_fails_when_its_time_is_over(
    state: PaymentState, verdict: Outcome, reason: str
) -> None:
    payment = payment_in(state, expires_at=NOW)

    change = settle(payment, verdict, claim=None, now=NOW)

    assert change is not None
    assert (change.payment.state, change.payment.reason) == (S.FAILED, reason)
    assert change.event == "expired"


def test_a_confirmation_that_stays_out_is_asked_for_five_times_and_then_ever_more_rarely() -> None:
    change = settle(payment_in(S.PENDING), UNKNOWN, claim="paid", now=NOW)
    waits = []
    while change is not None and change.payment.state is S.PROCESSING:
        assert change.payment.next_check_at is not None
        waits.append(change.payment.next_check_at - NOW)
        change = settle(change.payment, UNKNOWN, claim=None, now=NOW)

    assert tuple(waits) == CONFIRMATION_DELAYS
    assert change is not None
    assert change.event == "confirmation_stays_out"
    assert change.payment.state is S.UNKNOWN
    assert change.payment.next_check_at == NOW + timedelta(seconds=30)


FINAL = Declined("51", FailureKind.INSUFFICIENT_FUNDS, is_final=True)
FINAL_CANCELLED = Declined("rejected", FailureKind.CANCELLED, is_final=True)
ACTION = ActionRequired("authentication_required", "https://gateway.example/a")


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
@pytest.mark.parametrize("state", UNDECIDED)
def test_a_final_decline_ends_a_payment_at_once_whatever_was_claimed(
    state: PaymentState, claim: Claim | None
) -> None:
    for verdict, end in ((FINAL, S.FAILED), (FINAL_CANCELLED, S.CANCELLED)):
        change = settle(payment_in(state), verdict, claim=claim, now=NOW)

        assert change is not None
        assert (change.payment.state, change.event) == (end, "declined")
        assert change.payment.reason == f"{verdict.kind}:{verdict.reason}"
        assert change.payment.next_check_at is None


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
@pytest.mark.parametrize("verdict", [FINAL, DECLINED, NOT_ATTEMPTED, GATEWAY_PENDING, UNKNOWN])
def test_what_ended_an_attempt_moves_no_retry_but_a_notice_of_money_keeps_it_waiting(
    verdict: Outcome, claim: Claim | None
) -> None:
    change = settle(payment_in(S.RETRY_SCHEDULED), verdict, claim=claim, now=NOW)

    if claim == "paid" and not isinstance(verdict, Declined):
        assert change is not None
        assert change.payment.state is S.PROCESSING
    else:
        assert change is None


DEFERRED = Deferred("breaker_open", NOW + timedelta(seconds=60))


@pytest.mark.parametrize("state", WAITING)
def test_a_look_that_was_not_made_is_planned_anew_and_counts_as_none(state: PaymentState) -> None:
    before = payment_in(state, checks_made=3)

    change = settle(before, DEFERRED, claim=None, now=NOW)

    assert change is not None
    assert change.event == "put_off"
    assert change.payment == before._replace(
        reason="breaker_open", next_check_at=NOW + timedelta(seconds=60)
    )


def test_a_notice_of_money_that_could_not_be_asked_about_waits_for_its_confirmation() -> None:
    change = settle(payment_in(S.PENDING, checks_made=3), DEFERRED, claim="paid", now=NOW)

    assert change is not None
    assert change.payment.state is S.PROCESSING
    assert change.payment.checks_made == 0
    assert change.payment.next_check_at == DEFERRED.until


@pytest.mark.parametrize("state", sorted(RESTING))
def test_a_look_that_was_not_made_wakes_nothing_that_rests(state: PaymentState) -> None:
    assert settle(payment_in(state), DEFERRED, claim="paid", now=NOW) is None


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
@pytest.mark.parametrize("state", [S.FAILED, S.CANCELLED])
def test_a_final_decline_ends_the_looks_at_a_payment_that_had_failed(
    state: PaymentState, claim: Claim | None
) -> None:
    looked_at = payment_in(state, next_check_at=NOW, reason="no funds")

    change = settle(looked_at, FINAL, claim=claim, now=NOW)

    assert change is not None
    assert change.event == "closed"
    assert change.payment == looked_at._replace(next_check_at=None)


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
@pytest.mark.parametrize("state", UNDECIDED)
def test_a_customer_who_must_act_is_waited_for_like_a_network(
    state: PaymentState, claim: Claim | None
) -> None:
    networks = check(state, Pending(ACTION.reason), claim)

    assert check(state, ACTION, claim) == networks
    assert networks is not None
    assert networks[1] == ACTION.reason


def begun(
    state: PaymentState, outcome: Outcome, **changes: Any
) -> tuple[PaymentState, str | None, str] | None:
    change = settle_start(payment_in(state, **changes), outcome, now=NOW)
    return None if change is None else (change.payment.state, change.payment.reason, change.event)


STARTS: list[tuple[MethodKind, Outcome, tuple[PaymentState, str | None, str]]] = [
    ("checkout", ACTION, (S.PENDING, "authentication_required", "checkout_opened")),
    ("card", ACTION, (S.PENDING, "authentication_required", "checkout_opened")),
    ("prompt", Pending("prompted"), (S.PENDING, "prompted", "accepted")),
    ("card", paid(), (S.SUCCEEDED, None, "confirmed")),
    ("card", OTHER_AMOUNT, (S.ON_HOLD, "amount_differs", "held")),
    ("card", FINAL, (S.FAILED, "insufficient_funds:51", "declined")),
    ("prompt", FINAL_CANCELLED, (S.CANCELLED, "cancelled:rejected", "declined")),
    ("prompt", DECLINED, (S.PENDING, f"declined_once:{DECLINED.reason}", "checked")),
    (
        "checkout",
        Declined("no such store", FailureKind.CONFIGURATION, is_final=True),
        (S.FAILED, "gateway_refused:no such store", "checkout_refused"),
    ),
    (
        "card",
        Declined("no such card", FailureKind.CONFIGURATION, is_final=True),
        (S.FAILED, "gateway_refused:no such card", "charge_refused"),
    ),
    ("checkout", UNKNOWN, (S.UNKNOWN, "checkout_unknown:timeout", "checkout_unknown")),
    ("wallet", UNKNOWN, (S.UNKNOWN, "charge_unknown:timeout", "charge_unknown")),
]


@pytest.mark.parametrize("state", STARTABLE)
@pytest.mark.parametrize(("method", "outcome", "expected"), STARTS, ids=str)
def test_the_answer_to_an_order_follows_the_table(
    state: PaymentState,
    method: MethodKind,
    outcome: Outcome,
    expected: tuple[PaymentState, str | None, str],
) -> None:
    assert begun(state, outcome, method=method) == expected


@pytest.mark.parametrize("outcome", [outcome for _, outcome, _ in STARTS], ids=str)
@pytest.mark.parametrize("state", sorted(set(PaymentState) - set(STARTABLE)))
def test_once_more_is_known_only_money_counts_of_the_answer_to_an_order(
    state: PaymentState, outcome: Outcome
) -> None:
    change = settle_start(payment_in(state), outcome, now=NOW)

    assert change is None or isinstance(outcome, Paid)


@pytest.mark.parametrize(
    ("method", "outcome", "seconds"),
    [
        ("prompt", Pending("prompted"), 5),
        ("card", UNKNOWN, 5),
        ("checkout", UNKNOWN, 30),
    ],
)
def test_the_first_look_comes_as_soon_as_the_method_can_be_decided(
    method: MethodKind, outcome: Outcome, seconds: int
) -> None:
    change = settle_start(payment_in(S.CREATED, method=method), outcome, now=NOW)

    assert change is not None
    assert change.payment.next_check_at == NOW + timedelta(seconds=seconds)


verdicts = st.one_of(
    st.builds(
        paid,
        amount=st.sampled_from([PRICE, OTHER_AMOUNT.amount, OTHER_CURRENCY.amount]),
        gateway_payment_id=st.sampled_from(["bank_1", "bank_2"]),
        is_risky=st.booleans(),
        is_repeated=st.booleans(),
    ),
    st.builds(Declined, st.text(max_size=200), st.sampled_from(FailureKind), st.booleans()),
    st.builds(Pending, st.sampled_from(["not_attempted", "gateway_pending"])),
    st.just(ACTION),
    st.builds(Unknown, st.just("timeout")),
)
steps = st.tuples(verdicts, st.sampled_from(CLAIMS), st.integers(0, 30 * 3600))


@given(
    st.sampled_from(WAITING),
    st.sampled_from(get_args(MethodKind)),
    st.lists(steps, max_size=20),
    st.integers(0, 20),
)
def test_along_every_story_the_rules_of_a_payment_hold(
    state: PaymentState,
    method: MethodKind,
    story: list[tuple[Outcome, Claim | None, int]],
    answered_at: int,
) -> None:
    payment, now, successes = payment_in(state, method=method), NOW, 0
    for number, (verdict, claim, seconds) in enumerate(story):
        now += timedelta(seconds=seconds)
        if number == answered_at:
            change = settle_start(payment, verdict, now=now)
        else:
            change = settle(payment, verdict, claim=claim, now=now)
        if change is None:
            continue
        after = change.payment
        assert after.state is payment.state or after.state in TRANSITIONS[payment.state]
        if after.state in {S.SUCCEEDED, S.ON_HOLD}:
            assert after.next_check_at is None
        elif after.state not in RESTING:
            assert after.next_check_at is not None
        is_planned = after.next_check_at == payment.next_check_at
        assert after.next_check_at is None or after.next_check_at > now or is_planned
        assert (after.id, after.amount, after.reference) == (
            payment.id,
            payment.amount,
            payment.reference,
        )
        assert not change.is_success or after.state is S.SUCCEEDED
        assert after.state is not S.SUCCEEDED or isinstance(verdict, Paid)
        successes += change.is_success
        payment = after

    assert successes == (payment.state is S.SUCCEEDED)
