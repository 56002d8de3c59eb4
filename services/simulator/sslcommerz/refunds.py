"""Refunds: started by one call of the shared address, asked about by another."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

import structlog

from services.simulator.core import Treatment
from services.simulator.gateway import Json
from services.simulator.movements import Movement, MovementKind, insert_movement
from services.simulator.sslcommerz import answers, refund_store
from services.simulator.sslcommerz.domain import (
    CHARGE_CURRENCY,
    NAME,
    Operation,
    Refund,
    RefundState,
    refund_end,
)
from services.simulator.sslcommerz.handlers import Runtime
from shared.errors import InvalidInputError, PermanentError
from shared.money import Money

log = structlog.get_logger()

#: Longest values that the protocol takes.
_LENGTHS_MAX: Final[Mapping[str, int]] = MappingProxyType(
    {"refund_trans_id": 30, "refund_remarks": 255}
)

_REFUND_REF_ID_BYTES: Final = 7

#: What a call that starts a refund must carry.
_MANDATORY: Final = ("bank_tran_id", "refund_trans_id", "refund_amount", "refund_remarks")

#: Each of these makes a call of the shared address one about refunds.
PARAMETERS: Final = ("bank_tran_id", "refund_trans_id", "refund_amount", "refund_ref_id")


class _RefusedError(PermanentError):
    """The refund is not made; the message is the end of `errorReason`."""


async def treatment(runtime: Runtime, parameters: Mapping[str, str]) -> Treatment:
    """Return what is in store for a call about a refund; scripts know it by its `tran_id`."""
    refund_ref_id = parameters.get("refund_ref_id", "")
    bank_tran_id = parameters.get("bank_tran_id", "")
    operation = Operation.REFUND_QUERY if refund_ref_id else Operation.REFUND
    async with runtime.core.database.connection() as connection:
        if refund_ref_id:
            tran_id = await refund_store.find_refunded_reference(connection, refund_ref_id)
        else:
            tran_id = await refund_store.find_charged_reference(connection, bank_tran_id)
        return await runtime.core.treatment(connection, NAME, operation, tran_id or "")


async def answer(runtime: Runtime, parameters: Mapping[str, str]) -> Json:
    """Start a refund, or tell about one."""
    if not runtime.knows(parameters):
        return answers.query_refused("FAILED")
    if parameters.get("format", "json") != "json":
        return answers.query_refused("INVALID_REQUEST")
    if parameters.get("refund_ref_id"):
        return await _tell(runtime, parameters["refund_ref_id"])
    return await _start(runtime, parameters)


async def _start(runtime: Runtime, parameters: Mapping[str, str]) -> Json:
    """Accept a refund, once for each `refund_trans_id`; only a promise to pay back later."""
    try:
        amount = _read_amount(parameters)
        async with runtime.core.database.transaction() as connection:
            charged = await refund_store.lock_charge(connection, parameters["bank_tran_id"])
            if charged is None:
                raise _RefusedError("the transaction is not known.")
            known = await refund_store.find_refund_named(connection, parameters["refund_trans_id"])
            if known is not None:
                return answers.refund_started(known, "processing")
            tran_id, charge = charged
            refund = _new_refund(runtime, parameters, tran_id, amount)
            refunded = await refund_store.sum_refunds(connection, refund.bank_tran_id)
            if refunded + amount.minor_units > charge.minor_units:
                raise _RefusedError("more than what is left of the payment.")
            await refund_store.insert_refund(connection, refund)
    except _RefusedError as error:
        return answers.refund_refused(parameters, error.message)
    log.info("refund_started", tran_id=tran_id, amount=str(amount))
    return answers.refund_started(refund, "success")


async def _tell(runtime: Runtime, refund_ref_id: str) -> Json:
    """Tell how far a refund is: first it is being processed, from the second question on ended."""
    async with runtime.core.database.transaction() as connection:
        refund = await refund_store.count_question(connection, refund_ref_id)
        if refund is None:
            return answers.no_refund(refund_ref_id)
        end = refund_end(refund.amount)
        if refund.state is not RefundState.PROCESSING or refund.asked == 1 or end is None:
            return answers.refund_told(refund)
        now = runtime.core.clock()
        if end is not RefundState.PROCESSING:
            await refund_store.save_refund_end(connection, refund_ref_id, end, now)
            refund = refund.ended(end, now)
        if refund.state is RefundState.REFUNDED:
            await insert_movement(connection, _movement(refund, now))
    return answers.refund_told(refund)


def _read_amount(parameters: Mapping[str, str]) -> Money:
    for name in _MANDATORY:
        if not parameters.get(name):
            raise _RefusedError(f"'{name}' is missing or empty.")
    for name, length_max in _LENGTHS_MAX.items():
        if len(parameters[name]) > length_max:
            raise _RefusedError(f"'{name}' must not exceed {length_max} characters.")
    try:
        amount = Money.from_decimal_text(parameters["refund_amount"], CHARGE_CURRENCY)
    except InvalidInputError:
        raise _RefusedError("'refund_amount' is invalid.") from None
    if not amount.minor_units:
        raise _RefusedError("'refund_amount' is invalid.")
    if refund_end(amount) is None:
        raise _RefusedError("the bank refuses.")
    return amount


def _new_refund(
    runtime: Runtime, parameters: Mapping[str, str], tran_id: str, amount: Money
) -> Refund:
    return Refund(
        refund_ref_id=secrets.token_hex(_REFUND_REF_ID_BYTES),
        refund_trans_id=parameters["refund_trans_id"],
        bank_tran_id=parameters["bank_tran_id"],
        tran_id=tran_id,
        amount=amount,
        state=RefundState.PROCESSING,
        asked=0,
        initiated_on=runtime.core.clock(),
        ended_on=None,
    )


def _movement(refund: Refund, now: datetime) -> Movement:
    return Movement(
        gateway=NAME,
        reference=refund.tran_id,
        gateway_payment_id=refund.bank_tran_id,
        kind=MovementKind.REFUND,
        name=refund.refund_trans_id,
        handle=refund.refund_ref_id,
        amount=refund.amount,
        moved_at=now,
    )
