"""Tracing: one OpenTelemetry trace from the webhook's request to the enrollment's commit.

Work is batched, so spans are made explicitly from the `traceparent` that each message carries, not
from a context variable. Without an OTLP endpoint nothing is traced and nothing is paid for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans, or does nothing when there is nowhere to send them."""

    def __init__(
        self, tracer: Tracer | None = None, provider: TracerProvider | None = None
    ) -> None:
        self._tracer = tracer
        self._provider = provider

    @property
    def is_on(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer is not None

    def span(
        self,
        name: str,
        *,
        traceparent: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | int] | None = None,
    ) -> AbstractContextManager[str | None]:
        """Open a span under `traceparent` and give the traceparent for what follows from it."""
        if self._tracer is None:
            return nullcontext(traceparent)
        return self._span(self._tracer, name, traceparent, kind, attributes)

    @staticmethod
    @contextmanager
    def _span(
        tracer: Tracer,
        name: str,
        traceparent: str | None,
        kind: SpanKind,
        attributes: Mapping[str, str | int] | None,
    ) -> Iterator[str | None]:
        parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
        span = tracer.start_span(name, context=parent, kind=kind, attributes=attributes)
        try:
            yield _traceparent(span)
        except Exception as error:
            # The type only: a message may quote a gateway's address with its password.
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def close(self) -> None:
        """Send what is buffered; bounded by the exporter's time-out."""
        if self._provider is not None:
            self._provider.shutdown()


def _traceparent(span: Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def tracing_to(endpoint: str | None, *, process: str, sample_ratio: float) -> Tracing:
    """Return tracing that exports to an OTLP/HTTP endpoint, or none when that is not set."""
    if endpoint is None:
        return Tracing()
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
        resource=Resource.create({"service.name": f"sluice-{process}"}),
    )
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider.get_tracer("sluice"), provider)
