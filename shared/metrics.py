"""Prometheus: how metrics are rendered, and what every process measures of itself.

Names are `<owner>_<noun>_<unit>[_total]` in base units; labels are bounded, never an id.
`docs/metrics.md` lists every metric, and a test compares it with the code.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, TypeVar

from prometheus_client import (
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

#: The content type of the Prometheus text format.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Seconds, from a fast commit to a stalled gateway.
LATENCY_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
)  # fmt: skip

HTTP_REQUEST_SECONDS: Final = Histogram(
    "http_request_duration_seconds",
    "Time from a request's first byte read to its answer, by route and status.",
    ["route", "method", "status"],
    buckets=LATENCY_BUCKETS,
)

GATEWAY_REQUEST_SECONDS: Final = Histogram(
    "gateway_request_duration_seconds",
    "Duration of one call to a payment gateway, by what became of it.",
    ["gateway", "operation", "outcome"],
    buckets=LATENCY_BUCKETS,
)

MESSAGES_PUBLISHED: Final = Counter(
    "messages_published_total", "Messages put on a queue, resends included.", ["queue"]
)
PUBLICATIONS_FAILED: Final = Counter(
    "messages_publications_failed_total",
    "Messages that could not be put on a queue at once; the outbox sends them again.",
    ["queue"],
)
MESSAGES_RESENT: Final = Counter(
    "outbox_resent_total", "Messages sent again because no receipt came.", ["service"]
)
OUTBOX_MESSAGES: Final = Gauge(
    "outbox_messages", "Messages that wait for a receipt.", ["service", "state"]
)
OUTBOX_OLDEST_AGE: Final = Gauge(
    "outbox_oldest_age_seconds", "Age of the oldest message without a receipt.", ["service"]
)
DEAD_LETTERS: Final = Gauge(
    "dead_letters", "Messages stored because they can never be handled.", ["service"]
)
DEAD_LETTERS_RETRIED: Final = Counter(
    "dead_letters_retried_total",
    "Dead letters that were handled again, by how that ended: handled, failed.",
    ["service", "outcome"],
)
MESSAGES_HANDLED: Final = Counter(
    "messages_handled_total",
    "Messages by what became of them: done, duplicate, redelivered, left to the outbox, dead.",
    ["message", "outcome"],
)
QUEUE_WAIT_SECONDS: Final = Histogram(
    "message_queue_wait_seconds",
    "Time from a batch's publication to its admission by a worker.",
    ["queue"],
    buckets=LATENCY_BUCKETS,
)
MESSAGES_IN_HAND: Final = Gauge(
    "messages_in_hand", "Messages taken from the queues and not yet finished.", ["service"]
)
QUEUE_MESSAGES: Final = Gauge(
    "queue_messages",
    "Messages of a queue by state: ready, in_flight, delayed, dead.",
    ["queue", "state"],
)
QUEUE_OLDEST_AGE: Final = Gauge(
    "queue_oldest_age_seconds", "Age of the oldest ready message of a queue.", ["queue"]
)
REDIS_MEMORY: Final = Gauge(
    "redis_memory_bytes",
    "Memory of Redis: used, and its limit, 0 if there is none.",
    ["kind"],
)


disable_created_metrics()

M = TypeVar("M", Counter, Histogram)


@lru_cache(maxsize=1_024)
def bound(metric: M, *labels: str) -> M:
    """Return the child of a metric for its labels; finding it anew costs more than to count.

    Labels are bounded sets by rule, so the cache is too.
    """
    return metric.labels(*labels)


def render() -> bytes:
    """Return every metric of this process in the Prometheus text format."""
    return generate_latest(REGISTRY)
