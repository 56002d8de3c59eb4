"""The metrics of the payments service."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from shared.metrics import LATENCY_BUCKETS

CREATED: Final = Counter(
    "payments_created_total",
    "Payments by what their gateway answered: paid, declined, pending, action_required, unknown.",
    ["gateway", "outcome"],
)
SETTLED: Final = Counter(
    "payments_settled_total",
    "Payments that came to rest, by state: succeeded, failed, cancelled, on_hold.",
    ["gateway", "state"],
)
COLLECTED: Final = Counter(
    "payments_succeeded_minor_units_total",
    "Money of payments that succeeded, in minor units of its currency.",
    ["gateway", "currency"],
)
CHECKS: Final = Counter(
    "payments_checks_total",
    "Looks at a gateway by what asked (notice, reconciler, operator) and what it said.",
    ["gateway", "asked_by", "verdict"],
)
UNRESOLVED: Final = Gauge(
    "payments_unresolved",
    "Payments neither paid nor ended although their time was over two hours ago, up to 10,000.",
)
FOREIGN_NOTICES: Final = Counter(
    "payments_foreign_notices_total",
    "Authentic notices about payments of another system on the same account; nothing was done.",
    ["gateway"],
)
SURPLUS_CHARGES: Final = Counter(
    "payments_surplus_charges_total",
    "Payments for which a gateway took money more than once; one must be refunded.",
    ["gateway"],
)
REFUNDS: Final = Counter(
    "payments_refunds_total",
    "Refunds by what happened: requested, succeeded, failed, returned (after it had succeeded).",
    ["gateway", "event"],
)
DISPUTES: Final = Counter(
    "payments_disputes_total",
    "Steps of disputes: dispute_opened, dispute_reopened, dispute_won, dispute_lost.",
    ["gateway", "step"],
)
PROFILE_SWITCHES: Final = Counter(
    "payments_profile_switches_total",
    "Profiles of limits that came into force, by why: schedule, load, nothing, operator.",
    ["cause"],
)
RETRIES: Final = Counter(
    "payments_retries_total",
    "Retries by what happened: scheduled, begun, succeeded, exhausted, cancelled, parked.",
    ["gateway", "kind", "event"],
)
CHARGES: Final = Counter(
    "payments_charges_total",
    "Orders of the scheduler: recorded, repeated, refused, put_off, retried, cancelled.",
    ["gateway", "event"],
)
SETTLEMENT_CHECKS: Final = Counter(
    "payments_settlement_checks_total",
    "Comparisons with what a gateway lists of a day, by result: agrees, differs, failed.",
    ["gateway", "result"],
)
SETTLEMENT_FINDINGS: Final = Counter(
    "payments_settlement_findings_total",
    "Differences from what gateways list: mismatch, missing_here, missing_there, duplicate.",
    ["gateway", "kind"],
)
SETTLEMENT_SECONDS: Final = Histogram(
    "payments_settlement_duration_seconds",
    "Time from the receipt of a notice to the commit of its payment's state.",
    ["gateway"],
    buckets=LATENCY_BUCKETS,
)
GATEWAY_CALLS: Final = Counter(
    "payments_gateway_calls_total",
    "Calls of gateways that passed the gate and ended, as the breakers count them.",
    ["gateway"],
)
GATEWAY_FAILURES: Final = Counter(
    "payments_gateway_failures_total",
    "Calls that a gateway failed: it was not reached, did not answer in time, or had an error.",
    ["gateway"],
)
BREAKER_STATE: Final = Gauge(
    "payments_breaker_state",
    "The breaker of a gateway: 0 closed, 1 half open, 2 open.",
    ["gateway"],
)
BREAKER_TRANSITIONS: Final = Counter(
    "payments_breaker_transitions_total",
    "States that breakers came into, each counted by the process that decided it.",
    ["gateway", "state"],
)
GATEWAY_SHARE: Final = Gauge(
    "payments_gateway_share",
    "What this process has of a gateway's limit: of its calls in flight, or of those per second.",
    ["gateway", "limit", "part"],
)
ALERTS: Final = Counter(
    "payments_alerts_total",
    "Alerts by what was measured, and by what happened: raised, cleared.",
    ["alert", "event"],
)
