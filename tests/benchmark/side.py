"""What the scenarios need of either side: set up, start, stop, count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from deploy.local.ports import free_port
from tests.benchmark.load_generator import Maker
from tests.benchmark.managed_process import ManagedProcess
from tests.benchmark.servers import Database, Servers

# On an empty, never analysed table PostgreSQL may choose plans that no real system has.
OLD_ROWS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Gateway:
    """How the stub of the payment gateway answers."""

    delay_milliseconds: int = 0
    tail_share: float = 0.0
    tail_milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class Announced:
    """A run's events, for a side that must know the payments beforehand."""

    run: str
    count: int


class Side(ABC):
    """A product under test with the stub of its gateway; one run after the other."""

    name: ClassVar[str]

    def __init__(self, servers: Servers, directory: Path) -> None:
        self._servers = servers
        self._directory = directory
        self._gateway: ManagedProcess | None = None
        self._product: list[ManagedProcess] = []
        self._open_database: Database | None = None
        self.gateway_port = free_port()
        self.port = free_port()

    @property
    @abstractmethod
    def url(self) -> str:
        """Where webhooks are posted."""

    @property
    @abstractmethod
    def maker(self) -> Maker:
        """What makes this side's signed webhooks."""

    @abstractmethod
    def prepare(self, announced: Sequence[Announced]) -> None:
        """Make the database anew, with its history and what the runs will need."""

    @abstractmethod
    def start_receiver(self) -> None:
        """Start what answers webhooks."""

    @abstractmethod
    def start_workers(self) -> None:
        """Start what does the rest."""

    @abstractmethod
    def enrolled_count(self) -> int:
        """Count the enrollments made since `prepare`."""

    @abstractmethod
    def enrolled_at(self) -> Mapping[str, float]:
        """Return when each event made since `prepare` was enrolled, in seconds since the epoch."""

    @abstractmethod
    def _gateway_command(self) -> Sequence[str]:
        """Return the command of the gateway's stub."""

    def start_gateway(self, gateway: Gateway) -> None:
        """Start the stub of the payment gateway."""
        assert self._gateway is None
        self._gateway = self._start(
            "gateway stub",
            self._gateway_command(),
            {
                "GW_PORT": str(self.gateway_port),
                "GW_DELAY_MS": str(gateway.delay_milliseconds),
                "GW_TAIL": str(gateway.tail_share),
                "GW_TAIL_MS": str(gateway.tail_milliseconds),
            },
        )
        self._gateway.wait_until_ready(self.gateway_port, "/")

    def process_ids(self) -> list[int]:
        """The roots of the product's process trees; the gateway's stub is none of them."""
        return [process.process_id for process in self._product]

    def raise_if_ended(self) -> None:
        """Raise when a process of this side is no longer there."""
        for process in [*self._product, *([self._gateway] if self._gateway else [])]:
            process.raise_if_ended()

    def stop(self) -> None:
        """End every process of this side and close its database."""
        while self._product:
            self._product.pop().stop()
        if self._gateway is not None:
            self._gateway.stop()
            self._gateway = None
        if self._open_database is not None:
            self._open_database.close()
            self._open_database = None

    @property
    def database(self) -> Database:
        assert self._open_database is not None, "prepare comes first"
        return self._open_database

    def _start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> ManagedProcess:
        log = self._directory / f"{self.name}-{name.replace(' ', '-')}.log"
        return ManagedProcess(
            command,
            name=f"{self.name}: {name}",
            log=log,
            environment=environment,
            directory=self._working_directory(),
        )

    def _working_directory(self) -> Path:
        return self._directory
