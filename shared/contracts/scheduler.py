"""Messages owned by the scheduler: orders to charge, and facts about subscriptions.

A charge is one payment of the payments service, ordered for one period of a subscription. Its id is
chosen by whoever orders it, so an order that comes twice is the same order.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from shared.contracts.base import CurrencyCode, Message, MinorUnits, Reference


class ChargeSubscription(Message):
    """Order: take the money for one period of a subscription with a stored payment method.

    On a test clock the retries that would wait for a minute or longer wait for `RetryCharge`: time
    there does not pass by itself.
    """

    name: ClassVar = "scheduler.charge_subscription.v1"

    payment_id: Reference
    subscription_id: Reference
    payment_method_id: Reference
    customer_id: Reference
    product_id: Reference
    product_name: Reference
    gateway: Reference
    amount: MinorUnits
    currency: CurrencyCode
    period_start: AwareDatetime
    is_on_test_clock: bool


class RetryCharge(Message):
    """Order: make the retry that waits for this order now. Anything else it finds stays."""

    name: ClassVar = "scheduler.retry_charge.v1"

    payment_id: Reference
    subscription_id: Reference


class CancelCharge(Message):
    """Order: try no more, and close what can be closed. Money that moved all the same is told."""

    name: ClassVar = "scheduler.cancel_charge.v1"

    payment_id: Reference
    subscription_id: Reference
    reason: Reference


class SubscriptionMessage(Message):
    """What facts about subscriptions have in common."""

    subscription_id: Reference
    customer_id: Reference
    product_id: Reference


class AccessGranted(SubscriptionMessage):
    """Fact: a trial began, a period was paid, or a late one recovered: its product is theirs.

    Of the messages of one subscription the one with the highest `sequence` holds, in whatever order
    they come.
    """

    name: ClassVar = "scheduler.access_granted.v1"

    sequence: Annotated[int, Field(ge=1)]
    granted_at: AwareDatetime


class AccessRevoked(SubscriptionMessage):
    """Fact: a subscription ended, or stayed unpaid past its grace."""

    name: ClassVar = "scheduler.access_revoked.v1"

    sequence: Annotated[int, Field(ge=1)]
    reason: Reference
    revoked_at: AwareDatetime


SubscriptionStateName = Literal["trialing", "active", "past_due", "paused", "cancelled", "ended"]


class SubscriptionChanged(SubscriptionMessage):
    """Fact: a subscription has another state; `reason` is a word that a program can match on."""

    name: ClassVar = "scheduler.subscription_changed.v1"

    plan_id: Reference
    previous_state: SubscriptionStateName | None
    state: SubscriptionStateName
    reason: Reference
    changed_at: AwareDatetime


class DunningStepReached(SubscriptionMessage):
    """Fact: a period is still unpaid, and its dunning went one step on.

    `step` counts from 1; with `steps` it was the last one, after which the subscription is paused
    or cancelled. `charged` says that the money was asked for again; `announced` that somebody must
    tell the customer, who has to act.
    """

    name: ClassVar = "scheduler.dunning_step_reached.v1"

    period_start: AwareDatetime
    amount: MinorUnits
    currency: CurrencyCode
    step: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    action: Literal["charged", "announced", "paused", "cancelled"]
    reached_at: AwareDatetime
