"""The calls of a merchant: tokens, prompts, links, withdrawals, statuses and lists."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import structlog

from services.simulator import fates, notice_store
from services.simulator.campay import answers, store
from services.simulator.campay.domain import (
    EMPTY,
    NAME,
    NOT_FOUND,
    STARTS,
    UNAUTHORIZED,
    Kind,
    Operation,
    State,
    Transaction,
)
from services.simulator.campay.payment_request import (
    PaymentRequest,
    RefusedError,
    read_amount,
    read_days,
    read_payment,
    read_reference,
)
from services.simulator.campay.runtime import Runtime
from services.simulator.core import Treatment
from services.simulator.faults import Reply
from services.simulator.mobile_money import PENDING, acts_alone, scenario_of
from services.simulator.profiles import Plan
from shared.database import Connection

log = structlog.get_logger()

_LINK_KEY_BYTES: Final = 12
_CODE_LETTERS: Final = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"
_CODE_LENGTH: Final = 8

#: Lines of one history; whether the gateway has such a limit is not documented.
HISTORY_MAX: Final = 1_000


def unauthorized() -> Reply:
    """Refuse a call with a bad or expired token."""
    return Reply({"message": "Invalid token."}, status=401)


async def token(runtime: Runtime, members: Mapping[str, Any]) -> Reply:
    """Give a token for the application's credentials."""
    given = runtime.token_for(str(members.get("username")), str(members.get("password")))
    if given is None:
        return Reply({"message": "Unable to log in with provided credentials."}, status=400)
    return Reply({"token": given, "expires_in": runtime.token_seconds})


async def start_treatment(runtime: Runtime, kind: Kind, members: Mapping[str, Any]) -> Treatment:
    """Return what is in store for a call that starts something, and for its payment."""
    reference, core = read_reference(members), runtime.core
    fault = None if kind is Kind.WITHDRAW else scenario_of(read_amount(members)).start
    async with core.database.connection() as connection:
        if fault is not None and reference:
            is_first = await fates.claim_first_call(connection, NAME, reference)
            fault = fault if is_first else None
        return await core.treatment(
            connection,
            NAME,
            STARTS[kind],
            reference,
            usual=fault,
            starts=kind is not Kind.WITHDRAW,
        )


async def start(
    runtime: Runtime, kind: Kind, members: Mapping[str, Any], treatment: Treatment
) -> Reply:
    """Prompt a phone, make a link or pay out; or answer as the first time."""
    if treatment.is_told(UNAUTHORIZED):
        return unauthorized()
    if kind is Kind.WITHDRAW and not runtime.can_withdraw:
        return Reply({"message": "Withdrawals are not enabled for this app"}, status=403)
    try:
        request = read_payment(members, kind)
        async with runtime.core.database.transaction() as connection:
            transaction = await _find_first(runtime, connection, kind, request)
            if transaction is None:
                transaction = await _begin(runtime, connection, kind, request, treatment.plan)
    except RefusedError as error:
        return Reply(answers.refused(error), status=400)
    runtime.core.wake()
    log.info(
        "transaction_started",
        gateway=NAME,
        reference=transaction.external_reference,
        kind=kind.value,
    )
    return Reply(answers.started(transaction, runtime.core.public_url))


async def read_status(runtime: Runtime, text: str) -> tuple[Transaction | None, Treatment]:
    """Count a read of a status, and return what is in store for it."""
    core, found = runtime.core, None
    reference = _uuid(text)
    async with core.database.connection() as connection:
        if reference is not None:
            found = await store.count_read(connection, reference)
        if found is None:
            return None, await core.treatment(connection, NAME, Operation.STATUS, "")
        transaction, number = found
        usual = None
        if transaction.state is State.SUCCESSFUL:
            usual = scenario_of(transaction.amount).status_fault(number)
        return transaction, await core.treatment(
            connection, NAME, Operation.STATUS, transaction.external_reference, usual=usual
        )


def tell_status(transaction: Transaction | None, treatment: Treatment) -> Reply:
    """Answer a read of a status."""
    if treatment.is_told(UNAUTHORIZED):
        return unauthorized()
    if transaction is None or treatment.is_told(NOT_FOUND):
        return Reply({"message": "Transaction not found"}, status=404)
    state = State.PENDING if treatment.is_told(PENDING) else None
    style = None if treatment.fault is None else treatment.fault.behaviour
    return Reply(answers.transaction_object(transaction, state, style))


async def history(runtime: Runtime, members: Mapping[str, Any], treatment: Treatment) -> Reply:
    """List the transactions of some days, the newest first."""
    if treatment.is_told(UNAUTHORIZED):
        return unauthorized()
    try:
        since, before = read_days(members)
    except RefusedError as error:
        return Reply(answers.refused(error), status=400)
    if treatment.is_told(EMPTY):
        return Reply({"data": []})
    async with runtime.core.database.connection() as connection:
        found = await store.list_of_days(connection, since, before, HISTORY_MAX)
    return Reply({"data": [answers.history(each) for each in found]})


async def balance(runtime: Runtime, treatment: Treatment) -> Reply:
    """Tell what the application holds with each operator."""
    if treatment.is_told(UNAUTHORIZED):
        return unauthorized()
    async with runtime.core.database.connection() as connection:
        mtn = await store.sum_balance(connection, "MTN")
        orange = await store.sum_balance(connection, "ORANGE")
    return Reply(answers.balance(mtn, orange))


async def _find_first(
    runtime: Runtime, connection: Connection, kind: Kind, request: PaymentRequest
) -> Transaction | None:
    """Find what the first call with this reference has started; others wait meanwhile."""
    if not runtime.is_idempotent or not request.external_reference:
        return None
    await store.lock_reference(connection, request.external_reference)
    found = await store.list_of_reference(connection, request.external_reference, 1)
    return found[0] if found and found[0].kind is kind else None


async def _begin(
    runtime: Runtime,
    connection: Connection,
    kind: Kind,
    request: PaymentRequest,
    plan: Plan | None,
) -> Transaction:
    if kind is Kind.WITHDRAW:
        # One withdrawal at a time may look at what is left.
        await store.lock_reference(connection, "balance")
        if await store.sum_balance(connection, request.operator or "") < request.amount:
            raise RefusedError("Insufficient balance", "ER301")
    transaction = _new_transaction(runtime, kind, request, runtime.core.clock())
    await store.insert_transaction(connection, transaction)
    reference = transaction.external_reference
    is_prompt = kind is Kind.COLLECT
    if kind is Kind.WITHDRAW or (
        is_prompt and acts_alone(transaction.amount, transaction.local_phone)
    ):
        await notice_store.insert_act(connection, NAME, reference, "paid", 0)
    else:
        await runtime.core.let_customer_act(connection, NAME, reference, plan)
    return transaction


def _new_transaction(
    runtime: Runtime, kind: Kind, request: PaymentRequest, now: datetime
) -> Transaction:
    reference, is_link = uuid4(), kind is Kind.LINK
    seconds = runtime.link_seconds if is_link else runtime.prompt_seconds
    letters = "".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH))
    return Transaction(
        reference=reference,
        external_reference=request.external_reference or str(reference),
        kind=kind,
        state=State.CREATED if is_link else State.PENDING,
        amount=request.amount,
        phone=request.phone,
        operator=request.operator,
        description=request.description,
        external_user=request.external_user,
        first_name=request.first_name,
        last_name=request.last_name,
        email=request.email,
        link_key=secrets.token_hex(_LINK_KEY_BYTES) if is_link else None,
        redirect_url=request.redirect_url,
        failure_url=request.failure_url,
        code=f"CP{now:%y%m%d}{letters}",
        created_at=now,
        expires_at=now + timedelta(seconds=seconds),
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
