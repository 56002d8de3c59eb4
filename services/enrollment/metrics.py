"""The metrics of the enrollment service."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

from shared.metrics import LATENCY_BUCKETS

PAYMENTS: Final = Counter(
    "enrollment_payments_total",
    "Succeeded payments by their effect: granted, regranted, recorded, repeated.",
    ["effect"],
)
BY_HAND: Final = Counter(
    "enrollment_changes_by_hand_total", "Grants and revocations by operators.", ["event"]
)
REVOCATIONS: Final = Counter(
    "enrollment_revocations_total",
    "What became of revocations for payments that went back: waiting, ungranted, done, cancelled, "
    "not_needed, never, restored.",
    ["outcome"],
)
ACCESS: Final = Counter(
    "enrollment_access_total",
    "What subscriptions said of who may use what, by its effect: granted, regranted, kept, "
    "revoked, held_otherwise, not_needed, outdated.",
    ["effect"],
)
WHOLE_WAY_SECONDS: Final = Histogram(
    "enrollment_whole_way_duration_seconds",
    "Time from the receipt of a notice to the commit of its enrollment.",
    buckets=LATENCY_BUCKETS,
)
