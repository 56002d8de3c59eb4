"""The figures of a simulation, and when it counts as well."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from deploy.local.load_comparison import Compared, Verdict
from deploy.local.simulate_checks import BilledPeriod, Lived, Problem
from deploy.local.simulate_report import Outcome, as_json, render

START = datetime(2027, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2027, 2, 1, tzinfo=UTC)
END = datetime(2027, 3, 1, tzinfo=UTC)

_NONE = {"times": 0, "amount": 0}


def figures(paid: int, late: int, churned: int) -> dict[str, Any]:
    return {
        "gateway": "stripe",
        "currency": "USD",
        "churned": churned,
        "successRate": 100.0,
        "opened": {"times": 2, "amount": paid},
        "paidAtOnce": {"times": 1, "amount": paid - late},
        "paidByRetry": {"times": 1, "amount": late},
        "paidByDunning": _NONE,
        "revenue": {"times": 2, "amount": paid},
        "failedCharges": _NONE,
        "writtenOff": _NONE,
    }


ANALYTICS = {
    "buckets": [
        {"start": "2027-01-01", **figures(4_000, 1_000, 0)},
        {"start": "2027-02-01", **figures(2_000, 0, 1)},
    ],
    "byGateway": [figures(6_000, 1_000, 1)],
    "totals": [figures(6_000, 1_000, 1)],
}

OUTCOME = Outcome(
    start=START,
    end=END,
    seconds=20.0,
    simulating_seconds=12.0,
    analytics=ANALYTICS,
    lived=[
        Lived("sub_1", "active", "paid", START, "month", 1),
        Lived("sub_2", "cancelled", "dunning_over", START, "month", 1),
    ],
    billed=[BilledPeriod("sub_1", START, FEBRUARY, 1, "paid", "pay_1")],
    waiting=[],
    problems=[],
    verdicts=[Compared("pay_1", "stripe", Verdict.MATCH, "")],
    violated=[],
)


def rendered(outcome: Outcome) -> str:
    text = io.StringIO()
    render(Console(file=text, width=200), outcome)
    return text.getvalue()


def test_the_chart_shows_each_month_with_what_was_recovered() -> None:
    lines = [line for line in rendered(OUTCOME).splitlines() if line.strip().startswith("2027-")]

    january, february = lines
    assert (january.count("█"), january.count("▒")) == (30, 10)
    assert (february.count("█"), february.count("▒")) == (20, 0)
    assert "40.00 USD" in january
    assert february.rstrip().endswith("1")


def test_all_that_was_found_is_told() -> None:
    text = rendered(OUTCOME)

    assert "churned" in text
    assert "1 (50.0 %)" in text
    assert "none doubled, none missed" in text
    assert "The audit is clean." in text


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"problems": [Problem("sub_1", "was never billed")]}, "sub_1 was never billed"),
        (
            {"verdicts": [Compared("pay_1", "stripe", Verdict.MISSING, "was charged")]},
            "pay_1 (stripe) was charged",
        ),
        (
            {"waiting": [{"subscriptionId": "sub_1", "paymentId": "pay_1", "since": "2027"}]},
            "sub_1 pay_1 2027",
        ),
        ({"violated": ["periods_follow"]}, "not clean: periods_follow"),
    ],
)
def test_what_is_wrong_is_named_and_is_not_well(changes: dict[str, Any], word: str) -> None:
    outcome = replace(OUTCOME, **changes)

    assert OUTCOME.is_well
    assert not outcome.is_well
    assert word in rendered(outcome)
    assert not as_json(outcome)["well"]


def test_machines_get_the_same_figures() -> None:
    told = as_json(OUTCOME)

    assert told["well"]
    assert (told["from"], told["to"]) == ("2027-01-01T00:00:00Z", "2027-03-01T00:00:00Z")
    assert told["states"] == {"active": 1, "cancelled": 1}
    assert told["periods"] == {"paid": 1}
    assert told["ledgers"]["match"] == 1
