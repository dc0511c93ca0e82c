"""W3C Trace Context (https://www.w3.org/TR/trace-context/): the trace that a request belongs to, and our span of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers

_propagator = TraceContextTextMapPropagator()


@dataclass(frozen=True)
class Span:
    """What this service does for one request, as one step of a trace; ids are lower-case hexadecimal."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The header that continues the trace from here."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def start(headers: Headers) -> Span:
    """A new span: of the caller's trace where there is one valid ``traceparent``, else of a new trace."""
    came = headers.getlist("traceparent")
    if len(came) == 1:
        parent = trace.get_current_span(_propagator.extract({"traceparent": came[0]})).get_span_context()
        if parent.is_valid:
            return Span(trace.format_trace_id(parent.trace_id), secrets.token_hex(8), parent.trace_flags.sampled)
    return Span(secrets.token_hex(16), secrets.token_hex(8), sampled=False)
