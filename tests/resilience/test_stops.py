"""Processes that are stopped while customers are buying: in good order, or frozen for a while."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from deploy.local.ports import free_port
from deploy.local.processes import ChildProcess
from tests.support.polling import eventually_blocking
from tests.support.promises import settle
from tests.support.supervised_stack import SupervisedStack, outlast, supervised_stack
from tests.support.traffic import Traffic

#: What is promised for SIGTERM.
STOP_SECONDS: Final = 10.0

#: Longer than the heartbeat after which others take over what a worker holds, and than the first
#: resend.
FREEZE_SECONDS: Final = 35.0

READY_SECONDS: Final = 30.0


@contextmanager
def second_worker(stack: SupervisedStack, service: str) -> Iterator[None]:
    """Run another worker of a service beside the stack's own."""
    worker = ChildProcess(
        f"second-{service}-worker",
        ["worker", service],
        port=free_port(),
        environment=stack.local.environment,
        log=stack.local.data_directory / "logs" / f"second-{service}-worker.log",
    )
    worker.start()
    try:
        worker.wait_until_ready(time.monotonic() + READY_SECONDS)
        yield
        worker.terminate()
        assert worker.wait_or_kill(time.monotonic() + STOP_SECONDS)
    finally:
        worker.kill()


def stop_everything_twice(stack: SupervisedStack) -> None:
    """Send SIGTERM, and then a second and a third one, to every process."""
    processes = stack.local.processes
    with stack.without_supervision(), stack.fault("SIGTERM to all processes"):
        deadline = time.monotonic() + STOP_SECONDS
        for _ in range(3):
            for process in processes.values():
                process.terminate()
        late = [name for name, process in processes.items() if not process.wait_or_kill(deadline)]
        assert late == []
        assert {name: process.exit_code for name, process in processes.items()} == dict.fromkeys(
            processes, 0
        )


def test_stopped_and_frozen_processes_lose_and_double_nothing() -> None:
    with (
        supervised_stack() as stack,
        Traffic(stack.local.url, stack.local.api_key, seed=7, per_second=10) as traffic,
    ):
        traffic.wait_for_more(50)
        stop_everything_twice(stack)
        traffic.wait_for_more(50)

        workers = ["payments-worker", "enrollment-worker"]
        with ExitStack() as seconds:
            for service in ("payments", "enrollment"):
                seconds.enter_context(second_worker(stack, service))
            with stack.fault("two workers frozen for 35 s"):
                for name in workers:
                    os.kill(stack.local.processes[name].pid, signal.SIGSTOP)
                with outlast(FREEZE_SECONDS):
                    traffic.wait_for_more(100)
                for name in workers:
                    os.kill(stack.local.processes[name].pid, signal.SIGCONT)
            traffic.wait_for_more(30)
            settle(stack, traffic)
        eventually_blocking(lambda: all(stack.local.processes[name].is_ready() for name in workers))
