"""Every query of every dashboard, asked of a real Prometheus that reads a stack at work."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tests.support.dashboards import BUILT_IN, Shown, queries
from tests.support.polling import eventually_blocking
from tests.support.prometheus import Prometheus, prometheus, targets_of
from tests.support.requirements import needs
from tests.support.subscribers import EMPTY_CARD, GOOD_CARD, START, Subscriber, Subscribers, month
from tests.support.supervised_stack import supervised_stack
from tests.support.traffic import (
    DECLINED,
    ERRORS,
    FORGED,
    PENDING,
    PLAIN,
    POSTED,
    REPEATED,
    Traffic,
)

#: What is not there on a good day, or not within a minute, and why: a query that asks for it must
#: not fail, and may be without data.
MAY_BE_EMPTY: Final = MappingProxyType(
    {
        "ALERTS": "no alert fires, and this Prometheus has no rules",
        "== 2": "no breaker is open",
        "== 0": "every process answers",
        'event="returned"': "no bank sends a refund back",
        'state="on_hold"': "no gateway says that a payment is risky",
        "payments_surplus_charges_total": "no gateway charges twice",
        "payments_settlement_findings_total": "no gateway lists anything else than we have",
        "payments_settlement_checks_total": "a day is compared when it is over",
        "payments_gateway_failures_total": "no gateway fails a call, as breakers count them",
        "payments_breaker_transitions_total": "no breaker opens",
        "payments_alerts_total": "no threshold of the service is passed",
        "payments_profile_switches_total": "there are no profiles",
        "payments_foreign_notices_total": "no other system uses the account",
        "messages_publications_failed_total": "Redis is there",
        "outbox_resent_total": "every message is confirmed before it is due again",
        "dead_letters_retried_total": "there are no dead letters",
        "scheduler_job_partitions_swept_total": "no day of jobs is old enough",
        'effect="recorded"': "nobody buys what they have",
        'effect="repeated"': "no success comes twice",
        'effect="paid_twice"': "no period is paid twice",
        'asked_by="reconciler"': "notices come before the reconciler looks",
        'status=~"5.."': "no request fails",
        'what=~"paid_twice': "no period is paid twice",
    }
)

#: Far more than is needed, so that there is something to show.
LIMITS: Final = '{"stripe": {"concurrency": 100, "callsPerSecond": 500}}'

#: A bank that never pays, and says so at once.
LOST_CARD: Final = "pm_card_visa_chargeDeclinedLostCard"

#: Later than the requests that begin a subscription, so that a scan finds it due.
SOON: Final = timedelta(seconds=1)

#: Long enough for a few readings, short enough for a test.
VALUES: Final = MappingProxyType(
    {"__rate_interval": "20s", "__interval": "5s", "__range": "2m", "namespace": "sluice"}
)

#: How far back a query looks, in seconds.
SHOWN_SECONDS: Final = 90.0

#: By when everything has happened, been counted, folded and read.
DATA_SECONDS: Final = 75.0


def test_every_query_returns_data_while_payments_flow(tmp_path: Path) -> None:
    needs("prometheus")
    shown = list(queries())
    with (
        supervised_stack({"GATEWAY_LIMITS": LIMITS}) as stack,
        prometheus(tmp_path, targets_of(stack.local)) as server,
        Traffic(
            stack.local.url,
            stack.local.api_key,
            seed=1,
            per_second=6.0,
            kinds=(PLAIN, PLAIN, POSTED, REPEATED, FORGED, DECLINED, PENDING, ERRORS),
        ) as traffic,
    ):
        server.wait_until_up(len(targets_of(stack.local)))
        people = Subscribers(stack)
        plan = people.plan()
        subscribe_on_a_clock(people, plan)
        subscribe(people, plan)
        pay_and_take_back(people)
        # A series begins with its first event, and only the next one is a rise.
        subscribe(people, plan)

        without_data = wait_for_data(server, shown)

        assert not without_data, "\n".join(
            f"{query.dashboard}: {query.panel}: {query.expression}" for query in without_data
        )
        traffic.finish(time.monotonic() + 20)


def test_what_may_be_empty_is_asked_for() -> None:
    expressions = [query.expression for query in queries()]

    assert [part for part in MAY_BE_EMPTY if not any(part in each for each in expressions)] == []


def wait_for_data(server: Prometheus, shown: Sequence[Shown]) -> list[Shown]:
    """Ask until every query has returned data; return those that have not."""
    missing = list(shown)
    deadline = time.monotonic() + DATA_SECONDS

    def is_complete() -> bool:
        missing[:] = [query for query in missing if not has_data(server, query)]
        return not missing or time.monotonic() > deadline

    eventually_blocking(is_complete, timeout_seconds=2 * DATA_SECONDS)
    return missing


def has_data(server: Prometheus, query: Shown) -> bool:
    """Return whether a query has what it must have; a query that is refused raises."""
    values = dict(VALUES) | dict.fromkeys(query.variables - BUILT_IN - VALUES.keys(), ".*")
    expression = query.with_values(values)
    if any(part in query.expression for part in MAY_BE_EMPTY):
        is_there = ask(server, query, expression)
        return is_there or not expression.endswith("or vector(0)")
    # A zero that stands for nothing is no data.
    return ask(server, query, re.sub(r" or vector\(0\)", "", expression))


def ask(server: Prometheus, query: Shown, expression: str) -> bool:
    """Return whether an answer holds a number, asked for as Grafana does."""
    if query.is_instant:
        return any(sample.has_data for sample in server.query(expression))
    found = server.query_range(expression, seconds=SHOWN_SECONDS, step=5.0)
    return any(series.has_data for series in found)


def subscribe_on_a_clock(people: Subscribers, plan: str) -> None:
    """Let three people pay for two months at once."""
    clock = people.clock()
    people.subscribe(plan, clock, 3, start_at=START)
    people.advance(clock, month(2))


def subscribe(people: Subscribers, plan: str) -> None:
    """Begin subscriptions in real time: some are paid, one leaves again, two cannot be paid."""
    soon = datetime.now(UTC) + SOON
    paid = people.subscribe(plan, None, 3, start_at=soon)
    people.subscribe(plan, None, 1, card=EMPTY_CARD, start_at=soon)
    (unpaid,) = people.subscribe(plan, None, 1, card=LOST_CARD, start_at=soon)
    pay_with_another_card(people, unpaid)
    people.cancel(paid[0])


def pay_with_another_card(people: Subscribers, unpaid: Subscriber) -> None:
    """Wait until somebody is past due, and let them pay after all."""
    path = f"/api/subscriptions/{unpaid.subscription_id}"
    eventually_blocking(
        lambda: people.call("GET", path)["state"] == "past_due", timeout_seconds=DATA_SECONDS
    )
    card = {
        "gateway": "stripe",
        "customer": {"id": unpaid.customer_id},
        "method": {
            "type": "card",
            "paymentMethod": GOOD_CARD,
            "gatewayCustomer": f"cus_{unpaid.subscription_id}",
        },
    }
    method = people.call("POST", "/api/payment-methods", card)
    people.call("PATCH", path, {"paymentMethodId": method["id"]}, waits_for=404)
    people.call("POST", f"{path}/trigger-payment", waits_for=409)


def pay_and_take_back(shop: Subscribers) -> None:
    """Make single payments by card, of which one goes back, one is disputed, one is declined."""
    refunded = buy(shop, "customer-refunded", "pm_card_visa")
    disputed = buy(shop, "customer-disputed", "pm_card_visa")
    buy(shop, "customer-declined", EMPTY_CARD)
    shop.call("POST", f"/api/payments/{refunded['id']}/refunds", {"reason": "it was cancelled"})
    reference = disputed["gatewayReference"]
    shop.call("POST", "/simulator/stripe/dispute", {"reference": reference})
    granted = {"customerId": "customer-guest", "productId": "course-1", "reason": "a gift"}
    shop.call("POST", "/api/enrollments", granted)


def buy(shop: Subscribers, customer: str, card: str) -> Mapping[str, Any]:
    """Order one thing by card."""
    order = {
        "gateway": "stripe",
        "amount": 1_999,
        "currency": "USD",
        "method": {"type": "card", "paymentMethod": card},
        "customer": {"id": customer},
        "product": {"id": "course-1"},
    }
    made: Mapping[str, Any] = shop.call("POST", "/api/payments", order)
    return made
