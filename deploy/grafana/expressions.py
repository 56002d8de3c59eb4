"""PromQL in the few forms that the dashboards have.

Every selector asks for the chosen namespace: several deployments can share one Prometheus. Where
there is no such label, as outside of Kubernetes, the choice is empty, and finds what has none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from shared.money import DECIMAL_PLACES

#: The chosen deployment.
NAMESPACE: Final = 'namespace=~"$namespace"'

#: Alerts that fire; of something that is absent, they have lost the label.
ALERTS: Final = 'ALERTS{namespace=~"($namespace)?",alertstate="firing"}'
CRITICAL_ALERTS: Final = (
    'ALERTS{namespace=~"($namespace)?",alertstate="firing",severity="critical"}'
)

#: What Grafana takes as the shortest time that holds a few readings.
WINDOW: Final = "$__rate_interval"


def select(metric: str, matchers: str = "") -> str:
    """Return a selector of the chosen namespace; `matchers` are PromQL's, without braces."""
    return f"{metric}{{{','.join(filter(None, (NAMESPACE, matchers)))}}}"


def per_second(metric: str, matchers: str = "", *, by: str = "") -> str:
    """Return how often a second something was counted, over all processes."""
    return f"{_sum(by)}(rate({select(metric, matchers)}[{WINDOW}]))"


def counted(metric: str, window: str, matchers: str = "", *, by: str = "") -> str:
    """Return how much was counted in a time.

    A counter with labels begins with its first event, at 1, in which `increase` sees nothing: what
    was not there when the time began counts with its value.
    """
    counter = select(metric, matchers)
    began = f"{counter} unless {counter} offset {window}"
    return f"{_sum(by)}(({began}) or increase({counter}[{window}]))"


def in_view(metric: str, matchers: str = "", *, by: str = "") -> str:
    """Return how much was counted in the time that the dashboard shows."""
    return counted(metric, "$__range", matchers, by=by)


def told_by_each(metric: str, matchers: str = "", *, by: str) -> str:
    """Return a gauge that every process of a service tells alike: one of them is enough."""
    return f"max by ({by}) ({select(metric, matchers)})"


def quantile(share: float, histogram: str, matchers: str = "", *, by: str = "") -> str:
    """Return the duration that a share of all stayed under, in seconds."""
    labels = ", ".join(filter(None, ("le", by)))
    rates = f"rate({select(f'{histogram}_bucket', matchers)}[{WINDOW}])"
    return f"histogram_quantile({share}, sum by ({labels}) ({rates}))"


def mean(histogram: str, matchers: str = "", *, by: str = "") -> str:
    """Return the average duration in seconds."""
    total = per_second(f"{histogram}_sum", matchers, by=by)
    return f"{total} / {per_second(f'{histogram}_count', matchers, by=by)}"


def ratio(part: str, whole: str) -> str:
    """Return a share; nothing where the whole is nothing."""
    return f"{part} / {whole}"


def share(metric: str, matchers: str, *, of: str = "", by: str = "") -> str:
    """Return the share that has further labels, 0 where nothing has them.

    Args:
        metric: A counter.
        matchers: What the part has.
        of: What the whole has.
        by: The labels that set apart one share from another.
    """
    chosen = ",".join(filter(None, (of, matchers)))
    whole = per_second(metric, of, by=by)
    part = per_second(metric, chosen, by=by)
    return f"({part} or 0 * {whole}) / {whole}"


def or_zero(expression: str) -> str:
    """Return 0 for what was never counted: a counter with labels begins with its first event."""
    return f"({expression}) or vector(0)"


def growth(gauge: str, matchers: str, window: str, *, tells: str, by: str) -> str:
    """Return by how much a total grew that every process of a service tells alike.

    Args:
        gauge: A gauge that only grows.
        matchers: What is chosen of it.
        window: PromQL's duration.
        tells: The gauge's own labels: one process is enough, and one may take over from another.
        by: The labels that are left.
    """
    total = told_by_each(gauge, matchers, by=tells)
    return f"{_sum(by)}(increase(({total})[{window}:]))"


def in_whole_units(money_of: Callable[[str], str]) -> str:
    """Return money by currency in whole units of it: dollars, not cents.

    Args:
        money_of: Returns the money in minor units of the currencies that a matcher chooses.
    """
    currencies = defaultdict(list)
    for currency, places in sorted(DECIMAL_PLACES.items()):
        currencies[places].append(currency)
    parts = []
    for places, names in sorted(currencies.items()):
        chosen = "|".join(names)
        part = money_of(f'currency=~"{chosen}"')
        parts.append(f"{part} / {10**places}" if places else part)
    return " or ".join(parts)


def collected(window: str) -> str:
    """Return the money of payments that succeeded, by currency, in whole units."""
    metric = "payments_succeeded_minor_units_total"
    return in_whole_units(lambda chosen: counted(metric, window, chosen, by="currency"))


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"
