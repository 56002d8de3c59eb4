"""What must not be after a simulation is found, whatever it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.local.simulate_checks import BilledPeriod, Lived, Money, Problem, problems_of

END = datetime(2027, 5, 1, tzinfo=UTC)
MONTHS = [datetime(2027, month, 10, tzinfo=UTC) for month in range(1, 7)]


def lived(**changes: Any) -> Lived:
    return Lived("sub_1", "active", "paid", MONTHS[0], "month", 1)._replace(**changes)


def period(number: int, **changes: Any) -> BilledPeriod:
    """Return the period that begins in a month."""
    start, end = MONTHS[number], MONTHS[number + 1]
    return BilledPeriod("sub_1", start, end, 1, "paid", f"pay_{number}")._replace(**changes)


def money(number: int) -> Money:
    return Money(f"pay_{number}", "sub_1")


ALL = [period(number) for number in range(4)]
PAID = [money(number) for number in range(4)]


def found(
    billed: list[BilledPeriod], taken: list[Money] = PAID, one: Lived | None = None
) -> list[Problem]:
    return problems_of([one or lived()], billed, taken, END)


def test_a_whole_chain_that_is_paid_is_well() -> None:
    assert found(ALL) == []


def test_who_is_over_need_not_be_billed_to_the_end() -> None:
    assert found(ALL[:2], PAID[:2], lived(state="cancelled")) == []


@pytest.mark.parametrize(
    ("billed", "word"),
    [
        ([ALL[0], ALL[2], ALL[3]], "leaves a gap"),
        ([*ALL[:3], period(3, start=MONTHS[3] - timedelta(days=1))], "overlaps"),
        (ALL[:3], "only"),
        (ALL[1:], "not from its anchor"),
        ([period(0, end=MONTHS[2]), *ALL[2:]], "lasts"),
        ([], "never billed"),
    ],
)
def test_a_period_that_is_missed_or_doubled_is_found(billed: list[BilledPeriod], word: str) -> None:
    taken = [Money(each.payment_id or "", "sub_1") for each in billed]

    (problem,) = found(billed, taken)

    assert problem.subject == "sub_1"
    assert word in problem.what


def test_periods_that_were_skipped_together_are_as_long_as_they_are_many() -> None:
    skipped = period(0, end=MONTHS[2], periods=2, state="skipped", payment_id=None)

    assert found([skipped, *ALL[2:]], PAID[2:]) == []


def test_a_paid_period_without_money_is_found() -> None:
    (problem,) = found(ALL, PAID[:3])

    assert "took nothing" in problem.what


def test_money_that_pays_no_period_is_found() -> None:
    (problem,) = found(ALL, [*PAID, money(9)])

    assert problem == Problem("pay_9", "took money of sub_1 that pays no period")


def test_money_that_pays_two_periods_is_found() -> None:
    billed = [*ALL[:3], period(3, payment_id="pay_2")]

    (problem,) = found(billed, PAID[:3])

    assert problem.what == "4 paid periods rest on 3 payments"


def test_money_of_somebody_else_is_found() -> None:
    taken = [*PAID[:3], Money("pay_3", "sub_2")]

    assert [each.subject for each in found(ALL, taken)] == ["sub_1"]
