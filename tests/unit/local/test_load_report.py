"""The figures of a load, and when it counts as well."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from deploy.local.load_comparison import Charge, Recorded, compare
from deploy.local.load_ledgers import LATE_FATES, UNPAID_FATES, Books, Fated
from deploy.local.load_plan import Transaction
from deploy.local.load_report import Outcome, as_json, percentile, render
from deploy.local.load_traffic import Made
from services.simulator.profiles import Fate

PROFILE: dict[str, Any] = {"seed": 1, "fates": {"declined": 10, "timeout_after": 5}}


def made(number: int, gateway: str = "stripe", **changes: Any) -> Made:
    transaction = Transaction(number, gateway, 1_999, "USD", {"type": "card"}, product=1)
    whole = {
        "began_at": float(number),
        "created_seconds": 0.1 * (number + 1),
        "tries": 1,
        "payment_id": f"pay_{number}",
        "state": "succeeded",
        "settled_seconds": 1.0 + number,
    }
    return Made(transaction, **{**whole, **changes})


def recorded(number: int, state: str = "succeeded") -> Recorded:
    charge_id = f"ch_{number}" if state == "succeeded" else None
    reference = f"att_{number}"
    return Recorded(f"pay_{number}", "stripe", state, None, 1_999, "USD", (reference,), charge_id)


def charge(number: int) -> Charge:
    return Charge("stripe", f"att_{number}", f"ch_{number}", 1_999, "USD")


def outcome(**changes: Any) -> Outcome:
    """Make the outcome of a payment that was paid and one that was declined."""
    books = Books(
        [recorded(0), recorded(1, "failed")],
        [charge(0)],
        {
            ("stripe", "att_0"): Fated("paid", "on_time"),
            ("stripe", "att_1"): Fated("declined", "never"),
        },
    )
    books = changes.pop("books", books)
    whole = {
        "profile": PROFILE,
        "all_made": [made(0), made(1, state="failed")],
        "making_seconds": 2.0,
        "whole_seconds": 4.0,
        "books": books,
        "verdicts": compare(books.payments, books.charges),
        "is_audit_clean": True,
    }
    return Outcome(**{**whole, **changes})


@pytest.mark.parametrize(
    ("state", "fate", "is_final"),
    [
        pytest.param("succeeded", "paid", True, id="paid"),
        pytest.param("failed", "declined", True, id="declined"),
        pytest.param("pending", "paid", False, id="on its way"),
        pytest.param("unknown", "timeout_after", False, id="in doubt"),
        pytest.param("pending", "declined", True, id="declined on a page that stays open"),
        pytest.param("pending", "never_confirms", True, id="nobody confirms"),
        pytest.param("failed", "late_success", False, id="to be paid later"),
        pytest.param("succeeded", "late_success", True, id="paid later"),
        pytest.param("failed", None, True, id="failed without a fate"),
        pytest.param("pending", None, False, id="pending without a fate"),
    ],
)
def test_books_are_final_when_nothing_more_will_be_charged(
    state: str,
    fate: str | None,
    is_final: bool,  # noqa: FBT001
) -> None:
    fates = {} if fate is None else {("stripe", "att_0"): Fated(fate, "on_time")}

    assert Books([recorded(0, state)], [], fates).is_final is is_final


def test_of_several_tries_the_last_one_decides_whether_money_may_come() -> None:
    tried_twice = replace(recorded(0, "pending"), references=("att_1", "att_0"))
    first, last = ("stripe", "att_0"), ("stripe", "att_1")

    def books(fate_of_first: str, fate_of_last: str) -> Books:
        fates = {first: Fated(fate_of_first, "on_time"), last: Fated(fate_of_last, "never")}
        return Books([tried_twice], [], fates)

    assert books("error_500", "declined").is_final
    assert not books("declined", "paid").is_final


def test_the_fates_are_those_of_the_simulator() -> None:
    assert {*Fate} > UNPAID_FATES | LATE_FATES


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, 1.0), (0.5, 5.0), (0.51, 6.0), (0.9, 9.0), (0.99, 10.0), (1.0, 10.0)],
)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    values = [float(value) for value in range(10, 0, -1)]

    assert percentile(values, share) == expected


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 0.5) is None


def test_a_load_whose_ledgers_agree_is_well() -> None:
    assert outcome().is_well


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"books": Books([recorded(0)], [], {})}, id="missing"),
        pytest.param(
            {"books": Books([recorded(0)], [replace(charge(0), amount=1)], {})}, id="mismatch"
        ),
        pytest.param({"books": Books([recorded(0)], [charge(0)] * 2, {})}, id="duplicate"),
        pytest.param({"all_made": [made(0), made(1, payment_id=None)]}, id="not made"),
        pytest.param({"is_audit_clean": False}, id="audit"),
    ],
)
def test_a_load_is_not_well_when_anything_is_wrong(changes: dict[str, Any]) -> None:
    assert not outcome(**changes).is_well


def test_the_audit_of_somebody_elses_stack_does_not_count() -> None:
    assert outcome(is_audit_clean=None).is_well


def test_figures_for_a_machine() -> None:
    figures = as_json(outcome())

    assert figures["well"] is True
    assert figures["throughput"]["madePerSecond"] == 1.0
    assert figures["throughput"]["settledPerSecond"] == 0.5
    assert figures["latencySeconds"]["stripe"]["creation"] == {
        "p50": 0.1,
        "p95": 0.2,
        "p99": 0.2,
        "max": 0.2,
    }
    assert figures["fates"] == [
        {"fate": "declined", "askedPercent": 10, "reached": 1, "states": {"failed": 1}},
        {"fate": "paid", "askedPercent": 85, "reached": 1, "states": {"succeeded": 1}},
    ]
    assert figures["notices"] == {"on_time": 1, "never": 1}
    assert figures["ledgers"] == {
        "match": 2,
        "mismatch": 0,
        "missing": 0,
        "duplicate": 0,
        "conflicting duplicate": 0,
    }
    assert figures["wrong"] == []


def test_what_is_wrong_is_told() -> None:
    target = Console(file=io.StringIO(), width=200)
    missing = Books([recorded(number) for number in range(12)], [charge(0)], {})

    render(
        target,
        outcome(books=missing, all_made=[made(0), made(1, payment_id=None, refusal="422 refused")]),
    )

    assert isinstance(target.file, io.StringIO)
    text = target.file.getvalue()
    assert "missing: pay_1 (stripe) is succeeded, but nothing was charged" in text
    assert "and 1 more" in text
    assert "1 payments were not taken on (stripe: 422 refused)" in text
