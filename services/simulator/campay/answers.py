"""What goes over the wire: answers and callbacks, with the protocol's own names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from services.simulator.campay.domain import (
    AMOUNT_FLOAT,
    AMOUNT_TEXT,
    MERCHANT_SHARE_PER_CENT,
    NONE_TEXTS,
    Kind,
    State,
    Transaction,
)
from services.simulator.campay.payment_request import RefusedError
from services.simulator.gateway import Json
from services.simulator.mobile_money import CURRENCY

#: What to dial if the phone shows nothing.
_USSD_CODES: Final[Mapping[str, str]] = {"MTN": "*126#", "ORANGE": "#150*50#"}

#: What the protocol says instead of nothing.
NONE: Final = "None"


def started(transaction: Transaction, public_url: str) -> Json:
    """Answer a call that started something; a repetition is answered in the same way."""
    reference = str(transaction.reference)
    match transaction.kind:
        case Kind.COLLECT:
            operator = transaction.operator or ""
            return {
                "reference": reference,
                "ussd_code": _USSD_CODES[operator],
                "operator": operator.lower(),
            }
        case Kind.LINK:
            return {"link": page_of(transaction, public_url), "reference": reference}
        case Kind.WITHDRAW:
            return {"reference": reference, "status": State.PENDING.value}


def refused(error: RefusedError) -> Json:
    """Answer a call that is refused; where the code stands is not documented."""
    if error.er_code is None:
        return {"message": error.message}
    return {"message": f"{error.er_code}: {error.message}", "error_code": error.er_code}


def page_of(transaction: Transaction, public_url: str) -> str:
    """Return the page where the customer acts: the link's, or the phone's."""
    if transaction.kind is Kind.LINK:
        return f"{public_url}/campay/pay/{transaction.link_key}/"
    return f"{public_url}/campay/phone/{transaction.reference}/"


def transaction_object(
    transaction: Transaction, state: State | None = None, style: str | None = None
) -> Json:
    """Render a transaction.

    Args:
        transaction: Which.
        state: Tell this state instead of its own, with what is known in it.
        style: `amount_text`, `amount_float` or `none_texts`; anything else is the usual form.
    """
    state = state or transaction.state
    is_paid = state is State.SUCCESSFUL
    amount = transaction.charged if is_paid and transaction.charged else transaction.amount
    status = State.PENDING if state is State.CREATED else state
    absent = NONE if style == NONE_TEXTS else ""
    rendered: Json = {
        "reference": str(transaction.reference),
        "external_reference": transaction.external_reference,
        "status": status.value,
        "amount": _amount(amount, style),
        "currency": CURRENCY,
        "operator": transaction.operator or absent,
        "code": transaction.code,
        "operator_reference": (transaction.operator_reference if is_paid else None) or absent,
        "endpoint": transaction.kind.value,
        "external_user": transaction.external_user or absent,
        "app_amount": amount * MERCHANT_SHARE_PER_CENT // 100,
        "phone_number": transaction.phone or absent,
        "reason": (transaction.reason if state is State.FAILED else None) or NONE,
    }
    return rendered


def callback(
    transaction: Transaction, signature: str, state: State | None = None
) -> dict[str, str]:
    """Return the fields of a callback: all of them text, the amount too."""
    fields = {name: str(value) for name, value in transaction_object(transaction, state).items()}
    return {
        **fields,
        "signature": signature,
        "extra_first_name": transaction.first_name,
        "extra_last_name": transaction.last_name,
        "extra_email": transaction.email,
    }


def history(transaction: Transaction) -> Json:
    """Render a line of the history; it does not tell the merchant's reference."""
    is_paid = transaction.state is State.SUCCESSFUL
    amount = transaction.charged or transaction.amount
    is_credit = is_paid and transaction.kind is not Kind.WITHDRAW
    is_debit = is_paid and transaction.kind is Kind.WITHDRAW
    status = State.PENDING if transaction.state is State.CREATED else transaction.state
    return {
        "datetime": transaction.created_at.astimezone(UTC).isoformat(),
        "code": transaction.code,
        "operator_tx_code": transaction.operator_reference,
        "operator": transaction.operator,
        "phone_number": transaction.phone,
        "description": transaction.description,
        "external_user": transaction.external_user,
        "amount": amount,
        "charge_amount": amount - amount * MERCHANT_SHARE_PER_CENT // 100,
        "debit": amount if is_debit else 0,
        "credit": amount * MERCHANT_SHARE_PER_CENT // 100 if is_credit else 0,
        "status": status.value,
        "reference_uuid": str(transaction.reference),
    }


def balance(mtn: int, orange: int) -> Json:
    """Answer what the application holds, in XAF."""
    return {
        "total_balance": float(mtn + orange),
        "mtn_balance": mtn,
        "orange_balance": orange,
        "currency": CURRENCY,
    }


def _amount(amount: int, style: str | None) -> Any:
    if style == AMOUNT_TEXT:
        return f"{amount}.00"
    return float(amount) if style == AMOUNT_FLOAT else amount
