"""SQL of the means of payment that payments has told of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from shared.contracts.payments import PaymentMethodRemoved, PaymentMethodStored
from shared.database import Connection


class PaymentMethod(NamedTuple):
    """A means of payment that can be charged, and whose it is."""

    id: str
    customer_id: str
    gateway: str
    kind: str


# Rows are taken in one order, so that two writers never wait for each other. What is removed stays
# removed: the news of its storage may come later.
_STORE: Final = """
    INSERT INTO payment_method (id, customer_id, gateway, kind, stored_at)
    SELECT *
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
     ORDER BY 1
        ON CONFLICT (id) DO UPDATE
       SET gateway = excluded.gateway, kind = excluded.kind, stored_at = excluded.stored_at
     WHERE payment_method.stored_at IS NULL
"""


async def store_methods(connection: Connection, stored: Sequence[PaymentMethodStored]) -> None:
    """Remember means of payment; those that are known stay as they are."""
    by_id = sorted({each.payment_method_id: each for each in stored}.items())
    await connection.execute(
        _STORE,
        [id_ for id_, _ in by_id],
        [each.customer_id for _, each in by_id],
        [each.gateway for _, each in by_id],
        [each.kind for _, each in by_id],
        [each.stored_at for _, each in by_id],
    )


_REMOVE: Final = """
    INSERT INTO payment_method (id, customer_id, removed_at)
    SELECT *
      FROM unnest($1::text[], $2::text[], $3::timestamptz[])
     ORDER BY 1
        ON CONFLICT (id) DO UPDATE
       SET removed_at = excluded.removed_at
     WHERE payment_method.removed_at IS NULL
"""


async def remove_methods(connection: Connection, removed: Sequence[PaymentMethodRemoved]) -> None:
    """Remember that means of payment are gone, also those of which nobody has told before."""
    by_id: dict[str, tuple[str, datetime]] = {
        each.payment_method_id: (each.customer_id, each.removed_at) for each in removed
    }
    ids = sorted(by_id)
    await connection.execute(
        _REMOVE, ids, [by_id[id_][0] for id_ in ids], [by_id[id_][1] for id_ in ids]
    )


_FIND: Final = """
    SELECT id, customer_id, gateway, kind
      FROM payment_method
     WHERE id = ANY($1::text[])
       AND stored_at IS NOT NULL
       AND removed_at IS NULL
"""


async def find_methods(connection: Connection, ids: Collection[str]) -> dict[str, PaymentMethod]:
    """Return the means of payment that can be charged; those unknown or removed are left out."""
    records = await connection.fetch(_FIND, sorted(set(ids)))
    return {record["id"]: PaymentMethod(*record) for record in records}


class KnownMethod(NamedTuple):
    """A means of payment, as far as it is known: its removal may be heard first."""

    customer_id: str
    gateway: str | None
    is_removed: bool


_FIND_KNOWN: Final = """
    SELECT customer_id, gateway, removed_at IS NOT NULL
      FROM payment_method
     WHERE id = $1
"""


async def find_known(connection: Connection, method_id: str) -> KnownMethod | None:
    """Return a means of payment, a removed one too; None when nobody has told of it."""
    record = await connection.fetchrow(_FIND_KNOWN, method_id)
    return None if record is None else KnownMethod(*tuple(record))
