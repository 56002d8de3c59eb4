"""Dead letters: kept for an operator, handed to their handlers again when that is due.

A retry needs no queue: the message is in PostgreSQL, and its sender has long had its receipt.
Handlers take a duplicate as a success, so a worker that dies between the effect and its record does
no harm: the lease runs out, and the letter is handled once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

import orjson
import structlog

from shared import metrics
from shared.clock import Clock
from shared.contracts.base import Message
from shared.database import Connection, Database
from shared.errors import DatabaseUnavailableError, PermanentError, TransientError
from shared.messaging.receiver import Delivery, Handler

log = structlog.get_logger()

State = Literal["waiting", "handled", "discarded"]

#: How long a worker may hold a letter; longer than any handler takes.
LEASE_SECONDS: Final = 120

#: Letters handled at a time. Few, because they share the process with live traffic.
BATCH_MAX: Final = 20

#: Pause when nothing is due; the index of what is due is nearly always empty.
INTERVAL_SECONDS: Final = 1.0

#: Waits after a retry that met an outage, in seconds; the last one repeats. Any other failure waits
#: for the operator again.
OUTAGE_DELAYS_SECONDS: Final = (30, 60, 120, 300, 600, 1_800)

#: Letters that one command may retry.
RETRIED_AT_ONCE_MAX: Final = 10_000

#: Longest reason that is kept.
_REASON_LENGTH_MAX: Final = 1_000


class DeadLetter(NamedTuple):
    """A message that could not be handled, and what becomes of it. `payload` is JSON text."""

    id: int
    queue: str
    sender: str
    message_id: int | None
    message_name: str
    payload: str
    reason: str
    stored_at: datetime
    state: State
    retry_at: datetime | None
    tries: int
    tried_at: datetime | None
    leased_until: datetime | None
    #: Whether a worker handles it at this moment.
    is_in_hand: bool


_CLAIM_DUE: Final = """
    UPDATE dead_letter
       SET leased_until = clock_timestamp() + make_interval(secs => $3),
           tries = tries + 1,
           tried_at = $1
     WHERE id = ANY (ARRAY(
               SELECT id
                 FROM dead_letter
                WHERE retry_at <= $1
                  AND (leased_until IS NULL OR leased_until < clock_timestamp())
                ORDER BY retry_at
                LIMIT $2
                  FOR UPDATE SKIP LOCKED))
 RETURNING id, queue, sender, message_id, message_name, payload, reason, stored_at, state, retry_at,
           tries, tried_at, leased_until, true AS is_in_hand
"""


async def claim_due(connection: Connection, now: datetime, limit: int) -> list[DeadLetter]:
    """Take letters whose retry is due; others leave them alone until the lease runs out."""
    records = await connection.fetch(_CLAIM_DUE, now, limit, LEASE_SECONDS)
    return [DeadLetter(*record) for record in records]


# Only under our own lease: a worker that was frozen past it must not speak for its successor.
_END_HANDLED: Final = """
    UPDATE dead_letter
       SET state = 'handled', retry_at = NULL, leased_until = NULL
     WHERE id = $1
       AND leased_until = $2
"""

_END_FAILED: Final = """
    UPDATE dead_letter
       SET reason = $3, retry_at = $4, leased_until = NULL
     WHERE id = $1
       AND leased_until = $2
"""


async def retry_due(
    database: Database, clock: Clock, handlers: Mapping[type[Message], Handler]
) -> int:
    """Hand one batch of due letters to their handlers and return how many there were.

    Each ends on its own: handled, or kept with the reason of this failure.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; leases run out and the letters come again.
    """
    async with database.connection() as connection:
        letters = await claim_due(connection, clock(), BATCH_MAX)
    failures = await asyncio.gather(*(_handle(handlers, letter) for letter in letters))
    for letter, failure in zip(letters, failures, strict=True):
        async with database.connection() as connection:
            if failure is None:
                await connection.execute(_END_HANDLED, letter.id, letter.leased_until)
            else:
                again_at = _again_at(letter, failure, clock())
                await connection.execute(
                    _END_FAILED, letter.id, letter.leased_until, _reason(failure), again_at
                )
        outcome = "handled" if failure is None else "failed"
        metrics.DEAD_LETTERS_RETRIED.labels(database.schema, outcome).inc()
        log.info("dead_letter_retried", letter=letter.id, outcome=outcome)
    return len(letters)


async def run(database: Database, clock: Clock, handlers: Mapping[type[Message], Handler]) -> None:
    """Retry, for ever, what is due; several workers may share the letters."""
    while True:
        try:
            count = await retry_due(database, clock, handlers)
        except DatabaseUnavailableError as error:
            log.warning("dead_letters_wait", reason=error.message)
            count = 0
        if count < BATCH_MAX:
            await asyncio.sleep(INTERVAL_SECONDS)


class _Retry:
    """Holds the one message of a retry, and keeps how its handling ended."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def finish(self, delivery: Delivery[Any]) -> None:
        """Note that the effect is committed. No receipt: the sender has had one."""
        delivery.is_finished = True

    def put_back(self, delivery: Delivery[Any], error: Exception) -> None:
        """Note why it failed."""
        delivery.is_finished = True
        self.error = error


async def _handle(
    handlers: Mapping[type[Message], Handler], letter: DeadLetter
) -> Exception | None:
    """Hand a letter to its handler and return what went wrong, if anything did."""
    kinds = {kind.name: kind for kind in handlers}
    retry = _Retry()
    try:
        kind = kinds.get(letter.message_name)
        if kind is None:
            return PermanentError(f"no handler for message {letter.message_name!r}")
        message = kind.decode(orjson.loads(letter.payload))
        delivery = Delivery(
            retry, letter.queue, letter.sender, letter.message_id or 0, message, None
        )
        await handlers[kind]([delivery])
    except Exception as error:  # noqa: BLE001 - whatever it is becomes the letter's new reason
        if retry.error is None:
            return error
    return retry.error


def _again_at(letter: DeadLetter, failure: Exception, now: datetime) -> datetime | None:
    """Return when an outage is tried again; a bug or a refusal waits for the operator."""
    if not isinstance(failure, TransientError):
        return None
    delays = OUTAGE_DELAYS_SECONDS
    return now + timedelta(seconds=delays[min(letter.tries, len(delays)) - 1])


def _reason(error: Exception) -> str:
    # PostgreSQL stores no NUL.
    return f"{type(error).__name__}: {error}".replace("\x00", "\ufffd")[:_REASON_LENGTH_MAX]


_LIST: Final = """
    SELECT id, queue, sender, message_id, message_name, payload, reason, stored_at, state, retry_at,
           tries, tried_at, leased_until,
           coalesce(leased_until > clock_timestamp(), false) AS is_in_hand
      FROM dead_letter
     WHERE state = $1
       AND ($2::text IS NULL OR queue = $2)
       AND ($3::text IS NULL OR message_name = $3)
       AND ($4::bigint IS NULL OR id < $4)
     ORDER BY id DESC
     LIMIT $5
"""


async def list_letters(
    connection: Connection,
    *,
    state: State,
    queue: str | None,
    message_name: str | None,
    before_id: int | None,
    limit: int,
) -> list[DeadLetter]:
    """Return letters, newest first, that match every filter given."""
    records = await connection.fetch(_LIST, state, queue, message_name, before_id, limit)
    return [DeadLetter(*record) for record in records]


_FIND: Final = """
    SELECT id, queue, sender, message_id, message_name, payload, reason, stored_at, state, retry_at,
           tries, tried_at, leased_until,
           coalesce(leased_until > clock_timestamp(), false) AS is_in_hand
      FROM dead_letter
     WHERE id = $1
"""


async def find_letter(connection: Connection, letter_id: int) -> DeadLetter | None:
    """Return a letter, whatever became of it."""
    record = await connection.fetchrow(_FIND, letter_id)
    return None if record is None else DeadLetter(*record)


_LOCK: Final = """
    SELECT id, queue, sender, message_id, message_name, payload, reason, stored_at, state, retry_at,
           tries, tried_at, leased_until,
           coalesce(leased_until > clock_timestamp(), false) AS is_in_hand
      FROM dead_letter
     WHERE id = $1
       FOR UPDATE
"""


async def lock_letter(connection: Connection, letter_id: int) -> DeadLetter | None:
    """Return a letter and keep workers from taking it in this transaction."""
    record = await connection.fetchrow(_LOCK, letter_id)
    return None if record is None else DeadLetter(*record)


_MOVE: Final = "UPDATE dead_letter SET retry_at = $2 WHERE id = $1 AND state = 'waiting'"


async def move_letter(connection: Connection, letter_id: int, retry_at: datetime | None) -> None:
    """Set when a waiting letter is handled again; None: not until somebody says so."""
    await connection.execute(_MOVE, letter_id, retry_at)


_DISCARD: Final = """
    UPDATE dead_letter
       SET state = 'discarded', retry_at = NULL
     WHERE id = $1
       AND state = 'waiting'
"""


async def discard_letter(connection: Connection, letter_id: int) -> None:
    """Give a waiting letter up for good; it stays readable."""
    await connection.execute(_DISCARD, letter_id)


_RETRY_ALL: Final = """
    UPDATE dead_letter
       SET retry_at = $1
     WHERE id = ANY (ARRAY(
               SELECT id
                 FROM dead_letter
                WHERE state = 'waiting'
                  AND ($2::text IS NULL OR queue = $2)
                  AND ($3::text IS NULL OR message_name = $3)
                ORDER BY id
                LIMIT $4
                  FOR UPDATE SKIP LOCKED))
 RETURNING id
"""


async def retry_all(
    connection: Connection, now: datetime, *, queue: str | None, message_name: str | None
) -> Sequence[int]:
    """Let waiting letters that match be handled again from `now` on; return their ids."""
    records = await connection.fetch(_RETRY_ALL, now, queue, message_name, RETRIED_AT_ONCE_MAX)
    return [record["id"] for record in records]
