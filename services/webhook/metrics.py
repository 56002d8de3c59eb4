"""The metrics of the webhook service."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

RECEIVED: Final = Counter(
    "webhook_received_total",
    "Authentic notices by what they were: new, duplicate.",
    ["outcome"],
)
REJECTED: Final = Counter(
    "webhook_rejected_total", "Notices refused, by reason.", ["gateway", "reason"]
)
