"""What customers do, on a link's page or on their phones, and the notices of it."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Final

import orjson
import structlog

from services.simulator import ledger, mobile_money, notice_store
from services.simulator.behaviours import DUPLICATES, Behaviour, Fault
from services.simulator.fapshi import answers, store
from services.simulator.fapshi.domain import NAME, Kind, Operation, State, Transaction
from services.simulator.fapshi.runtime import Runtime
from services.simulator.gateway import LAPSED_MAX
from services.simulator.ledger import Charge
from services.simulator.mobile_money import CURRENCY, REASONS
from services.simulator.notice_store import Message
from services.simulator.profiles import AT_LAST, NEVER_CONFIRMS, Plan
from shared.database import Connection
from shared.errors import ConflictError, NotFoundError
from shared.money import Money

log = structlog.get_logger()

_NETWORK_ID_DIGITS: Final = 10

#: Who pays on a page where nobody asks for a number.
PAGE_PHONE: Final = "677000000"


async def act(runtime: Runtime, trans_id: str, wish: str) -> Transaction:
    """Let the customer act on a link or a prompt, and return it after that.

    Raises:
        NotFoundError: there is no such transaction.
        ConflictError: it has ended, or its customer never does anything; nothing happened.
    """
    async with runtime.core.database.transaction() as connection:
        transaction = await store.lock_transaction(connection, trans_id)
        if transaction is None:
            raise NotFoundError("no such transaction")
        _require_open(transaction)
        if transaction.expires_at <= runtime.core.clock():
            wish = "expired"
        transaction = await end(runtime, connection, transaction, wish)
    runtime.core.wake()
    return transaction


async def end_lapsed(runtime: Runtime) -> int:
    """End links and prompts whose time is over, with notices, and return how many."""
    async with runtime.core.database.transaction() as connection:
        lapsed = await store.claim_lapsed(connection, runtime.core.clock(), LAPSED_MAX)
        for transaction in lapsed:
            await end(runtime, connection, transaction, "expired")
    return len(lapsed)


async def end(
    runtime: Runtime, connection: Connection, transaction: Transaction, wish: str
) -> Transaction:
    """Carry out a wish on a locked, open transaction.

    Raises:
        ConflictError: the customer never does anything.
    """
    treatment = await runtime.core.treatment(
        connection, NAME, Operation.NOTICE, transaction.reference
    )
    plan = treatment.plan
    outcome = mobile_money.resolve(
        wish, amount=transaction.amount, phone=transaction.phone or "", plan=plan
    )
    if outcome == NEVER_CONFIRMS:
        raise ConflictError(
            "this customer never confirms", details={"state": transaction.state.value}
        )
    scenario = mobile_money.scenario_of(transaction.amount)
    fault = treatment.fault or scenario.notice or (plan.notice_fault if plan else None)
    if outcome == "late_success":
        return await _succeed_later(runtime, connection, transaction, plan, fault)
    if outcome in ("paid", AT_LAST):
        return await _pay(runtime, connection, transaction, fault)
    return await _fail(runtime, connection, transaction, outcome, fault)


async def _pay(
    runtime: Runtime, connection: Connection, transaction: Transaction, fault: Fault | None
) -> Transaction:
    if transaction.state is not State.PENDING:
        await store.save_state(connection, transaction.trans_id, State.PENDING)
    shortfall = mobile_money.scenario_of(transaction.amount).shortfall
    now = runtime.core.clock()
    paid = replace(
        transaction,
        state=State.SUCCESSFUL,
        charged=transaction.amount - shortfall,
        phone=transaction.phone or PAGE_PHONE,
        financial_trans_id=str(secrets.randbelow(10**_NETWORK_ID_DIGITS)).zfill(_NETWORK_ID_DIGITS),
        confirmed_at=now,
        reason=None,
    )
    await store.save_paid(connection, paid)
    taken = Money(transaction.amount - shortfall, CURRENCY)
    await ledger.insert_charge(
        connection,
        Charge(
            gateway=NAME,
            reference=transaction.reference,
            gateway_payment_id=transaction.trans_id,
            charge=taken,
            price=taken,
            charged_at=now,
        ),
    )
    await _plan_notices(runtime, connection, paid, fault)
    log.info("transaction_ended", gateway=NAME, reference=paid.reference, state=paid.state.value)
    return paid


async def _fail(
    runtime: Runtime,
    connection: Connection,
    transaction: Transaction,
    outcome: str,
    fault: Fault | None,
) -> Transaction:
    """End a transaction without money; only links expire."""
    expires = outcome == "expired" and transaction.kind is Kind.LINK
    if not expires and transaction.state is not State.PENDING:
        await store.save_state(connection, transaction.trans_id, State.PENDING)
    failed = replace(
        transaction,
        state=State.EXPIRED if expires else State.FAILED,
        reason=None if expires else REASONS[outcome],
    )
    await store.save_state(connection, failed.trans_id, failed.state, failed.reason)
    await _plan_notices(runtime, connection, failed, fault)
    log.info(
        "transaction_ended", gateway=NAME, reference=failed.reference, state=failed.state.value
    )
    return failed


async def _succeed_later(
    runtime: Runtime,
    connection: Connection,
    transaction: Transaction,
    plan: Plan | None,
    fault: Fault | None,
) -> Transaction:
    """Let a prompt stay pending, and a link fail first."""
    await notice_store.insert_act(
        connection, NAME, transaction.reference, AT_LAST, mobile_money.late_seconds(plan)
    )
    if transaction.kind is Kind.PROMPT:
        return transaction
    return await _fail(runtime, connection, transaction, "declined", fault)


async def _plan_notices(
    runtime: Runtime, connection: Connection, transaction: Transaction, fault: Fault | None
) -> None:
    """Plan the notice of a state; it is sent once, unless a fault says otherwise."""
    behaviour = None if fault is None else fault.behaviour
    if behaviour == Behaviour.NEVER:
        return
    secret = runtime.webhook_secret or None  # Without one in the dashboard no header is sent.
    if behaviour == Behaviour.BADLY_SIGNED:
        secret = None
    elif behaviour == Behaviour.WRONG_SECRET:
        secret = "wh_of_another_service"  # noqa: S105 - what it is meant not to be
    message = _message(runtime, transaction, transaction.state, secret)
    late = fault.delay_seconds if fault and behaviour == Behaviour.LATE else 0.0
    for _ in range(DUPLICATES if behaviour == Behaviour.DUPLICATE else 1):
        await notice_store.insert_notice(connection, message, late)
    if fault and behaviour == Behaviour.REORDERED and transaction.state is State.SUCCESSFUL:
        earlier = State.FAILED if transaction.kind is Kind.LINK else State.PENDING
        message = _message(runtime, transaction, earlier, secret)
        await notice_store.insert_notice(connection, message, fault.delay_seconds)


def _message(
    runtime: Runtime, transaction: Transaction, state: State, secret: str | None
) -> Message:
    body = answers.transaction_object(transaction, runtime.webhook, state)
    headers = {"Content-Type": "application/json"}
    if secret is not None:
        headers["x-wh-secret"] = secret
    return Message(
        gateway=NAME,
        reference=transaction.reference,
        status=state.value,
        url=runtime.webhook,
        headers=headers,
        body=orjson.dumps(body).decode(),
    )


def _require_open(transaction: Transaction) -> None:
    if not transaction.is_open:
        state = transaction.state.value
        raise ConflictError(f"the transaction is {state}", details={"state": state})
