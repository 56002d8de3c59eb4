"""Sluice itself: split into one process per service and kind, everything else at its default."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from deploy.local.ports import free_port
from tests.benchmark.errors import BenchmarkError
from tests.benchmark.load_generator import Maker
from tests.benchmark.makers import (
    STORE_ID,
    STORE_PASSWORD,
    expected_payment,
    sslcommerz_notice,
)
from tests.benchmark.peer import REPOSITORY
from tests.benchmark.servers import Servers
from tests.benchmark.side import OLD_ROWS, Announced, Side
from tests.benchmark.sluice_rows import insert_awaited, insert_paid

DATABASE: Final = "sluice"
SERVICES: Final = ("webhook", "payments", "enrollment")
GATEWAY_STUB: Final = Path(__file__).with_name("gateway_stub.js")
MIGRATE_SECONDS_MAX: Final = 60
# Near enough that the history lies in the same partitions as what the runs add.
HISTORY_AGE_MILLISECONDS: Final = 60 * 60 * 1_000

COUNT_ENROLLMENTS: Final = "SELECT count(*) FROM enrollment.enrollment"
SELECT_ENROLLED_AT: Final = """
SELECT payment_id, extract(epoch FROM created_at)::float8 AS enrolled_at
  FROM enrollment.enrollment WHERE payment_id > $1
"""


class Sluice(Side):
    """All three services, an HTTP process and a worker each."""

    name: ClassVar[str] = "sluice"

    def __init__(self, servers: Servers, directory: Path) -> None:
        super().__init__(servers, directory)
        self._last_old_payment_id = ""
        self._ports = {service: free_port() for service in SERVICES} | {"webhook": self.port}

    @property
    def url(self) -> str:
        """Where webhooks are posted."""
        return f"http://127.0.0.1:{self.port}/webhooks/sslcommerz"

    @property
    def maker(self) -> Maker:
        """Notices as SSLCommerz signs them."""
        return sslcommerz_notice

    def prepare(self, announced: Sequence[Announced]) -> None:
        """Make the database anew, with 50,000 old payments and those that the runs are about."""
        self._open_database = self._servers.empty_database(DATABASE)
        migrated = subprocess.run(
            [sys.executable, "-m", "deploy.local", "migrate"],
            cwd=REPOSITORY,
            env={**os.environ, **self._environment()},
            capture_output=True,
            text=True,
            timeout=MIGRATE_SECONDS_MAX,
            check=False,
        )
        if migrated.returncode != 0:
            raise BenchmarkError(f"sluice migrate failed:\n{migrated.stdout}{migrated.stderr}")
        first_run = min(int(each.run.rpartition("-")[2]) for each in announced)
        history = f"history-{first_run - HISTORY_AGE_MILLISECONDS}"
        old = [expected_payment(index, history) for index in range(OLD_ROWS)]
        insert_paid(self.database, old)
        self._last_old_payment_id = old[-1].payment_id
        for each in announced:
            awaited = [expected_payment(index, each.run) for index in range(each.count)]
            insert_awaited(self.database, awaited)
        self.database.settle()

    def start_receiver(self) -> None:
        """Start the HTTP process of every service."""
        self._start_processes("serve")

    def start_workers(self) -> None:
        """Start the worker of every service."""
        self._start_processes("worker")

    def enrolled_count(self) -> int:
        """Count the enrollments made since `prepare`."""
        count = self.database.value(COUNT_ENROLLMENTS)
        assert isinstance(count, int)
        return count - OLD_ROWS

    def enrolled_at(self) -> Mapping[str, float]:
        """Return when each payment was enrolled."""
        rows = self.database.rows(SELECT_ENROLLED_AT, self._last_old_payment_id)
        return {row["payment_id"]: row["enrolled_at"] for row in rows}

    def start_worker(self, service: str) -> None:
        """Start the worker of one service."""
        self._start_processes("worker", [service])

    def _start_processes(self, kind: str, services: Sequence[str] = SERVICES) -> None:
        """Start all of a kind, then wait for all: they take a moment to import."""
        started = []
        for service in services:
            port = self._ports[service] if kind == "serve" else free_port()
            process = self._start(
                f"{service} {kind}",
                [sys.executable, "-m", "deploy.local", kind, service],
                {**self._environment(), "PORT": str(port)},
            )
            self._product.append(process)
            started.append((process, port))
        for process, port in started:
            process.wait_until_ready(port, "/readyz")

    def _gateway_command(self) -> Sequence[str]:
        return ["node", str(GATEWAY_STUB)]

    def _working_directory(self) -> Path:
        return REPOSITORY

    def _environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self._servers.postgres_url(DATABASE),
            "REDIS_URL": self._servers.redis_url,
            "SSLCOMMERZ_BASE_URL": f"http://127.0.0.1:{self.gateway_port}",
            "SSLCOMMERZ_STORE_ID": STORE_ID,
            "SSLCOMMERZ_STORE_PASSWORD": STORE_PASSWORD,
        }
