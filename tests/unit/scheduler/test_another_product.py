"""A plan with another product exchanges it when the next period begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.scheduler.domain.lifecycle import take_due
from services.scheduler.domain.model import (
    CatchUpPolicy,
    Dunning,
    DunningEnd,
    Plan,
    Situation,
    Subscription,
    SubscriptionState,
)
from services.scheduler.domain.periods import Interval, IntervalUnit
from shared.contracts.priorities import Priority
from shared.contracts.scheduler import AccessGranted
from shared.money import Money

ANCHOR = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND = datetime(2026, 2, 5, 12, tzinfo=UTC)

BASIC = Plan(
    id="pln_1",
    product_id="basic",
    product_name="Basic",
    amount=Money(500, "USD"),
    interval=Interval(IntervalUnit.MONTH, 1),
    trial=None,
    gateway="stripe",
    grace=timedelta(days=3),
    dunning=Dunning((1, 3), DunningEnd.CANCEL),
    catch_up=CatchUpPolicy.CURRENT,
    catch_up_max=1,
)
FULL = BASIC._replace(id="pln_2", product_id="full", product_name="Full")
DEARER = BASIC._replace(id="pln_3", amount=Money(900, "USD"))

PAID = Subscription(
    id="sub_1",
    customer_id="cus_1",
    plan_id="pln_1",
    next_plan_id=None,
    payment_method_id="pmt_1",
    state=SubscriptionState.ACTIVE,
    reason="paid",
    priority=Priority.NORMAL,
    auto_pay=True,
    zone="UTC",
    anchor=ANCHOR,
    start_at=ANCHOR,
    ends_after=None,
    periods_opened=1,
    period_number=0,
    period_start=ANCHOR,
    period_end=SECOND,
    cancels_at_period_end=False,
    is_unpaid=False,
    charges_made=1,
    charging=None,
    retry_at=None,
    may_still_be_paid=False,
    failed_at=None,
    dunning_step=0,
    grace_until=None,
    has_access=True,
    access_sequence=4,
    asks_to_catch_up=False,
    catches_up_until=None,
    due_at=SECOND,
    clock_id=None,
    as_of=None,
    version=1,
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
