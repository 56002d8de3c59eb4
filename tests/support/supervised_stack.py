"""A local stack whose processes are started again when they die, and a diary of its faults."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.postgres_server import PostgresServer
from deploy.local.redis_server import RedisServer
from deploy.local.stack import LocalStack, free_ports
from deploy.local.supervisor import Supervisor
from tests.support.polling import eventually_blocking

#: How often `sluice up` looks, too.
CHECK_SECONDS = 0.1

#: Longest a process may take from its death to its restart, on a busy machine.
RESTART_SECONDS = 30.0

#: Without the settings of whoever runs the tests.
BARE = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}

#: Most of a little traffic is meant to fail here, and a breaker would open, rightly so, and keep
#: the rest from being seen. Breakers have tests of their own.
SETTINGS = {"BREAKER_MINIMUM_CALLS": "10000"}


class SupervisedStack:
    """A running stack. Faults are written down, so that a failure can say what came before it."""

    def __init__(self, stack: LocalStack) -> None:
        self.local = stack
        self.faults: list[tuple[float, str]] = []
        self.last_fault_at = time.monotonic()
        self._is_ending = threading.Event()
        #: Held while the supervisor looks.
        self._looking = threading.Lock()
        self._supervisor = Supervisor(stack.processes, self._note)
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()

    @property
    def postgres(self) -> PostgresServer:
        """Return the stack's own PostgreSQL."""
        assert self.local.postgres is not None
        return self.local.postgres

    @property
    def redis(self) -> RedisServer:
        """Return the stack's own Redis."""
        assert self.local.redis is not None
        return self.local.redis

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Write down a fault; it lasts as long as the block."""
        self._note(f"{name} begins")
        yield
        self._note(f"{name} is over")
        self.last_fault_at = time.monotonic()

    def kill(self, process: str) -> None:
        """End a process by SIGKILL and wait until the supervisor has started it again."""
        before = self.local.processes[process].pid
        with self.fault(f"SIGKILL of {process}"):
            os.kill(before, signal.SIGKILL)
        self.wait_for_restart(process, before)

    def wait_for_restart(self, process: str, pid_before: int) -> None:
        """Wait until a process runs under another number."""
        child = self.local.processes[process]
        eventually_blocking(
            lambda: child.pid != pid_before and child.is_running, timeout_seconds=RESTART_SECONDS
        )

    @contextmanager
    def without_supervision(self) -> Iterator[None]:
        """Leave what dies inside the block dead until its end."""
        with self._looking:
            yield

    def end_supervision(self) -> None:
        """Leave dead from now on what dies."""
        self._is_ending.set()
        self._thread.join()

    def diary(self) -> str:
        """Tell what happened and when, in seconds before now."""
        now = time.monotonic()
        return "\n".join(f"  {now - at:6.1f} s ago: {text}" for at, text in self.faults)

    def _supervise(self) -> None:
        while not self._is_ending.wait(CHECK_SECONDS):
            with self._looking:
                self._supervisor.check()

    def _note(self, text: str) -> None:
        self.faults.append((time.monotonic(), text))


@dataclass(slots=True)
class Span:
    """A time on the monotonic clock."""

    began_at: float
    ended_at: float


@contextmanager
def outlast(seconds: float) -> Iterator[Span]:
    """Let an outage last so long, whatever is checked meanwhile; its end is known afterwards."""
    span = Span(time.monotonic(), time.monotonic() + seconds)
    yield span
    eventually_blocking(lambda: time.monotonic() >= span.ended_at, timeout_seconds=2 * seconds)
    span.ended_at = time.monotonic()


@contextmanager
def supervised_stack(
    environment: Mapping[str, str] | None = None, *, split: bool = True
) -> Iterator[SupervisedStack]:
    """Run a stack on a new directory, which is kept when the block fails."""
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)  # As root, PostgreSQL runs as another user.
    local = LocalStack(
        directory / "data",
        free_ports(),
        split=split,
        environment=BARE | SETTINGS | dict(environment or {}),
    )
    with local:
        stack = SupervisedStack(local)
        try:
            yield stack
        except BaseException as error:
            error.add_note(f"What happened:\n{stack.diary()}\nThe logs are in {directory}.")
            raise
        finally:
            stack.end_supervision()
        assert local.stop() == [], "these processes did not stop by themselves"
    shutil.rmtree(directory)
