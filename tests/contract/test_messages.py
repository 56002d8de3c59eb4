"""The contracts between services: what a message looks like, and that somebody receives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from deploy.local.services import WORKER_NAMES, load_service
from services.enrollment.settings import EnrollmentSettings
from services.payments.settings import PaymentsSettings
from services.scheduler.settings import SchedulerSettings
from services.webhook.settings import WebhookSettings
from services.webhook.store import InboundEvent, encode_message
from shared.contracts.base import MalformedMessageError, Message
from shared.contracts.payments import (
    AlertCleared,
    AlertRaised,
    ChargeFailed,
    ChargeProgressed,
    ChargeSucceeded,
    CheckoutOpened,
    DisputeLost,
    DisputeMessage,
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
from shared.contracts.scheduler import (
    AccessGranted,
    AccessRevoked,
    CancelCharge,
    ChargeSubscription,
    DunningStepReached,
    RetryCharge,
    SubscriptionChanged,
)
from shared.contracts.snapshots import DIRECTORY, render
from shared.contracts.subscriptions import (
    MESSAGES,
    SENDERS,
    SUBSCRIPTIONS,
    queue_owner,
    queues_of,
    receipts_queue,
)
from shared.contracts.webhook import DisputeNoticed, NoticeReceived
from shared.gateways.interface import Notice
from shared.messaging import consumption
from shared.messaging.broker import SluiceBroker
from shared.messaging.receiver import Receiver
from shared.money import Money
from shared.settings import ServiceSettings
from tests.support.settings import gateways_of_tests

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def a_dispute(kind: type[DisputeMessage]) -> DisputeMessage:
    return kind(
        payment_id="pay_1",
        dispute_id="dsp_1",
        customer_id="cus_1",
        product_id="course_1",
        amount=115_000,
        currency="BDT",
        reason="fraudulent",
        noticed_at=NOW,
    )


RETRIED: dict[str, Any] = {
    "payment_id": "pay_1",
    "customer_id": "cus_1",
    "product_id": "course_1",
    "amount": 115_000,
    "currency": "BDT",
    "retries_made": 1,
}

CHARGED: dict[str, Any] = {"payment_id": "pay_1", "subscription_id": "sub_1"}

SUBSCRIBED: dict[str, Any] = {
    "subscription_id": "sub_1",
    "customer_id": "cus_1",
    "product_id": "course_1",
}

EXAMPLES: dict[type[Message], Message] = {
    NoticeReceived: NoticeReceived(
        gateway="sslcommerz",
        reference="att_1",
        claim="paid",
        validation_id="val_1",
        amount=115_000,
        currency="BDT",
        received_at=NOW,
    ),
    DisputeNoticed: DisputeNoticed(
        gateway="stripe",
        dispute="du_1",
        reference="att_1",
        amount=115_000,
        currency="USD",
        received_at=NOW,
    ),
    RetryScheduled: RetryScheduled(
        **RETRIED, kind="insufficient_funds", code="insufficient_funds", due_at=NOW
    ),
    RetrySucceeded: RetrySucceeded(**RETRIED, succeeded_at=NOW),
    RetryExhausted: RetryExhausted(
        **RETRIED,
        kind="card_declined",
        code="generic_decline",
        customer_advice="use_another_payment_method",
        exhausted_at=NOW,
    ),
    RetryCancelled: RetryCancelled(**RETRIED, cancelled_at=NOW),
    AlertRaised: AlertRaised(
        alert_id="alt_1", alert="error_rate", threshold=10, value=12.5, raised_at=NOW
    ),
    AlertCleared: AlertCleared(
        alert_id="alt_1",
        alert="error_rate",
        threshold=10,
        worst_value=40,
        raised_at=NOW,
        cleared_at=NOW,
    ),
    CheckoutOpened: CheckoutOpened(
        payment_id="pay_1", reference="att_1", return_url="https://shop.example/back"
    ),
    PaymentSucceeded: PaymentSucceeded(
        payment_id="pay_1",
        customer_id="cus_1",
        product_id="course_1",
        amount=115_000,
        currency="BDT",
        noticed_at=NOW,
    ),
    RefundReturned: RefundReturned(
        payment_id="pay_1",
        refund_id="ref_1",
        customer_id="cus_1",
        product_id="course_1",
        amount=15_000,
        currency="BDT",
        refunded_total=100_000,
        returned_at=NOW,
    ),
    PaymentRefunded: PaymentRefunded(
        payment_id="pay_1",
        refund_id="ref_1",
        customer_id="cus_1",
        product_id="course_1",
        amount=15_000,
        currency="BDT",
        refunded_total=115_000,
        is_full=True,
        refunded_at=NOW,
    ),
    PaymentMethodStored: PaymentMethodStored(
        payment_method_id="pmt_1",
        customer_id="cus_1",
        gateway="stripe",
        kind="card",
        stored_at=NOW,
    ),
    PaymentMethodRemoved: PaymentMethodRemoved(
        payment_method_id="pmt_1", customer_id="cus_1", removed_at=NOW
    ),
    ChargeProgressed: ChargeProgressed(**CHARGED, attempts_made=1, step="sent", progressed_at=NOW),
    ChargeSucceeded: ChargeSucceeded(
        **CHARGED,
        attempts_made=1,
        amount=1_500,
        currency="EUR",
        gateway="stripe",
        gateway_payment_id="ch_1",
        succeeded_at=NOW,
    ),
    ChargeFailed: ChargeFailed(
        **CHARGED,
        attempts_made=1,
        kind="insufficient_funds",
        code="insufficient_funds",
        customer_advice="add_funds_or_use_another_payment_method",
        retry_after_seconds=86_400,
        waits_for_order=True,
        may_still_be_paid=False,
        failed_at=NOW,
    ),
    ChargeSubscription: ChargeSubscription(
        **CHARGED,
        payment_method_id="pmt_1",
        customer_id="cus_1",
        product_id="course_1",
        product_name="A course",
        gateway="stripe",
        amount=1_500,
        currency="EUR",
        period_start=NOW,
        is_on_test_clock=True,
    ),
    RetryCharge: RetryCharge(**CHARGED),
    CancelCharge: CancelCharge(**CHARGED, reason="subscription_cancelled"),
    AccessGranted: AccessGranted(**SUBSCRIBED, sequence=1, granted_at=NOW),
    AccessRevoked: AccessRevoked(
        **SUBSCRIBED, sequence=2, reason="subscription_ended", revoked_at=NOW
    ),
    SubscriptionChanged: SubscriptionChanged(
        **SUBSCRIBED,
        plan_id="pln_1",
        previous_state=None,
        state="trialing",
        reason="created",
        changed_at=NOW,
    ),
    DunningStepReached: DunningStepReached(
        **SUBSCRIBED,
        period_start=NOW,
        amount=1_500,
        currency="EUR",
        step=1,
        steps=3,
        action="charged",
        reached_at=NOW,
    ),
    DisputeOpened: a_dispute(DisputeOpened),
    DisputeWon: a_dispute(DisputeWon),
    DisputeLost: a_dispute(DisputeLost),
}

#: Facts that no service of ours needs yet.
UNHEARD: frozenset[type[Message]] = frozenset(
    {
        *(DisputeOpened, RetryScheduled, RetrySucceeded, RetryExhausted, RetryCancelled),
        *(AlertRaised, AlertCleared),
        *(SubscriptionChanged, DunningStepReached),
    }
)


def test_every_message_has_a_snapshot_and_every_snapshot_a_message() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.json")} == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_still_what_its_snapshot_says(name: str) -> None:
    snapshot = (DIRECTORY / f"{name}.json").read_text(encoding="utf-8")

    assert render(name) == snapshot, "a changed message needs a new version, not a new snapshot"


@pytest.mark.parametrize("kind", SUBSCRIPTIONS)
def test_a_message_is_read_as_it_was_written(kind: type[Message]) -> None:
    assert kind.decode(orjson.loads(EXAMPLES[kind].encode())) == EXAMPLES[kind]


@pytest.mark.parametrize("kind", SUBSCRIPTIONS)
def test_a_message_with_another_field_is_refused_by_the_name_of_the_field(
    kind: type[Message],
) -> None:
    payload = {**orjson.loads(EXAMPLES[kind].encode()), "surplus": "a value"}

    with pytest.raises(MalformedMessageError, match="surplus") as caught:
        kind.decode(payload)

    assert "a value" not in str(caught.value)


@pytest.mark.parametrize("kind", SUBSCRIPTIONS)
def test_a_message_goes_to_a_queue_of_the_service_that_subscribed(kind: type[Message]) -> None:
    assert (not SUBSCRIPTIONS[kind]) == (kind in UNHEARD)
    for subscription in SUBSCRIPTIONS[kind]:
        assert subscription.route(EXAMPLES[kind]) in subscription.queues
        assert {queue_owner(queue) for queue in subscription.queues} == {subscription.service}


def test_messages_stay_off_queues_of_receipts_and_off_names_that_dramatiq_reserves() -> None:
    queues = {
        queue
        for subscriptions in SUBSCRIPTIONS.values()
        for subscription in subscriptions
        for queue in subscription.queues
    }

    assert queues.isdisjoint(receipts_queue(sender) for sender in SENDERS)
    assert not [queue for queue in queues if queue.endswith((".DQ", ".XQ"))]


@dataclass
class Opened:
    """What a worker has declared."""

    brokers: list[SluiceBroker] = field(default_factory=list)
    kinds: set[type[Message]] = field(default_factory=set)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Remember the broker and the handlers of the worker that the test opens."""
    seen = Opened()

    class RememberedBroker(SluiceBroker):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            seen.brokers.append(self)

    class RememberedReceiver(Receiver):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            seen.kinds |= set(self._handlers)

    monkeypatch.setattr(consumption, "SluiceBroker", RememberedBroker)
    monkeypatch.setattr(consumption, "Receiver", RememberedReceiver)
    return seen


def worker_settings(service: str, database_url: str, redis_url: str) -> ServiceSettings:
    gateways = gateways_of_tests()
    match service:
        case "enrollment":
            return EnrollmentSettings(database_url=database_url, redis_url=redis_url)
        case "scheduler":
            return SchedulerSettings(database_url=database_url, redis_url=redis_url)
        case "payments":
            return PaymentsSettings(
                database_url=database_url, redis_url=redis_url, gateways=gateways
            )
        case _:
            return WebhookSettings(
                database_url=database_url, redis_url=redis_url, gateways=gateways
            )


@pytest.mark.parametrize("service", WORKER_NAMES)
async def test_a_worker_declares_and_handles_what_its_service_subscribed_to_and_no_more(
    service: str, new_database: str, redis_url: str, opened: Opened
) -> None:
    worker_part = load_service(service).worker_part
    assert worker_part is not None

    async with worker_part(worker_settings(service, new_database, redis_url)) as part:
        (broker,) = opened.brokers
        assert broker.get_declared_queues() == queues_of(service)
        assert broker.get_declared_actors() == queues_of(service)
        assert {actor.queue_name for actor in broker.actors.values()} == queues_of(service)
        assert opened.kinds == {
            kind
            for kind, subscriptions in SUBSCRIPTIONS.items()
            if service in {subscription.service for subscription in subscriptions}
        }
        assert part.problems() == []


def test_every_subscriber_is_a_service_with_a_worker() -> None:
    subscribers = {
        subscription.service
        for subscriptions in SUBSCRIPTIONS.values()
        for subscription in subscriptions
    }

    assert subscribers | SENDERS <= set(WORKER_NAMES)


def test_the_webhook_services_own_encoding_of_a_notice_is_that_of_the_contract() -> None:
    received_at = datetime(2026, 1, 5, 12, 0, 0, 123_456, tzinfo=UTC)
    notice = Notice(
        event_key="att_1:VALID:val_1",
        event_day=received_at.date(),
        reference="att_1",
        claim="paid",
        validation_id="val_1",
        amount=Money(300_000, "BDT"),
    )
    event = InboundEvent("sslcommerz", notice, "notice", received_at, b"", None)

    decoded = NoticeReceived.decode(orjson.loads(encode_message(event)))

    assert decoded == NoticeReceived(
        gateway="sslcommerz",
        reference="att_1",
        claim="paid",
        validation_id="val_1",
        amount=300_000,
        currency="BDT",
        received_at=received_at,
    )


def test_a_notice_about_a_dispute_becomes_a_message_of_its_own() -> None:
    notice = Notice(
        event_key="evt_1",
        event_day=NOW.date(),
        reference="pi_1",
        claim="dispute",
        validation_id="du_1",
        amount=Money(1_999, "USD"),
    )

    decoded = DisputeNoticed.decode(
        orjson.loads(encode_message(InboundEvent("stripe", notice, "notice", NOW, b"", None)))
    )

    assert decoded == DisputeNoticed(
        gateway="stripe",
        dispute="du_1",
        reference="pi_1",
        amount=1_999,
        currency="USD",
        received_at=NOW,
    )
