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
from tests.resilience.scenarios import GRANTS_THAT_WAIT, count_rows, lock_enrollments
from tests.support.blocking import run_blocking
from tests.support.polling import eventually_blocking
from tests.support.promises import find_broken, settle
from tests.support.supervised_stack import SupervisedStack, outlast, supervised_stack
from tests.support.traffic import Order, Traffic

#: What is promised for SIGTERM.
STOP_SECONDS: Final = 10.0

#: Longer than the heartbeat after which others take over what a worker holds, and than the first
#: resend.
FREEZE_SECONDS: Final = 35.0

READY_SECONDS: Final = 30.0

WORKERS: Final = ("webhook-worker", "payments-worker", "enrollment-worker")

#: Too short for the first resend of what was bought during the stops.
UNDELAYED_SECONDS: Final = 12.0

FROZEN: Final = ("payments-worker", "enrollment-worker")

#: Longer than everything between the gateway's being asked and the freeze.
SLOW_SECONDS: Final = 8.0


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
        stop_workers_one_by_one(stack, traffic)
        stop_everything_twice(stack)
        traffic.wait_for_more(50)

        with stack.fault("two workers frozen"), ExitStack() as seconds:
            with outlast(FREEZE_SECONDS):
                held = freeze_at_work(stack, traffic)
                for service in ("payments", "enrollment"):
                    seconds.enter_context(second_worker(stack, service))
                traffic.wait_for_more(100)
            # The others finish what the frozen ones have begun.
            eventually_blocking(
                lambda: not run_blocking(find_broken(stack.local.database_url, held)).lost
            )
            for name in FROZEN:
                os.kill(stack.local.processes[name].pid, signal.SIGCONT)
            traffic.wait_for_more(30)
        settle(stack, traffic)
        eventually_blocking(lambda: all(stack.local.processes[name].is_ready() for name in FROZEN))


def stop_workers_one_by_one(stack: SupervisedStack, traffic: Traffic) -> None:
    """Send SIGTERM to each worker, and check that what it gives back is done at once."""
    for name in WORKERS:
        traffic.wait_for_more(20)
        before = stack.local.processes[name].pid
        with stack.fault(f"SIGTERM to {name}"):
            os.kill(before, signal.SIGTERM)
        stack.wait_for_restart(name, before)
    traffic.wait_for_more(20)
    begun = [order for order in list(traffic.orders) if order.ended_at is not None]
    eventually_blocking(
        lambda: not run_blocking(find_broken(stack.local.database_url, begun)).lost,
        timeout_seconds=UNDELAYED_SECONDS,
    )


def freeze_at_work(stack: SupervisedStack, traffic: Traffic) -> list[Order]:
    """Freeze workers that wait for the gateway, and in a transaction.

    Returns:
        All orders so far, among them those that the frozen workers hold.
    """
    asked, locked = traffic.buy(5), traffic.buy(5)
    for order in asked:
        script = {"operation": "validate", "behaviour": "slow", "delaySeconds": SLOW_SECONDS}
        assert traffic.control("script", script | {"reference": order.reference}).status == 201
    url = stack.local.database_url
    lock = traffic.run(lock_enrollments(url))
    for order in [*locked, *asked]:
        traffic.run(traffic.acknowledge(order))
    eventually_blocking(lambda: run_blocking(count_rows(url, GRANTS_THAT_WAIT)) > 0)
    begun = [order for order in list(traffic.orders) if order.ended_at is not None]
    for name in FROZEN:
        os.kill(stack.local.processes[name].pid, signal.SIGSTOP)
    # Now PostgreSQL does what it was asked, and nobody hears its answer.
    traffic.run(lock.close())
    return begun
