"""What the payments service's handlers need."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Final

from services.payments import metrics
from services.payments.domain.call_health import judge
from services.payments.domain.model import Deferred, Payment, Verdict
from services.payments.domain.settlement import GATEWAY_IS_OFF, Change, settle
from services.payments.domain.state_machine import RESTING
from services.payments.domain.statistics import step
from services.payments.flow.admission import Flow, Purpose
from services.payments.flow.charges import fact_of
from services.payments.flow.controls import Controls
from services.payments.flow.late_money import give_back
from services.payments.flow.retry_planning import Decided, RetryPlan, RetryPlanner, policy_of
from services.payments.settings import PaymentsSettings
from services.payments.store import attempts as attempt_store
from services.payments.store import payments as payment_store
from services.payments.store.attempts import StoredOrder
from shared.batching import Batcher
from shared.contracts.base import Message
from shared.contracts.payments import CheckoutOpened
from shared.contracts.priorities import Priority, priority_of
from shared.errors import ConflictError
from shared.gateways.interface import (
    ActionRequired,
    Claim,
    Declined,
    Outcome,
    Paid,
    PaymentGateway,
    Pending,
    Unknown,
)
from shared.gateways.registration import SpendingLimits
from shared.gateways.registry import clients
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing
from shared.messaging.publisher import LOAD_RATE
from shared.metrics import bound
from shared.money import Money
from shared.process import Core

#: Under full load, least time between two commits of results. Answers trickle in one by one, and a
#: commit costs about the same for one and for fifty.
RECORD_SPACING_SECONDS: Final = 0.02


#: What metrics call the outcomes.
VERDICT_NAMES: Final[Mapping[type[Verdict], str]] = MappingProxyType(
    {
        Paid: "paid",
        Declined: "declined",
        Pending: "pending",
        ActionRequired: "action_required",
        Unknown: "unknown",
        Deferred: "put_off",
    }
)

#: Answers of gateways that do not know a handle, or know it as another payment's. Our own reference
#: may still find money. Anything else that says nothing is an outage, and one call of it is enough.
_OTHER_HANDLE: Final = frozenset(
    {
        *("invalid_transaction", "reference_differs", "not_found", "resource_missing"),
        *("not_a_handle", "no_intent_id", "http_400", "http_404"),
    }
)


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
    settings: PaymentsSettings
    gateways: Mapping[str, PaymentGateway]
    #: Every call of a gateway goes through it.
    flow: Flow
    expires_after: timedelta
    first_check_after: timedelta
    #: What our wallets may pay, by gateway.
    spending_limits: Mapping[str, SpendingLimits]
    #: Decides, where a failure is recorded, whether the payment is tried again.
    retries: RetryPlanner
    results: Batcher[Judgement, None]

    def priority_of(self, amount: Money) -> Priority:
        """Return how urgent a payment of this amount is."""
        return priority_of(amount.minor_units, amount.currency, self.settings.priority_thresholds)


@asynccontextmanager
async def open_runtime(core: Core, settings: PaymentsSettings) -> AsyncIterator[Runtime]:
    """Connect to the gateways and put together what handlers need."""

    async def record(judgements: Sequence[Judgement]) -> Sequence[None]:
        await _record(recorder, judgements)
        return [None] * len(judgements)

    gateways = clients(settings, core.clock)
    retries = RetryPlanner(policy_of(settings), random.random)
    recorder = _Recorder(core, retries, gateways, settings.late_success_policy == "refund")
    results: Batcher[Judgement, None] = Batcher(
        record, spacing_seconds=RECORD_SPACING_SECONDS, load_rate=LOAD_RATE
    )
    try:
        yield Runtime(
            core=core,
            settings=settings,
            gateways=gateways,
            flow=Flow(
                core.clock,
                Controls(
                    charges=settings.max_concurrent_payments,
                    calls=settings.gateway_calls_max,
                    batch_size=settings.payment_batch_size,
                ),
                minimum_share=settings.minimum_share,
                judge=judge,
            ),
            expires_after=settings.payment_expires_after,
            first_check_after=settings.first_check_after,
            spending_limits={
                name: keys.spending_limits() for name, keys in settings.gateways.items()
            },
            retries=retries,
            results=results,
        )
    finally:
        await results.drain()
        for gateway in gateways.values():
            await gateway.close()


async def ask(
    runtime: Runtime,
    payment: Payment,
    reference: str,
    claim: Claim | None,
    validation_id: str | None,
    *,
    stored: StoredOrder | None = None,
) -> Verdict:
    """Ask the payment's gateway by the best handle there is. A read: it needs no claim.

    Args:
        runtime: The gateways, and the gate before them.
        payment: Whose gateway to ask.
        reference: Our name for the attempt in question.
        claim: What a notice claims; one that claims a payment names it by `validation_id`.
        validation_id: The gateway's handle, if any.
        stored: The order that the reference names, if it was read already.
    """
    gateway = runtime.gateways.get(payment.gateway)
    if gateway is None:
        return Unknown(GATEWAY_IS_OFF)
    if claim in {None, "paid"} and validation_id:
        verdict = await runtime.flow.call(
            payment.gateway,
            payment.priority,
            Purpose.CHECK,
            partial(gateway.confirm, reference, validation_id),
        )
        if not isinstance(verdict, Unknown) or verdict.reason not in _OTHER_HANDLE:
            return verdict
    if stored is None:
        async with runtime.core.database.connection() as connection:
            stored = (await attempt_store.find_orders(connection, [reference]))[reference]
    looked_up = await runtime.flow.call(
        payment.gateway, payment.priority, Purpose.CHECK, partial(gateway.look_up, stored.order)
    )
    if not isinstance(looked_up, Deferred):
        await _remember(runtime, stored, looked_up)
    return looked_up


async def _remember(runtime: Runtime, stored: StoredOrder, outcome: Outcome) -> None:
    """Keep what a look-up tells of an attempt and the lost answer to its start would have told."""
    url = outcome.url if isinstance(outcome, ActionRequired) else None
    handle = handle_in(outcome)
    if url in {None, stored.checkout_url} and (handle is None or stored.order.handle is not None):
        return
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        await attempt_store.open_attempt(connection, stored.order.reference, handle, url)
        if (message := page_found(stored, outcome)) is not None:
            outgoing = await outbox.append(connection, [(message, None)])
    runtime.core.publisher.publish(outgoing)


def handle_in(outcome: Outcome) -> str | None:
    """Return the gateway's name for the attempt, if an outcome tells it."""
    return None if isinstance(outcome, (Paid, Unknown)) else outcome.handle


def page_found(stored: StoredOrder, outcome: Outcome) -> CheckoutOpened | None:
    """Announce, once a page is known, where its customer comes back to."""
    is_first = isinstance(outcome, ActionRequired) and stored.checkout_url is None
    if not is_first or stored.return_url is None:
        return None
    return CheckoutOpened(
        payment_id=stored.payment_id,
        reference=stored.order.reference,
        return_url=stored.return_url,
    )


#: Rounds of reading and deciding anew when another writer was faster.
_ROUNDS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class _Recorder:
    """What it takes to record verdicts."""

    core: Core
    retries: RetryPlanner
    gateways: Mapping[str, PaymentGateway]
    #: Whether money that comes after the end goes back.
    returns_late_money: bool


async def _record(recorder: _Recorder, judgements: Sequence[Judgement]) -> None:
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
            if (change := _decide(recorder, judgement)) is not None
        }
        saved = await _save(recorder, list(decided.values()))
        settled = (first_of_each.keys() - decided.keys()) | saved
        remaining = [
            judgement
            for judgement in remaining
            if judgement.payment.id not in settled
            or judgement is not first_of_each[judgement.payment.id]
        ]
        if not remaining:
            return
        async with recorder.core.database.connection() as connection:
            fresh = await payment_store.find_by_ids(connection, [j.payment.id for j in remaining])
        remaining = [
            Judgement(fresh[j.payment.id], j.verdict, j.claim, j.asked_at, j.traceparent)
            for j in remaining
            # What was said of one try says nothing of the next, unless it is money.
            if fresh[j.payment.id].reference == j.payment.reference or isinstance(j.verdict, Paid)
        ]
        if not remaining:
            return
    raise ConflictError(f"{len(remaining)} payments kept changing")


def _decide(recorder: _Recorder, judgement: Judgement) -> Change | None:
    return settle(
        judgement.payment,
        judgement.verdict,
        claim=judgement.claim,
        now=recorder.core.clock(),
        returns_late_money=recorder.returns_late_money,
    )


async def _save(recorder: _Recorder, decided: Sequence[tuple[Judgement, Change]]) -> frozenset[str]:
    if not decided:
        return frozenset()
    core, retries = recorder.core, recorder.retries
    now = core.clock()
    # One statement as a rule, which commits by itself and saves two round trips.
    is_several = any(
        change.frees_held_to is not None
        or change.gives_back
        or change.payment.retries_automatically
        for _, change in decided
    )
    lend = core.database.transaction if is_several else core.database.connection
    async with lend() as connection:
        outcomes = [Decided(each.payment, each.verdict, change) for each, change in decided]
        plan = await retries.plan(connection, outcomes, now)
        announcements = _announcements([judgement for judgement, _ in decided], plan, now)
        steps = [
            step(judgement.payment, change, now, since=judgement.asked_at)
            for (judgement, _), change in zip(decided, plan.changes, strict=True)
        ]
        saved, outgoing = await payment_store.save_and_announce(
            connection, plan.changes, announcements, now, steps=steps
        )
        outgoing += await retries.write(connection, plan, saved, now)
        await give_back(connection, recorder.gateways, plan.changes, saved, now)
    core.publisher.publish(outgoing)
    for (judgement, _), change in zip(decided, plan.changes, strict=True):
        if change.payment.id in saved:
            measure(judgement.payment, change)
            if judgement.claim is not None and _came_to_rest(judgement.payment, change):
                waited = (now - judgement.asked_at).total_seconds()
                seconds = bound(metrics.SETTLEMENT_SECONDS, change.payment.gateway)
                seconds.observe(max(0.0, waited))
    return saved


def _announcements(
    judgements: Sequence[Judgement], plan: RetryPlan, now: datetime
) -> dict[str, tuple[Message, str | None]]:
    found: dict[str, tuple[Message, str | None]] = {}
    for judgement, change in zip(judgements, plan.changes, strict=True):
        id_ = change.payment.id
        fact = fact_of(
            judgement.payment,
            change,
            planned=plan.retries.get(id_),
            tries=plan.tries.get(id_, 0),
            asked_at=judgement.asked_at,
            now=now,
        )
        if fact is not None:
            found[id_] = fact, judgement.traceparent
    return found


def _came_to_rest(before: Payment, change: Change) -> bool:
    return change.payment.state in RESTING and change.payment.state is not before.state


def measure(before: Payment, change: Change) -> None:
    """Count a saved change, if it brought a payment to rest, or money, or found a surplus."""
    gateway = change.payment.gateway
    if _came_to_rest(before, change):
        bound(metrics.SETTLED, gateway, change.payment.state).inc()
    if change.is_success:
        amount = change.payment.amount
        bound(metrics.COLLECTED, gateway, amount.currency).inc(amount.minor_units)
    if change.is_surplus:
        metrics.SURPLUS_CHARGES.labels(gateway).inc()
