"""What dies is started again, after delays that grow while it keeps dying."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from deploy.local.errors import LocalStackError
from deploy.local.supervisor import RESTART_DELAYS_SECONDS, WELL_AFTER_SECONDS, Supervisor


@dataclass
class Mortal:
    """A process that lives and dies on command."""

    is_running: bool = True
    starts: int = 0
    refuses: bool = False

    def start(self) -> None:
        if self.refuses:
            raise LocalStackError("port 1 is taken")
        self.starts += 1
        self.is_running = True


@dataclass
class Scene:
    """A supervisor of one mortal, and a clock that only moves when told."""

    mortal: Mortal = field(default_factory=Mortal)
    reports: list[str] = field(default_factory=list)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(
            {"mortal": self.mortal}, self.reports.append, monotonic=lambda: self.now
        )

    def seconds_until_restart(self) -> float:
        """Let it die and return how long it stays dead, within a tenth of a second."""
        self.mortal.is_running = False
        starts, waited = self.mortal.starts, 0
        while self.mortal.starts == starts:
            self.supervisor.check()
            self.now += 0.1
            waited += 1
        return (waited - 1) / 10


def test_the_living_are_left_alone() -> None:
    scene = Scene()

    for _ in range(100):
        scene.supervisor.check()
        scene.now += 1

    assert scene.mortal.starts == 0
    assert scene.reports == []


def test_delays_grow_to_their_last_while_it_keeps_dying() -> None:
    scene = Scene()

    delays = [scene.seconds_until_restart() for _ in range(7)]

    assert delays == pytest.approx([*RESTART_DELAYS_SECONDS, 5.0, 5.0], abs=0.11)
    assert scene.reports[:2] == [
        "mortal has died; starting it again in 0.2 s",
        "mortal is started again",
    ]


def test_what_has_lived_long_is_started_again_soon() -> None:
    scene = Scene()
    for _ in range(7):
        scene.seconds_until_restart()

    scene.now += WELL_AFTER_SECONDS

    assert scene.seconds_until_restart() == pytest.approx(RESTART_DELAYS_SECONDS[0], abs=0.11)


def test_a_start_that_fails_is_told_and_repeated() -> None:
    scene = Scene()
    scene.mortal.is_running = False
    scene.mortal.refuses = True
    scene.supervisor.check()
    scene.now += RESTART_DELAYS_SECONDS[0]

    scene.supervisor.check()
    assert scene.reports[-1] == "mortal cannot be started: port 1 is taken"

    scene.mortal.refuses = False
    scene.supervisor.check()
    scene.now += RESTART_DELAYS_SECONDS[1]
    scene.supervisor.check()
    assert scene.mortal.is_running
