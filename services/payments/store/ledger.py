"""The SQL statements about the ledger: what is written, balances, and lists.

What a confirmation moves is written by `store.payments.save_and_announce`, in its one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from services.payments.domain.ledger import Transfer
from shared.database import Connection
from shared.money import Money

#: How much older than the present a snapshot of the balances is at least. Rows become visible some
#: time after the moment they bear; no statement or transaction of ours takes anywhere near as long.
SNAPSHOT_LAG_SECONDS: Final = 900

#: What one step adds to the snapshot at most.
SNAPSHOT_STEP_SECONDS: Final = 900

#: Time for statements that read all that was written in such a step.
SNAPSHOT_TIMEOUT_SECONDS: Final = 60.0

#: Sorts after every transfer, so that a list begins with the newest payment's.
_AFTER_ALL: Final = ("pay~", "", "")


@dataclass(frozen=True, slots=True)
class StoredTransfer:
    """A movement as the API shows it."""

    payment_id: str
    kind: str
    occasion: str
    debit: str
    credit: str
    amount: Money
    reference: str | None
    #: What of the amount is debited to `fees` instead, in minor units.
    fee: int
    at: datetime

    @property
    def key(self) -> tuple[str, str, str]:
        """Its place in lists."""
        return self.payment_id, self.kind, self.occasion


@dataclass(frozen=True, slots=True)
class Balance:
    """What was booked to an account in one currency, in minor units."""

    account: str
    currency: str
    debits: int
    credits: int


_INSERT_TRANSFERS: Final = """
    INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount, currency,
                                 reference, fee)
    SELECT $1, kind, occasion, debit, credit, amount, currency, reference, fee
      FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                  $8::text[], $9::bigint[])
        AS transfer (kind, occasion, debit, credit, amount, currency, reference, fee)
"""


async def insert_transfers(
    connection: Connection, payment_id: str, transfers: Sequence[Transfer]
) -> None:
    """Book movements of one payment, in the transaction that makes them true."""
    if not transfers:
        return
    columns: list[Sequence[Any]] = list(
        zip(
            *(
                (
                    transfer.kind,
                    transfer.occasion,
                    transfer.debit,
                    transfer.credit,
                    transfer.amount.minor_units,
                    transfer.amount.currency,
                    transfer.reference,
                    transfer.fee,
                )
                for transfer in transfers
            ),
            strict=True,
        )
    )
    await connection.execute(_INSERT_TRANSFERS, payment_id, *columns)


# What is really held, and not what was asked for: the two may differ, and then that is why.
_RELEASE_HELD: Final = """
    INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount, currency)
    SELECT payment_id, 'release', '', 'held', $2::text,
           sum(CASE credit WHEN 'held' THEN amount ELSE -amount END), currency
      FROM ledger_transfer
     WHERE payment_id = $1
       AND 'held' IN (debit, credit)
     GROUP BY payment_id, currency
    HAVING sum(CASE credit WHEN 'held' THEN amount ELSE -amount END) > 0
"""


async def release_held(connection: Connection, payment_id: str, to_account: str) -> None:
    """Move what is held of a payment to the account where it belongs now, if anything is."""
    await connection.execute(_RELEASE_HELD, payment_id, to_account)


# One statement, so that the snapshot and what is younger are of one moment.
_LIST_BALANCES: Final = """
    WITH recent AS (
        SELECT debit, credit, currency, sum(amount) AS amount, sum(fee) AS fee
          FROM ledger_transfer
         WHERE at >= coalesce((SELECT until FROM ledger_snapshot), '-infinity')
         GROUP BY debit, credit, currency
    ), side AS (
        SELECT account, currency, debits, credits
          FROM ledger_balance
         UNION ALL
        SELECT debit, currency, amount - fee, 0
          FROM recent
         UNION ALL
        SELECT credit, currency, 0, amount
          FROM recent
         UNION ALL
        SELECT 'fees', currency, fee, 0
          FROM recent
         WHERE fee > 0
    )
    SELECT account, currency, sum(debits)::bigint AS debits, sum(credits)::bigint AS credits
      FROM side
     GROUP BY account, currency
     ORDER BY account, currency
"""


async def list_balances(connection: Connection) -> list[Balance]:
    """Return the balance of every account in every currency, as of now."""
    return [Balance(*record) for record in await connection.fetch(_LIST_BALANCES)]


_BEGIN_SNAPSHOT: Final = """
    INSERT INTO ledger_snapshot (until)
    SELECT coalesce((SELECT min(at) FROM ledger_transfer), clock_timestamp())
     WHERE NOT EXISTS (SELECT FROM ledger_snapshot)
        ON CONFLICT DO NOTHING
"""

_LOCK_SNAPSHOT: Final = """
    SELECT until, least(until + make_interval(secs => $1),
                        clock_timestamp() - make_interval(secs => $2)) AS next_until
      FROM ledger_snapshot
       FOR UPDATE
"""

_ADD_TO_SNAPSHOT: Final = """
    WITH step AS (
        SELECT debit, credit, currency, sum(amount) AS amount, sum(fee) AS fee
          FROM ledger_transfer
         WHERE at >= $1
           AND at < $2
         GROUP BY debit, credit, currency
    ), side AS (
        SELECT debit AS account, currency, amount - fee AS debits, 0 AS credits
          FROM step
         UNION ALL
        SELECT credit, currency, 0, amount
          FROM step
         UNION ALL
        SELECT 'fees', currency, fee, 0
          FROM step
         WHERE fee > 0
    )
    INSERT INTO ledger_balance AS known (account, currency, debits, credits)
    SELECT account, currency, sum(debits), sum(credits)
      FROM side
     GROUP BY account, currency
        ON CONFLICT (account, currency) DO UPDATE
       SET debits = known.debits + excluded.debits,
           credits = known.credits + excluded.credits
"""

_MOVE_SNAPSHOT: Final = """
    UPDATE ledger_snapshot SET until = $1
"""


async def advance_snapshot(connection: Connection) -> bool:
    """Add what is old enough to the snapshot of the balances; tell whether there is more.

    Call it in a transaction. One process at a time does it; another waits for it to end.
    """
    await connection.execute(_BEGIN_SNAPSHOT, timeout=SNAPSHOT_TIMEOUT_SECONDS)
    record = await connection.fetchrow(_LOCK_SNAPSHOT, SNAPSHOT_STEP_SECONDS, SNAPSHOT_LAG_SECONDS)
    assert record is not None, "it was begun just now, or before"
    until, next_until = record
    if next_until <= until:
        return False
    await connection.execute(_ADD_TO_SNAPSHOT, until, next_until, timeout=SNAPSHOT_TIMEOUT_SECONDS)
    await connection.execute(_MOVE_SNAPSHOT, next_until)
    return bool((next_until - until).total_seconds() >= SNAPSHOT_STEP_SECONDS)


# A range of pages that is not summarized is read each time; PostgreSQL itself would wait with that
# until it cleans the table, which it seldom does to one that only grows.
_SUMMARIZE: Final = """
    SELECT sum(brin_summarize_new_values(inhrelid::regclass))::bigint
      FROM pg_inherits
     WHERE inhparent = 'ledger_transfer_by_time'::regclass
"""


async def summarize_times(connection: Connection) -> None:
    """Note where in the table the latest transfers are."""
    await connection.fetchval(_SUMMARIZE, timeout=SNAPSHOT_TIMEOUT_SECONDS)


_LIST_OF_PAYMENT: Final = """
    SELECT payment_id, kind, occasion, debit, credit, amount, currency, reference, fee, at
      FROM ledger_transfer
     WHERE payment_id = $1
       AND (payment_id, kind, occasion) < ($2, $3, $4)
     ORDER BY payment_id DESC, kind DESC, occasion DESC
     LIMIT $5
"""

_LIST_TRANSFERS: Final = """
    SELECT payment_id, kind, occasion, debit, credit, amount, currency, reference, fee, at
      FROM ledger_transfer
     WHERE (payment_id, kind, occasion) < ($1, $2, $3)
       AND ($4::text IS NULL OR debit = $4 OR credit = $4 OR ($4 = 'fees' AND fee > 0))
     ORDER BY payment_id DESC, kind DESC, occasion DESC
     LIMIT $5
"""

# Of accounts that few transfers move: without a walk through those that are not rare.
_LIST_UNCOMMON: Final = """
    SELECT payment_id, kind, occasion, debit, credit, amount, currency, reference, fee, at
      FROM ledger_transfer
     WHERE (payment_id, kind, occasion) < ($1, $2, $3)
       AND (kind NOT IN ('capture', 'fee') OR credit = 'held')
       AND (debit = $4 OR credit = $4)
     ORDER BY payment_id DESC, kind DESC, occasion DESC
     LIMIT $5
"""


async def list_transfers(
    connection: Connection,
    *,
    payment_id: str | None,
    account: str | None,
    is_uncommon: bool,
    after: tuple[str, str, str] | None,
    limit: int,
) -> list[StoredTransfer]:
    """Return movements, those of the newest payments first.

    Args:
        connection: Where.
        payment_id: Only this payment's; then `account` is left out of account.
        account: Only those that move this account.
        is_uncommon: Whether it is one that few movements move (`domain.ledger.UNCOMMON`).
        after: The key of the last one of the page before.
        limit: How many at most.
    """
    key = after or _AFTER_ALL
    if payment_id is not None:
        records = await connection.fetch(_LIST_OF_PAYMENT, payment_id, *key, limit)
    else:
        statement = _LIST_UNCOMMON if is_uncommon else _LIST_TRANSFERS
        records = await connection.fetch(statement, *key, account, limit)
    return [
        StoredTransfer(
            payment_id=record["payment_id"],
            kind=record["kind"],
            occasion=record["occasion"],
            debit=record["debit"],
            credit=record["credit"],
            amount=Money(record["amount"], record["currency"]),
            reference=record["reference"],
            fee=record["fee"],
            at=record["at"],
        )
        for record in records
    ]
