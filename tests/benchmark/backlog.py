"""The command `python -m tests.benchmark.backlog`: urgent payments behind a large backlog.

Notices of cheap payments fill the queue, then one worker starts, and urgent ones come in between.
An urgent payment has begun at the latest when it is confirmed, so the time until then is printed;
it includes the gateway's answer.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Final

import redis.asyncio

from shared.contracts.subscriptions import notice_queue
from shared.contracts.webhook import NoticeReceived
from shared.messaging.envelope import ITEMS_MAX, Outgoing
from shared.messaging.publisher import Publisher
from tests.benchmark.errors import BenchmarkError
from tests.benchmark.makers import ExpectedPayment, expected_payment
from tests.benchmark.servers import Servers
from tests.benchmark.side import Announced, Gateway
from tests.benchmark.sluice import Sluice
from tests.benchmark.sluice_rows import insert_awaited

NORMAL_DEFAULT: Final = 100_000
HIGH_DEFAULT: Final = 100
GATEWAY_MILLISECONDS: Final = 150
#: Poisha; above 200,000 is urgent.
NORMAL_AMOUNT: Final = 50_000
HIGH_AMOUNT: Final = 500_000
#: Between two urgent notices, so that they are spread over the backlog.
HIGH_EVERY_SECONDS: Final = 0.1
WAIT_SECONDS_MAX: Final = 60.0
GOAL_SECONDS: Final = 1.0

SELECT_CONFIRMED: Final = """
SELECT payment_id, extract(epoch FROM at)::float8 AS at
  FROM payments.payment_history WHERE event = 'confirmed' AND payment_id = ANY($1::text[])
"""
COUNT_PENDING: Final = """
SELECT count(*) FROM payments.payment WHERE state = 'pending' AND amount = $1
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0, or 2 when an urgent payment was never confirmed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.backlog")
    parser.add_argument("--normal", type=int, default=NORMAL_DEFAULT, help="cheap ones that wait")
    parser.add_argument("--high", type=int, default=HIGH_DEFAULT, help="urgent ones that come")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sluice-backlog-") as text:
        directory = Path(text)
        directory.chmod(0o711)
        with Servers(directory) as servers:
            side = Sluice(servers, directory)
            try:
                _measure(side, servers.redis_url, options.normal, options.high)
            except BenchmarkError as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                return 2
            finally:
                side.stop()
    return 0


def _measure(side: Sluice, redis_url: str, normal_count: int, high_count: int) -> None:
    # Young enough that no look of the reconciler falls due meanwhile.
    run = f"backlog-{int((time.time() - 1_200) * 1_000)}"
    side.prepare([Announced(f"{run.replace('backlog', 'none')}", 0)])
    payments = [
        replace(
            expected_payment(index, run),
            amount_minor=NORMAL_AMOUNT if index < normal_count else HIGH_AMOUNT,
        )
        for index in range(normal_count + high_count)
    ]
    insert_awaited(side.database, payments)
    side.database.settle()
    high = payments[normal_count:]
    print(f"{normal_count:,} notices wait; the gateway takes {GATEWAY_MILLISECONDS} ms")
    side.start_gateway(Gateway(delay_milliseconds=GATEWAY_MILLISECONDS))
    sent_at = asyncio.run(_send(side, redis_url, payments[:normal_count], high))
    waiting = side.database.value(COUNT_PENDING, NORMAL_AMOUNT)
    confirmed_at = _confirmed(side, [payment.payment_id for payment in high])
    waits = [confirmed_at[id_] - at for id_, at in sent_at.items()]
    cuts = quantiles(waits, n=100)
    print(
        f"{high_count} urgent ones among them, from their notice to their confirmation: "
        f"p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s, longest {max(waits):.3f} s "
        f"(wanted: begun within {GOAL_SECONDS:g} s at p99); {waiting:,} cheap ones still waited"
    )


async def _send(
    side: Sluice, redis_url: str, normal: Sequence[ExpectedPayment], high: Sequence[ExpectedPayment]
) -> dict[str, float]:
    """Publish the backlog, start the worker, then publish the urgent ones one by one."""
    publisher = Publisher(redis.asyncio.Redis.from_url(redis_url), "webhook")
    outgoing = [_notice(number, payment) for number, payment in enumerate([*normal, *high], 1)]
    for start in range(0, len(normal), ITEMS_MAX):
        if not await publisher.send(outgoing[start : start + ITEMS_MAX]):
            raise BenchmarkError("Redis did not take the backlog")
    await asyncio.to_thread(side.start_worker, "payments")
    sent_at = {}
    for item, payment in zip(outgoing[len(normal) :], high, strict=True):
        sent_at[payment.payment_id] = time.time()
        await publisher.send([item])
        await asyncio.sleep(HIGH_EVERY_SECONDS)
    await publisher.close()
    return sent_at


def _notice(number: int, payment: ExpectedPayment) -> Outgoing:
    notice = NoticeReceived(
        gateway="sslcommerz",
        reference=payment.reference,
        claim="paid",
        validation_id=f"{payment.ulid}{payment.amount_minor:010d}",
        amount=payment.amount_minor,
        currency="BDT",
        received_at=datetime.now(tz=UTC),
    )
    queue = notice_queue(payment.amount_minor, "BDT")
    return Outgoing(number, queue, notice.name, notice.encode(), None)


def _confirmed(side: Sluice, ids: Sequence[str]) -> dict[str, float]:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    found: dict[str, float] = {}
    while len(found) < len(ids):
        side.raise_if_ended()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{len(ids) - len(found)} urgent payments were never confirmed")
        time.sleep(0.1)
        found = {row["payment_id"]: row["at"] for row in side.database.rows(SELECT_CONFIRMED, ids)}
    return found


if __name__ == "__main__":
    sys.exit(main())
