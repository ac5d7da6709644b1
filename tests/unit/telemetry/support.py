"""Reads spans back as a collector does: with the messages generated from OTLP's own definitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from holdfast.clock import Clock
from holdfast.telemetry import otlp, wire
from holdfast.telemetry.recorder import Recorder
from holdfast.telemetry.spans import Spans
from holdfast.testing.simulation import SimulatedClock


@dataclass(frozen=True)
class Read:
    """A span as it came out of the request."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    began_s: float
    ended_s: float
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[str]
    status: int
    error: str
    flags: int


def read(request: bytes) -> list[Read]:
    """The spans of an ExportTraceServiceRequest."""
    message = ExportTraceServiceRequest.FromString(request)
    return [_span(span) for of in message.resource_spans for scope in of.scope_spans for span in scope.spans]


def _span(span: Any) -> Read:
    return Read(
        span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind, span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9, _attributes(span.attributes), [(event.name, _attributes(event.attributes)) for event in span.events],
        [f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in span.links], span.status.code, span.status.message, span.flags,
    )  # fmt: skip


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    which = value.WhichOneof("value")
    return [_value(item) for item in value.array_value.values] if which == "array_value" else getattr(value, which)


class Collected:
    """What one exporter process, which outlives the lives of a World, would have posted."""

    def __init__(self) -> None:
        self._spans = Spans()
        self._encoded: list[bytes] = []
        self.batches: list[bytes] = []

    def take(self, frame: bytes, spans: int) -> None:
        """A batch as it comes through the pipe."""
        self.batches.append(frame)
        made = [otlp.span(span) for body in wire.Frames().feed(frame) for span in self._spans.of(wire.read_batch(body))]
        assert len(made) == spans
        self._encoded += made

    def recorder(self, clock: Clock | None = None, sampled: Callable[[int], bool] = lambda trace_id: True) -> Recorder:
        """An observer whose records come here, in the virtual time of the running loop unless a clock is given."""
        return Recorder(self.take, clock or SimulatedClock(asyncio.get_running_loop()), sampled)

    def spans(self) -> list[Read]:
        """All spans so far, in the order they were made."""
        return read(otlp.Envelope({"service.name": "test"}, "holdfast", "1").request(self._encoded))

    def named(self, name: str) -> Read:
        """The one span of that name."""
        [found] = [span for span in self.spans() if span.name == name]
        return found
