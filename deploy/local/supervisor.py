"""Starts again what has died, after a delay that grows while it keeps dying."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from deploy.local.errors import LocalStackError

#: Waits before a restart. The first is short, because most deaths are single; the last goes on.
RESTART_DELAYS_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)

#: What has lived this long counts as well again.
WELL_AFTER_SECONDS: Final = 30.0


class Restartable(Protocol):
    """A server or process of the local stack."""

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""

    def start(self) -> None:
        """Start it.

        Raises:
            LocalStackError: it could not be started.
        """


@dataclass(slots=True)
class _Watch:
    subject: Restartable
    failures: int = 0
    started_at: float = 0.0
    restart_at: float | None = None


class Supervisor:
    """Watches what is running when it is made.

    Args:
        subjects: By name, in the order in which they have to be started.
        report: Told, in one sentence, of each death and each restart.
        monotonic: A clock for the delays.
    """

    def __init__(
        self,
        subjects: Mapping[str, Restartable],
        report: Callable[[str], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._monotonic = monotonic
        now = monotonic()
        self._watches = {
            name: _Watch(subject, started_at=now) for name, subject in subjects.items()
        }

    def check(self) -> None:
        """Look at each subject once, and start again what is due."""
        for name, watch in self._watches.items():
            if watch.subject.is_running:
                continue
            now = self._monotonic()
            if watch.restart_at is None:
                self._plan_restart(name, watch, now)
            elif now >= watch.restart_at:
                self._restart(name, watch)

    def _plan_restart(self, name: str, watch: _Watch, now: float) -> None:
        if now - watch.started_at >= WELL_AFTER_SECONDS:
            watch.failures = 0
        delay = RESTART_DELAYS_SECONDS[min(watch.failures, len(RESTART_DELAYS_SECONDS) - 1)]
        watch.failures += 1
        watch.restart_at = now + delay
        self._report(f"{name} has died; starting it again in {delay:g} s")

    def _restart(self, name: str, watch: _Watch) -> None:
        watch.restart_at = None
        watch.started_at = self._monotonic()
        try:
            watch.subject.start()
        except LocalStackError as error:
            self._report(f"{name} cannot be started: {error}")
        else:
            self._report(f"{name} is started again")
