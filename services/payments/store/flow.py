"""The SQL statements about breakers, what is seen of gateways, and who calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

import asyncpg

from services.payments.domain.breaker import (
    Breaker,
    BreakerForce,
    BreakerPolicy,
    BreakerState,
    CallCounts,
)
from shared.database import Connection

ProcessKind: TypeAlias = Literal["http", "worker"]

#: How long counts of calls are kept.
CALLS_KEPT_SECONDS: Final = 3_600

#: How long a process that is not heard of counts as alive.
PROCESS_LEASE_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class SeenBreaker:
    """A breaker, and the calls in its window since it came into its state."""

    breaker: Breaker
    seen: CallCounts


@dataclass(frozen=True, slots=True)
class Transition:
    """A state that a breaker came into."""

    version: int
    at: datetime
    state: BreakerState
    reason: str
    force: BreakerForce | None
    seen: CallCounts
    #: Who forced it; None when it decided for itself.
    actor: str | None


_INSERT_BREAKERS: Final = """
    INSERT INTO gateway_breaker (gateway)
    SELECT gateway FROM unnest($1::text[]) AS gateway ORDER BY gateway
        ON CONFLICT (gateway) DO NOTHING
"""


async def insert_breakers(connection: Connection, gateways: Sequence[str]) -> None:
    """Make a closed breaker for each gateway that has none."""
    await connection.execute(_INSERT_BREAKERS, gateways)


_REPORT: Final = """
    WITH process AS (
        INSERT INTO flow_process (id, kind, leased_until)
        VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
            ON CONFLICT (id) DO UPDATE SET leased_until = excluded.leased_until
    )
    INSERT INTO gateway_calls (gateway, second, calls, failures)
    SELECT gateway, $4, calls, failures
      FROM unnest($5::text[], $6::int[], $7::int[]) AS seen (gateway, calls, failures)
     ORDER BY gateway
        ON CONFLICT (gateway, second) DO UPDATE
       SET calls = gateway_calls.calls + excluded.calls,
           failures = gateway_calls.failures + excluded.failures
"""


async def report(
    connection: Connection,
    process: str,
    kind: ProcessKind,
    seen: Mapping[str, CallCounts],
    now: datetime,
) -> None:
    """Say that a process is alive and what it saw of gateways; counts of no calls are left out."""
    counted = {gateway: counts for gateway, counts in seen.items() if counts.calls}
    await connection.execute(
        _REPORT,
        process,
        kind,
        PROCESS_LEASE_SECONDS,
        now.replace(microsecond=0),
        [*counted],
        [counts.calls for counts in counted.values()],
        [counts.failures for counts in counted.values()],
    )


_LIST_BREAKERS: Final = """
    SELECT gateway, state, since, until, reason, forced, probe_round, probes_began_at,
           probes_handed_out, probe_calls, probe_failures, held_until, version, seen.calls,
           seen.failures
      FROM gateway_breaker
     CROSS JOIN LATERAL (
           SELECT coalesce(sum(calls), 0)::int AS calls,
                  coalesce(sum(failures), 0)::int AS failures
             FROM gateway_calls
            WHERE gateway_calls.gateway = gateway_breaker.gateway
              AND second >= greatest(since, $2)) AS seen
     WHERE gateway = ANY($1::text[])
"""


async def list_breakers(
    connection: Connection, gateways: Sequence[str], window_begin: datetime
) -> dict[str, SeenBreaker]:
    """Return breakers by gateway, each with the calls since the window or its state began.

    The second in which it came into its state is left out: what was before says nothing about it.
    """
    records = await connection.fetch(_LIST_BREAKERS, gateways, window_begin)
    return {
        record["gateway"]: SeenBreaker(
            _breaker(record), CallCounts(record["calls"], record["failures"])
        )
        for record in records
    }


def _breaker(record: asyncpg.Record) -> Breaker:
    return Breaker(
        gateway=record["gateway"],
        state=BreakerState(record["state"]),
        since=record["since"],
        until=record["until"],
        reason=record["reason"],
        force=None if record["forced"] is None else BreakerForce(record["forced"]),
        probe_round=record["probe_round"],
        probes_began_at=record["probes_began_at"],
        probes_handed_out=record["probes_handed_out"],
        probes=CallCounts(record["probe_calls"], record["probe_failures"]),
        held_until=record["held_until"],
        version=record["version"],
    )


# Saved only where nobody else has changed it meanwhile.
_SAVE_BREAKER: Final = """
    WITH saved AS (
        UPDATE gateway_breaker
           SET state = $3,
               since = $4,
               until = $5,
               reason = $6,
               forced = $7,
               probe_round = $8,
               probes_began_at = $9,
               probes_handed_out = $10,
               probes_max = $11,
               probe_calls = $12,
               probe_failures = $13,
               held_until = $14,
               version = version + 1
         WHERE gateway = $1
           AND version = $2
     RETURNING gateway, version
    ), told AS (
        INSERT INTO gateway_breaker_history
                    (gateway, version, at, state, reason, forced, calls, failures, actor)
        SELECT gateway, version, $15, $3, $6, $7, $16, $17, $18
          FROM saved
         WHERE $19
    )
    SELECT count(*) = 1 FROM saved
"""


async def save_breaker(
    connection: Connection,
    stored: SeenBreaker,
    wanted: Breaker,
    policy: BreakerPolicy,
    now: datetime,
    *,
    actor: str | None = None,
) -> bool:
    """Save a breaker as it should be, and tell whether it was still the one that is `stored`.

    A state that it comes into is added to its history.
    """
    before = stored.breaker
    is_new = (before.state, before.since, before.force) != (
        wanted.state,
        wanted.since,
        wanted.force,
    )
    return bool(
        await connection.fetchval(
            _SAVE_BREAKER,
            wanted.gateway,
            before.version,
            wanted.state,
            wanted.since,
            wanted.until,
            wanted.reason,
            wanted.force,
            wanted.probe_round,
            wanted.probes_began_at,
            wanted.probes_handed_out,
            policy.probes,
            wanted.probes.calls,
            wanted.probes.failures,
            wanted.held_until,
            now,
            stored.seen.calls,
            stored.seen.failures,
            actor,
            is_new,
        )
    )


_LIST_TRANSITIONS: Final = """
    SELECT version, at, state, reason, forced, calls, failures, actor
      FROM gateway_breaker_history
     WHERE gateway = $1
     ORDER BY version DESC
     LIMIT $2
"""


async def list_transitions(connection: Connection, gateway: str, limit: int) -> list[Transition]:
    """Return the states that a breaker came into, the last one first."""
    return [
        Transition(
            version=record["version"],
            at=record["at"],
            state=BreakerState(record["state"]),
            reason=record["reason"],
            force=None if record["forced"] is None else BreakerForce(record["forced"]),
            seen=CallCounts(record["calls"], record["failures"]),
            actor=record["actor"],
        )
        for record in await connection.fetch(_LIST_TRANSITIONS, gateway, limit)
    ]


_COUNT_WORKERS: Final = """
    SELECT count(*) FROM flow_process WHERE leased_until > clock_timestamp() AND kind = 'worker'
"""


async def count_workers(connection: Connection) -> int:
    """Count the worker processes that were heard of lately."""
    return int(await connection.fetchval(_COUNT_WORKERS))


_FORGET_CALLS: Final = "DELETE FROM gateway_calls WHERE second < $1"

# Long after their leases: what was stopped for a while and continues finds its rows.
_FORGET_PROCESSES: Final = """
    WITH gone AS (
        DELETE FROM flow_process
         WHERE leased_until < clock_timestamp() - make_interval(secs => $1)
     RETURNING id
    )
    DELETE FROM gateway_share USING gone WHERE process = gone.id
"""


async def forget_old(connection: Connection, calls_before: datetime) -> None:
    """Delete counts of calls before a time, and processes that were not heard of for as long."""
    await connection.execute(_FORGET_CALLS, calls_before)
    await connection.execute(_FORGET_PROCESSES, CALLS_KEPT_SECONDS)


_LEAVE: Final = """
    WITH gone AS (DELETE FROM flow_process WHERE id = $1)
    DELETE FROM gateway_share WHERE process = $1
"""


async def leave(connection: Connection, process: str) -> None:
    """Give back what a process has, at once: it makes no call any more."""
    await connection.execute(_LEAVE, process)
