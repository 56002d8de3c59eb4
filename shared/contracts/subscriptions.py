"""Who receives what: the only map from a message to the queues that carry it.

Each queue has exactly one actor, named like the queue. Redis accepts a misspelt queue without a
word, so a test holds this table and the declared actors together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from shared.contracts.base import Message
from shared.contracts.payments import (
    AlertCleared,
    AlertRaised,
    ChargeFailed,
    ChargeProgressed,
    ChargeSucceeded,
    CheckoutOpened,
    DisputeLost,
    DisputeOpened,
    DisputeWon,
    PaymentMethodRemoved,
    PaymentMethodStored,
    PaymentRefunded,
    PaymentSucceeded,
    RefundReturned,
    RetryCancelled,
    RetryExhausted,
    RetryScheduled,
    RetrySucceeded,
)
from shared.contracts.priorities import THRESHOLDS, Priority, Thresholds, priority_of
from shared.contracts.scheduler import (
    AccessGranted,
    AccessRevoked,
    CancelCharge,
    ChargeSubscription,
    DunningStepReached,
    RetryCharge,
    SubscriptionChanged,
)
from shared.contracts.webhook import DisputeNoticed, NoticeReceived


@dataclass(frozen=True, slots=True)
class Subscription:
    """One service's interest in one message; `route` picks one of `queues`."""

    service: str
    queues: tuple[str, ...]
    route: Callable[[Any], str]


def _to(service: str, queue: str) -> Subscription:
    return Subscription(service, (queue,), lambda _message: queue)


_NOTICE_QUEUES: Final = {level: f"payments.{level}" for level in Priority}


#: Disputes are rare and none is urgent: one queue, whatever they are about.
DISPUTES_QUEUE: Final = "payments.disputes"

#: Whatever may take an enrollment away, or give it back.
REVOCATIONS_QUEUE: Final = "enrollment.revocations"

#: What a subscription gives and takes.
ACCESS_QUEUE: Final = "enrollment.access"

#: What the scheduler orders.
CHARGES_QUEUE: Final = "payments.charges"

#: What became of that, in one queue: little is out of order then.
OUTCOMES_QUEUE: Final = "scheduler.outcomes"

METHODS_QUEUE: Final = "scheduler.methods"


def notice_queue(
    amount: int, currency: str, thresholds: Mapping[str, Thresholds] = THRESHOLDS
) -> str:
    """Return the queue of a notice that claims an amount in minor units."""
    return _NOTICE_QUEUES[priority_of(amount, currency, thresholds)]


def _by_amount(message: NoticeReceived) -> str:
    return notice_queue(message.amount, message.currency)


SUBSCRIPTIONS: Final[Mapping[type[Message], tuple[Subscription, ...]]] = MappingProxyType(
    {
        NoticeReceived: (Subscription("payments", tuple(_NOTICE_QUEUES.values()), _by_amount),),
        DisputeNoticed: (_to("payments", DISPUTES_QUEUE),),
        CheckoutOpened: (_to("webhook", "webhook.checkouts"),),
        PaymentSucceeded: (_to("enrollment", "enrollment.grants"),),
        PaymentRefunded: (_to("enrollment", REVOCATIONS_QUEUE),),
        RefundReturned: (_to("enrollment", REVOCATIONS_QUEUE),),
        DisputeWon: (_to("enrollment", REVOCATIONS_QUEUE),),
        DisputeLost: (_to("enrollment", REVOCATIONS_QUEUE),),
        DisputeOpened: (),
        RetryScheduled: (),
        RetrySucceeded: (),
        RetryExhausted: (),
        RetryCancelled: (),
        AlertRaised: (),
        AlertCleared: (),
        ChargeSubscription: (_to("payments", CHARGES_QUEUE),),
        RetryCharge: (_to("payments", CHARGES_QUEUE),),
        CancelCharge: (_to("payments", CHARGES_QUEUE),),
        ChargeProgressed: (_to("scheduler", OUTCOMES_QUEUE),),
        ChargeSucceeded: (_to("scheduler", OUTCOMES_QUEUE),),
        ChargeFailed: (_to("scheduler", OUTCOMES_QUEUE),),
        PaymentMethodStored: (_to("scheduler", METHODS_QUEUE),),
        PaymentMethodRemoved: (_to("scheduler", METHODS_QUEUE),),
        AccessGranted: (_to("enrollment", ACCESS_QUEUE),),
        AccessRevoked: (_to("enrollment", ACCESS_QUEUE),),
        SubscriptionChanged: (),
        DunningStepReached: (),
    }
)

MESSAGES: Final[Mapping[str, type[Message]]] = MappingProxyType(
    {message.name: message for message in SUBSCRIPTIONS}
)

#: The services that send messages, and therefore receive receipts.
SENDERS: Final = frozenset(message.name.partition(".")[0] for message in SUBSCRIPTIONS)


def receipts_queue(sender: str) -> str:
    """Return the queue on which a sender learns what its receivers have committed."""
    return f"{sender}.receipts"


def queues_of(service: str) -> frozenset[str]:
    """Return every queue that a service must consume."""
    subscribed = {
        queue
        for subscriptions in SUBSCRIPTIONS.values()
        for subscription in subscriptions
        if subscription.service == service
        for queue in subscription.queues
    }
    return frozenset(subscribed | ({receipts_queue(service)} if service in SENDERS else set()))


def queue_owner(queue: str) -> str:
    """Return the service that consumes a queue: the part before the first dot."""
    return queue.partition(".")[0]
