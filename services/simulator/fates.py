"""SQL of scripts, of the random profile and of what it decided, one typed function each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from services.simulator.behaviours import Fault
from services.simulator.profiles import Fate, NoticeFate, Plan, Profile, read_profile
from shared.database import Connection


@dataclass(frozen=True, slots=True)
class Claimed:
    """What is in store for a call: a script's fault, the profile, and the recorded fate."""

    fault: Fault | None
    profile: Profile | None
    recorded: Plan | None


@dataclass(frozen=True, slots=True)
class RecordedFate:
    """What a profile decided about one payment."""

    reference: str
    plan: Plan
    recorded_at: datetime


_INSERT_SCRIPT: Final = """
    INSERT INTO script (gateway, operation, behaviour, delay_seconds, reference, times_left)
    VALUES ($1, $2, $3, $4, $5, $6)
"""


async def insert_script(
    connection: Connection,
    gateway: str,
    operation: str,
    fault: Fault,
    *,
    reference: str | None,
    times: int,
) -> None:
    """Make the next calls of an operation misbehave: of one payment, or of any."""
    await connection.execute(
        _INSERT_SCRIPT, gateway, operation, fault.behaviour, fault.delay_seconds, reference, times
    )


# The outer condition is looked at again after waiting for another claim, so that a script never
# serves more calls than it was made for.
_CLAIM: Final = """
      WITH claimed AS (
               UPDATE script
                  SET times_left = times_left - 1
                WHERE id = (
                          SELECT id
                            FROM script
                           WHERE gateway = $1
                             AND operation = $2
                             AND times_left > 0
                             AND (reference IS NULL OR reference = $3)
                           ORDER BY id
                           LIMIT 1
                      )
                  AND times_left > 0
            RETURNING behaviour, delay_seconds
           )
    SELECT behaviour, delay_seconds, document::text AS profile,
           fate, notice_fate, latency_seconds, late_seconds, customer_acts
      FROM (SELECT $1::text AS gateway, $3::text AS reference) AS payment
      LEFT JOIN claimed ON true
      LEFT JOIN profile ON true
      LEFT JOIN fate USING (gateway, reference)
"""


async def claim(connection: Connection, gateway: str, operation: str, reference: str) -> Claimed:
    """Use up one call of the oldest script that concerns this one, and read what else is known."""
    row = await connection.fetchrow(_CLAIM, gateway, operation, reference)
    assert row is not None, "the statement has exactly one row"
    behaviour, document = row["behaviour"], row["profile"]
    return Claimed(
        fault=None if behaviour is None else Fault(behaviour, row["delay_seconds"]),
        profile=None if document is None else read_profile(document),
        recorded=None if row["fate"] is None else _plan(row),
    )


_CLEAR_SCRIPTS: Final = """
    WITH cleared AS (DELETE FROM script WHERE gateway = $1 RETURNING times_left)
  SELECT count(*) FROM cleared WHERE times_left > 0
"""


async def clear_scripts(connection: Connection, gateway: str) -> int:
    """Forget every script of a gateway and return how many were still in force."""
    count = await connection.fetchval(_CLEAR_SCRIPTS, gateway)
    assert isinstance(count, int)
    return count


_SAVE_PROFILE: Final = """
    INSERT INTO profile (document)
    VALUES ($1::text::jsonb)
        ON CONFLICT (is_in_force) DO UPDATE SET document = excluded.document
"""


async def save_profile(connection: Connection, profile: Profile) -> None:
    """Put a profile in force, in place of another if there is one."""
    await connection.execute(_SAVE_PROFILE, profile.model_dump_json(by_alias=True))


_FIND_PROFILE: Final = """
    SELECT document::text FROM profile
"""


async def find_profile(connection: Connection) -> Profile | None:
    """Read the profile in force."""
    document = await connection.fetchval(_FIND_PROFILE)
    return None if document is None else read_profile(document)


_CLEAR_PROFILE: Final = """
    DELETE FROM profile
"""


async def clear_profile(connection: Connection) -> None:
    """Put no profile in force; payments that were started keep their fates."""
    await connection.execute(_CLEAR_PROFILE)


_INSERT_FATE: Final = """
    INSERT INTO fate (
               gateway, reference, fate, notice_fate, latency_seconds, late_seconds, customer_acts)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT DO NOTHING
 RETURNING true
"""


async def insert_fate(connection: Connection, gateway: str, reference: str, plan: Plan) -> bool:
    """Record what is in store for a payment; tell whether nothing was before."""
    inserted = await connection.fetchval(
        _INSERT_FATE,
        gateway,
        reference,
        plan.fate,
        plan.notice_fate,
        plan.latency_seconds,
        plan.late_seconds,
        plan.customer_acts,
    )
    return inserted is True


_CLAIM_FIRST_CALL: Final = """
    INSERT INTO first_call (gateway, reference)
    VALUES ($1, $2)
        ON CONFLICT DO NOTHING
 RETURNING true
"""


async def claim_first_call(connection: Connection, gateway: str, reference: str) -> bool:
    """Tell whether a payment's first call may still be spoilt by a magic number; once only."""
    return await connection.fetchval(_CLAIM_FIRST_CALL, gateway, reference) is True


_LIST_FATES: Final = """
    SELECT reference, fate, notice_fate, latency_seconds, late_seconds, customer_acts, recorded_at
      FROM fate
     WHERE gateway = $1
       AND ($2::text IS NULL OR reference = $2)
     ORDER BY reference DESC
     LIMIT $3
"""


async def list_fates(
    connection: Connection, gateway: str, reference: str | None, limit: int
) -> Sequence[RecordedFate]:
    """Read what was recorded about a gateway's payments, or about one."""
    rows = await connection.fetch(_LIST_FATES, gateway, reference, limit)
    return [RecordedFate(row["reference"], _plan(row), row["recorded_at"]) for row in rows]


def _plan(row: asyncpg.Record) -> Plan:
    return Plan(
        fate=Fate(row["fate"]),
        notice_fate=NoticeFate(row["notice_fate"]),
        latency_seconds=row["latency_seconds"],
        late_seconds=row["late_seconds"],
        customer_acts=row["customer_acts"],
    )
