"""What operators did by hand: recorded in the transaction that does it, and listed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from shared.database import Connection

#: Ids of recorded actions begin with this.
ID_PREFIX: Final = "act"


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """One thing that an operator did.

    `before` and `after` are what JSON can hold, of the target, as far as the action concerns it;
    None where there was nothing, or nothing is left. Nothing secret or personal belongs there.
    """

    #: Of the prefix `ID_PREFIX`. The id that an idempotency key fixes, so that a request which is
    #: carried on after a crash records its action once.
    id: str
    at: datetime
    #: The name of the API key that asked for it.
    actor: str
    action: str
    target: str
    reason: str
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True)
class Instruction:
    """Who asks for an action and why, and the id under which it is recorded."""

    action_id: str
    actor: str
    reason: str

    def carried_out(
        self, action: str, target: str, *, at: datetime, before: Any = None, after: Any = None
    ) -> OperatorAction:
        """Return what to record of it."""
        return OperatorAction(
            id=self.action_id,
            at=at,
            actor=self.actor,
            action=action,
            target=target,
            reason=self.reason,
            before=before,
            after=after,
        )


_RECORD: Final = """
    INSERT INTO operator_action (id, at, actor, action, target, reason, before, after)
    VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8::jsonb)
        ON CONFLICT (id) DO NOTHING
"""


async def record_action(connection: Connection, action: OperatorAction) -> None:
    """Record an action; call it in the transaction that carries it out. Repeating is no error."""
    await connection.execute(
        _RECORD,
        action.id,
        action.at,
        action.actor,
        action.action,
        action.target,
        action.reason,
        _json(action.before),
        _json(action.after),
    )


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


_FIND_ACTION: Final = """
    SELECT id, at, actor, action, target, reason, before, after
      FROM operator_action
     WHERE id = $1
"""


async def find_action(connection: Connection, action_id: str) -> OperatorAction | None:
    """Return a recorded action: a request that is carried on may have done its work before."""
    record = await connection.fetchrow(_FIND_ACTION, action_id)
    return None if record is None else _action(record)


# Every id sorts before '~', so that the bound is one of the index with a cursor and without.
_LIST_ACTIONS: Final = """
    SELECT id, at, actor, action, target, reason, before, after
      FROM operator_action
     WHERE ($1::text IS NULL OR target = $1)
       AND ($2::text IS NULL OR action = $2)
       AND ($3::text IS NULL OR actor = $3)
       AND id < coalesce($4::text, '~')
     ORDER BY id DESC
     LIMIT $5
"""


async def list_actions(
    connection: Connection,
    *,
    target: str | None,
    action: str | None,
    actor: str | None,
    before_id: str | None,
    limit: int,
) -> list[OperatorAction]:
    """Return recorded actions, newest first, that match every filter given."""
    records = await connection.fetch(_LIST_ACTIONS, target, action, actor, before_id, limit)
    return [_action(record) for record in records]


def _action(record: Any) -> OperatorAction:
    return OperatorAction(
        id=record["id"],
        at=record["at"],
        actor=record["actor"],
        action=record["action"],
        target=record["target"],
        reason=record["reason"],
        before=None if record["before"] is None else orjson.loads(record["before"]),
        after=None if record["after"] is None else orjson.loads(record["after"]),
    )
