"""A worker that makes one retry, and is stopped just before its call leaves the process.

Run as a process: `python -m tests.support.stopped_worker GATEWAY [unguarded]`. It reads its
environment like the payments service, says "stopped" just before it stops itself, and in the end
what the call became. Unguarded, it sends however late it is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from typing import Any, cast

from services.payments.handlers import retry_worker
from services.payments.runtime import open_runtime
from services.payments.settings import PaymentsSettings
from shared.gateways import http_client
from shared.gateways.interface import Order, Outcome, PaymentGateway
from shared.process import open_core
from shared.settings import load


class StoppingGateway:
    """A gateway before whose charges the process stops, until somebody lets it go on."""

    def __init__(self, gateway: PaymentGateway) -> None:
        self._gateway = gateway
        self.outcomes: list[Outcome] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)

    async def start(self, order: Order) -> Outcome:
        print("stopped", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        self.outcomes.append(await self._gateway.start(order))
        return self.outcomes[-1]


async def main(name: str, *options: str) -> None:
    """Make the retry that is due at one gateway."""
    if "unguarded" in options:
        http_client.is_too_late = lambda: False  # type: ignore[attr-defined]
    settings = load(PaymentsSettings)
    async with (
        open_core(settings, "payments", settings.database_url) as core,
        open_runtime(core, settings) as opened,
    ):
        stopping = StoppingGateway(opened.gateways[name])
        runtime = replace(opened, gateways={name: cast("PaymentGateway", stopping)})
        while not stopping.outcomes:  # A busy machine may be too slow for the lease.
            await asyncio.gather(*await retry_worker.take_up_due(runtime, 10))
            await asyncio.sleep(0.1)
        print(*stopping.outcomes, sep="\n", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
