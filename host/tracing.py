"""Traces across the processes that a request or a job passes through, by OpenTelemetry.

They are recorded where the environment names a collector (OTEL_EXPORTER_OTLP_ENDPOINT) and the
extra `telemetry` is installed. Elsewhere nothing of OpenTelemetry is loaded here, and spans cost a
comparison. Between processes a trace is a W3C traceparent: in the record of a job, in a message to
the engine, in the environment of a job's process.
"""

import logging
import os
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
TRACEPARENT = "TRACEPARENT"  # the variable of a process that works for a span of its parent
STOP_SECONDS = 2.0  # for the last spans, where the collector does not answer

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["internal", "server", "producer", "consumer"]

log = logging.getLogger(__name__)

_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def start_tracing(process: str) -> None:
    """Record the spans of this process from now on, where the environment asks for it; a `process`
    "api" is the service "diffusion-api" unless OTEL_SERVICE_NAME says otherwise.

    The reason why that is not possible is logged.
    """
    global _provider, _tracer
    environment = os.environ
    if (
        not any(environment.get(name) for name in ENDPOINTS)
        or environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER") == "none"
    ):
        return
    for name in PROTOCOLS:
        if (protocol := environment.get(name) or PROTOCOL) != PROTOCOL:
            log.warning("no traces: %s is %r; it must be %r", name, protocol, PROTOCOL)
            return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no traces: %s; install them by: pip install '.[telemetry]'", error)
        return
    given = OTELResourceDetector().detect().attributes
    resource = Resource.create({"service.name": f"diffusion-{process}", **given})
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(_provider)  # which FastAPI looks for
    _tracer = _provider.get_tracer("diffusion")


def stop_tracing() -> None:
    """Send the spans that are not sent yet, if the collector takes them soon."""
    if _provider is not None:
        sending = threading.Thread(target=_provider.shutdown, name="last spans", daemon=True)
        sending.start()
        sending.join(STOP_SECONDS)


def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
) -> AbstractContextManager[object]:
    """Return the context of a span, which belongs to the current one or to that of a traceparent.
    An exception that leaves it marks it as failed."""
    if _tracer is None:
        return nullcontext()
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    return _tracer.start_as_current_span(name, context, SpanKind[kind.upper()], attributes)


def annotate(attributes: Attributes | None = None, *, error: str = "") -> None:
    """Add attributes to the current span, and mark it as failed where there is an `error`."""
    if _tracer is None:
        return
    from opentelemetry.trace import StatusCode, get_current_span

    current = get_current_span()
    current.set_attributes(attributes or {})
    if error:
        current.set_attribute("error.type", error)
        current.set_status(StatusCode.ERROR)


def traceparent() -> str | None:
    """Return the current span as a traceparent (W3C Trace Context), None where there is none."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def add_trace_ids(logger: object, method: str, event: MutableMapping[str, Any]) -> Any:
    """Add the ids of the current span to a log line, as a processor of structlog."""
    if _tracer is None:
        return event
    from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format_trace_id(context.trace_id)
        event["span_id"] = format_span_id(context.span_id)
    return event
