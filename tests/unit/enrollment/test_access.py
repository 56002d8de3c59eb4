"""Of what a subscription says the latest holds, and it takes away only what it gave."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from services.enrollment.domain.access import (
    Access,
    AccessEffect,
    Right,
    effect_of_end,
    effect_of_grant,
    news_that_count,
    right_left,
)
from services.enrollment.domain.model import EnrollmentState
from tests.support.clocks import START

COURSE = Right("cus_1", "course_1")
BOOK = Right("cus_1", "book_1")
GIVEN = Access("sub_1", 3, COURSE, has_access=True, reason=None, told_at=START)
ENDED = replace(GIVEN, sequence=4, has_access=False, reason="unpaid")
NOTHING = replace(GIVEN, sequence=0, has_access=False)


def test_in_any_order_the_latest_of_each_subscription_counts() -> None:
    other = replace(GIVEN, subscription_id="sub_2", sequence=1)
    heard = [GIVEN, ENDED, replace(GIVEN, sequence=2), other]

    for order in itertools.permutations(heard):
        assert set(news_that_count(order, {})) == {ENDED, other}


@pytest.mark.parametrize(("sequence", "counts"), [(2, False), (3, False), (4, True)])
def test_only_what_is_later_than_what_is_known_counts(sequence: int, *, counts: bool) -> None:
    heard = replace(GIVEN, sequence=sequence)

    assert list(news_that_count([heard], {"sub_1": GIVEN})) == ([heard] if counts else [])


@pytest.mark.parametrize(
    ("known", "news", "left"),
    [
        (GIVEN, ENDED, COURSE),
        (GIVEN, replace(ENDED, right=BOOK), COURSE),
        (GIVEN, replace(GIVEN, sequence=4), None),
        (GIVEN, replace(GIVEN, sequence=4, right=BOOK), COURSE),
        (NOTHING, ENDED, None),
        (NOTHING, GIVEN, None),
        (ENDED, replace(GIVEN, sequence=5, right=BOOK), None),
        (None, ENDED, None),
    ],
    ids=[
        "it ended",
        "it ended with another product",
        "it goes on",
        "it goes on with another product",
        "it ended before it gave anything",
        "it begins",
        "it begins anew with another product",
        "it is unknown",
    ],
)
def test_it_takes_away_what_it_gave_and_nothing_else(
    known: Access | None, news: Access, left: Right | None
) -> None:
    assert right_left(news, known) == left


@pytest.mark.parametrize(
    ("existing", "is_new", "effect"),
    [
        (EnrollmentState.ACTIVE, True, AccessEffect.GRANTED),
        (EnrollmentState.ACTIVE, False, AccessEffect.KEPT),
        (EnrollmentState.REVOKED, False, AccessEffect.REGRANTED),
    ],
)
def test_what_it_gives_is_granted_once(
    existing: EnrollmentState, effect: AccessEffect, *, is_new: bool
) -> None:
    assert effect_of_grant(existing, is_new=is_new) is effect


@pytest.mark.parametrize(
    ("existing", "is_held", "effect"),
    [
        (EnrollmentState.ACTIVE, False, AccessEffect.REVOKED),
        (EnrollmentState.ACTIVE, True, AccessEffect.HELD_OTHERWISE),
        (EnrollmentState.REVOKED, False, AccessEffect.NOT_NEEDED),
        (EnrollmentState.REVOKED, True, AccessEffect.NOT_NEEDED),
    ],
)
def test_an_end_takes_away_what_nothing_else_holds(
    existing: EnrollmentState, effect: AccessEffect, *, is_held: bool
) -> None:
    assert effect_of_end(existing, is_held=is_held) is effect
