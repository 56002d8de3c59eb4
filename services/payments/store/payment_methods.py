"""The SQL statements about stored means of payment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from types import MappingProxyType
from typing import Final

import asyncpg
import orjson

from services.payments.domain.payment_methods import Chargeable, Means, StoredMethod
from shared.database import Connection
from shared.gateways.interface import Card, Customer, Prompt, Wallet

_KINDS: Final[Mapping[str, type[Chargeable]]] = MappingProxyType(
    {"prompt": Prompt, "card": Card, "wallet": Wallet}
)

_FIND: Final = """
    SELECT id, gateway, kind, customer_id, customer, details, created_at, removed_at
      FROM payment_method
     WHERE id = ANY($1::text[])
"""


async def find_methods(connection: Connection, ids: Sequence[str]) -> dict[str, StoredMethod]:
    """Return stored means of payment by id, the removed ones too; unknown ids are left out.

    As of now, without a lock: a charge that is recorded beside a removal was before it.
    """
    records = await connection.fetch(_FIND, ids)
    return {record["id"]: _stored(record) for record in records}


_INSERT: Final = """
    INSERT INTO payment_method (id, gateway, kind, customer_id, customer, details, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (id) DO NOTHING
 RETURNING id
"""


async def insert_method(
    connection: Connection, method_id: str, gateway: str, means: Means, now: datetime
) -> bool:
    """Store a means of payment and tell whether it is new: a repeated request finds it there."""
    inserted = await connection.fetchval(
        _INSERT,
        method_id,
        gateway,
        means.method.kind,
        means.customer.id,
        orjson.dumps(asdict(means.customer)).decode(),
        orjson.dumps(asdict(means.method)).decode(),
        now,
    )
    return inserted is not None


_ERASE: Final = """
    UPDATE payment_method
       SET customer = NULL,
           details = NULL,
           removed_at = $2
     WHERE id = $1
       AND removed_at IS NULL
 RETURNING id
"""


async def erase_method(connection: Connection, method_id: str, now: datetime) -> bool:
    """Erase what a means of payment is made of, and tell whether there was anything to erase."""
    erased = await connection.fetchval(_ERASE, method_id, now)
    return erased is not None


# One statement for each index: a plan is made once for all values, and an index serves no condition
# that may be switched off.
_LIST_ALL: Final = """
    SELECT id, gateway, kind, customer_id, customer, details, created_at, removed_at
      FROM payment_method
     WHERE id < coalesce($2::text, '~')
       AND ($1::boolean OR removed_at IS NULL)
     ORDER BY id DESC
     LIMIT $3
"""

_LIST_OF_CUSTOMER: Final = """
    SELECT id, gateway, kind, customer_id, customer, details, created_at, removed_at
      FROM payment_method
     WHERE customer_id = $4
       AND id < coalesce($2::text, '~')
       AND ($1::boolean OR removed_at IS NULL)
     ORDER BY id DESC
     LIMIT $3
"""


async def list_methods(
    connection: Connection,
    *,
    customer_id: str | None,
    with_removed: bool,
    before_id: str | None,
    limit: int,
) -> list[StoredMethod]:
    """Return stored means of payment, newest first, of one customer or of all."""
    if customer_id is None:
        records = await connection.fetch(_LIST_ALL, with_removed, before_id, limit)
    else:
        records = await connection.fetch(
            _LIST_OF_CUSTOMER, with_removed, before_id, limit, customer_id
        )
    return [_stored(record) for record in records]


def _stored(record: asyncpg.Record) -> StoredMethod:
    means = None
    if record["removed_at"] is None:
        means = Means(
            customer=Customer(**orjson.loads(record["customer"])),
            method=_KINDS[record["kind"]](**orjson.loads(record["details"])),
        )
    return StoredMethod(
        id=record["id"],
        gateway=record["gateway"],
        kind=record["kind"],
        customer_id=record["customer_id"],
        means=means,
        created_at=record["created_at"],
        removed_at=record["removed_at"],
    )
