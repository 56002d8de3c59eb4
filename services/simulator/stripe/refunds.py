"""Endpoints of refunds and events: what happens after a payment."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import orjson

from services.simulator.core import Treatment
from services.simulator.faults import Reply
from services.simulator.gateway import LAPSED_MAX
from services.simulator.movements import Movement, MovementKind, insert_movement
from services.simulator.stripe import answers, dispute_store, events, object_store, store
from services.simulator.stripe.cards import RefundFate
from services.simulator.stripe.domain import (
    REFUND_REASONS,
    Intent,
    Refund,
    RefundStatus,
)
from services.simulator.stripe.errors import bad_request, missing, refused
from services.simulator.stripe.parameters import Parameters
from services.simulator.stripe.runtime import Call, Runtime, Work, new_id
from services.simulator.stripe.scenarios import NAME, OTHER, REFUND
from shared.database import Connection
from shared.money import Money

#: How long a refund to a card that is not refunded at once takes to get where it ends.
SETTLING: Final = timedelta(seconds=20)

FAILURE_REASON: Final = "expired_or_canceled_card"


def create(runtime: Runtime, call: Call) -> Work:
    """Give money of a charge back: all that is left of it, or a part."""
    parameters = Parameters(call.tree)
    intent_id, charge = parameters.text("payment_intent"), parameters.text("charge")
    amount = parameters.integer("amount", minimum=1, maximum=10**18)
    reason = parameters.choice("reason", REFUND_REASONS)
    metadata = parameters.metadata()
    parameters.ignore("expand", "instructions_email", "origin")
    parameters.finish()
    if (intent_id is None) == (charge is None):
        raise bad_request(
            "One of the following params should be provided for this request: payment_intent or"
            " charge.",
            code="parameter_missing",
        )

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        intent = await _lock_charged(connection, intent_id, charge)
        now = runtime.core.clock()
        await _require_undisputed(connection, intent)
        refund = _new_refund(intent, amount, now)
        refund = replace(refund, reason=reason, metadata=metadata)
        await object_store.insert_refund(connection, refund)
        if refund.status is RefundStatus.SUCCEEDED:
            await _move(connection, intent, refund, MovementKind.REFUND, now)
        refunded = replace(intent, amount_refunded=intent.amount_refunded + refund.amount)
        await store.save_intent(connection, refunded, expected=intent.status)
        # The events name the request that refunds, not the one that charged.
        cause = replace(refunded, request_id=call.request_id, idempotency_key=call.idempotency_key)
        shown = answers.refund(refund)
        charged = answers.charge(refunded)
        await events.announce(runtime, connection, cause, "refund.created", shown)
        await events.announce(runtime, connection, cause, "charge.refunded", charged)
        return Reply(shown)

    return Work(REFUND, run, intent_id=intent_id, charge=charge)


def retrieve(_runtime: Runtime, call: Call) -> Work:
    """Show a refund."""

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        refund = await object_store.find_refund(connection, call.subject)
        if refund is None:
            raise missing("refund", call.subject, "refund")
        return Reply(answers.refund(refund))

    return Work(REFUND, run)


def list_all(_runtime: Runtime, call: Call) -> Work:
    """List refunds, the newest first: all, or those of an intent or a charge."""
    parameters = Parameters(call.tree)
    intent_id, charge = parameters.text("payment_intent"), parameters.text("charge")
    page = parameters.page()
    parameters.ignore("created", "expand")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        refunds = await object_store.list_refunds(
            connection, intent_id, charge, page.after, page.size + 1
        )
        data = [answers.refund(refund) for refund in refunds[: page.size]]
        return Reply(answers.page_of("/v1/refunds", data, has_more=len(refunds) > page.size))

    return Work(REFUND, run, intent_id=intent_id, charge=charge)


def retrieve_event(_runtime: Runtime, call: Call) -> Work:
    """Show an event as it was sent."""

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        body = await object_store.find_event(connection, call.subject)
        if body is None:
            raise missing("event", call.subject, "id")
        return Reply(orjson.Fragment(body))

    return Work(OTHER, run)


def list_events(_runtime: Runtime, call: Call) -> Work:
    """List events, the newest first: all, or those of some types."""
    parameters = Parameters(call.tree)
    kind = parameters.text("type")
    kinds = [kind] if kind is not None else parameters.texts("types")
    created, page = parameters.range("created"), parameters.page()
    parameters.ignore("delivery_success", "expand", "types")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        bodies = await object_store.list_events(connection, kinds, created, page)
        data = [orjson.Fragment(body) for body in bodies[: page.size]]
        return Reply(answers.page_of("/v1/events", data, has_more=len(bodies) > page.size))

    return Work(OTHER, run)


async def settle_due(runtime: Runtime) -> int:
    """Bring refunds whose time has come to their end, and return how many."""
    now = runtime.core.clock()
    async with runtime.core.database.connection() as connection:
        due = await object_store.list_due_refunds(connection, now, LAPSED_MAX)
    for refund in due:
        async with runtime.core.database.transaction() as connection:
            await _settle(runtime, connection, refund)
    return len(due)


async def _lock_charged(
    connection: Connection, intent_id: str | None, charge: str | None
) -> Intent:
    param, kind, identifier = "payment_intent", "payment_intent", intent_id
    if charge is not None:
        param, kind, identifier = "charge", "charge", charge
        intent_id = await store.find_intent_id_of_charge(connection, charge)
    intent = None if intent_id is None else await store.lock_intent_now(connection, intent_id)
    if intent is None:
        raise missing(kind, str(identifier), param)
    if not intent.amount_received:
        raise refused(
            f"This PaymentIntent ({intent.id}) does not have a successful charge to refund.",
            code="payment_intent_unexpected_state" if charge is None else None,
            param=param,
        )
    return intent


async def _require_undisputed(connection: Connection, intent: Intent) -> None:
    """Refuse to give back what the customer's bank has taken already."""
    disputes = await dispute_store.list_disputes_of_intent(connection, intent.id)
    if any(dispute.is_withdrawn for dispute in disputes):
        raise refused(
            f"Charge {intent.latest_charge} has been charged back; cannot issue a refund.",
            code="charge_disputed",
        )


async def _move(
    connection: Connection, intent: Intent, refund: Refund, kind: MovementKind, now: datetime
) -> None:
    """Write into the ledger that a refund's money moved."""
    movement = Movement(
        gateway=NAME,
        reference=intent.reference,
        gateway_payment_id=intent.id,
        kind=kind,
        name=refund.metadata.get("reference", refund.id),
        handle=refund.id,
        amount=Money(refund.amount, refund.currency.upper()),
        moved_at=now,
    )
    await insert_movement(connection, movement)


def _new_refund(intent: Intent, amount: int | None, now: datetime) -> Refund:
    left = intent.amount_received - intent.amount_refunded
    assert intent.latest_charge is not None, "it has received money"
    if left == 0:
        raise refused(
            f"Charge {intent.latest_charge} has already been refunded.",
            code="charge_already_refunded",
        )
    amount = left if amount is None else amount
    if amount > left:
        raise refused(
            f"Refund amount ({amount} {intent.currency}) is greater than unrefunded amount on"
            f" charge ({left} {intent.currency})",
            param="amount",
        )
    refund = Refund(
        id=new_id("re"),
        intent_id=intent.id,
        charge=intent.latest_charge,
        amount=amount,
        currency=intent.currency,
        status=RefundStatus.SUCCEEDED,
        created_at=now,
    )
    fate = RefundFate.SUCCEEDS if intent.card is None else intent.card.refund
    if fate is RefundFate.PENDING:
        return replace(
            refund,
            status=RefundStatus.PENDING,
            due_at=now + SETTLING,
            due_status=RefundStatus.SUCCEEDED,
        )
    if fate is RefundFate.FAILS_LATER:
        return replace(refund, due_at=now + SETTLING, due_status=RefundStatus.FAILED)
    return refund


async def _settle(runtime: Runtime, connection: Connection, refund: Refund) -> None:
    assert refund.due_status is not None, "it is listed by its time"
    intent = await store.lock_intent(connection, refund.intent_id)
    assert intent is not None, "a refund refers to an intent"
    has_failed = refund.due_status is RefundStatus.FAILED
    reason = FAILURE_REASON if has_failed else None
    if not await object_store.settle_refund(connection, refund.id, refund.due_status, reason):
        return
    settled = replace(refund, status=refund.due_status, failure_reason=reason)
    now = runtime.core.clock()
    if not has_failed:
        await _move(connection, intent, refund, MovementKind.REFUND, now)
    elif refund.status is RefundStatus.SUCCEEDED:
        await _move(connection, intent, refund, MovementKind.REFUND_RETURNED, now)
    if has_failed:
        returned = replace(intent, amount_refunded=intent.amount_refunded - refund.amount)
        await store.save_intent(connection, returned, expected=intent.status)
    kind = "refund.failed" if has_failed else "refund.updated"
    await events.announce(runtime, connection, intent, kind, answers.refund(settled))
