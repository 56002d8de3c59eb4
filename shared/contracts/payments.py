"""Messages owned by the payments service."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from shared.contracts.base import CurrencyCode, Message, MinorUnits, Reference


class CheckoutOpened(Message):
    """Fact: a customer can pay at the gateway and will come back to `return_url`."""

    name: ClassVar = "payments.checkout_opened.v1"

    payment_id: Reference
    reference: Reference
    return_url: str


class PaymentSucceeded(Message):
    """Fact: the gateway has confirmed that the money was taken. Sent once per payment.

    `noticed_at` is when the notice or the look-up that led here began; it measures the whole way.
    """

    name: ClassVar = "payments.payment_succeeded.v1"

    payment_id: Reference
    customer_id: Reference
    product_id: Reference
    amount: MinorUnits
    currency: CurrencyCode
    noticed_at: AwareDatetime


class PaymentRefunded(Message):
    """Fact: money of a payment was given back. Sent once per refund that succeeded.

    `amount` is this refund's, `refunded_total` what has been given back of the payment with it.
    """

    name: ClassVar = "payments.payment_refunded.v1"

    payment_id: Reference
    refund_id: Reference
    customer_id: Reference
    product_id: Reference
    amount: MinorUnits
    currency: CurrencyCode
    refunded_total: MinorUnits
    is_full: bool
    refunded_at: AwareDatetime


class RefundReturned(Message):
    """Fact: money of a payment that had been given back is ours again: the bank did not take it.

    `amount` is that refund's, `refunded_total` what is still given back of the payment.
    """

    name: ClassVar = "payments.refund_returned.v1"

    payment_id: Reference
    refund_id: Reference
    customer_id: Reference
    product_id: Reference
    amount: MinorUnits
    currency: CurrencyCode
    refunded_total: MinorUnits
    returned_at: AwareDatetime


class DisputeMessage(Message):
    """What facts about disputes have in common; `amount` may be a part of the payment's.

    `reason` is the gateway's own word for the customer's.
    """

    payment_id: Reference
    dispute_id: Reference
    customer_id: Reference
    product_id: Reference
    amount: MinorUnits
    currency: CurrencyCode
    reason: Annotated[str, Field(max_length=200)]
    noticed_at: AwareDatetime


class DisputeOpened(DisputeMessage):
    """Fact: a customer's bank has taken a payment back until a dispute is decided.

    Sent again when one that was decided is opened anew.
    """

    name: ClassVar = "payments.dispute_opened.v1"


class DisputeWon(DisputeMessage):
    """Fact: a dispute was decided for us, and the money is ours again."""

    name: ClassVar = "payments.dispute_won.v1"


class DisputeLost(DisputeMessage):
    """Fact: a dispute was decided against us, and the money is gone."""

    name: ClassVar = "payments.dispute_lost.v1"


class RetryMessage(Message):
    """What facts about retries have in common. `retries_made` does not count the first try."""

    payment_id: Reference
    customer_id: Reference
    product_id: Reference
    amount: MinorUnits
    currency: CurrencyCode
    retries_made: Annotated[int, Field(ge=0)]


class RetryScheduled(RetryMessage):
    """Fact: a try failed, and another one will be made, not before `due_at`.

    `kind` is our name for the failure, `code` the gateway's own.
    """

    name: ClassVar = "payments.retry_scheduled.v1"

    kind: Reference
    code: Annotated[str, Field(max_length=200)]
    due_at: AwareDatetime


class RetrySucceeded(RetryMessage):
    """Fact: a payment that had failed was paid by a retry.

    `PaymentSucceeded` is sent beside it, or later when the money is held for a person to look at.
    """

    name: ClassVar = "payments.retry_succeeded.v1"

    succeeded_at: AwareDatetime


class RetryExhausted(RetryMessage):
    """Fact: a try failed and no other one will be made; `customer_advice` says what to tell.

    It is a code, which an application writes in the customer's language.
    """

    name: ClassVar = "payments.retry_exhausted.v1"

    kind: Reference
    code: Annotated[str, Field(max_length=200)]
    customer_advice: Reference
    exhausted_at: AwareDatetime


class RetryCancelled(RetryMessage):
    """Fact: somebody cancelled a retry before it was made; none will be."""

    name: ClassVar = "payments.retry_cancelled.v1"

    cancelled_at: AwareDatetime


class PaymentMethodStored(Message):
    """Fact: a customer's means of payment is stored and can be charged without the customer.

    What it is made of stays with the payments service.
    """

    name: ClassVar = "payments.method_stored.v1"

    payment_method_id: Reference
    customer_id: Reference
    gateway: Reference
    kind: Literal["prompt", "card", "wallet"]
    stored_at: AwareDatetime


class PaymentMethodRemoved(Message):
    """Fact: a means of payment is erased; what is charged with it fails."""

    name: ClassVar = "payments.method_removed.v1"

    payment_method_id: Reference
    customer_id: Reference
    removed_at: AwareDatetime


class ChargeMessage(Message):
    """What facts about charges of subscriptions have in common.

    `attempts_made` counts the tries at the gateway, the first one included.
    """

    payment_id: Reference
    subscription_id: Reference
    attempts_made: Annotated[int, Field(ge=0)]


class ChargeProgressed(ChargeMessage):
    """Fact: an order was recorded (`accepted`), the gateway has it (`sent`), or a person looks.

    Told of what does not end at once; after `held` the end may take days.
    """

    name: ClassVar = "payments.charge_progressed.v1"

    step: Literal["accepted", "sent", "held"]
    progressed_at: AwareDatetime


class ChargeSucceeded(ChargeMessage):
    """Fact: the gateway has confirmed the money of an order. Sent once per payment.

    It may come after `ChargeFailed`: some money comes late. `gateway_payment_id` is the gateway's
    name for the charge; of x402 it is the hash of the transaction.
    """

    name: ClassVar = "payments.charge_succeeded.v1"

    amount: MinorUnits
    currency: CurrencyCode
    gateway: Reference
    gateway_payment_id: Annotated[str, Field(max_length=200)]
    succeeded_at: AwareDatetime


class ChargeFailed(ChargeMessage):
    """Fact: a try failed. Without `retry_after_seconds` it was the last one of this payment.

    `kind` is our name for the failure, `code` the gateway's own. `waits_for_order` says that the
    retry is made when `RetryCharge` comes. `may_still_be_paid` says that the customer can still pay
    what is open at the gateway: nothing else should be charged beside it.
    """

    name: ClassVar = "payments.charge_failed.v1"

    kind: Reference
    code: Annotated[str, Field(max_length=200)]
    customer_advice: Reference
    retry_after_seconds: Annotated[float, Field(ge=0)] | None
    waits_for_order: bool
    may_still_be_paid: bool
    failed_at: AwareDatetime


class AlertMessage(Message):
    """What facts about alerts have in common.

    `alert` names the measurement and its unit: `queue_length` (payments and messages), `error_rate`
    and `success_rate` (per cent), `processing_time` (seconds).
    """

    alert_id: Reference
    alert: Reference
    threshold: float
    raised_at: AwareDatetime


class AlertRaised(AlertMessage):
    """Fact: a measurement passed its threshold. Sent once per episode, however long it lasts."""

    name: ClassVar = "payments.alert_raised.v1"

    value: float


class AlertCleared(AlertMessage):
    """Fact: a measurement has been within its threshold again for a while; the episode is over."""

    name: ClassVar = "payments.alert_cleared.v1"

    worst_value: float
    cleared_at: AwareDatetime
