"""Messages owned by the webhook service."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime

from shared.contracts.base import CurrencyCode, Message, MinorUnits, Reference


class NoticeReceived(Message):
    """Fact: a gateway says that something happened to a payment. A hint, never the truth.

    `reference` is the id we gave the attempt at the gateway. `validation_id` is the gateway's
    handle for asking it to confirm, empty when the notice has none. Amount and currency are the
    notice's claim and decide only the queue.
    """

    name: ClassVar = "webhook.notice_received.v1"

    gateway: Reference
    reference: Reference
    claim: Literal["paid", "failed", "cancelled", "expired", "other"]
    validation_id: str
    amount: MinorUnits
    currency: CurrencyCode
    received_at: AwareDatetime


class DisputeNoticed(Message):
    """Fact: a gateway says that something happened to a dispute. A hint, never the truth.

    `dispute` is the gateway's handle for asking how it stands. `reference` is the id we gave the
    attempt if the gateway tells it, else the gateway's own name for the payment, which may be one
    of another system on the same account. Amount and currency are the notice's claim.
    """

    name: ClassVar = "webhook.dispute_noticed.v1"

    gateway: Reference
    dispute: Reference
    reference: Reference
    amount: MinorUnits
    currency: CurrencyCode
    received_at: AwareDatetime
