"""How a subscription begins: its anchor, its first due time, and what may not be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.scheduler.domain.beginning import FUTURE_MAX, PAST_MAX, Wish, begun
from services.scheduler.domain.commands import created
from services.scheduler.domain.model import (
    CatchUpPolicy,
    Dunning,
    DunningEnd,
    Plan,
    SubscriptionState,
)
from services.scheduler.domain.periods import Interval, IntervalUnit
from services.scheduler.domain.plans import COUNT_MAX, require_chargeable, require_length
from shared.contracts.priorities import Priority
from shared.errors import InvalidInputError
from shared.gateways.interface import Capabilities, Limits
from shared.money import Money

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def plan(**changes: Any) -> Plan:
    made = Plan(
        id="pln_1",
        product_id="course_1",
        product_name="Course",
        amount=Money(990, "EUR"),
        interval=Interval(IntervalUnit.MONTH, 1),
        trial=None,
        gateway="stripe",
        grace=3 * DAY,
        dunning=Dunning((1, 3, 7), DunningEnd.CANCEL),
        catch_up=CatchUpPolicy.CURRENT,
        catch_up_max=12,
    )
    return made._replace(**changes)


def wish(**changes: Any) -> Wish:
    made = Wish(
        customer_id="cus_1",
        payment_method_id="pmt_1",
        start_at=None,
        anchor=None,
        zone="UTC",
        auto_pay=True,
        ends_after=None,
        clock_id=None,
    )
    return made._replace(**changes)


def wrong_field(of: Wish, under: Plan) -> str:
    with pytest.raises(InvalidInputError) as caught:
        begun("sub_1", of, under, NOW)
    (field,) = caught.value.details
    return str(field)


def test_without_a_trial_it_is_due_at_its_start() -> None:
    made = begun("sub_1", wish(), plan(), NOW)

    assert (made.start_at, made.anchor, made.due_at) == (NOW, NOW, NOW)
    assert (made.state, made.period_number) == (SubscriptionState.TRIALING, -1)
    assert made.priority is Priority.MEDIUM


@pytest.mark.parametrize(
    ("trial", "zone", "anchor"),
    [
        (Interval(IntervalUnit.WEEK, 2), "UTC", "2026-02-14T12:00"),
        (Interval(IntervalUnit.MONTH, 1), "UTC", "2026-02-28T12:00"),
        # Clocks go forward on 29 March: noon stays noon, an hour earlier in UTC.
        (Interval(IntervalUnit.DAY, 60), "Europe/Paris", "2026-04-01T11:00"),
        (Interval(IntervalUnit.HOUR, 60 * 24), "Europe/Paris", "2026-04-01T12:00"),
    ],
)
def test_the_anchor_is_the_end_of_the_trial(trial: Interval, zone: str, anchor: str) -> None:
    made = begun("sub_1", wish(zone=zone), plan(trial=trial), NOW)

    assert made.anchor == made.period_end == datetime.fromisoformat(anchor).replace(tzinfo=UTC)
    assert (made.period_start, made.due_at) == (NOW, NOW)


def test_it_begins_within_a_year_before_the_present_and_a_century_after() -> None:
    longest, later = NOW - PAST_MAX, NOW + FUTURE_MAX
    second = timedelta(seconds=1)

    assert begun("sub_1", wish(start_at=longest), plan(), NOW).start_at == longest
    assert begun("sub_1", wish(start_at=later), plan(), NOW).start_at == later
    assert wrong_field(wish(start_at=longest - second), plan()) == "startAt"
    assert wrong_field(wish(start_at=later + second), plan()) == "startAt"


def test_one_that_began_in_the_past_is_due_now_and_not_late() -> None:
    past = begun("sub_1", wish(start_at=NOW - 100 * DAY), plan(), NOW)
    virtual = begun("sub_1", wish(start_at=NOW - 100 * DAY, clock_id="clk_1"), plan(), NOW)
    assert virtual.as_of is not None

    assert created(past, plan(), NOW).after.due_at == NOW
    assert created(virtual, plan(), virtual.as_of).after.due_at == NOW - 100 * DAY


def test_on_a_test_clock_it_may_begin_long_before_and_its_time_begins_there() -> None:
    long_ago = NOW - FUTURE_MAX

    made = begun("sub_1", wish(clock_id="clk_1", start_at=long_ago), plan(), NOW)
    ahead = begun("sub_1", wish(clock_id="clk_1", start_at=NOW + DAY), plan(), NOW)

    assert made.as_of == long_ago
    assert ahead.as_of == NOW
    assert begun("sub_1", wish(), plan(), NOW).as_of is None


def test_an_anchor_lies_between_the_end_of_the_trial_and_a_century_later() -> None:
    trial = plan(trial=Interval(IntervalUnit.DAY, 1))

    assert begun("sub_1", wish(anchor=NOW + DAY), trial, NOW).anchor == NOW + DAY
    assert wrong_field(wish(anchor=NOW + DAY / 2), trial) == "anchor"
    assert wrong_field(wish(anchor=NOW - DAY), plan()) == "anchor"
    assert wrong_field(wish(anchor=NOW + FUTURE_MAX + DAY), plan()) == "anchor"


def test_no_interval_is_longer_than_a_century() -> None:
    for unit, most in COUNT_MAX.items():
        require_length("trial", Interval(unit, most))
        with pytest.raises(InvalidInputError) as caught:
            require_length("trial", Interval(unit, most + 1))
        assert list(caught.value.details) == ["trial.count"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"gateway": "page"}, "gateway"),
        ({"gateway": "nobody"}, "gateway"),
        ({"amount": Money(990, "USD")}, "currency"),
        ({"amount": Money(9, "EUR")}, "amount"),
        ({"amount": Money(1_010, "EUR")}, "amount"),
        ({"amount": Money(995, "EUR")}, "amount"),
    ],
)
def test_a_plan_is_one_that_its_gateway_can_charge(changes: dict[str, Any], field: str) -> None:
    limits = {"EUR": Limits(10, 1_000, step=10)}
    gateways = {
        "stripe": Capabilities(methods=("card",), limits=limits),
        "page": Capabilities(methods=("checkout",), limits=limits),
    }

    require_chargeable(gateways, plan())
    with pytest.raises(InvalidInputError) as caught:
        require_chargeable(gateways, plan(**changes))

    assert list(caught.value.details) == [field]
