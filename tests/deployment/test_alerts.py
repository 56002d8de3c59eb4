"""From a real failure to somebody's phone: the stack, Prometheus, Alertmanager, a webhook."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp

from tests.deployment.test_prometheus_rules import DIRECTORY, PUBLISHED_AT, RUNBOOKS
from tests.support import alertmanager as managers
from tests.support.alertmanager import Receiver, Told
from tests.support.polling import eventually_blocking
from tests.support.prometheus import prometheus, targets_of
from tests.support.requirements import needs
from tests.support.supervised_stack import SupervisedStack, supervised_stack
from tests.support.traffic import Traffic

#: More than the 100 that are no reason to call anybody.
NOTICES: Final = 130

#: Each is one failed call; the breaker of this stack opens after five.
ATTEMPTS: Final = 8

#: 10 s of age, two rounds of scraping and of rules, and a busy machine.
ALERT_SECONDS: Final = 60.0

SETTINGS: Final = {"BREAKER_MINIMUM_CALLS": "5", "BREAKER_OPEN_FOR": "PT3S"}


def without_patience(text: str) -> str:
    """Return a rule file, or a configuration, that waits for a second where it waits for longer."""
    return re.sub(r"\b(for|group_wait|group_interval): \d+[smh]", r"\1: 1s", text)


def rules(directory: Path) -> list[Path]:
    """Write the rules as they are, but for their patience."""
    written = []
    for source in sorted(DIRECTORY.glob("*.rules.yaml")):
        path = directory / source.name
        path.write_text(without_patience(source.read_text(encoding="utf-8")), encoding="utf-8")
        written.append(path)
    return written


def configuration(receiver: Receiver) -> str:
    """Return Alertmanager's own configuration, which tells the receiver of this test."""
    text = (DIRECTORY / "alertmanager.yaml").read_text(encoding="utf-8")
    for name in ("pager", "desk"):
        text = text.replace(f"http://{name}.example/alerts", f"{receiver.url}/{name}")
    return without_patience(text)


async def order(stack: SupervisedStack, number: int) -> int:
    """Order a payment and return the answer's status."""
    body = {
        "gateway": "fapshi",
        "amount": 500,
        "currency": "XAF",
        "customer": {"id": f"cus_{number}"},
        "product": {"id": "course_1"},
        "returnUrl": "https://shop.example/paid",
    }
    headers = {
        "Authorization": f"Bearer {stack.local.api_key}",
        "Idempotency-Key": f"alert-{number}",
    }
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{stack.local.url}/api/payments", json=body, headers=headers) as response,
    ):
        return response.status


def only(told: list[Told]) -> Told:
    """Return what was told, of one thing, however often."""
    assert len({tuple(sorted(each.labels.items())) for each in told}) == 1, told
    return told[0]


def test_a_queue_and_a_breaker_call_for_help_and_are_well_again(tmp_path: Path) -> None:
    needs("prometheus", managers.BINARY)
    with (
        supervised_stack(SETTINGS) as stack,
        managers.receiver() as receiver,
        managers.alertmanager(tmp_path / "alertmanager", configuration(receiver)) as address,
        prometheus(
            tmp_path / "prometheus",
            targets_of(stack.local),
            rule_files=rules(tmp_path),
            alertmanager=address,
        ),
        Traffic(stack.local.url, stack.local.api_key, seed=6, count=0) as traffic,
    ):
        orders = traffic.buy(NOTICES)
        assert receiver.told("QueueTooLong") == receiver.told("BreakerOpen") == []
        with stack.without_supervision():
            os.kill(stack.local.processes["enrollment-worker"].pid, signal.SIGKILL)

            async def acknowledge_all() -> None:
                await asyncio.gather(*(traffic.acknowledge(each) for each in orders))

            traffic.run(acknowledge_all())
            eventually_blocking(
                lambda: receiver.told("QueueTooLong"), timeout_seconds=ALERT_SECONDS
            )
            os.kill(stack.local.processes["simulator-http"].pid, signal.SIGKILL)

            async def order_all() -> list[int]:
                return [await order(stack, number) for number in range(ATTEMPTS)]

            statuses = traffic.run(order_all())
            eventually_blocking(lambda: receiver.told("BreakerOpen"), timeout_seconds=ALERT_SECONDS)

        queue, breaker = only(receiver.told("QueueTooLong")), only(receiver.told("BreakerOpen"))
        assert (queue.path, queue.labels["queue"]) == ("/desk", "enrollment.grants")
        assert (breaker.path, breaker.labels["gateway"]) == ("/pager", "fapshi"), statuses
        for told in (queue, breaker):
            page = told.annotations["runbook_url"].removeprefix(PUBLISHED_AT)
            assert (RUNBOOKS / page).exists()
        # Supervised again, both processes are started, and what they left behind is done.
        for name in ("QueueTooLong", "BreakerOpen"):
            eventually_blocking(
                partial(receiver.told, name, "resolved"), timeout_seconds=ALERT_SECONDS
            )
