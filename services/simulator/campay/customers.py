"""What customers do, on a link's page or on their phones, and the callbacks of it."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

import orjson
import structlog

from services.simulator import ledger, mobile_money, notice_store
from services.simulator.behaviours import DUPLICATES, Behaviour, Fault
from services.simulator.campay import answers, store, tokens
from services.simulator.campay.domain import (
    ALG_NONE,
    ALTERED_FIELDS,
    BY_FORM,
    BY_GET,
    COUNTRY_CODE,
    EXPIRED_TOKEN,
    NAME,
    Kind,
    Operation,
    State,
    Transaction,
)
from services.simulator.campay.runtime import Runtime
from services.simulator.gateway import LAPSED_MAX
from services.simulator.ledger import Charge
from services.simulator.mobile_money import CURRENCY, REASONS
from services.simulator.notice_store import Message
from services.simulator.profiles import AT_LAST, NEVER_CONFIRMS
from shared.database import Connection
from shared.errors import ConflictError, NotFoundError
from shared.money import Money

log = structlog.get_logger()

_OPERATOR_REFERENCE_DIGITS: Final = 10

#: Who pays on a page where nobody asks for a number.
PAGE_PHONE: Final = f"{COUNTRY_CODE}677000000"
PAGE_OPERATOR: Final = "MTN"

#: By how much altered fields exaggerate the amount.
_EXAGGERATION: Final = 10

#: How long ago an expired signature was made.
_LONG_AGO: Final = timedelta(seconds=2 * tokens.CALLBACK_SECONDS)


async def act(runtime: Runtime, reference: UUID, wish: str) -> Transaction:
    """Let the customer act on a link or a prompt, and return it after that.

    Raises:
        NotFoundError: there is no such transaction.
        ConflictError: it has ended, or its customer never does anything; nothing happened.
    """
    async with runtime.core.database.transaction() as connection:
        transaction = await store.lock_transaction(connection, reference)
        if transaction is None:
            raise NotFoundError("no such transaction")
        if not transaction.is_open:
            state = transaction.state.value
            raise ConflictError(f"the transaction is {state}", details={"state": state})
        if transaction.expires_at <= runtime.core.clock():
            wish = "expired"
        transaction = await _end(runtime, connection, transaction, wish)
    runtime.core.wake()
    return transaction


async def end_lapsed(runtime: Runtime) -> int:
    """End links and prompts whose time is over, with callbacks, and return how many."""
    async with runtime.core.database.transaction() as connection:
        lapsed = await store.claim_lapsed(connection, runtime.core.clock(), LAPSED_MAX)
        for transaction in lapsed:
            await _end(runtime, connection, transaction, "expired")
    return len(lapsed)


async def _end(
    runtime: Runtime, connection: Connection, transaction: Transaction, wish: str
) -> Transaction:
    """Carry out a wish on a locked, open transaction.

    Raises:
        ConflictError: the customer never does anything.
    """
    treatment = await runtime.core.treatment(
        connection, NAME, Operation.NOTICE, transaction.external_reference
    )
    plan, scenario = treatment.plan, mobile_money.scenario_of(transaction.amount)
    outcome, fault = wish, treatment.fault
    if transaction.kind is not Kind.WITHDRAW:
        outcome = mobile_money.resolve(
            wish, amount=transaction.amount, phone=transaction.local_phone, plan=plan
        )
        fault = fault or scenario.notice or (plan.notice_fault if plan else None)
    if outcome == NEVER_CONFIRMS:
        raise ConflictError(
            "this customer never confirms", details={"state": transaction.state.value}
        )
    if transaction.state is State.CREATED:
        transaction = replace(transaction, state=State.PENDING)
        await store.save_state(connection, transaction.reference, State.PENDING)
    if outcome == "late_success":
        await notice_store.insert_act(
            connection,
            NAME,
            transaction.external_reference,
            AT_LAST,
            mobile_money.late_seconds(plan),
        )
        return transaction
    if outcome in ("paid", AT_LAST):
        ended = await _pay(runtime, connection, transaction)
    else:
        ended = replace(transaction, state=State.FAILED, reason=REASONS[outcome])
        await store.save_state(connection, ended.reference, ended.state, ended.reason)
    await _plan_callbacks(runtime, connection, ended, fault)
    log.info(
        "transaction_ended",
        gateway=NAME,
        reference=ended.external_reference,
        state=ended.state.value,
    )
    return ended


async def _pay(runtime: Runtime, connection: Connection, transaction: Transaction) -> Transaction:
    is_withdrawal = transaction.kind is Kind.WITHDRAW
    shortfall = 0 if is_withdrawal else mobile_money.scenario_of(transaction.amount).shortfall
    number = secrets.randbelow(10**_OPERATOR_REFERENCE_DIGITS)
    paid = replace(
        transaction,
        state=State.SUCCESSFUL,
        charged=transaction.amount - shortfall,
        phone=transaction.phone or PAGE_PHONE,
        operator=transaction.operator or PAGE_OPERATOR,
        operator_reference=str(number).zfill(_OPERATOR_REFERENCE_DIGITS),
        confirmed_at=runtime.core.clock(),
    )
    await store.save_paid(connection, paid)
    if not is_withdrawal:  # The ledger holds what customers pay.
        taken = Money(transaction.amount - shortfall, CURRENCY)
        await ledger.insert_charge(
            connection,
            Charge(
                gateway=NAME,
                reference=transaction.external_reference,
                gateway_payment_id=str(transaction.reference),
                charge=taken,
                price=taken,
                charged_at=runtime.core.clock(),
            ),
        )
    return paid


async def _plan_callbacks(
    runtime: Runtime, connection: Connection, transaction: Transaction, fault: Fault | None
) -> None:
    behaviour = "" if fault is None else fault.behaviour
    if behaviour == Behaviour.NEVER:
        return
    told = transaction
    if behaviour == ALTERED_FIELDS:
        amount = (transaction.charged or transaction.amount) * _EXAGGERATION
        told = replace(transaction, state=State.SUCCESSFUL, charged=amount)
    message = _message(runtime, told, told.state, behaviour)
    late = fault.delay_seconds if fault and behaviour == Behaviour.LATE else 0.0
    for _ in range(DUPLICATES if behaviour == Behaviour.DUPLICATE else 1):
        await notice_store.insert_notice(connection, message, late)
    if fault is not None and behaviour == Behaviour.REORDERED:
        message = _message(runtime, transaction, State.PENDING, behaviour)
        await notice_store.insert_notice(connection, message, fault.delay_seconds)


def _message(runtime: Runtime, transaction: Transaction, state: State, behaviour: str) -> Message:
    fields = answers.callback(transaction, _signature(runtime, behaviour), state)
    form = {BY_GET: "get", BY_FORM: "form"}.get(behaviour, runtime.callback_form)
    if form == "get":
        content_type, body = "", ""
    elif form == "form":
        content_type, body = "application/x-www-form-urlencoded", urlencode(fields)
    else:
        content_type, body = "application/json", orjson.dumps(fields).decode()
    url = runtime.callback_url
    return Message(
        gateway=NAME,
        reference=transaction.external_reference,
        status=fields["status"],
        method="GET" if form == "get" else "POST",
        url=f"{url}?{urlencode(fields)}" if form == "get" else url,
        headers={"Content-Type": content_type} if content_type else {},
        body=body,
    )


def _signature(runtime: Runtime, behaviour: str) -> str:
    """Make the proof of a callback, good or not."""
    now, key = runtime.core.clock(), runtime.webhook_key
    if behaviour == ALG_NONE:
        return tokens.callback_signature(key, now, "none")
    if behaviour == EXPIRED_TOKEN:
        return tokens.callback_signature(key, now - _LONG_AGO)
    if behaviour == Behaviour.WRONG_SECRET:
        return tokens.callback_signature(f"{key} of another app", now)
    good = tokens.callback_signature(key, now)
    if behaviour == Behaviour.BADLY_SIGNED:  # The claims of one token, the signature of another.
        claims = tokens.callback_signature(key, now + _LONG_AGO).rpartition(".")[0]
        return f"{claims}.{good.rpartition('.')[2]}"
    return good
