"""What the dashboards show."""

from __future__ import annotations

from typing import Final

from deploy.grafana.contents.enrollment import ENROLLMENT
from deploy.grafana.contents.gateways import GATEWAYS
from deploy.grafana.contents.overview import OVERVIEW
from deploy.grafana.contents.payments import PAYMENTS
from deploy.grafana.contents.queues import QUEUES
from deploy.grafana.contents.scheduler import SCHEDULER
from deploy.grafana.contents.subscriptions import SUBSCRIPTIONS
from deploy.grafana.contents.webhook import WEBHOOK
from deploy.grafana.panels import Dashboard

DASHBOARDS: Final[tuple[Dashboard, ...]] = (
    OVERVIEW,
    WEBHOOK,
    PAYMENTS,
    ENROLLMENT,
    SCHEDULER,
    QUEUES,
    SUBSCRIPTIONS,
    GATEWAYS,
)
