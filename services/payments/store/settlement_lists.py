"""The SQL statements about what gateways list, and in what it differs from what we booked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from services.payments.domain.settlement_check import Finding, FindingKind, OwnAttempt
from shared.database import Connection
from shared.gateways.listings import ListedPayment
from shared.money import Money

#: References that are compared at a time.
SLICE_ROWS: Final = 2_000

#: Rows of what was listed that are forgotten in one statement.
FORGET_ROWS: Final = 10_000

_INSERT_LISTED: Final = """
    INSERT INTO settlement_listed (check_id, reference, gateway_payment_id, amount, currency)
    SELECT $1, reference, gateway_payment_id, amount, currency
      FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[])
        AS listed (reference, gateway_payment_id, amount, currency)
        ON CONFLICT DO NOTHING
"""


async def insert_listed(
    connection: Connection, check_id: str, payments: Sequence[ListedPayment]
) -> int:
    """Keep what a gateway listed, and return how much of it is new."""
    status = await connection.execute(
        _INSERT_LISTED,
        check_id,
        [payment.reference for payment in payments],
        [payment.gateway_payment_id for payment in payments],
        [payment.amount.minor_units for payment in payments],
        [payment.amount.currency for payment in payments],
    )
    return int(status.rpartition(" ")[2])


_NEXT_SLICE: Final = """
    SELECT max(reference) AS last, count(*) AS rows
      FROM (SELECT reference
              FROM ((SELECT reference
                       FROM attempt
                      WHERE reference > $2
                        AND reference < $3
                      ORDER BY reference
                      LIMIT $4)
                     UNION ALL
                    (SELECT reference
                       FROM settlement_listed
                      WHERE check_id = $1
                        AND reference > $2
                        AND reference < $3
                      ORDER BY reference
                      LIMIT $4)) AS either
             ORDER BY reference
             LIMIT $4) AS slice
"""

_OWN_ATTEMPTS: Final = """
    SELECT attempt.reference, payment.id AS payment_id, payment.gateway_payment_id,
           taken.amount, taken.currency, taken.reference AS taken_reference
      FROM attempt
      JOIN payment ON payment.id = attempt.payment_id
      LEFT JOIN LATERAL (
               SELECT amount, currency, reference
                 FROM ledger_transfer
                WHERE ledger_transfer.payment_id = payment.id
                  AND kind = 'capture'
                ORDER BY reference = attempt.reference DESC
                LIMIT 1) AS taken ON true
     WHERE attempt.reference > $1
       AND attempt.reference <= $2
       AND payment.gateway = $3
"""

_LISTED: Final = """
    SELECT reference, gateway_payment_id, amount, currency
      FROM settlement_listed
     WHERE check_id = $1
       AND reference > $2
       AND reference <= $3
     ORDER BY reference, gateway_payment_id
"""


@dataclass(frozen=True, slots=True)
class Slice:
    """Attempts of ours and what is listed, of one range of references."""

    own: Mapping[str, OwnAttempt]
    listed: Mapping[str, Sequence[ListedPayment]]
    #: Where the next one begins; None after the last.
    last_reference: str | None


async def find_slice(
    connection: Connection, check_id: str, gateway: str, *, after: str, before: str
) -> Slice:
    """Return the next references of a check's day, from both sides."""
    last, rows = await connection.fetchrow(_NEXT_SLICE, check_id, after, before, SLICE_ROWS) or (
        None,
        0,
    )
    if last is None:
        return Slice({}, {}, None)
    own = await connection.fetch(_OWN_ATTEMPTS, after, last, gateway)
    listed: dict[str, list[ListedPayment]] = {}
    for record in await connection.fetch(_LISTED, check_id, after, last):
        payment = ListedPayment(
            record["reference"],
            record["gateway_payment_id"],
            Money(record["amount"], record["currency"]),
        )
        listed.setdefault(payment.reference, []).append(payment)
    return Slice(
        {record["reference"]: _own(record) for record in own},
        listed,
        last if rows >= SLICE_ROWS else None,
    )


_INSERT_FINDINGS: Final = """
    INSERT INTO settlement_finding (id, check_id, kind, reference, payment_id, gateway_payment_id,
                                    our_amount, our_currency, their_amount, their_currency)
    SELECT id, $1, kind, reference, payment_id, gateway_payment_id, our_amount, our_currency,
           their_amount, their_currency
      FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                  $8::text[], $9::bigint[], $10::text[])
        AS found (id, kind, reference, payment_id, gateway_payment_id, our_amount, our_currency,
                  their_amount, their_currency)
"""


async def insert_findings(
    connection: Connection, check_id: str, findings: Mapping[str, Finding]
) -> None:
    """Keep findings, by their ids."""
    if not findings:
        return
    rows = [
        (
            id_,
            finding.kind,
            finding.reference,
            finding.payment_id,
            finding.gateway_payment_id,
            *_columns_of(finding.ours),
            *_columns_of(finding.theirs),
        )
        for id_, finding in findings.items()
    ]
    await connection.execute(_INSERT_FINDINGS, check_id, *zip(*rows, strict=True))


_FORGET_LISTED: Final = """
    DELETE FROM settlement_listed
     WHERE (check_id, reference, gateway_payment_id) IN (
               SELECT check_id, reference, gateway_payment_id
                 FROM settlement_listed
                WHERE check_id = $1
                LIMIT $2)
"""


async def forget_listed(connection: Connection, check_id: str) -> bool:
    """Delete some of what was listed for a check that has ended; tell whether there may be more."""
    status = await connection.execute(_FORGET_LISTED, check_id, FORGET_ROWS)
    return int(status.rpartition(" ")[2]) == FORGET_ROWS


_LIST_FINDINGS: Final = """
    SELECT id, kind, reference, payment_id, gateway_payment_id, our_amount, our_currency,
           their_amount, their_currency
      FROM settlement_finding
     WHERE check_id = $1
       AND id > $2
     ORDER BY id
     LIMIT $3
"""


async def list_findings(
    connection: Connection, check_id: str, *, after_id: str | None, limit: int
) -> list[tuple[str, Finding]]:
    """Return findings of a check with their ids, in the order in which they were found."""
    records = await connection.fetch(_LIST_FINDINGS, check_id, after_id or "", limit)
    return [
        (
            record["id"],
            Finding(
                kind=FindingKind(record["kind"]),
                reference=record["reference"],
                payment_id=record["payment_id"],
                gateway_payment_id=record["gateway_payment_id"],
                ours=_money(record["our_amount"], record["our_currency"]),
                theirs=_money(record["their_amount"], record["their_currency"]),
            ),
        )
        for record in records
    ]


def _own(record: asyncpg.Record) -> OwnAttempt:
    return OwnAttempt(
        reference=record["reference"],
        payment_id=record["payment_id"],
        gateway_payment_id=record["gateway_payment_id"],
        captured=_money(record["amount"], record["currency"]),
        captured_reference=record["taken_reference"],
    )


def _money(amount: int | None, currency: str | None) -> Money | None:
    return None if amount is None or currency is None else Money(amount, currency)


def _columns_of(money: Money | None) -> tuple[Any, Any]:
    return (None, None) if money is None else (money.minor_units, money.currency)
