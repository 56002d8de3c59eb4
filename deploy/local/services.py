"""The table of the services: what each offers, and where it answers.

A service is imported only when it is asked for, so that a process carries, and measures, nothing of
the others. What supervises them imports none: it has 20 MB instead of 70, and is there at once.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from shared.migrations import Component
    from shared.partitions import PartitionedTable
    from shared.process import Part
    from shared.settings import ServiceSettings

#: The paths of each service. One that ends with a slash stands for all below it, another for
#: itself and all below it. No two services share a path.
PATH_PREFIXES: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "webhook": ("/webhooks/", "/return/", "/api/webhooks"),
        "payments": (
            *("/api/payments", "/api/operations", "/api/gateways"),
            *("/api/refunds", "/api/disputes", "/api/ledger", "/api/payment-methods"),
        ),
        "enrollment": ("/api/enrollments",),
        "scheduler": ("/api/plans", "/api/subscriptions", "/api/jobs", "/api/test-clocks"),
        "simulator": (
            *("/gwprocess/", "/validator/", "/EasyCheckOut/", "/simulator"),
            *("/fapshi/", "/campay/", "/stripe/", "/x402/"),
        ),
    }
)

SERVICE_NAMES: Final = tuple(PATH_PREFIXES)

#: The simulator works on requests only.
WORKER_NAMES: Final = ("webhook", "payments", "enrollment", "scheduler")


@dataclass(frozen=True, slots=True)
class Service:
    """One service as its own modules describe it."""

    name: str
    settings: type[ServiceSettings]
    http_part: Callable[[Any], AbstractAsyncContextManager[Part]]
    worker_part: Callable[[Any], AbstractAsyncContextManager[Part]] | None
    migrations: Sequence[Component]
    partitioned_tables: Sequence[PartitionedTable]


def _webhook() -> Service:
    from services.webhook.app import MIGRATIONS, PARTITIONED_TABLES, http_part
    from services.webhook.settings import WebhookSettings
    from services.webhook.worker import worker_part

    return Service(
        "webhook", WebhookSettings, http_part, worker_part, MIGRATIONS, PARTITIONED_TABLES
    )


def _payments() -> Service:
    from services.payments.app import MIGRATIONS, PARTITIONED_TABLES, http_part
    from services.payments.settings import PaymentsSettings
    from services.payments.worker import worker_part

    return Service(
        "payments", PaymentsSettings, http_part, worker_part, MIGRATIONS, PARTITIONED_TABLES
    )


def _enrollment() -> Service:
    from services.enrollment.app import MIGRATIONS, PARTITIONED_TABLES, http_part
    from services.enrollment.settings import EnrollmentSettings
    from services.enrollment.worker import worker_part

    return Service(
        "enrollment", EnrollmentSettings, http_part, worker_part, MIGRATIONS, PARTITIONED_TABLES
    )


def _scheduler() -> Service:
    from services.scheduler.app import MIGRATIONS, PARTITIONED_TABLES, http_part
    from services.scheduler.settings import SchedulerSettings
    from services.scheduler.worker import worker_part

    return Service(
        "scheduler", SchedulerSettings, http_part, worker_part, MIGRATIONS, PARTITIONED_TABLES
    )


def _simulator() -> Service:
    from services.simulator.app import MIGRATIONS, PARTITIONED_TABLES, http_part
    from services.simulator.settings import SimulatorSettings

    return Service("simulator", SimulatorSettings, http_part, None, MIGRATIONS, PARTITIONED_TABLES)


_LOADERS: Final[Mapping[str, Callable[[], Service]]] = MappingProxyType(
    {
        "webhook": _webhook,
        "payments": _payments,
        "enrollment": _enrollment,
        "scheduler": _scheduler,
        "simulator": _simulator,
    }
)


def load_service(name: str) -> Service:
    """Import one service; `name` is one of `SERVICE_NAMES`."""
    return _LOADERS[name]()
