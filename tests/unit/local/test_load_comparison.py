"""Every verdict about two ledgers, and that what differs in one field never passes for a match."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.local.load_comparison import Charge, Compared, Recorded, Verdict, compare, count

PAID = Recorded(
    payment_id="pay_1",
    gateway="stripe",
    state="succeeded",
    reason=None,
    amount=1_999,
    currency="USD",
    references=("att_1",),
    gateway_payment_id="ch_1",
)
FAILED = replace(PAID, state="failed", reason="card_declined", gateway_payment_id=None)
CHARGE = Charge(
    gateway="stripe",
    reference="att_1",
    gateway_payment_id="ch_1",
    amount=1_999,
    currency="USD",
)


def only(payments: list[Recorded], charges: list[Charge]) -> Compared:
    (verdict,) = compare(payments, charges)
    return verdict


def test_one_charge_of_the_same_sum_matches() -> None:
    assert only([PAID], [CHARGE]) == Compared("pay_1", "stripe", Verdict.MATCH, "")


@pytest.mark.parametrize("state", ["failed", "cancelled", "pending", "unknown", "created"])
def test_no_money_on_either_side_matches(state: str) -> None:
    assert only([replace(FAILED, state=state)], []).verdict is Verdict.MATCH


def test_a_payment_held_for_its_sum_matches_the_other_sum() -> None:
    held = replace(PAID, state="on_hold", reason="amount_differs")

    assert only([held], [replace(CHARGE, amount=1_949)]).verdict is Verdict.MATCH
    assert only([held], [CHARGE]).verdict is Verdict.MISMATCH


def test_a_payment_held_for_its_risk_matches_its_own_sum_only() -> None:
    held = replace(PAID, state="on_hold", reason="gateway_says_risky")

    assert only([held], [CHARGE]).verdict is Verdict.MATCH
    assert only([held], [replace(CHARGE, amount=1_949)]).verdict is Verdict.MISMATCH


@pytest.mark.parametrize(
    ("charge", "problem"),
    [
        pytest.param(
            replace(CHARGE, amount=2_000),
            "was charged 2000 USD (minor units), but is about 1999 USD",
            id="another amount",
        ),
        pytest.param(
            replace(CHARGE, currency="EUR"),
            "was charged 1999 EUR (minor units), but is about 1999 USD",
            id="another currency",
        ),
        pytest.param(
            replace(CHARGE, gateway_payment_id="ch_2"),
            "rests on another charge than the gateway's",
            id="another charge",
        ),
    ],
)
def test_a_charge_that_differs_is_a_mismatch(charge: Charge, problem: str) -> None:
    assert only([PAID], [charge]) == Compared("pay_1", "stripe", Verdict.MISMATCH, problem)


@pytest.mark.parametrize("state", ["succeeded", "on_hold"])
def test_money_that_only_we_know_of_is_missing(state: str) -> None:
    verdict = only([replace(PAID, state=state)], [])

    assert verdict.verdict is Verdict.MISSING
    assert verdict.problem == f"is {state}, but nothing was charged"


@pytest.mark.parametrize("state", ["failed", "cancelled", "pending", "unknown", "processing"])
def test_money_that_only_the_gateway_knows_of_is_missing(state: str) -> None:
    verdict = only([replace(FAILED, state=state)], [CHARGE])

    assert verdict.verdict is Verdict.MISSING
    assert verdict.problem == f"was charged, but is {state}"


def test_a_charge_without_a_payment_is_missing() -> None:
    stray = replace(CHARGE, reference="att_2", gateway_payment_id="ch_2")

    mine, strange = compare([PAID], [CHARGE, stray])

    assert mine.verdict is Verdict.MATCH
    assert (strange.subject, strange.verdict) == ("att_2", Verdict.MISSING)


def test_the_same_reference_at_another_gateway_is_another_charge() -> None:
    verdicts = compare([PAID], [replace(CHARGE, gateway="fapshi")])

    assert [each.verdict for each in verdicts] == [Verdict.MISSING, Verdict.MISSING]


def test_a_second_charge_that_was_recorded_is_a_duplicate() -> None:
    surplus = replace(PAID, reason="surplus_charge")
    second = replace(CHARGE, gateway_payment_id="ch_2")

    verdict = only([surplus], [CHARGE, second])

    assert verdict.verdict is Verdict.DUPLICATE
    assert verdict.problem == "was charged 2 times, and this is recorded"


@pytest.mark.parametrize("payment", [PAID, FAILED], ids=["succeeded", "failed"])
def test_a_second_charge_that_nobody_noticed_conflicts(payment: Recorded) -> None:
    second = replace(CHARGE, gateway_payment_id="ch_2")

    verdict = only([payment], [CHARGE, second])

    assert verdict.verdict is Verdict.CONFLICTING_DUPLICATE


def test_charges_of_two_attempts_are_charges_of_one_payment() -> None:
    tried_twice = replace(PAID, references=("att_1", "att_2"))
    second = replace(CHARGE, reference="att_2", gateway_payment_id="ch_2")

    assert only([tried_twice], [second, CHARGE]).verdict is Verdict.CONFLICTING_DUPLICATE
    one = replace(tried_twice, gateway_payment_id="ch_2")
    assert only([one], [second]).verdict is Verdict.MATCH


def test_two_payments_that_claim_one_charge_conflict() -> None:
    other = replace(PAID, payment_id="pay_2", references=("att_2",))

    verdicts = compare([PAID, other], [CHARGE])

    assert [each.verdict for each in verdicts] == [Verdict.CONFLICTING_DUPLICATE] * 2
    elsewhere = replace(other, gateway="fapshi")
    apart = compare([PAID, elsewhere], [CHARGE, replace(CHARGE, gateway="fapshi")])
    assert Verdict.CONFLICTING_DUPLICATE not in {each.verdict for each in apart}


def test_payments_without_a_charge_claim_none() -> None:
    other = replace(FAILED, payment_id="pay_2", references=("att_2",))

    assert {each.verdict for each in compare([FAILED, other], [])} == {Verdict.MATCH}


def test_each_verdict_is_counted_also_when_there_is_none() -> None:
    counts = count(compare([PAID, replace(FAILED, payment_id="pay_2")], [CHARGE]))

    assert counts == {
        Verdict.MATCH: 1,
        Verdict.MISMATCH: 0,
        Verdict.MISSING: 1,
        Verdict.DUPLICATE: 0,
        Verdict.CONFLICTING_DUPLICATE: 0,
    }
