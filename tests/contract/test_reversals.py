"""What went back: the schema, the domain and the words for a reader know the same things."""

from __future__ import annotations

import re
from enum import StrEnum

import asyncpg
import pytest

from deploy.local import story_words
from services.enrollment.domain.revocation import Cause, Revocation
from shared.process import Core

_CONSTRAINTS = """
    SELECT string_agg(pg_get_constraintdef(oid), ' ')
      FROM pg_constraint
     WHERE conrelid = $1::regclass
       AND contype = 'c'
       AND pg_get_constraintdef(oid) LIKE '%' || $2 || ' = ANY%'
"""

_INSERT = """
    INSERT INTO payment_reversal (payment_id, occasion, cause, noticed_at, customer_id, product_id,
                                  revocation, due_at, stored_at)
    VALUES ('pay_1', 'refund', 'refunded', now(), 'cus_1', 'course_1', $1,
            CASE WHEN $2 THEN now() END, now())
"""


async def words_of(core: Core, table: str, column: str) -> set[str]:
    """Return the words that a column of the migrated schema may have."""
    async with core.database.connection() as connection:
        text = await connection.fetchval(_CONSTRAINTS, table, column)
    return set(re.findall(r"'(\w+)'", text))


@pytest.mark.parametrize(("column", "words"), [("cause", Cause), ("revocation", Revocation)])
async def test_the_schema_has_the_words_of_the_domain(
    enrollment_core: Core, column: str, words: type[StrEnum]
) -> None:
    assert await words_of(enrollment_core, "payment_reversal", column) == set(words)


async def test_every_event_of_an_enrollment_can_be_told(enrollment_core: Core) -> None:
    events = await words_of(enrollment_core, "enrollment_history", "event")

    assert events == set(story_words._ENROLLMENT)


@pytest.mark.parametrize("revocation", Revocation)
async def test_a_revocation_has_a_time_exactly_while_it_waits(
    enrollment_core: Core, revocation: Revocation
) -> None:
    waits = revocation is Revocation.WAITING
    async with enrollment_core.database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError, match="waiting_has_a_time"):
            await connection.execute(_INSERT, revocation, not waits)
        await connection.execute(_INSERT, revocation, waits)
