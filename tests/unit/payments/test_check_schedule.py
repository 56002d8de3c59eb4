"""A payment that waits is looked at soon at first, then ever more rarely, and never not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import get_args

import pytest

from services.payments.domain.check_schedule import (
    CONFIRMATION_DELAYS,
    POLL_DELAYS,
    next_check_at,
)
from services.payments.domain.model import PaymentState
from services.payments.domain.state_machine import RESTING
from shared.gateways.interface import MethodKind

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
WAITING = sorted(set(PaymentState) - RESTING)


def delays(
    state: PaymentState, first: int, count: int, method: MethodKind = "checkout"
) -> list[float]:
    made = range(first, first + count)
    return [(next_check_at(method, state, checks, NOW) - NOW).total_seconds() for checks in made]


def test_a_notice_waits_2_4_8_16_and_32_seconds_for_its_confirmation() -> None:
    assert delays(PaymentState.PROCESSING, 1, 5) == [2, 4, 8, 16, 32]


def test_without_a_notice_the_first_look_comes_after_30_seconds() -> None:
    assert delays(PaymentState.PENDING, 0, 7) == [30, 60, 120, 300, 600, 1_800, 3_600]


def test_a_phone_is_looked_at_within_seconds_and_no_more_than_five_times_a_minute() -> None:
    moments = list(accumulate(delays(PaymentState.PENDING, 0, 14, "prompt")))

    assert moments[0] == 5
    assert max(sum(0 <= other - each < 60 for other in moments) for each in moments) <= 5


@pytest.mark.parametrize("state", [PaymentState.FAILED, PaymentState.CANCELLED])
def test_what_ended_is_looked_at_rarely_whatever_its_method(state: PaymentState) -> None:
    assert delays(state, 3, 3, "prompt") == delays(state, 3, 3) == [300, 600, 1_800]


@pytest.mark.parametrize("method", get_args(MethodKind))
@pytest.mark.parametrize("state", WAITING)
def test_waits_never_shrink_and_the_last_one_repeats(
    state: PaymentState, method: MethodKind
) -> None:
    waits = delays(state, 0, 50, method)

    assert waits == sorted(waits)
    last = CONFIRMATION_DELAYS[-1] if state is PaymentState.PROCESSING else POLL_DELAYS[-1]
    assert next_check_at(method, state, 30_000, NOW) == NOW + last


@pytest.mark.parametrize("method", get_args(MethodKind))
@pytest.mark.parametrize("state", WAITING)
def test_every_look_is_in_the_future(state: PaymentState, method: MethodKind) -> None:
    assert next_check_at(method, state, 0, NOW) >= NOW + timedelta(seconds=2)
