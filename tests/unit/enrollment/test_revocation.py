"""What money that went back does to an enrollment, by policy and by what else holds it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from services.enrollment.domain.revocation import (
    GRANT_IS_SEEN_AFTER,
    Cause,
    News,
    Policy,
    PolicyKind,
    Reversal,
    Revocation,
    Step,
    are_late,
    step_of_news,
    step_when_due,
)
from tests.support.clocks import START

GRACE = timedelta(days=3)
NEWS = News("pay_1", "refund", Cause.REFUNDED, "cus_1", "course_1", START)
WON = replace(NEWS, occasion="du_1", cause=Cause.DISPUTE_WON)
WAITING = Reversal(NEWS, Revocation.WAITING, START, START)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (PolicyKind.AT_ONCE, Step(Revocation.WAITING, due_at=START)),
        (PolicyKind.AFTER_GRACE, Step(Revocation.WAITING, due_at=START + GRACE)),
        (PolicyKind.NEVER, Step(Revocation.NEVER, "policy")),
    ],
)
@pytest.mark.parametrize("cause", [Cause.REFUNDED, Cause.DISPUTE_LOST])
def test_the_policy_says_when(kind: PolicyKind, step: Step, cause: Cause) -> None:
    news = replace(NEWS, cause=cause)

    assert step_of_news(news, None, Policy(kind, GRACE), now=START) == step


@pytest.mark.parametrize("kind", PolicyKind)
@pytest.mark.parametrize("cause", [Cause.REFUND_RETURNED, Cause.DISPUTE_WON])
@pytest.mark.parametrize("known", [None, *Revocation])
def test_money_that_is_ours_again_ends_what_was_planned_or_done(
    kind: PolicyKind, cause: Cause, known: Revocation | None
) -> None:
    news = replace(NEWS, cause=cause)
    before = None if known is None else replace(WAITING, revocation=known)

    step = step_of_news(news, before, Policy(kind, GRACE), now=START)

    was_in_force = known in {Revocation.WAITING, Revocation.DONE}
    expected = Revocation.CANCELLED if was_in_force else Revocation.NOT_NEEDED
    assert step == Step(expected, cause)


@pytest.mark.parametrize(
    ("later", "cause", "late"),
    [
        (timedelta(0), Cause.REFUNDED, True),
        (timedelta(0), Cause.REFUND_RETURNED, False),
        (timedelta(seconds=-1), Cause.REFUND_RETURNED, True),
        (timedelta(seconds=1), Cause.REFUNDED, False),
    ],
    ids=["the same", "others of the same moment", "older", "newer"],
)
def test_only_the_latest_news_count(later: timedelta, cause: Cause, *, late: bool) -> None:
    news = replace(NEWS, cause=cause, noticed_at=START + later)

    assert are_late(news, NEWS) is late


@pytest.mark.parametrize(
    ("has_granted", "is_active", "is_held", "expected"),
    [
        (True, True, False, Step(Revocation.DONE)),
        (True, True, True, Step(Revocation.NOT_NEEDED, "held_otherwise")),
        (True, False, False, Step(Revocation.NOT_NEEDED, "revoked_already")),
        (True, False, True, Step(Revocation.NOT_NEEDED, "revoked_already")),
        (False, True, False, Step(Revocation.UNGRANTED)),
        (False, False, False, Step(Revocation.UNGRANTED)),
    ],
)
def test_only_what_nothing_else_holds_is_taken_away(
    *, has_granted: bool, is_active: bool, is_held: bool, expected: Step
) -> None:
    step = step_when_due(
        WAITING,
        has_granted=has_granted,
        is_active=is_active,
        is_held=is_held,
        now=START + GRANT_IS_SEEN_AFTER,
    )

    assert step == expected


def test_a_grant_on_its_way_is_waited_for_once() -> None:
    soon = START + GRANT_IS_SEEN_AFTER - timedelta(microseconds=1)

    step = step_when_due(WAITING, has_granted=False, is_active=False, is_held=False, now=soon)

    assert step == Step(Revocation.WAITING, "grant_may_come", START + GRANT_IS_SEEN_AFTER)
