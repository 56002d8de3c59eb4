"""A payment that waits is looked at soon at first, then ever more rarely, and never not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.payments.domain.check_schedule import (
    CONFIRMATION_DELAYS,
    POLL_DELAYS,
    next_check_at,
)
from services.payments.domain.model import PaymentState
from services.payments.domain.state_machine import RESTING

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
WAITING = sorted(set(PaymentState) - RESTING)


def delays(state: PaymentState, first: int, count: int) -> list[float]:
    made = range(first, first + count)
    return [(next_check_at(state, checks, NOW) - NOW).total_seconds() for checks in made]


def test_a_notice_waits_2_4_8_16_and_32_seconds_for_its_confirmation() -> None:
    assert delays(PaymentState.PROCESSING, 1, 5) == [2, 4, 8, 16, 32]


def test_without_a_notice_the_first_look_comes_after_30_seconds() -> None:
    assert delays(PaymentState.PENDING, 0, 7) == [30, 60, 120, 300, 600, 1_800, 3_600]


@pytest.mark.parametrize("state", WAITING)
def test_waits_never_shrink_and_the_last_one_repeats(state: PaymentState) -> None:
    waits = delays(state, 0, 50)

    assert waits == sorted(waits)
    last = CONFIRMATION_DELAYS[-1] if state is PaymentState.PROCESSING else POLL_DELAYS[-1]
    assert next_check_at(state, 30_000, NOW) == NOW + last


@pytest.mark.parametrize("state", WAITING)
def test_every_look_is_in_the_future(state: PaymentState) -> None:
    assert next_check_at(state, 0, NOW) >= NOW + timedelta(seconds=2)
