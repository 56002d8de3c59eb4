"""A plan with another product exchanges it when the next period begins."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.scheduler.domain.lifecycle import take_due
from services.scheduler.domain.model import Plan, Situation, Subscription
from shared.contracts.scheduler import AccessGranted
from shared.money import Money
from tests.unit.scheduler.world import START, a_plan, a_subscription

SECOND = datetime(2026, 2, 28, 9, tzinfo=UTC)

BASIC = a_plan(product_id="basic")
FULL = BASIC._replace(id="pln_2", product_id="full", product_name="Full")
DEARER = BASIC._replace(id="pln_3", amount=Money(900, "EUR"))

PAID = a_subscription(
    BASIC,
    periods_opened=1,
    period_number=0,
    period_start=START,
    period_end=SECOND,
    charges_made=1,
    has_access=True,
    access_sequence=4,
    due_at=SECOND,
)


def given_in(subscription: Subscription, next_plan: Plan) -> list[tuple[str, int]]:
    """Return products and sequences of the access that the next period gives."""
    changing = subscription._replace(next_plan_id=next_plan.id)
    move = take_due(changing, Situation(BASIC, next_plan, SECOND, "pay_2"))
    assert (move.after.plan_id, move.after.period_start) == (next_plan.id, SECOND)
    granted = [each for each in move.messages if isinstance(each, AccessGranted)]
    assert move.after.access_sequence == max([4, *(each.sequence for each in granted)])
    return [(each.product_id, each.sequence) for each in granted]


def test_another_product_takes_the_place_of_the_first_with_the_next_period() -> None:
    assert given_in(PAID, FULL) == [("full", 5)]


@pytest.mark.parametrize(
    ("subscription", "next_plan"),
    [(PAID, DEARER), (PAID._replace(has_access=False), FULL)],
    ids=["the same product", "nothing was given"],
)
def test_what_does_not_change_is_not_told(subscription: Subscription, next_plan: Plan) -> None:
    assert given_in(subscription, next_plan) == []
