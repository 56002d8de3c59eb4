"""Telling the merchant: events, stored to be listed and sent as signed notices."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import orjson

from services.simulator import notice_store
from services.simulator.behaviours import DUPLICATES, Behaviour, Fault
from services.simulator.notice_store import Message
from services.simulator.stripe import answers, object_store
from services.simulator.stripe.answers import Json
from services.simulator.stripe.domain import Intent, IntentStatus
from services.simulator.stripe.runtime import Runtime, new_id
from services.simulator.stripe.scenarios import NAME, NOTICE, scenario_of
from services.simulator.stripe.signing import sign
from shared.database import Connection

#: The type of the event when an intent has come to a status.
KIND_OF: Final = {
    IntentStatus.REQUIRES_PAYMENT_METHOD: "payment_intent.payment_failed",
    IntentStatus.REQUIRES_ACTION: "payment_intent.requires_action",
    IntentStatus.PROCESSING: "payment_intent.processing",
    IntentStatus.REQUIRES_CAPTURE: "payment_intent.amount_capturable_updated",
    IntentStatus.CANCELED: "payment_intent.canceled",
    IntentStatus.SUCCEEDED: "payment_intent.succeeded",
}

PATH: Final = "/webhooks/stripe"


async def announce_intent(runtime: Runtime, connection: Connection, intent: Intent) -> None:
    """Tell that an intent has come to its status."""
    subject = answers.payment_intent(intent, runtime.core.public_url)
    await announce(runtime, connection, intent, KIND_OF[intent.status], subject)


async def announce(
    runtime: Runtime, connection: Connection, intent: Intent, kind: str, subject: Json
) -> None:
    """Store an event about an object of an intent, and plan its notices as badly as is told."""
    treatment = await runtime.core.treatment(connection, NAME, NOTICE, intent.reference)
    fault = treatment.fault or scenario_of(intent.amount).notice
    if fault is None and treatment.plan is not None:
        fault = treatment.plan.notice_fault
    behaviour = None if fault is None else fault.behaviour
    now = runtime.core.clock()
    body = await _store(connection, kind, subject, intent, now)
    if behaviour == Behaviour.NEVER:
        return
    delay_seconds = fault.delay_seconds if fault and behaviour == Behaviour.LATE else 0.0
    bodies = [body]
    if behaviour == Behaviour.DUPLICATE:
        # Stripe's duplicates are mostly the same event, and sometimes two events of one change.
        bodies = [body] * (DUPLICATES - 1)
        bodies.append(await _store(connection, kind, subject, intent, now))
    for each in bodies:
        await _plan(
            runtime, connection, intent, kind, each, fault=fault, delay_seconds=delay_seconds
        )
    if fault is not None and behaviour == Behaviour.REORDERED:
        await _add_older(runtime, connection, intent, fault)


async def _add_older(
    runtime: Runtime, connection: Connection, intent: Intent, fault: Fault
) -> None:
    """Send last what should have come first: that the intent is processing."""
    before = answers.payment_intent(intent, runtime.core.public_url)
    before |= {"status": IntentStatus.PROCESSING, "amount_received": 0}
    kind = KIND_OF[IntentStatus.PROCESSING]
    then = runtime.core.clock() - timedelta(seconds=1)
    body = await _store(connection, kind, before, intent, then)
    await _plan(
        runtime, connection, intent, kind, body, fault=None, delay_seconds=fault.delay_seconds
    )


async def _store(
    connection: Connection, kind: str, subject: Json, intent: Intent, now: datetime
) -> bytes:
    event_id = new_id("evt")
    body = orjson.dumps(answers.event(event_id, kind, subject, intent, now))
    await object_store.insert_event(
        connection, event_id, kind, reference=intent.reference, body=body, now=now
    )
    return body


async def _plan(
    runtime: Runtime,
    connection: Connection,
    intent: Intent,
    kind: str,
    body: bytes,
    *,
    fault: Fault | None,
    delay_seconds: float,
) -> None:
    secrets = [runtime.webhook_secret.get_secret_value()]
    rolled = await object_store.find_roll(connection)
    if rolled is not None:
        secrets.append(rolled)
    behaviour = None if fault is None else fault.behaviour
    if behaviour == Behaviour.WRONG_SECRET:
        secrets = [f"{secret}_of_another_endpoint" for secret in secrets]
    signed = body + b" " if behaviour == Behaviour.BADLY_SIGNED else body
    # Signed for the moment in which it is sent, as each delivery of the real one is.
    due_at = runtime.core.clock() + timedelta(seconds=delay_seconds)
    message = Message(
        gateway=NAME,
        reference=intent.reference,
        status=kind,
        url=runtime.core.notice_url + PATH,
        headers={
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": sign(signed, secrets, int(due_at.timestamp())),
        },
        body=body.decode(),
    )
    await notice_store.insert_notice(connection, message, delay_seconds)
