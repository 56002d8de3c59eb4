"""SQL of what subscriptions give, and of the enrollments that follow them.

The rows of subscriptions are locked first, then the enrollments, then what is known of payments;
within each kind by the order in which they are given, which is the same for every writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.enrollment.domain.access import Access, Right
from services.enrollment.domain.model import EnrollmentState
from shared.database import Connection

# Of two processes with the first news of a subscription one waits here for the other.
_MAKE_ROOM: Final = """
    INSERT INTO subscription_access (
               subscription_id, sequence, customer_id, product_id, has_access, told_at)
    SELECT subscription_id, 0, customer_id, product_id, false, told_at
      FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
        AS given (subscription_id, customer_id, product_id, told_at)
        ON CONFLICT DO NOTHING
"""

_LOCK: Final = """
    SELECT subscription_id, sequence, customer_id, product_id, has_access, reason, told_at
      FROM subscription_access
     WHERE subscription_id = ANY($1::text[])
     ORDER BY subscription_id
       FOR UPDATE
"""


async def lock_access(connection: Connection, heard: Sequence[Access]) -> dict[str, Access]:
    """Return what is known of subscriptions, and keep others from changing it.

    Those that were never heard of are there with the sequence 0, and say that they give nothing.

    Args:
        connection: In a transaction.
        heard: The news, one of each subscription, sorted by subscription.
    """
    rows = [(each.subscription_id, *each.right, each.told_at) for each in heard]
    await connection.execute(_MAKE_ROOM, *zip(*rows, strict=True))
    records = await connection.fetch(_LOCK, [each.subscription_id for each in heard])
    return {
        record["subscription_id"]: Access(
            subscription_id=record["subscription_id"],
            sequence=record["sequence"],
            right=Right(record["customer_id"], record["product_id"]),
            has_access=record["has_access"],
            reason=record["reason"],
            told_at=record["told_at"],
        )
        for record in records
    }


_SAVE: Final = """
    UPDATE subscription_access
       SET sequence = given.sequence, customer_id = given.customer_id,
           product_id = given.product_id, has_access = given.has_access, reason = given.reason,
           told_at = given.told_at, stored_at = clock_timestamp()
      FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::boolean[], $6::text[],
                  $7::timestamptz[])
        AS given (subscription_id, sequence, customer_id, product_id, has_access, reason, told_at)
     WHERE subscription_access.subscription_id = given.subscription_id
       AND subscription_access.sequence < given.sequence
"""


async def save_access(connection: Connection, news: Sequence[Access]) -> None:
    """Store what subscriptions say now.

    Call it when their enrollments are locked too: what an operator takes away is compared with the
    time of this.
    """
    rows = [
        (
            each.subscription_id,
            each.sequence,
            *each.right,
            each.has_access,
            each.reason,
            each.told_at,
        )
        for each in news
    ]
    await connection.execute(_SAVE, *zip(*rows, strict=True))


_INSERT_ENROLLMENTS: Final = """
    INSERT INTO enrollment (id, customer_id, product_id, state)
    SELECT id, customer_id, product_id, 'active'
      FROM unnest($1::text[], $2::text[], $3::text[]) AS given (id, customer_id, product_id)
        ON CONFLICT DO NOTHING
 RETURNING id
"""


async def insert_enrollments(
    connection: Connection, rights: Sequence[tuple[str, Right]]
) -> frozenset[str]:
    """Enroll those who are not, and return the ids of the new enrollments.

    Args:
        connection: In a transaction.
        rights: The id that each enrollment gets if it is new, and whose it is; sorted by right.
    """
    rows = [(id_, *right) for id_, right in rights]
    records = await connection.fetch(_INSERT_ENROLLMENTS, *zip(*rows, strict=True))
    return frozenset(record["id"] for record in records)


# The order is that of the caller, who sorts like whoever enrolls payments, and not a collation's.
_LOCK_ENROLLMENTS: Final = """
    SELECT enrollment.id, customer_id, product_id, state
      FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS given (customer_id, product_id, place)
      JOIN enrollment USING (customer_id, product_id)
     ORDER BY place
       FOR UPDATE OF enrollment
"""


async def lock_enrollments(
    connection: Connection, rights: Sequence[Right]
) -> dict[Right, tuple[str, EnrollmentState]]:
    """Return id and state of enrollments, and keep others from changing them.

    Give the rights sorted.
    """
    records = await connection.fetch(_LOCK_ENROLLMENTS, *zip(*rights, strict=True))
    return {
        Right(record["customer_id"], record["product_id"]): (
            record["id"],
            EnrollmentState(record["state"]),
        )
        for record in records
    }


@dataclass(frozen=True, slots=True)
class Change:
    """A line for the history of an enrollment, and the state that it has from then on."""

    enrollment_id: str
    state: EnrollmentState
    event: str
    subscription_id: str
    reason: str | None


_CHANGE: Final = """
    WITH given AS (
        SELECT *
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
            AS given (enrollment_id, state, event, subscription_id, reason)
    ), changed AS (
        UPDATE enrollment
           SET state = given.state, updated_at = clock_timestamp()
          FROM given
         WHERE enrollment.id = given.enrollment_id
           AND enrollment.state <> given.state
    )
    INSERT INTO enrollment_history (enrollment_id, event, subscription_id, reason)
    SELECT enrollment_id, event, subscription_id, reason
      FROM given
"""


async def change_enrollments(connection: Connection, changes: Sequence[Change]) -> None:
    """Set the states of locked enrollments, each once, and write down why."""
    rows = [
        (each.enrollment_id, each.state, each.event, each.subscription_id, each.reason)
        for each in changes
    ]
    await connection.execute(_CHANGE, *zip(*rows, strict=True))
