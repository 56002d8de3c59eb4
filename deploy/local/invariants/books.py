"""The ledger: even in itself, equal to what payments say, and to what the simulator moved.

One statement sees payments and ledger as of one moment, and what changes one writes the other in
the same commit. So here a difference is a fault at once, and nothing is waited for. The simulator
moves money before we hear of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import asyncpg

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from shared.clock import system_clock

#: News of a movement that the simulator has just made may be on their way.
NEWS_TRAVEL_FOR: Final = timedelta(minutes=2)

_COUNT_TRANSFERS: Final = "SELECT count(*) FROM ledger_transfer"

_WRONG_SNAPSHOT: Final = """
    WITH side AS (
        SELECT debit AS account, currency, amount - fee AS debits, 0 AS credits
          FROM ledger_transfer
         WHERE at < (SELECT until FROM ledger_snapshot)
         UNION ALL
        SELECT credit, currency, 0, amount
          FROM ledger_transfer
         WHERE at < (SELECT until FROM ledger_snapshot)
         UNION ALL
        SELECT 'fees', currency, fee, 0
          FROM ledger_transfer
         WHERE at < (SELECT until FROM ledger_snapshot)
           AND fee > 0
    ), summed AS (
        SELECT account, currency, sum(debits) AS debits, sum(credits) AS credits
          FROM side
         GROUP BY account, currency
    )
    SELECT account || ' ' || currency AS id, known.debits, known.credits,
           summed.debits AS summed_debits, summed.credits AS summed_credits,
           count(*) OVER () AS total
      FROM ledger_balance AS known
      FULL JOIN summed USING (account, currency)
     WHERE (known.debits, known.credits) IS DISTINCT FROM (summed.debits, summed.credits)
     ORDER BY id
     LIMIT $1
"""

# The sums of each payment, by account and kind; nulls where nothing was booked.
WRONG_PAYMENTS: Final = """
    WITH booked AS (
        SELECT payment_id,
               count(*) FILTER (WHERE kind = 'capture') AS captures,
               bool_or(kind = 'capture' AND credit = 'held') AS was_held,
               sum(CASE 'revenue' WHEN credit THEN amount WHEN debit THEN -amount END) AS revenue,
               sum(CASE 'held' WHEN credit THEN amount WHEN debit THEN -amount END) AS held,
               sum(CASE kind WHEN 'refund' THEN amount WHEN 'refund_returned' THEN -amount END)
                   AS refunded,
               sum(CASE 'disputed' WHEN debit THEN amount WHEN credit THEN -amount END)
                   AS disputed,
               sum(CASE 'dispute_losses' WHEN debit THEN amount WHEN credit THEN -amount END)
                   AS lost
          FROM ledger_transfer
         GROUP BY payment_id
    ), contested AS (
        SELECT payment_id, sum(amount) FILTER (WHERE state = 'opened') AS disputed,
               sum(amount) FILTER (WHERE state = 'lost') AS lost
          FROM dispute
         GROUP BY payment_id
    ), judged AS (
        SELECT coalesce(payment.id, booked.payment_id) AS id,
               CASE WHEN payment.id IS NULL
                    THEN 'is in the ledger, but there is no such payment'
                    WHEN payment.gateway_payment_id IS NULL AND booked.payment_id IS NOT NULL
                    THEN 'has taken no money, but the ledger has some of it'
                    WHEN payment.gateway_payment_id IS NULL
                    THEN NULL
                    WHEN payment.state NOT IN ('succeeded', 'partially_refunded', 'refunded',
                                               'disputed', 'on_hold')
                    THEN 'is ' || payment.state || ', but the ledger has money of it'
                    WHEN coalesce(captures, 0) = 0
                    THEN 'has taken money that is not in the ledger'
                    WHEN payment.state = 'on_hold' AND coalesce(held, 0) <= 0
                    THEN 'is on hold, but the ledger holds nothing of it'
                    WHEN payment.state <> 'on_hold' AND coalesce(held, 0) <> 0
                    THEN 'is not on hold, but the ledger holds ' || held || ' of it'
                    WHEN coalesce(revenue, 0) <> amount AND NOT was_held
                    THEN 'is about ' || amount || ', but revenue by it is '
                         || coalesce(revenue, 0)
                    WHEN coalesce(refunded, 0) <> refunded_amount
                    THEN 'gave back ' || refunded_amount || ', but by the ledger '
                         || coalesce(refunded, 0)
                    WHEN coalesce(booked.disputed, 0) <> coalesce(contested.disputed, 0)
                    THEN coalesce(contested.disputed, 0) || ' of it are disputed, by the ledger '
                         || coalesce(booked.disputed, 0)
                    WHEN coalesce(booked.lost, 0) <> coalesce(contested.lost, 0)
                    THEN coalesce(contested.lost, 0) || ' of it are lost, by the ledger '
                         || coalesce(booked.lost, 0)
               END AS problem
          FROM payment
          FULL JOIN booked ON booked.payment_id = payment.id
          LEFT JOIN contested ON contested.payment_id = payment.id
    )
    SELECT id, problem, count(*) OVER () AS total
      FROM judged
     WHERE problem IS NOT NULL
     ORDER BY id
     LIMIT $1
"""


async def check_books(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare the ledger with its own snapshot and with the payments."""
    findings.checked = (await databases.fetch("payments", _COUNT_TRANSFERS))[0][0]
    rows = await databases.fetch("payments", _WRONG_SNAPSHOT, EXAMPLES_MAX)
    findings.add_rows(rows, _tell_snapshot)
    rows = await databases.fetch("payments", WRONG_PAYMENTS, EXAMPLES_MAX)
    findings.add_rows(rows, lambda row: Example(row["id"], row["problem"]))


def _tell_snapshot(row: asyncpg.Record) -> Example:
    known, summed = (
        f"{row[debit] or 0} debit and {row[credit] or 0} credit"
        for debit, credit in (("debits", "credits"), ("summed_debits", "summed_credits"))
    )
    return Example(row["id"], f"has {known} in the snapshot, but its movements are {summed}")


_PAYMENTS_WITH_MONEY: Final = """
    SELECT id, gateway,
           ARRAY(SELECT reference FROM attempt WHERE payment_id = payment.id) AS known_as,
           coalesce((SELECT sum(CASE kind WHEN 'refund' THEN amount
                                          WHEN 'refund_returned' THEN -amount END)
                       FROM ledger_transfer
                      WHERE payment_id = payment.id), 0)::bigint AS refunded,
           coalesce((SELECT sum(CASE kind WHEN 'dispute_opened' THEN amount
                                          WHEN 'dispute_won' THEN -amount END)
                       FROM ledger_transfer
                      WHERE payment_id = payment.id), 0)::bigint AS taken_back,
           EXISTS (SELECT
                     FROM refund
                    WHERE payment_id = payment.id
                      AND next_look_at IS NOT NULL)
               OR EXISTS (SELECT
                            FROM dispute
                           WHERE payment_id = payment.id
                             AND next_look_at IS NOT NULL) AS is_under_way
      FROM payment
     WHERE id > $1
       AND gateway_payment_id IS NOT NULL
     ORDER BY id
     LIMIT $2
"""

_MOVEMENTS: Final = """
    SELECT gateway, reference,
           coalesce(sum(CASE kind WHEN 'refund' THEN amount
                                  WHEN 'refund_returned' THEN -amount END), 0)::bigint AS refunded,
           coalesce(sum(CASE kind WHEN 'dispute' THEN amount
                                  WHEN 'dispute_returned' THEN -amount END), 0)::bigint
               AS taken_back,
           max(moved_at) AS last_moved_at
      FROM movement
     WHERE (gateway, reference) IN (SELECT * FROM unnest($1::text[], $2::text[]))
     GROUP BY gateway, reference
"""

_PLAYED: Final = """
    SELECT DISTINCT gateway FROM charge
"""


#: What is compared, and how it is told.
_SIDES: Final = (("refunded", "was given back"), ("taken_back", "was taken back"))


async def check_movements(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare what the ledger says went back with what the simulator moved."""
    played = {row["gateway"] for row in await databases.fetch("simulator", _PLAYED)}
    played = {gateway for gateway in played if databases.names_at_simulator.knows(gateway)}
    async for page in databases.pages("payments", _PAYMENTS_WITH_MONEY, after=[""]):
        payments = [payment for payment in page if payment["gateway"] in played]
        findings.checked += len(payments)
        await _compare(databases, findings, payments)


async def _compare(
    databases: ServiceDatabases, findings: Findings, payments: Sequence[asyncpg.Record]
) -> None:
    name_of = databases.names_at_simulator.of
    names = {
        payment["id"]: [
            (payment["gateway"], name_of(payment["gateway"], reference))
            for reference in payment["known_as"]
        ]
        for payment in payments
    }
    every = [name for found in names.values() for name in found]
    rows = await databases.fetch(
        "simulator",
        _MOVEMENTS,
        [gateway for gateway, _ in every],
        [reference for _, reference in every],
    )
    moved = {(row["gateway"], row["reference"]): row for row in rows}
    for payment in payments:
        lines = [moved[name] for name in names[payment["id"]] if name in moved]
        problem = _difference(payment, lines)
        if problem is None:
            findings.classes["match"] += 1
        elif payment["is_under_way"] or _is_news(lines):
            findings.classes["waiting"] += 1
            findings.waiting += 1
        else:
            findings.classes["mismatch"] += 1
            findings.add_violation(payment["id"], problem)


def _difference(payment: asyncpg.Record, lines: Sequence[asyncpg.Record]) -> str | None:
    for name, words in _SIDES:
        there = sum(line[name] for line in lines)
        if payment[name] != there:
            return f"{payment[name]} {words} by our ledger, {there} by the gateway's"
    return None


def _is_news(lines: Sequence[asyncpg.Record]) -> bool:
    since = system_clock() - NEWS_TRAVEL_FOR
    return any(line["last_moved_at"] > since for line in lines)


BOOKS_AGREE: Final = Invariant(
    name="books_agree",
    sentence="The ledger is even, and says of each payment what the payment says of itself.",
    hint="Someone has changed the tables past Sluice, or a worker of an earlier version confirmed "
    "payments after the ledger was there. Compare with the gateway before anything is booked.",
    check=check_books,
    services=frozenset({"payments"}),
)

MOVEMENTS_AGREE: Final = Invariant(
    name="movements_agree",
    sentence="What went back to customers by the ledger is what the simulator gave or took back.",
    hint="Read the refunds and disputes of the payment, and have the gateway asked about them.",
    check=check_movements,
    services=frozenset({"payments", "simulator"}),
)
