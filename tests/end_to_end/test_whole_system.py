"""The whole system, split into its processes, as those see it who run it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.environment import SIMULATOR_ACCOUNTS
from deploy.local.ports import free_port
from deploy.local.stack import LocalStack, free_ports
from services.simulator.sslcommerz.signing import sign
from tests.support.notices import encode, notice_form
from tests.support.polling import eventually
from tests.support.requirements import needs
from tests.support.supervised_stack import BARE

WAITING = 1_000
SENDERS = 20
PAYMENT_QUEUES = {"payments.high", "payments.medium", "payments.normal"}
ORDER: dict[str, Any] = {
    "gateway": "sslcommerz",
    "amount": 150_000,
    "currency": "BDT",
    "customer": {"id": "customer-1"},
    "product": {"id": "course-1"},
    "returnUrl": "https://shop.example/paid",
}


@pytest.fixture(scope="module")
def trace_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(trace_port: int) -> Iterator[LocalStack]:
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)  # As root, PostgreSQL runs as another user.
    environment = BARE | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{trace_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    with LocalStack(directory / "data", free_ports(), split=True, environment=environment) as stack:
        yield stack
    shutil.rmtree(directory)


@pytest.fixture
async def http(stack: LocalStack) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with aiohttp.ClientSession(stack.url, headers=headers) as session:
        yield session


async def test_prometheus_can_read_what_every_process_measures(stack: LocalStack) -> None:
    needs("promtool")
    async with aiohttp.ClientSession() as session:
        for name, process in stack.processes.items():
            if name == "front-door":
                continue
            async with session.get(f"{process.url}/metrics") as response:
                text = await response.read()

            checked = await asyncio.to_thread(
                subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True
            )

            assert (checked.returncode, checked.stderr) == (0, b""), name


async def test_a_payment_is_one_trace_from_the_request_to_the_enrollment(
    http: aiohttp.ClientSession, trace_port: int
) -> None:
    async with _trace_receiver(trace_port) as spans:
        payment = await _pay(http)
        await eventually(lambda: _enrollments(http, payment["id"]))

        async def hops() -> list[Span]:
            paid = [span for span in spans if span.name == "enrollment.grant"]
            return [span for span in spans if paid and span.trace_id == paid[-1].trace_id]

        async def all_hops() -> list[Span]:
            seen = await hops()
            return seen if {span.name for span in seen} >= HOPS else []

        trace = await eventually(all_hops)

    by_id = {span.span_id: span for span in trace}
    (grant,) = [span for span in trace if span.name == "enrollment.grant"]
    check = by_id[grant.parent_span_id]
    assert check.name == "payments.check_notice"
    assert by_id[check.parent_span_id].name == "webhook.receive"


HOPS = {"webhook.receive", "payments.check_notice", "enrollment.grant"}


async def test_queues_are_measured_by_message_while_their_worker_is_stopped(
    stack: LocalStack, http: aiohttp.ClientSession
) -> None:
    worker = stack.processes["payments-worker"]
    worker.terminate()
    await eventually(lambda: _not(worker.is_running))
    limit = asyncio.Semaphore(SENDERS)

    async def send(number: int) -> int:
        async with limit:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            body = _notice_of_another_system(number)
            async with http.post("/webhooks/sslcommerz", data=body, headers=headers) as answer:
                return answer.status

    statuses = await asyncio.gather(*(send(number) for number in range(WAITING)))

    assert set(statuses) == {200}
    payments = stack.processes["payments-http"].url
    await eventually(lambda: _equals(_ready(payments), WAITING))
    worker.start()
    await eventually(lambda: _equals(_ready(payments), 0))


def _notice_of_another_system(number: int) -> bytes:
    """Return a notice that the store's gateway signed for a payment that is not ours."""
    account = SIMULATOR_ACCOUNTS["sslcommerz"]
    form = notice_form(f"other-system-{number}", store_id=account["SSLCOMMERZ_STORE_ID"])
    fields = {name: value for name, value in form.items() if not name.startswith("verify_")}
    return encode(fields | sign(fields, fields, account["SSLCOMMERZ_STORE_PASSWORD"]))


async def _pay(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.post("/api/payments", json=ORDER) as answer:
        assert answer.status == 201, await answer.text()
        payment: dict[str, Any] = (await answer.json())["data"]
    order = {"reference": payment["gatewayReference"], "fate": "paid"}
    async with http.post("/simulator/sslcommerz/pay", json=order) as answer:
        assert answer.status == 200, await answer.text()
    return payment


async def _enrollments(http: aiohttp.ClientSession, payment_id: str) -> list[Any]:
    async with http.get("/api/enrollments", params={"paymentId": payment_id}) as answer:
        found: list[Any] = (await answer.json())["data"]["enrollments"]
        return found


async def _ready(url: str) -> int:
    """Return how many messages wait in the payments service's queues, by its HTTP process."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    lengths: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        if family.name == "queue_messages":
            for sample in family.samples:
                lengths[sample.labels["queue"]] += (
                    sample.value if sample.labels["state"] == "ready" else 0
                )
    return round(sum(lengths[queue] for queue in PAYMENT_QUEUES))


async def _equals(measured: Awaitable[int], expected: int) -> bool:
    return await measured == expected


async def _not(condition: bool) -> bool:  # noqa: FBT001 - a look, not a switch
    return not condition


@asynccontextmanager
async def _trace_receiver(port: int) -> AsyncIterator[list[Span]]:
    """Take traces over OTLP/HTTP, as a collector does."""
    spans: list[Span] = []

    async def take(request: web.Request) -> web.Response:
        exported = ExportTraceServiceRequest.FromString(await request.read())
        for resource in exported.resource_spans:
            for scope in resource.scope_spans:
                spans.extend(scope.spans)
        return web.Response()

    application = web.Application()
    application.router.add_post("/v1/traces", take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield spans
    finally:
        await runner.cleanup()
