"""What the settings say about breakers and limits, and which limits are in force."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.payments.domain.breaker import BreakerPolicy
from services.payments.domain.limits import GatewayLimit, Limits, limits_in_force
from services.payments.settings import PaymentsSettings
from services.payments.store.controls import StoredControls

#: How much later than a call's time-out its process has said what became of it.
_REPORT_SECONDS: Final = 5


def limits_of(settings: PaymentsSettings) -> Limits:
    """Return the limits that hold when nobody says otherwise."""
    return Limits(
        max_concurrent_payments=settings.max_concurrent_payments,
        batch_size=settings.payment_batch_size,
        gateways={
            name: GatewayLimit(limit.concurrency, limit.calls_per_second)
            for name, limit in settings.gateway_limits.items()
        },
    )


def in_force(settings: PaymentsSettings, stored: StoredControls) -> Limits:
    """Return the limits that hold now: an operator's before the profile's before the settings'."""
    return limits_in_force(
        settings=limits_of(settings), profile=stored.profile, override=stored.override
    )


def breaker_policy_of(settings: PaymentsSettings) -> BreakerPolicy:
    """Return how sensitive breakers are."""
    return BreakerPolicy(
        window=settings.breaker_window,
        calls_min=settings.breaker_minimum_calls,
        open_for=settings.breaker_open_for,
        probes=settings.breaker_probes,
        probes_lost_after=timedelta(seconds=settings.gateway_timeout_seconds + _REPORT_SECONDS),
    )
