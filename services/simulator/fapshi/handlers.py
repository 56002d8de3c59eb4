"""The calls of a merchant: make links and prompts, tell about them, close links."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from services.simulator import fates, notice_store
from services.simulator.core import Treatment
from services.simulator.fapshi import answers, customers, store
from services.simulator.fapshi.domain import (
    ARRAY,
    EMPTY,
    NAME,
    STARTS,
    Kind,
    Operation,
    State,
    Transaction,
)
from services.simulator.fapshi.payment_request import (
    LABEL,
    TRANS_ID,
    PaymentRequest,
    RefusedError,
    read_amount,
    read_payment,
    read_reference,
    read_search,
)
from services.simulator.fapshi.runtime import Runtime
from services.simulator.fapshi.store import StatusRead
from services.simulator.faults import Reply
from services.simulator.mobile_money import PENDING, acts_alone, scenario_of
from services.simulator.profiles import Plan

log = structlog.get_logger()

_ALPHABET: Final = string.ascii_letters + string.digits
_TRANS_ID_LENGTH: Final = 10
_LINK_KEY_BYTES: Final = 12

#: A user's transactions in one answer; whether the gateway has such a limit is not documented.
LISTED_MAX: Final = 1_000


def refused(message: str, status: int = 400) -> Reply:
    """Refuse a call in the gateway's way."""
    return Reply({"message": message}, status=status)


async def start_treatment(runtime: Runtime, kind: Kind, members: Mapping[str, Any]) -> Treatment:
    """Return what is in store for making a link or a prompt, and for its payment."""
    reference = read_reference(members)
    fault = scenario_of(read_amount(members)).start
    async with runtime.core.database.connection() as connection:
        if fault is not None and reference:
            is_first = await fates.claim_first_call(connection, NAME, reference)
            fault = fault if is_first else None
        return await runtime.core.treatment(
            connection, NAME, STARTS[kind], reference, usual=fault, starts=True
        )


async def start(
    runtime: Runtime, kind: Kind, members: Mapping[str, Any], plan: Plan | None
) -> Reply:
    """Make a link or a prompt: a new one for every call, whatever its `externalId`."""
    if kind is Kind.PROMPT and not runtime.direct_pay:
        return refused("Direct pay is not enabled for this service", status=403)
    try:
        request = read_payment(members, kind)
    except RefusedError as error:
        return refused(error.message)
    transaction = _new_transaction(runtime, kind, request, runtime.core.clock())
    phone = transaction.phone or ""
    async with runtime.core.database.transaction() as connection:
        await store.insert_transaction(connection, transaction)
        if kind is Kind.PROMPT and acts_alone(transaction.amount, phone):
            await notice_store.insert_act(connection, NAME, transaction.reference, "paid", 0)
        else:
            await runtime.core.let_customer_act(connection, NAME, transaction.reference, plan)
    runtime.core.wake()
    log.info("transaction_started", gateway=NAME, reference=transaction.reference, kind=kind.value)
    return Reply(answers.started(transaction, runtime.core.public_url))


async def read_status(runtime: Runtime, trans_id: str) -> tuple[StatusRead | None, Treatment]:
    """Count a read of a status, and return what is in store for it."""
    core = runtime.core
    async with core.database.connection() as connection:
        if TRANS_ID.fullmatch(trans_id) is None:
            return None, await core.treatment(connection, NAME, Operation.STATUS, "")
        read = await store.count_read(connection, trans_id, core.clock(), runtime.reads_per_minute)
        if read is None:
            return None, await core.treatment(connection, NAME, Operation.STATUS, "")
        usual = None
        if read.transaction.state is State.SUCCESSFUL:
            usual = scenario_of(read.transaction.amount).status_fault(read.number)
        treatment = await core.treatment(
            connection, NAME, Operation.STATUS, read.transaction.reference, usual=usual
        )
    return read, treatment


def tell_status(
    runtime: Runtime, trans_id: str, read: StatusRead | None, treatment: Treatment
) -> Reply:
    """Answer a read of a status."""
    if TRANS_ID.fullmatch(trans_id) is None:
        return refused("Invalid request URL")
    if read is None:
        return refused("Transaction not found", status=404)
    profile = treatment.profile
    if read.is_limited and (profile is None or profile.limits_reads):
        return Reply({"message": "Too many requests"}, status=429, headers={"Retry-After": "60"})
    state = State.PENDING if treatment.is_told(PENDING) else None
    rendered = answers.transaction_object(read.transaction, runtime.webhook, state)
    return Reply([rendered] if treatment.is_told(ARRAY) else rendered)


async def find_reference(runtime: Runtime, members: Mapping[str, Any]) -> str:
    """Return the reference of the transaction that a body names, or nothing."""
    trans_id = members.get("transId")
    if not isinstance(trans_id, str) or TRANS_ID.fullmatch(trans_id) is None:
        return ""
    async with runtime.core.database.connection() as connection:
        transaction = await store.find_transaction(connection, trans_id)
    return "" if transaction is None else transaction.reference


async def expire(runtime: Runtime, members: Mapping[str, Any]) -> Reply:
    """Close a link, so that nobody can pay it any more."""
    trans_id = members.get("transId")
    if not isinstance(trans_id, str) or TRANS_ID.fullmatch(trans_id) is None:
        return refused("transId is invalid")
    async with runtime.core.database.transaction() as connection:
        transaction = await store.lock_transaction(connection, trans_id)
        if transaction is None:
            return refused("Transaction not found", status=404)
        if transaction.kind is Kind.PROMPT:
            return refused("Only payment links can be expired")
        if transaction.state is State.EXPIRED:
            return refused("Link already expired")
        if not transaction.is_open:
            return refused("Transaction is already successful")
        expired = await customers.end(runtime, connection, transaction, "expired")
    runtime.core.wake()
    return Reply(answers.transaction_object(expired, runtime.webhook))


async def list_of_user(runtime: Runtime, user_id: str, treatment: Treatment) -> Reply:
    """List the transactions of a merchant's user, the newest first."""
    if LABEL.fullmatch(user_id) is None:
        return refused("userId is invalid")
    if treatment.is_told(EMPTY):
        return Reply([])
    async with runtime.core.database.connection() as connection:
        found = await store.list_of_user(connection, user_id, LISTED_MAX)
    return _listed(runtime, found)


async def search(runtime: Runtime, query: Mapping[str, str], treatment: Treatment) -> Reply:
    """List the transactions that fit."""
    if treatment.is_told(EMPTY):
        return Reply([])
    async with runtime.core.database.connection() as connection:
        return _listed(runtime, await store.search(connection, read_search(query)))


async def balance(runtime: Runtime) -> Reply:
    """Tell what the service holds: what was paid, without the gateway's share."""
    async with runtime.core.database.connection() as connection:
        return Reply(answers.balance(answers.revenue_of(await store.sum_charged(connection))))


def _listed(runtime: Runtime, found: Sequence[Transaction]) -> Reply:
    return Reply([answers.transaction_object(each, runtime.webhook) for each in found])


def _new_transaction(
    runtime: Runtime, kind: Kind, request: PaymentRequest, now: datetime
) -> Transaction:
    trans_id = "".join(secrets.choice(_ALPHABET) for _ in range(_TRANS_ID_LENGTH))
    is_link = kind is Kind.LINK
    seconds = runtime.link_seconds if is_link else runtime.prompt_seconds
    return Transaction(
        trans_id=trans_id,
        reference=request.external_id or trans_id,
        kind=kind,
        state=State.CREATED if is_link else State.PENDING,
        amount=request.amount,
        link_key=secrets.token_hex(_LINK_KEY_BYTES) if is_link else None,
        phone=request.phone,
        name=request.name,
        email=request.email,
        user_id=request.user_id,
        external_id=request.external_id,
        redirect_url=request.redirect_url,
        message=request.message,
        initiated_at=now,
        expires_at=now + timedelta(seconds=seconds),
    )
