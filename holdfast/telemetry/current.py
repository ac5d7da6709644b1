"""OpenTelemetry's current span, for clients that are instrumented: a parent that records nothing by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from opentelemetry.context import attach, get_current
from opentelemetry.context.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, TraceFlags, set_span_in_context

from holdfast import events
from holdfast.telemetry.frames import TurnFrame
from holdfast.telemetry.ids import step_id

_SPAN = next(iter(set_span_in_context(INVALID_SPAN, Context())))
_STEP = "holdfast-step"  # stays where user code makes a span of its own current
_NOTHING = Context()
_put = dict.__setitem__  # a Context is written once, by whoever makes it
_SAMPLED, _UNSAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)


class Parent(NonRecordingSpan):
    """The span of a turn, or of a step of it, that is recorded elsewhere. Its ids are computed when somebody asks for them.

    Attributes:
        step: how the step began; None for the turn itself.
        outer: what was current before `enter_step`.
        within: the key of the step that this one runs in, if it runs in one.
    """

    outer = _NOTHING
    within = b""

    def __init__(self, turn: TurnFrame, step: events.StepStarted | None) -> None:
        self.turn, self.step = turn, step

    def get_span_context(self) -> SpanContext:
        """The ids of the span."""
        ids = self.turn.ids
        span_id = ids.span_id if self.step is None else step_id(ids, self.step.key)
        return SpanContext(ids.trace_id, span_id, is_remote=False, trace_flags=_SAMPLED if self.turn.sampled else _UNSAMPLED)

    def __repr__(self) -> str:
        return f"Parent({self.get_span_context()!r})"


def begin(span: Span) -> None:
    """Make `span` the current one, and nothing besides it: what was current belongs to something else."""
    attach(Context({_SPAN: span}))


def enter(span: Span) -> Context:
    """Make `span` the current one; what was current, for `leave`."""
    outer = get_current()
    inside = Context(outer)
    _put(inside, _SPAN, span)
    attach(inside)
    return outer


def enter_step(step: Parent) -> None:
    """Make a step's span the current one, and it the step that runs here; `step.outer` is what was current, for `leave`."""
    outer = step.outer = get_current()
    inside = Context(outer)
    _put(inside, _SPAN, step)
    _put(inside, _STEP, step)
    attach(inside)


def step_here(turn: TurnFrame) -> bytes:
    """The key of the step of `turn` that this code runs in; empty if it runs in none."""
    here: object = get_current().get(_STEP)
    return here.step.key if type(here) is Parent and here.turn is turn and here.step is not None else b""


leave: Final[Callable[[Context], object]] = attach
"""Makes current what was, whatever has been attached and left meanwhile."""
