"""One attempt against what a gateway lists under its reference: each way they can differ."""

from __future__ import annotations

from datetime import date

import pytest

from services.payments.domain.settlement_check import (
    FINDINGS_MAX,
    FindingKind,
    OwnAttempt,
    Tally,
    compare,
    due_days,
)
from shared.gateways.listings import ListedPayment
from shared.money import Money

REFERENCE = "att_01KE70EHG0JY1QREBD77BRA2Z8"
PRICE = Money(115_000, "BDT")
OTHER = Money(114_999, "BDT")
TAKEN = OwnAttempt(REFERENCE, "pay_1", "bank_1", PRICE, REFERENCE)
UNPAID = OwnAttempt(REFERENCE, "pay_1", None, None, None)
PAID_ELSEWHERE = OwnAttempt(REFERENCE, "pay_1", "bank_0", PRICE, "att_other")
LISTED = ListedPayment(REFERENCE, "bank_1", PRICE)


def compared(own: OwnAttempt | None, *listed: ListedPayment, is_cut: bool = False) -> Tally:
    tally = Tally()
    compare(tally, REFERENCE, own, listed, is_cut=is_cut)
    return tally


def test_the_same_money_on_both_sides_is_a_match() -> None:
    tally = compared(TAKEN, LISTED)

    assert (tally.matched, tally.findings) == (1, [])


@pytest.mark.parametrize(
    ("own", "listed", "kind"),
    [
        pytest.param(TAKEN, [], FindingKind.MISSING_THERE, id="not listed"),
        pytest.param(UNPAID, [LISTED], FindingKind.MISSING_HERE, id="not confirmed"),
        pytest.param(None, [LISTED], FindingKind.MISSING_HERE, id="no payment of ours"),
        pytest.param(
            TAKEN,
            [ListedPayment(REFERENCE, "bank_1", OTHER)],
            FindingKind.MISMATCH,
            id="another amount",
        ),
        pytest.param(
            TAKEN,
            [ListedPayment(REFERENCE, "bank_1", Money(115_000, "USD"))],
            FindingKind.MISMATCH,
            id="another currency",
        ),
        pytest.param(
            TAKEN,
            [ListedPayment(REFERENCE, "bank_9", PRICE)],
            FindingKind.MISMATCH,
            id="another charge",
        ),
        pytest.param(
            TAKEN,
            [LISTED, ListedPayment(REFERENCE, "bank_2", PRICE)],
            FindingKind.DUPLICATE,
            id="two charges of one attempt",
        ),
        pytest.param(
            UNPAID,
            [LISTED, ListedPayment(REFERENCE, "bank_2", PRICE)],
            FindingKind.DUPLICATE,
            id="two charges, none confirmed",
        ),
        pytest.param(
            PAID_ELSEWHERE,
            [LISTED],
            FindingKind.DUPLICATE,
            id="another attempt of the payment is paid too",
        ),
    ],
)
def test_a_difference_has_its_kind(
    own: OwnAttempt | None, listed: list[ListedPayment], kind: FindingKind
) -> None:
    tally = compared(own, *listed)

    assert [finding.kind for finding in tally.findings] == [kind]
    assert {name: count for name, count in tally.counts.items() if count} == {kind: 1}
    assert (tally.matched, tally.unlisted) == (0, 0)
    (finding,) = tally.findings
    assert finding.payment_id == (None if own is None else "pay_1")
    assert finding.theirs == (listed[0].amount if listed else None)


@pytest.mark.parametrize("own", [UNPAID, PAID_ELSEWHERE])
def test_an_attempt_without_money_on_either_side_is_nothing(own: OwnAttempt) -> None:
    assert compared(own) == Tally()


def test_what_a_list_that_may_be_cut_does_not_have_is_no_finding() -> None:
    tally = compared(TAKEN, is_cut=True)

    assert (tally.unlisted, tally.findings) == (1, [])


def test_all_findings_are_counted_and_the_first_are_kept() -> None:
    tally = Tally()
    for _ in range(FINDINGS_MAX + 5):
        compare(tally, REFERENCE, TAKEN, [], is_cut=False)

    assert len(tally.findings) == FINDINGS_MAX
    assert tally.counts[FindingKind.MISSING_THERE] == FINDINGS_MAX + 5


def test_each_day_is_due_on_the_next_two() -> None:
    assert due_days(date(2026, 3, 1)) == (date(2026, 2, 28), date(2026, 2, 27))
