"""A process that calls one gateway as often as it is let, to be killed or stopped by a test.

Each call is a connection: what is sent on it is answered when the gateway is done.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from services.payments.flow.admission import Purpose
from services.payments.handlers.flow_sync import FlowSync
from services.payments.runtime import Runtime, open_runtime
from services.payments.settings import GatewayLimitSettings, PaymentsSettings
from shared.contracts.priorities import Priority
from shared.gateways.interface import Outcome, Pending, Unknown
from shared.process import open_core
from tests.support.fake_gateway import FakeGateway
from tests.support.settings import gateways_of_tests

GATEWAY = "sslcommerz"

#: Short, so that a test need not wait long until a stopped process's share is another's.
SHARE_VALID_SECONDS = 1.5
CALL_SECONDS_MAX = 1.0

#: How long what a process has stays its own against the others.
LEASE_SECONDS = SHARE_VALID_SECONDS + CALL_SECONDS_MAX + 1

#: Calls that the process would make at once.
WISHES = 20


async def call_for_ever(runtime: Runtime, port: int) -> None:
    """Make one call after the other."""

    async def make() -> Outcome:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"?")
            await reader.read(1)
            writer.close()
        except OSError:
            return Unknown("connection_reset")
        return Pending("not_attempted")

    while True:
        await runtime.flow.call(GATEWAY, Priority.NORMAL, Purpose.CHECK, make)


async def main(database_url: str, redis_url: str, port: int, concurrency: int) -> None:
    """Keep in step, and call."""
    settings = PaymentsSettings(
        database_url=database_url,
        redis_url=redis_url,
        gateways=gateways_of_tests(),
        gateway_timeout_seconds=CALL_SECONDS_MAX,
        gateway_limits={GATEWAY: GatewayLimitSettings(concurrency=concurrency)},
    )
    async with (
        open_core(settings, "payments", database_url) as core,
        open_runtime(core, settings) as opened,
    ):
        runtime = replace(opened, gateways={GATEWAY: FakeGateway()})
        step = FlowSync(runtime, "worker", share_valid_seconds=SHARE_VALID_SECONDS)
        await step.synchronize()
        print(step.process, flush=True)
        calls = [call_for_ever(runtime, port) for _ in range(WISHES)]
        await asyncio.gather(step.run(), *calls)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
