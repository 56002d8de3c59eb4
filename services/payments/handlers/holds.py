"""What operators do to one payment: hold it, release it, ask its gateway at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from services.payments import metrics
from services.payments.domain import holds
from services.payments.domain.model import Deferred, Payment, PaymentState, Verdict
from services.payments.domain.settlement import Change
from services.payments.domain.statistics import step
from services.payments.flow.charges import tell
from services.payments.handlers.beginning import put_off
from services.payments.handlers.orders import read_payment
from services.payments.runtime import VERDICT_NAMES, Judgement, Runtime, ask, measure
from services.payments.store import payments as payment_store
from services.payments.store import refunds as refund_store
from services.payments.store import retries as retry_store
from services.payments.store.payment_views import PaymentView
from shared.database import Connection
from shared.gateways.interface import Paid
from shared.metrics import bound
from shared.web.operator_actions import Instruction, find_action, record_action


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What a gateway said when it was asked at once, and where the payment stands now."""

    view: PaymentView
    #: As metrics call it: paid, declined, pending, action_required, unknown.
    outcome: str
    reason: str | None


#: Decides what an instruction makes of a payment whose row is locked.
_Decide: TypeAlias = Callable[[Connection, Payment], Awaitable[Change]]


async def hold(runtime: Runtime, instruction: Instruction, payment_id: str) -> PaymentView:
    """Keep a payment from going on until it is released.

    Raises:
        NotFoundError: no payment has this id.
        ConflictError: it is at rest.
    """

    async def decide(_connection: Connection, payment: Payment) -> Change:
        return holds.hold(payment)

    return await _carry_out(runtime, instruction, "hold", payment_id, decide)


async def release(runtime: Runtime, instruction: Instruction, payment_id: str) -> PaymentView:
    """Let a payment that is on hold go on; one whose money is there succeeds and is announced.

    Raises:
        NotFoundError: no payment has this id.
        ConflictError: it is not on hold, or its money is on its way back.
    """

    async def decide(connection: Connection, payment: Payment) -> Change:
        return holds.release(
            payment,
            await refund_store.find_returned(connection, payment_id),
            has_open_retry=await retry_store.has_open_retry(connection, payment_id),
            now=runtime.core.clock(),
        )

    return await _carry_out(runtime, instruction, "release", payment_id, decide)


async def _carry_out(
    runtime: Runtime, instruction: Instruction, action: str, payment_id: str, decide: _Decide
) -> PaymentView:
    """Save what an operator wants of a payment, record it and announce it, in one transaction."""
    await read_payment(runtime, payment_id)
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        payment = await payment_store.lock_payment(connection, payment_id)
        if await find_action(connection, instruction.action_id) is None:
            change = await decide(connection, payment)
            saved, outgoing = await payment_store.save_and_announce(
                connection, [change], {}, now, steps=[step(payment, change, now)]
            )
            assert payment.id in saved, "the row is locked"
            outgoing += await tell(connection, payment, change, now=now)
            done = instruction.carried_out(
                action,
                payment.id,
                at=now,
                before=_recorded(payment),
                after=_recorded(change.payment),
            )
            await record_action(connection, done)
        else:
            change, outgoing = None, []  # Carried out before the request was cut off.
    runtime.core.publisher.publish(outgoing)
    if change is not None:
        measure(payment, change)
    return await read_payment(runtime, payment_id)


def _recorded(payment: Payment) -> dict[str, str | None]:
    return {"state": payment.state, "reason": payment.reason}


async def look_up(runtime: Runtime, instruction: Instruction, payment_id: str) -> LookedUp:
    """Ask a payment's gateway at once where it stands, whatever its state, and record the answer.

    Raises:
        NotFoundError: no payment has this id.
        GatewayUnavailableError: its gateway may not be asked now; says why and until when.
    """
    payment = (await read_payment(runtime, payment_id)).payment
    with runtime.core.tracing.span(
        "payments.look_up", attributes={"payment": payment.id}
    ) as traceparent:
        asked_at = runtime.core.clock()
        handle = payment.validation_id if payment.state is PaymentState.PROCESSING else None
        verdict = await ask(runtime, payment, payment.reference, None, handle)
        if isinstance(verdict, Deferred):
            raise put_off(verdict, asked_at, payment.id)
        bound(metrics.CHECKS, payment.gateway, "operator", VERDICT_NAMES[type(verdict)]).inc()
        await runtime.results.submit(Judgement(payment, verdict, None, asked_at, traceparent))
    view = await read_payment(runtime, payment_id)
    looked_up = LookedUp(view, VERDICT_NAMES[type(verdict)], _reason(verdict))
    async with runtime.core.database.transaction() as connection:
        done = instruction.carried_out(
            "look_up",
            payment.id,
            at=asked_at,
            before=_recorded(payment),
            after={**_recorded(view.payment), "outcome": looked_up.outcome},
        )
        await record_action(connection, done)
    return looked_up


def _reason(verdict: Verdict) -> str | None:
    return None if isinstance(verdict, Paid) else verdict.reason
