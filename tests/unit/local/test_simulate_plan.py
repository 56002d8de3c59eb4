"""What a simulation makes: lengths of time, plans, and customers of whom some never pay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deploy.local.simulate_plan import (
    FAILING_ONE_IN,
    LIFELIKE,
    SimulationError,
    means_of_payment,
    offers,
    profile_of,
    read_interval,
    read_span,
    subscribers,
)

START = datetime(2027, 1, 31, tzinfo=UTC)
YEAR = datetime(2028, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("1y", datetime(2028, 1, 31, tzinfo=UTC)),
        ("1m", datetime(2027, 2, 28, tzinfo=UTC)),
        ("13m", datetime(2028, 2, 29, tzinfo=UTC)),
        ("2w", datetime(2027, 2, 14, tzinfo=UTC)),
        ("90d", datetime(2027, 5, 1, tzinfo=UTC)),
    ],
)
def test_a_span_ends_on_the_calendar(text: str, end: datetime) -> None:
    assert read_span(text).after(START) == end


@pytest.mark.parametrize("text", ["", "1", "y", "0y", "-1y", "1.5y", "1 y", "1001y", "99999d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(SimulationError, match=text or "''"):
        read_span(text)


def test_a_span_does_not_leave_the_calendar() -> None:
    with pytest.raises(SimulationError, match="too long"):
        read_span("1000y").after(START.replace(year=9_500))


def test_an_interval_may_have_a_number() -> None:
    assert read_interval("month") == {"unit": "month", "count": 1}
    assert read_interval("2week") == {"unit": "week", "count": 2}
    for text in ("", "0day", "fortnight", "2weeks"):
        with pytest.raises(SimulationError):
            read_interval(text)


def test_there_is_a_plan_for_each_gateway_interval_and_price() -> None:
    made = offers(["stripe", "x402"], [read_interval("month"), read_interval("week")])

    seen = {(o.gateway, o.body["interval"]["unit"], o.body["amount"]) for o in made}
    assert len(seen) == len(made) == 2 * 2 * 3
    assert all(each.body["amount"] % 100 == 0 for each in made)


def test_customers_are_the_same_for_the_same_seed() -> None:
    first = subscribers(100, 3, START, YEAR, seed=1)

    assert first == subscribers(100, 3, START, YEAR, seed=1)
    assert first != subscribers(100, 3, START, YEAR, seed=2)
    assert all(START <= each.start_at < YEAR for each in first)
    soon = [each.start_at for each in first if not each.is_failing]
    assert max(soon) < START + timedelta(days=31)


def test_one_customer_in_so_many_never_pays() -> None:
    made = subscribers(4 * FAILING_ONE_IN, 3, START, YEAR, seed=1)

    failing = [each for each in made if each.is_failing]
    assert len(failing) == 4
    cards = [means_of_payment(each, "stripe")["method"]["paymentMethod"] for each in failing]
    assert len(set(cards)) == 2
    assert "pm_card_visa" not in cards
    assert means_of_payment(made[0], "stripe")["method"]["paymentMethod"] == "pm_card_visa"


def test_notices_that_tell_nothing_new_are_sent_on_request_only() -> None:
    assert profile_of("lifelike", 7, ["stripe"], with_notices=False) == {
        **LIFELIKE,
        "seed": 7,
        "notices": {"never": 100},
    }
    assert "notices" not in profile_of("lifelike", 7, ["stripe"], with_notices=True)
    assert "notices" not in profile_of("lifelike", 7, ["stripe", "campay"], with_notices=False)
    assert profile_of("lifelike", 7, ["x402"], with_notices=False)["fates"] == {}
    assert profile_of("smooth", 7, ["stripe"], with_notices=False)["seed"] == 7
