"""Processes of the local stack: their start, readiness and end, whoever causes it.

The front door stands for all of them, because it needs neither a database nor Redis.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.ports import free_port
from deploy.local.processes import ChildProcess, ProcessStartError
from deploy.local.supervisor import Supervisor

DEADLINE_SECONDS = 30.0


@pytest.fixture
def child(tmp_path: Path) -> Iterator[ChildProcess]:
    process = new_child(tmp_path)
    yield process
    process.kill()


def new_child(directory: Path, *arguments: str, port: int | None = None) -> ChildProcess:
    return ChildProcess(
        "front-door",
        ["front-door", "--process=webhook-http=http://127.0.0.1:1", *arguments],
        port=port or free_port(),
        environment=os.environ,
        log=directory / "front-door.log",
    )


def deadline() -> float:
    return time.monotonic() + DEADLINE_SECONDS


def wait_until(condition: Callable[[], bool]) -> None:
    end = deadline()
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"


def test_a_process_starts_serves_and_stops(child: ChildProcess) -> None:
    assert not child.is_running

    child.start()
    child.wait_until_ready(deadline())

    with urllib.request.urlopen(f"{child.url}/metrics") as response:  # noqa: S310
        assert b"http_request_duration_seconds" in response.read()
    child.terminate()
    assert child.wait_or_kill(deadline())
    assert child.exit_code == 0
    assert '"process_stopped"' in child.log.read_text()


def test_a_killed_process_is_started_again_on_its_port(child: ChildProcess) -> None:
    child.start()
    child.wait_until_ready(deadline())
    first = child.pid

    child.kill()
    assert (child.is_running, child.exit_code) == (False, -signal.SIGKILL)
    assert not child.is_ready()

    child.start()
    child.wait_until_ready(deadline())
    assert child.pid != first


def test_the_supervisor_starts_a_killed_process_again(child: ChildProcess) -> None:
    child.start()
    child.wait_until_ready(deadline())
    reports: list[str] = []
    supervisor = Supervisor({child.name: child}, reports.append)
    first = child.pid

    os.kill(first, signal.SIGKILL)

    def is_back() -> bool:
        supervisor.check()
        return child.is_running and child.pid != first and child.is_ready()

    wait_until(is_back)
    assert reports == [
        "front-door has died; starting it again in 0.2 s",
        "front-door is started again",
    ]


def test_a_process_that_cannot_start_says_why(child: ChildProcess) -> None:
    with socket.create_server(("127.0.0.1", child.port)):
        child.start()
        with pytest.raises(ProcessStartError, match=r"status 1\..*(?s:.*)address already in use"):
            child.wait_until_ready(deadline())


def test_a_process_that_is_not_ready_in_time_says_what_it_does(child: ChildProcess) -> None:
    child.start()
    os.kill(child.pid, signal.SIGSTOP)

    with pytest.raises(ProcessStartError, match="front-door was not ready in time; is running"):
        child.wait_until_ready(time.monotonic())


def test_a_process_that_does_not_stop_is_killed(child: ChildProcess) -> None:
    child.start()
    child.wait_until_ready(deadline())
    os.kill(child.pid, signal.SIGSTOP)

    child.terminate()

    assert not child.wait_or_kill(time.monotonic())
    assert not child.is_running


def test_a_process_is_out_of_reach_of_our_terminal(child: ChildProcess) -> None:
    child.start()

    assert os.getsid(child.pid) != os.getsid(0)


def test_a_process_stops_when_its_starter_is_killed(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tests.integration.local.test_processes import new_child\n"
        f"child = new_child(Path({str(tmp_path)!r}), port={port})\n"
        "child.start(); child.wait_until_ready(time.monotonic() + 30)\n"
        "print(child.pid, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()

    wait_until(lambda: not exists(pid))
    assert '"process_stopped"' in (tmp_path / "front-door.log").read_text()


def exists(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return state != "" and not state.startswith("Z")


def test_signals_that_follow_the_first_change_nothing(child: ChildProcess) -> None:
    child.start()
    child.wait_until_ready(deadline())
    reader = socket.create_connection(("127.0.0.1", child.port))
    with contextlib.closing(reader):
        child.terminate()
        os.kill(child.pid, signal.SIGINT)
        child.terminate()
        assert child.wait_or_kill(deadline())

    assert '"process_stopped"' in child.log.read_text()
