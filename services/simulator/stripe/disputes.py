"""Endpoints of disputes, and what customers' banks do: open one, hear it, decide it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import asyncpg

from services.simulator.core import Treatment
from services.simulator.faults import Reply
from services.simulator.movements import Movement, MovementKind, insert_movement
from services.simulator.stripe import answers, dispute_store, events, store
from services.simulator.stripe.domain import (
    DECIDED,
    Dispute,
    DisputeStatus,
    Intent,
)
from services.simulator.stripe.errors import missing, refused
from services.simulator.stripe.parameters import Parameters
from services.simulator.stripe.runtime import Call, Runtime, Work, new_id
from services.simulator.stripe.scenarios import DISPUTE, NAME
from shared.database import Connection
from shared.errors import ConflictError
from shared.money import Money

#: What a merchant may accept: until the bank has decided.
CLOSABLE: Final = frozenset({DisputeStatus.NEEDS_RESPONSE, DisputeStatus.UNDER_REVIEW})


def retrieve(runtime: Runtime, call: Call) -> Work:
    """Show a dispute; `payment_intent` may be expanded."""
    parameters = Parameters(call.tree)
    expand = parameters.texts("expand")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        dispute = await _find(connection, call.subject)
        intent = None
        if "payment_intent" in expand:
            found = await store.find_intent(connection, dispute.intent_id)
            assert found is not None, "a dispute refers to an intent"
            intent = answers.payment_intent(found, runtime.core.public_url)
        return Reply(answers.dispute(dispute, intent))

    return Work(DISPUTE, run)


def list_all(_runtime: Runtime, call: Call) -> Work:
    """List disputes, the newest first: all, or those of an intent or a charge."""
    parameters = Parameters(call.tree)
    intent_id, charge = parameters.text("payment_intent"), parameters.text("charge")
    page = parameters.page()
    parameters.ignore("created", "expand")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        found = await dispute_store.list_disputes(connection, intent_id, charge, page)
        data = [answers.dispute(dispute) for dispute in found[: page.size]]
        return Reply(answers.page_of("/v1/disputes", data, has_more=len(found) > page.size))

    return Work(DISPUTE, run, intent_id=intent_id, charge=charge)


def close(runtime: Runtime, call: Call) -> Work:
    """Let the merchant accept a dispute: it is lost."""
    parameters = Parameters(call.tree)
    parameters.ignore("expand")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        intent_id = (await _find(connection, call.subject)).intent_id
        intent = await store.lock_intent_now(connection, intent_id)
        dispute = await _find(connection, call.subject)
        assert intent is not None, "a dispute refers to an intent"
        if dispute.status not in CLOSABLE:
            raise refused("This dispute is already closed.")
        return Reply(
            answers.dispute(
                await _move_to(runtime, connection, intent, dispute, DisputeStatus.LOST)
            )
        )

    return Work(DISPUTE, run)


async def open_dispute(
    runtime: Runtime, intent_id: str, reason: str, *, amount: int | None, is_inquiry: bool
) -> Dispute | None:
    """Let the customer's bank take a charge back, or ask about it; none if nothing was charged.

    Without an amount it takes what was not refunded, and after a full refund all of it once more,
    as banks do.

    Raises:
        ConflictError: more than was charged, or the last dispute is still open.
    """
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        intent = await store.lock_intent(connection, intent_id)
        if intent is None or not intent.amount_received or intent.latest_charge is None:
            return None
        last = await dispute_store.lock_newest_dispute(connection, intent_id)
        if last is not None and last.status not in DECIDED:
            raise ConflictError("there is an open dispute", details={"status": last.status})
        if amount is not None and amount > intent.amount_received:
            raise ConflictError("more than was charged", details={"amount": intent.amount_received})
        left = intent.amount_received - intent.amount_refunded
        asked = Dispute(
            id=new_id("du"),
            intent_id=intent.id,
            charge=intent.latest_charge,
            amount=amount or left or intent.amount_received,
            currency=intent.currency,
            reason=reason,
            status=DisputeStatus.WARNING_NEEDS_RESPONSE,
            created_at=now,
        )
        dispute = asked if is_inquiry else asked.moved_to(DisputeStatus.NEEDS_RESPONSE, now)
        await dispute_store.insert_dispute(connection, dispute)
        kind = "charge.dispute.created"
        await _announce(runtime, connection, intent, before=asked, after=dispute, kind=kind)
    runtime.core.wake()
    return dispute


async def decide(runtime: Runtime, intent_id: str, status: DisputeStatus) -> Dispute | None:
    """Let the bank bring the last dispute of a payment to a status; none if there is none.

    Raises:
        ConflictError: the protocol has no step from where it stands to there.
    """
    async with runtime.core.database.transaction() as connection:
        intent = await store.lock_intent(connection, intent_id)
        assert intent is not None, "it was found by its reference"
        dispute = await dispute_store.lock_newest_dispute(connection, intent_id)
        if dispute is None:
            return None
        if dispute.status is status:
            raise ConflictError("the dispute is there already", details={"status": status})
        try:
            dispute = await _move_to(runtime, connection, intent, dispute, status)
        except asyncpg.CheckViolationError:
            raise ConflictError(
                f"a dispute does not go from {dispute.status} to {status}",
                details={"status": dispute.status},
            ) from None
    runtime.core.wake()
    return dispute


async def _find(connection: Connection, dispute_id: str) -> Dispute:
    dispute = await dispute_store.find_dispute(connection, dispute_id)
    if dispute is None:
        raise missing("dispute", dispute_id, "dispute")
    return dispute


async def _move_to(
    runtime: Runtime,
    connection: Connection,
    intent: Intent,
    dispute: Dispute,
    status: DisputeStatus,
) -> Dispute:
    """Bring a dispute of a locked intent to a status, move its money, and tell the merchant."""
    moved = dispute.moved_to(status, runtime.core.clock())
    await dispute_store.save_dispute(connection, moved)
    kind = "charge.dispute.closed" if status in DECIDED else "charge.dispute.updated"
    await _announce(runtime, connection, intent, before=dispute, after=moved, kind=kind)
    return moved


async def _announce(
    runtime: Runtime,
    connection: Connection,
    intent: Intent,
    *,
    before: Dispute,
    after: Dispute,
    kind: str,
) -> None:
    """Tell what happened to a dispute, and write down and tell what money that moved."""
    shown = answers.dispute(after)
    await events.announce(runtime, connection, intent, kind, shown)
    if before.is_withdrawn is after.is_withdrawn:
        return
    now = runtime.core.clock()
    if after.is_withdrawn:
        await _move(connection, intent, after, MovementKind.DISPUTE, now)
        if after.fee != before.fee:
            await _move(connection, intent, after, MovementKind.FEE, now)
        kind = "charge.dispute.funds_withdrawn"
    else:
        await _move(connection, intent, after, MovementKind.DISPUTE_RETURNED, now)
        kind = "charge.dispute.funds_reinstated"
    await events.announce(runtime, connection, intent, kind, shown)


async def _move(
    connection: Connection, intent: Intent, dispute: Dispute, kind: MovementKind, now: datetime
) -> None:
    """Write into the ledger that a dispute moved money."""
    amount = dispute.fee if kind is MovementKind.FEE else dispute.amount
    movement = Movement(
        gateway=NAME,
        reference=intent.reference,
        gateway_payment_id=intent.id,
        kind=kind,
        name=dispute.id,
        handle=dispute.id,
        amount=Money(amount, dispute.currency.upper()),
        moved_at=now,
    )
    await insert_movement(connection, movement)
