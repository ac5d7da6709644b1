"""OpenTelemetry's current span, for clients that are instrumented: a parent that records nothing by itself."""

from __future__ import annotations

from opentelemetry.context import attach, get_current
from opentelemetry.context.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, TraceFlags, set_span_in_context

from holdfast.telemetry.frames import Frame

_SPAN = next(iter(set_span_in_context(INVALID_SPAN, Context())))
_SAMPLED, _UNSAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)


class Parent(NonRecordingSpan):
    """The span that is recorded for `frame` elsewhere. Its ids are computed when somebody asks for them."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def get_span_context(self) -> SpanContext:
        """The ids of the frame's span."""
        turn = self._frame.of
        return SpanContext(turn.ids.trace_id, self._frame.span_id, is_remote=False, trace_flags=_SAMPLED if turn.sampled else _UNSAMPLED)

    def __repr__(self) -> str:
        return f"Parent({self.get_span_context()!r})"


def begin(span: Span) -> None:
    """Make `span` the current one, and nothing besides it: what was current belongs to something else."""
    attach(Context({_SPAN: span}))


def enter(span: Span) -> Context:
    """Make `span` the current one; what was current, for `leave`."""
    outer = get_current()
    inside = dict(outer)
    inside[_SPAN] = span
    attach(Context(inside))
    return outer


def leave(outer: Context) -> None:
    """Make current what was, whatever has been attached and left meanwhile."""
    attach(outer)
