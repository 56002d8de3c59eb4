"""Gives money back that came when its payment was over, where that is the policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from services.payments.domain.settlement import LATE_SUCCESS, Change
from services.payments.store import refunds as refund_store
from services.payments.store.refunds import NewRefund
from shared.database import Connection
from shared.gateways.interface import PaymentGateway, refund_refusal
from shared.identifiers import new_id

#: Who asks for such a refund.
REQUESTED_BY: Final = "late_success_policy"


async def give_back(
    connection: Connection,
    gateways: Mapping[str, PaymentGateway],
    changes: Sequence[Change],
    saved: Collection[str],
    now: datetime,
) -> None:
    """Record the refunds of changes that were saved, in their transaction.

    Money of a gateway that has no refunds stays on hold, for a person.
    """
    for change in changes:
        payment = change.payment
        gateway = gateways.get(payment.gateway)
        if not change.gives_back or payment.id not in saved or gateway is None:
            continue
        currency = payment.amount.currency
        if refund_refusal(gateway.name, gateway.capabilities, currency) is not None:
            continue
        refund = NewRefund(
            id=new_id("ref", now),
            payment_id=payment.id,
            gateway=payment.gateway,
            amount=payment.amount,
            reason=LATE_SUCCESS,
            requested_by=REQUESTED_BY,
            created_at=now,
        )
        await refund_store.insert_refund(connection, refund)
