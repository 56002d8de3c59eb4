"""Writes moves: what happened to subscriptions and all that follows, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from services.scheduler.domain.model import Job, JobStatus, Move
from services.scheduler.store import analytics
from shared.contracts.base import Message
from shared.database import Connection
from shared.errors import ConflictError
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing

#: The columns of a subscription that moves change. Of its others `customer_id`, `start_at`, `zone`
#: and `ends_after` stay for good.
_CHANGED: Final = (
    "plan_id",
    "next_plan_id",
    "payment_method_id",
    "state",
    "reason",
    "priority",
    "auto_pay",
    "anchor",
    "periods_opened",
    "period_number",
    "period_start",
    "period_end",
    "cancels_at_period_end",
    "is_unpaid",
    "charges_made",
    "charging",
    "retry_at",
    "may_still_be_paid",
    "failed_at",
    "dunning_step",
    "grace_until",
    "has_access",
    "access_sequence",
    "asks_to_catch_up",
    "catches_up_until",
    "due_at",
    "clock_id",
    "as_of",
)

_changed_in: Final = attrgetter(*_CHANGED)

#: Row types of the database, each with its fields in the order in which rows are sent: a whole row
#: is encoded at half the cost of as many elements of arrays.
ROW_TYPES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "moved_subscription": ("id", "version", *_CHANGED),
        "opened_cycle": (
            *("subscription_id", "period_start", "period_end", "number", "periods", "state"),
            *("reason", "payment_id", "plan_id", "amount", "currency", "opened_at"),
        ),
        "ordered_job": (
            *("id", "subscription_id", "payment_id", "period_start", "charge_number", "occasion"),
            *("status", "progress", "ordered_at", "plan_id", "payment_method_id", "gateway"),
            *("amount", "currency"),
        ),
        "history_line": (
            *("subscription_id", "at", "event", "state", "reason", "period_start", "payment_id"),
        ),
    }
)

# Rows are locked by whoever decided; the version is the guard behind that.
_SAVE: Final = (
    "UPDATE subscription SET "  # noqa: S608 - made of the names above
    + ", ".join(f"{name} = new.{name}" for name in _CHANGED)
    + """, version = subscription.version + 1, updated_at = clock_timestamp()
      FROM unnest($1::moved_subscription[]) AS new
     WHERE subscription.id = new.id
       AND subscription.version = new.version
"""
)

_OPEN_CYCLES: Final = """
    INSERT INTO billing_cycle (subscription_id, period_start, period_end, number, periods, state,
                               reason, payment_id, plan_id, amount, currency, opened_at)
    SELECT new.*
      FROM unnest($1::opened_cycle[]) AS new
"""

_SAVE_CYCLES: Final = """
    UPDATE billing_cycle
       SET state = new.state, reason = new.reason, paid_at = new.paid_at,
           payment_id = coalesce(new.payment_id, billing_cycle.payment_id)
      FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[],
                  $6::timestamptz[])
        AS new (subscription_id, period_start, state, reason, payment_id, paid_at)
     WHERE billing_cycle.subscription_id = new.subscription_id
       AND billing_cycle.period_start = new.period_start
"""

_INSERT_JOBS: Final = """
    INSERT INTO job (id, subscription_id, payment_id, period_start, charge_number, occasion, status,
                     progress, ordered_at, plan_id, payment_method_id, gateway, amount, currency)
    SELECT new.*
      FROM unnest($1::ordered_job[]) AS new
"""

_SAVE_JOBS: Final = """
    UPDATE job
       SET status = new.status, progress = new.progress, attempts_made = new.attempts_made,
           failed_reason = new.failed_reason, gateway_reference = new.gateway_reference,
           retry_at = new.retry_at, finished_at = new.finished_at, told_at = new.told_at,
           processed_at = coalesce(job.processed_at, new.at), updated_at = clock_timestamp()
      FROM unnest($1::text[], $2::text[], $3::smallint[], $4::integer[], $5::text[], $6::text[],
                  $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[])
        AS new (id, status, progress, attempts_made, failed_reason, gateway_reference, retry_at,
                finished_at, told_at, at)
     WHERE job.id = new.id
"""

_INSERT_HISTORY: Final = """
    INSERT INTO subscription_history (subscription_id, at, event, state, reason, period_start,
                                      payment_id, actor, request_id)
    SELECT new.*, $2::text, $3::text
      FROM unnest($1::history_line[]) AS new
"""


#: Nothing is traced.
NO_TRACES: Final[Mapping[str, str | None]] = MappingProxyType({})


async def save_moves(
    connection: Connection,
    moves: Sequence[Move],
    *,
    actor: str | None = None,
    request_id: str | None = None,
    traces: Mapping[str, str | None] = NO_TRACES,
) -> list[Outgoing]:
    """Write moves of subscriptions that are locked, each of another one; return what to publish.

    Runs in the caller's transaction. `actor` is the name of the API key of whoever asked, by the
    request of that id. `traces` holds the traceparent of what led to a move, by subscription.

    Raises:
        ConflictError: a subscription is not as it was when its move was decided.
        asyncpg.UniqueViolationError: a period is to be opened that was opened before.
    """
    changed = [move for move in moves if move.after is not move.before]
    if changed:
        saved = await connection.execute(
            _SAVE,
            [(move.after.id, move.before.version, *_changed_in(move.after)) for move in changed],
        )
        if saved != f"UPDATE {len(changed)}":
            raise ConflictError(f"of {len(changed)} subscriptions some changed meanwhile")
    await _save_cycles(connection, moves)
    await _save_jobs(connection, moves)
    messages: list[tuple[Message, str | None]] = [
        (message, traces.get(move.after.id)) for move in moves for message in move.messages
    ]
    outgoing = await outbox.append(connection, messages) if messages else []
    await connection.execute(_INSERT_HISTORY, _history(moves), actor, request_id)
    await analytics.count(connection, moves)
    return outgoing


def _columns(rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True))


async def _save_cycles(connection: Connection, moves: Sequence[Move]) -> None:
    opened, known = [], []
    for move in moves:
        for cycle in move.cycles:
            if cycle.is_new:
                amount = move.plan.amount
                opened.append(
                    (
                        move.after.id,
                        *cycle[:7],
                        move.plan.id,
                        amount.minor_units,
                        amount.currency,
                        move.now,
                    )
                )
            else:
                known.append(
                    (
                        move.after.id,
                        cycle.period_start,
                        cycle.state,
                        cycle.reason,
                        cycle.payment_id,
                        cycle.paid_at,
                    )
                )
    if opened:
        await connection.execute(_OPEN_CYCLES, opened)
    if known:
        await connection.execute(_SAVE_CYCLES, *_columns(known))


async def _save_jobs(connection: Connection, moves: Sequence[Move]) -> None:
    new = [_new_job(move.job, move) for move in moves if _is_new(move.job)]
    if new:
        await connection.execute(_INSERT_JOBS, new)
    known = [
        (
            job.id,
            job.status,
            job.progress,
            job.attempts_made,
            job.failed_reason,
            job.gateway_reference,
            job.retry_at,
            job.finished_at,
            job.told_at,
            move.now,
        )
        for move in moves
        if (job := move.job) is not None and not _is_new(job)
    ]
    if known:
        await connection.execute(_SAVE_JOBS, *_columns(known))


def _is_new(job: Job | None) -> bool:
    return job is not None and job.status is JobStatus.WAITING


def _new_job(job: Job | None, move: Move) -> tuple[Any, ...]:
    assert job is not None, "asked before"
    return (
        *job[:8],
        job.ordered_at,
        move.plan.id,
        move.after.payment_method_id,
        move.plan.gateway,
        move.plan.amount.minor_units,
        move.plan.amount.currency,
    )


def _history(moves: Sequence[Move]) -> list[tuple[Any, ...]]:
    return [
        (
            move.after.id,
            move.now,
            move.event,
            move.after.state,
            move.after.reason,
            move.after.period_start,
            move.after.charging if move.job is None else move.job.payment_id,
        )
        for move in moves
    ]
