"""The SQL statements about the shares that processes have of gateways' limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from services.payments.domain.shares import Share
from shared.database import Connection

#: Differences of rates below it are those of sums of fractions.
_RATE_EXACTNESS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class StoredShares:
    """All shares of one gateway whose leases have not ended, by process."""

    version: int
    shares: dict[str, Share] = field(default_factory=dict)


_LIST_SHARES: Final = """
    SELECT gateway_breaker.gateway, shares_version, process, calls, rate, calls_held, rate_held,
           in_flight, waiting, made
      FROM gateway_breaker
      LEFT JOIN gateway_share
             ON gateway_share.gateway = gateway_breaker.gateway
            AND leased_until > clock_timestamp()
     WHERE gateway_breaker.gateway = ANY($1::text[])
"""


async def list_shares(connection: Connection, gateways: Sequence[str]) -> dict[str, StoredShares]:
    """Return the shares of gateways by gateway, each with the version that `save_share` needs."""
    found: dict[str, StoredShares] = {}
    for record in await connection.fetch(_LIST_SHARES, gateways):
        stored = found.setdefault(record["gateway"], StoredShares(record["shares_version"]))
        if record["process"] is not None:
            stored.shares[record["process"]] = _share(record)
    return found


@dataclass(frozen=True, slots=True)
class ShareHolder:
    """A process that has a share; `kind` is None when the process was not heard of for long."""

    process: str
    kind: str | None
    share: Share


_LIST_HOLDERS: Final = """
    SELECT process, kind, calls, rate, calls_held, rate_held, in_flight, waiting, made
      FROM gateway_share
      LEFT JOIN flow_process ON flow_process.id = process
     WHERE gateway = $1
       AND gateway_share.leased_until > clock_timestamp()
     ORDER BY process
"""


async def list_holders(connection: Connection, gateway: str) -> list[ShareHolder]:
    """Return who has shares of a gateway's limits; nobody while it has none."""
    return [
        ShareHolder(record["process"], record["kind"], _share(record))
        for record in await connection.fetch(_LIST_HOLDERS, gateway)
    ]


def _share(record: asyncpg.Record) -> Share:
    return Share(
        calls=record["calls"],
        rate=record["rate"],
        calls_held=record["calls_held"],
        rate_held=record["rate_held"],
        in_flight=record["in_flight"],
        waiting=record["waiting"],
        made=record["made"],
    )


# Saved only where no share of the gateway has changed since they were read. Whatever was decided,
# it is refused if it would rise above what others leave of the limit.
_SAVE_SHARE: Final = """
    WITH won AS (
        UPDATE gateway_breaker
           SET shares_version = shares_version + 1
         WHERE gateway = $1
           AND shares_version = $2
     RETURNING gateway
    ), others AS (
        SELECT coalesce(sum(calls_held), 0) AS calls, coalesce(sum(rate_held), 0) AS rate
          FROM gateway_share
         WHERE gateway = $1
           AND process <> $3
           AND leased_until > clock_timestamp()
    ), own AS (
        SELECT coalesce(sum(calls_held), 0) AS calls, coalesce(sum(rate_held), 0) AS rate
          FROM gateway_share
         WHERE gateway = $1
           AND process = $3
           AND leased_until > clock_timestamp()
    )
    INSERT INTO gateway_share (gateway, process, calls, rate, calls_held, rate_held, in_flight,
                               waiting, made, leased_until)
    SELECT won.gateway, $3, $4::int, $5::float8, $6, $7, $8, $9, $10,
           clock_timestamp() + make_interval(secs => $11)
      FROM won, others, own
     WHERE ($4 IS NULL OR $4 <= greatest($12::int - others.calls, own.calls, 0))
       AND ($5 IS NULL OR $5 <= greatest($13::float8 - others.rate, own.rate, 0) + $14::float8)
        ON CONFLICT (gateway, process) DO UPDATE
       SET calls = excluded.calls,
           rate = excluded.rate,
           calls_held = excluded.calls_held,
           rate_held = excluded.rate_held,
           in_flight = excluded.in_flight,
           waiting = excluded.waiting,
           made = excluded.made,
           leased_until = excluded.leased_until
 RETURNING true
"""


async def save_share(
    connection: Connection,
    gateway: str,
    version: int,
    process: str,
    share: Share,
    *,
    calls_limit: int | None,
    rate_limit: float | None,
    lease_seconds: float,
) -> bool:
    """Save the share of a process, and tell whether all shares were still those of `version`.

    Others count it as long as its lease. That is longer than it may be used by what a call takes
    at most, so that the calls of a process that died are over when another one gets its share.
    """
    return bool(
        await connection.fetchval(
            _SAVE_SHARE,
            gateway,
            version,
            process,
            share.calls,
            share.rate,
            share.calls_held,
            share.rate_held,
            share.in_flight,
            share.waiting,
            share.made,
            lease_seconds,
            calls_limit,
            rate_limit,
            _RATE_EXACTNESS,
        )
    )
