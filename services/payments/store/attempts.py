"""The SQL statements about attempts, and what wallets spend on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import asyncpg
import orjson

from shared.database import Connection
from shared.gateways.interface import Card, Checkout, Customer, Method, Order, Prompt, Wallet
from shared.money import Money


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to take the money; `reference` names it at the gateway."""

    reference: str
    payment_id: str
    number: int
    state: str
    #: It was put off, and somebody may be sending it at this moment.
    is_in_hand: bool


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """An attempt as the gateway is told of it, and what is known beside it."""

    payment_id: str
    order: Order
    checkout_url: str | None
    return_url: str | None
    #: It was put off: until it is begun, the gateway has not heard of it.
    is_put_off: bool = False


_INSERT_ATTEMPT: Final = """
    INSERT INTO attempt (reference, payment_id, number, state, created_at)
    VALUES ($1, $2, $3, 'started', $4)
"""

_POINT_TO_ATTEMPT: Final = """
    UPDATE payment SET reference = $2, version = version + 1 WHERE id = $1 AND reference <> $2
"""


async def insert_attempt(
    connection: Connection, *, reference: str, payment_id: str, number: int, now: datetime
) -> None:
    """Record an attempt before the gateway hears of it, and make it the payment's live one."""
    await connection.execute(_INSERT_ATTEMPT, reference, payment_id, number, now)
    await connection.execute(_POINT_TO_ATTEMPT, payment_id, reference)


_SAVE_ATTEMPTS: Final = """
    UPDATE attempt
       SET state = new.state,
           handle = coalesce(attempt.handle, new.handle),
           checkout_url = CASE WHEN new.state = 'open'
                               THEN coalesce(new.checkout_url, attempt.checkout_url)
                          END
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
        AS new (reference, state, handle, checkout_url)
     WHERE attempt.reference = new.reference
"""


class AttemptState(NamedTuple):
    """What became of an attempt."""

    reference: str
    state: str
    handle: str | None = None
    checkout_url: str | None = None


async def save_attempts(connection: Connection, attempts: Sequence[AttemptState]) -> None:
    """Write what became of attempts; a handle that is known stays."""
    if attempts:
        await connection.execute(_SAVE_ATTEMPTS, *zip(*attempts, strict=True))


_OPEN_ATTEMPT: Final = """
    UPDATE attempt
       SET state = 'open',
           handle = coalesce(handle, $2),
           checkout_url = coalesce($3, checkout_url)
     WHERE reference = $1
       AND state IN ('started', 'open')
"""


async def open_attempt(
    connection: Connection, reference: str, handle: str | None, checkout_url: str | None
) -> None:
    """Write that the gateway turned out to have taken an attempt on; an ended one stays ended."""
    await connection.execute(_OPEN_ATTEMPT, reference, handle, checkout_url)


_PUT_OFF: Final = """
    UPDATE attempt
       SET state = 'put_off',
           in_hand_until = NULL
     WHERE reference = $1
       AND state = 'started'
"""


async def put_off_attempt(connection: Connection, reference: str) -> None:
    """Write that the gateway has surely not heard of an attempt."""
    await connection.execute(_PUT_OFF, reference)


# Of several who want to begin it one gets the row. Its time is that of the call, because gateways
# are asked for what was begun around that.
_TAKE_UP: Final = """
    UPDATE attempt
       SET state = 'started',
           created_at = $2,
           in_hand_until = clock_timestamp() + make_interval(secs => $3)
     WHERE reference = $1
       AND state = 'put_off'
 RETURNING reference
"""


async def take_up_attempt(
    connection: Connection, reference: str, now: datetime, lease_seconds: float
) -> bool:
    """Take an attempt that was put off, and tell whether it was there to be taken.

    Until it is let go, or the lease is over, nobody else takes it for one that was cut off.
    """
    taken = await connection.fetchval(_TAKE_UP, reference, now, lease_seconds)
    return taken is not None


_LET_GO: Final = "UPDATE attempt SET in_hand_until = NULL WHERE reference = $1"


async def let_go_attempt(connection: Connection, reference: str) -> None:
    """End the hold on an attempt whose call has ended, and whose answer is recorded."""
    await connection.execute(_LET_GO, reference)


_ORDERS: Final = """
    SELECT attempt.reference, attempt.payment_id, amount, currency, method, method_details,
           customer, product, attempt.created_at AS started_at, handle, checkout_url, return_url,
           attempt.state = 'put_off' AS is_put_off
      FROM attempt
      JOIN payment ON payment.id = attempt.payment_id
     WHERE attempt.reference = ANY($1::text[])
"""


async def find_orders(connection: Connection, references: Sequence[str]) -> dict[str, StoredOrder]:
    """Return attempts as the gateway is told of them, by reference."""
    records = await connection.fetch(_ORDERS, references)
    return {record["reference"]: _order(record) for record in records}


_METHODS: Final[Mapping[str, Callable[..., Method]]] = MappingProxyType(
    {method.kind: method for method in (Checkout, Prompt, Card, Wallet)}
)


def _order(record: asyncpg.Record) -> StoredOrder:
    customer: Any = orjson.loads(record["customer"])
    return StoredOrder(
        payment_id=record["payment_id"],
        order=Order(
            reference=record["reference"],
            amount=Money(record["amount"], record["currency"]),
            method=_METHODS[record["method"]](**orjson.loads(record["method_details"])),
            customer=Customer(**customer),
            product_name=orjson.loads(record["product"])["name"],
            started_at=record["started_at"],
            handle=record["handle"],
        ),
        checkout_url=record["checkout_url"],
        return_url=record["return_url"],
        is_put_off=record["is_put_off"],
    )


_LAST_ATTEMPT: Final = """
    SELECT reference, payment_id, number, state,
           coalesce(in_hand_until > clock_timestamp(), false)
      FROM attempt
     WHERE payment_id = $1
     ORDER BY number DESC
     LIMIT 1
"""


async def find_last_attempt(connection: Connection, payment_id: str) -> Attempt | None:
    """Return the latest attempt of a payment."""
    record = await connection.fetchrow(_LAST_ATTEMPT, payment_id)
    return None if record is None else Attempt(*record)


# The row's lock keeps the limit: of two attempts at once the second sees what the first spent.
_SPEND: Final = """
    INSERT INTO wallet_spending AS known (gateway, currency, day, spent, allowed)
    SELECT $1::text, $2::text, $3::date, $4::bigint, $5::bigint
     WHERE $4 <= $5
        ON CONFLICT (gateway, currency, day) DO UPDATE
       SET spent = known.spent + excluded.spent,
           allowed = excluded.allowed
     WHERE known.spent + excluded.spent <= excluded.allowed
 RETURNING spent
"""


async def spend(
    connection: Connection, gateway: str, amount: Money, day: date, allowed: int
) -> bool:
    """Count an amount to what a wallet pays on a day; False when that would be over `allowed`."""
    spent = await connection.fetchval(
        _SPEND, gateway, amount.currency, day, amount.minor_units, allowed
    )
    return spent is not None
