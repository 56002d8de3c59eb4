"""One trace holds the whole way of a payment; without a collector nothing is made."""

from __future__ import annotations

import itertools

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from shared.tracing import Tracing, tracing_to


class Collector:
    """Tracing whose spans stay in memory."""

    def __init__(self, sample_ratio: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(sample_ratio)))
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider.get_tracer("test"), provider)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


def test_spans_that_hand_on_their_traceparent_make_one_trace() -> None:
    collectors = [Collector(), Collector(), Collector()]  # As in three processes.

    carried: str | None = None
    for collector, name in zip(
        collectors, ("webhook.receive", "payments.check", "enrollment.grant"), strict=True
    ):
        with collector.tracing.span(name, traceparent=carried) as traceparent:
            carried = traceparent

    spans = [span for collector in collectors for span in collector.spans().values()]
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    for earlier, later in itertools.pairwise(spans):
        assert later.parent is not None
        assert earlier.context is not None
        assert later.parent.span_id == earlier.context.span_id


@pytest.mark.parametrize("malformed", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_malformed_traceparent_begins_a_new_trace(malformed: str) -> None:
    collector = Collector()

    with collector.tracing.span("payments.check", traceparent=malformed) as traceparent:
        pass

    assert traceparent is not None
    assert traceparent != malformed
    assert collector.spans()["payments.check"].parent is None


def test_a_trace_that_is_not_sampled_stays_unsampled_on_its_way() -> None:
    unsampled, sampled = Collector(sample_ratio=0.0), Collector()

    with unsampled.tracing.span("webhook.receive") as traceparent:
        pass
    with sampled.tracing.span("payments.check", traceparent=traceparent):
        pass

    assert not unsampled.spans()
    assert not sampled.spans()


def test_a_failure_is_marked_by_its_type_without_its_text() -> None:
    collector = Collector()

    with (
        pytest.raises(ValueError, match="secret"),
        collector.tracing.span("payments.check", attributes={"payment": "pay_1"}),
    ):
        raise ValueError("a secret is in here")

    span = collector.spans()["payments.check"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError"
    assert not span.events
    assert span.attributes == {"payment": "pay_1"}


def test_without_an_endpoint_a_traceparent_is_handed_on_untouched() -> None:
    tracing = tracing_to(None, process="webhook", sample_ratio=1.0)

    assert not tracing.is_on
    with tracing.span("webhook.receive", traceparent="00-abc") as traceparent:
        assert traceparent == "00-abc"
    with tracing.span("webhook.receive") as traceparent:
        assert traceparent is None
    tracing.close()
