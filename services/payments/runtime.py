"""What the payments service's handlers need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.payments import metrics, store
from services.payments.domain.model import Payment
from services.payments.domain.settlement import Change, settle
from services.payments.domain.state_machine import RESTING
from services.payments.settings import PaymentsSettings
from shared.batching import Batcher
from shared.contracts.payments import PaymentSucceeded
from shared.errors import ConflictError
from shared.gateways.interface import Claim, PaymentGateway, Unknown, Verdict
from shared.gateways.registry import CLIENTS
from shared.messaging.publisher import LOAD_RATE
from shared.metrics import bound
from shared.process import Core

#: Under full load, least time between two commits of results. Answers trickle in one by one, and a
#: commit costs about the same for one and for fifty.
RECORD_SPACING_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a gateway said of a payment, waiting to be recorded."""

    payment: Payment
    verdict: Verdict
    claim: Claim | None
    asked_at: datetime
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Runtime:
    """The core, the gateways, and the one way by which verdicts become states."""

    core: Core
    gateways: Mapping[str, PaymentGateway]
    expires_after: timedelta
    first_check_after: timedelta
    results: Batcher[Judgement, None]


@asynccontextmanager
async def open_runtime(core: Core, settings: PaymentsSettings) -> AsyncIterator[Runtime]:
    """Connect to the gateways and put together what handlers need."""

    async def record(judgements: Sequence[Judgement]) -> Sequence[None]:
        await _record(core, judgements)
        return [None] * len(judgements)

    built = {name: build(settings) for name, build in CLIENTS.items()}
    results: Batcher[Judgement, None] = Batcher(
        record, spacing_seconds=RECORD_SPACING_SECONDS, load_rate=LOAD_RATE
    )
    try:
        yield Runtime(
            core=core,
            gateways={name: gateway for name, (gateway, _) in built.items()},
            expires_after=settings.payment_expires_after,
            first_check_after=settings.first_check_after,
            results=results,
        )
    finally:
        await results.drain()
        for _, client in built.values():
            client.close()


async def ask(
    runtime: Runtime,
    payment: Payment,
    reference: str,
    claim: Claim | None,
    validation_id: str | None,
) -> Verdict:
    """Ask the payment's gateway by the best handle there is. A read: it needs no claim.

    Args:
        runtime: The gateways; each bounds the calls in flight.
        payment: Whose gateway to ask.
        reference: Our name for the attempt in question.
        claim: What a notice claims; one that claims a payment names it by `validation_id`.
        validation_id: The gateway's handle, if any.
    """
    gateway = runtime.gateways[payment.gateway]
    if claim in {None, "paid"} and validation_id:
        verdict = await gateway.confirm(reference, validation_id)
        if not isinstance(verdict, Unknown) or verdict.reason not in {
            "invalid_transaction",
            "reference_differs",
        }:
            return verdict
        # The handle is not this payment's. Our own reference may still find money.
    return await gateway.look_up(reference)


#: Rounds of reading and deciding anew when another writer was faster.
_ROUNDS_MAX: Final = 10


async def _record(core: Core, judgements: Sequence[Judgement]) -> None:
    """Commit what a batch of verdicts changes, with its announcements, then publish these.

    A payment that another writer changed meanwhile is read and judged anew.

    Raises:
        ConflictError: a payment kept changing under our hands.
    """
    remaining = list(judgements)
    for _ in range(_ROUNDS_MAX):
        first_of_each = {judgement.payment.id: judgement for judgement in reversed(remaining)}
        decided = {
            id_: (judgement, change)
            for id_, judgement in sorted(first_of_each.items())
            if (change := _decide(core, judgement)) is not None
        }
        saved = await _save(core, list(decided.values()))
        settled = (first_of_each.keys() - decided.keys()) | saved
        remaining = [
            judgement
            for judgement in remaining
            if judgement.payment.id not in settled
            or judgement is not first_of_each[judgement.payment.id]
        ]
        if not remaining:
            return
        async with core.database.connection() as connection:
            fresh = await store.find_by_ids(connection, [j.payment.id for j in remaining])
        remaining = [
            Judgement(fresh[j.payment.id], j.verdict, j.claim, j.asked_at, j.traceparent)
            for j in remaining
        ]
    raise ConflictError(f"{len(remaining)} payments kept changing")


def _decide(core: Core, judgement: Judgement) -> Change | None:
    return settle(judgement.payment, judgement.verdict, claim=judgement.claim, now=core.clock())


async def _save(core: Core, decided: Sequence[tuple[Judgement, Change]]) -> frozenset[str]:
    if not decided:
        return frozenset()
    announcements = {
        change.payment.id: (_announcement(judgement, change.payment), judgement.traceparent)
        for judgement, change in decided
        if change.is_success
    }
    async with core.database.connection() as connection:
        saved, outgoing = await store.save_and_announce(
            connection, [change for _, change in decided], announcements, core.clock()
        )
    core.publisher.publish(outgoing)
    now = core.clock()
    for judgement, change in decided:
        if change.payment.id in saved:
            _measure(judgement, change, now)
    return saved


def _announcement(judgement: Judgement, payment: Payment) -> PaymentSucceeded:
    return PaymentSucceeded(
        payment_id=payment.id,
        customer_id=payment.customer_id,
        product_id=payment.product_id,
        amount=payment.amount.minor_units,
        currency=payment.amount.currency,
        noticed_at=judgement.asked_at,
    )


def _measure(judgement: Judgement, change: Change, now: datetime) -> None:
    gateway = change.payment.gateway
    if change.payment.state in RESTING and change.payment.state is not judgement.payment.state:
        bound(metrics.SETTLED, gateway, change.payment.state).inc()
        if judgement.claim is not None:
            waited = (now - judgement.asked_at).total_seconds()
            bound(metrics.SETTLEMENT_SECONDS, gateway).observe(max(0.0, waited))
    if change.is_surplus:
        metrics.SURPLUS_CHARGES.labels(gateway).inc()
