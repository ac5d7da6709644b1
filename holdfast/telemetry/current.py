"""OpenTelemetry's current span, for instrumented clients: a parent span that does not record itself."""

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
_STEP = "holdfast-step"  # stays set where user code makes a span of its own current
_NOTHING = Context()
_put = dict.__setitem__  # a Context is written once, by the code that creates it
_SAMPLED, _UNSAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)


class Parent(NonRecordingSpan):
    """The span of a turn or of one of its steps, which is recorded elsewhere. Its ids are computed at first use.

    Attributes:
        step: the start of the step; None for the turn itself.
        outer: the context before `enter_step`.
        within: the key of the enclosing step, if there is one.
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
    """Make `span` the current one in an empty context: the context before belongs to other code."""
    attach(Context({_SPAN: span}))


def enter(span: Span) -> Context:
    """Make `span` the current one. Returns the context before, for `leave`."""
    outer = get_current()
    inside = Context(outer)
    _put(inside, _SPAN, span)
    attach(inside)
    return outer


def enter_step(step: Parent) -> None:
    """Make a step's span the current one, and the step the current step. `step.outer` is the context before, for `leave`."""
    outer = step.outer = get_current()
    inside = Context(outer)
    _put(inside, _SPAN, step)
    _put(inside, _STEP, step)
    attach(inside)


def step_here(turn: TurnFrame) -> bytes:
    """The key of the step of `turn` that this code runs in; empty if there is none."""
    here: object = get_current().get(_STEP)
    return here.step.key if type(here) is Parent and here.turn is turn and here.step is not None else b""


leave: Final[Callable[[Context], object]] = attach
"""Restores an earlier context, whatever contexts were attached and left meanwhile."""
