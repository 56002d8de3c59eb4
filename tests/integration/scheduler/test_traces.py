"""One trace holds what was due, the charge that it ordered, and what became of it."""

from __future__ import annotations

from dataclasses import replace

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.scheduler.handlers.billing import do_what_is_due
from services.scheduler.runtime import Runtime
from services.scheduler.store.subscriptions import lock_subscriptions
from services.scheduler.worker import handlers_of
from shared.messaging.receiver import Receiver
from shared.tracing import Tracing
from tests.integration.scheduler.world import Scheduler, succeeded
from tests.support.polling import eventually
from tests.support.queues import batch_of

_TRACES = "SELECT message_name, traceparent FROM outbox WHERE traceparent IS NOT NULL ORDER BY id"


async def test_a_period_is_one_trace_from_its_due_time_to_the_access(service: Scheduler) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    core = replace(service.core, tracing=Tracing(provider.get_tracer("test"), provider))
    runtime = Runtime(core, service.runtime.settings)
    subscription = await service.subscribe(await service.plan())

    async with core.database.transaction() as connection:
        due = await lock_subscriptions(connection, [subscription["id"]])
        await do_what_is_due(runtime, connection, list(due.values()), lambda _: service.clock())
    (order,) = await service.orders()
    (ordered,) = (
        row for row in await service.rows(_TRACES) if "charge_subscription" in row["message_name"]
    )
    batch = batch_of("payments", [(1, succeeded(order))])
    batch["items"][0]["trace"] = ordered["traceparent"]
    receiver = Receiver(core.database, core.publisher, handlers_of(runtime))
    receiver.accept("scheduler.outcomes", {"batch": batch})

    async def names() -> dict[str, str]:
        rows = await service.rows(_TRACES)
        found = {row["message_name"]: row["traceparent"] for row in rows}
        return found if "scheduler.access_granted.v1" in found else {}

    carried = await eventually(names)
    await receiver.close()

    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans.keys() == {"scheduler.due", "scheduler.outcome"}
    traces = {f"{span.context.trace_id:032x}" for span in spans.values() if span.context}
    assert traces == {value.split("-")[1] for value in carried.values()}
    assert len(traces) == 1
