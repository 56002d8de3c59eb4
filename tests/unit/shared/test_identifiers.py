"""Ids sort by time, fit a gateway's thirty characters, and carry the moment they were made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.identifiers import (
    as_uuid,
    created_at,
    first_id_at,
    from_uuid,
    is_id,
    new_id,
)

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)

#: An id of that moment; a new one would give each xdist worker other names of tests.
KNOWN = "pay_01KE70EHG0JY1QREBD77BRA2Z7"

moments = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis wants it naive
    max_value=datetime(9000, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def to_millisecond(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@given(moments)
def test_an_id_carries_its_moment_to_the_millisecond(moment: datetime) -> None:
    assert abs(created_at(new_id("pay", moment)) - moment) <= timedelta(milliseconds=1)


@given(moments, moments)
def test_ids_sort_by_their_moments(one: datetime, other: datetime) -> None:
    if to_millisecond(one) == to_millisecond(other):
        return

    by_id = sorted([new_id("pay", one), new_id("pay", other)])

    assert [created_at(id_) for id_ in by_id] == sorted(created_at(id_) for id_ in by_id)


@given(moments)
def test_the_first_id_of_a_moment_is_not_after_any_other_of_it(moment: datetime) -> None:
    assert first_id_at("pay", moment) <= new_id("pay", moment)
    assert first_id_at("pay", moment + timedelta(milliseconds=2)) > new_id("pay", moment)


def test_an_id_has_the_thirty_characters_that_sslcommerz_accepts() -> None:
    identifier = new_id("att", NOON)

    assert len(identifier) == 30
    assert is_id(identifier, "att")


def test_two_ids_of_one_moment_differ() -> None:
    assert new_id("pay", NOON) != new_id("pay", NOON)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pay_",
        KNOWN.replace("pay", "att"),
        KNOWN.lower(),
        KNOWN + "0",
        KNOWN[:-1] + "U",
        KNOWN[:-1] + "\n",
        "pay_8" + "0" * 25,
    ],
    ids=repr,
)
def test_other_shapes_are_not_ids(text: str) -> None:
    assert not is_id(text, "pay")


@pytest.mark.parametrize("text", ["", "INV-000123-A1", "pay_8" + "0" * 25])
def test_what_is_no_id_has_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="is not an id"):
        created_at(text)


@given(moments)
def test_an_id_is_a_uuid_of_version_4_in_other_letters(moment: datetime) -> None:
    identifier = new_id("att", moment)

    uuid = UUID(as_uuid(identifier))

    assert (uuid.version, uuid.variant) == (4, RFC_4122)
    assert from_uuid("att", str(uuid)) == identifier


def test_what_is_no_uuid_is_no_id() -> None:
    with pytest.raises(ValueError, match="badly formed"):
        from_uuid("att", "None")
