"""What goes over the wire: answers and notices, with the protocol's own names. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from services.simulator.fapshi.domain import MERCHANT_SHARE_PER_CENT, Kind, State, Transaction
from services.simulator.fapshi.payment_request import MEDIA
from services.simulator.gateway import Json
from services.simulator.mobile_money import CURRENCY, network_of

SERVICE_NAME: Final = "Sluice Demo"


def started(transaction: Transaction, public_url: str) -> Json:
    """Answer a call that made a link or a prompt."""
    answer: Json = {
        "message": "Request successful",
        "transId": transaction.trans_id,
        "dateInitiated": _text_of(transaction.initiated_at),
    }
    if transaction.kind is Kind.LINK:
        answer["link"] = link_of(transaction, public_url)
    return answer


def link_of(transaction: Transaction, public_url: str) -> str:
    """Return the page where the customer acts: the link's, or the phone's."""
    if transaction.kind is Kind.LINK:
        return f"{public_url}/fapshi/checkout/{transaction.link_key}"
    return f"{public_url}/fapshi/phone/{transaction.trans_id}"


def transaction_object(transaction: Transaction, webhook: str, state: State | None = None) -> Json:
    """Render a transaction.

    Args:
        transaction: Which.
        webhook: Where notices go.
        state: Tell this state instead of its own, with what is known in it.
    """
    state = state or transaction.state
    is_paid = state is State.SUCCESSFUL
    amount = transaction.charged if is_paid and transaction.charged else transaction.amount
    confirmed_at = transaction.confirmed_at if is_paid else None
    network = network_of(transaction.phone) if transaction.phone else None
    return {
        "transId": transaction.trans_id,
        "status": state.value,
        "medium": MEDIA[network] if network else None,
        "serviceName": SERVICE_NAME,
        "transType": "Collection",
        "amount": amount,
        "revenue": revenue_of(amount),
        "payerName": transaction.name,
        "email": transaction.email,
        "redirectUrl": transaction.redirect_url,
        "externalId": transaction.external_id,
        "userId": transaction.user_id,
        "webhook": webhook,
        "reason": transaction.reason if state is State.FAILED else None,
        "financialTransId": transaction.financial_trans_id if is_paid else None,
        "dateInitiated": _text_of(transaction.initiated_at),
        "dateConfirmed": _text_of(confirmed_at) if confirmed_at else None,
    }


def revenue_of(amount: int) -> int:
    """Return what the merchant gets of an amount, in XAF."""
    return amount * MERCHANT_SHARE_PER_CENT // 100


def balance(amount: int) -> Json:
    """Answer what the service holds, in XAF."""
    return {"service": SERVICE_NAME, "balance": amount, "currency": CURRENCY}


def _text_of(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
