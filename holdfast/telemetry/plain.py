"""Ordinary spans of the SDK, in this process, with the program's own provider.

Processors see each span from its start, and what user code sets on the current span stays on it. A span costs the event loop some tens of
microseconds. A turn that crashes keeps its span. The span of a turn that is left (it parks, the process drains) is begun but never ended,
and its events are lost. When the turn resumes, the span is begun again under the same ids.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.context.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from holdfast import events
from holdfast.clock import Clock
from holdfast.telemetry import conventions, current, notes
from holdfast.telemetry.frames import StepFrame, TurnFrame, current_var, step_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import TracerProvider

_here = current_var("holdfast_sdk_span")


class _Ids(IdGenerator):
    """Returns the ids that were set for the next span. A span is begun without an await, so two spans cannot get each other's ids."""

    trace_id, span_id = 1, 1

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class Plain:
    """An observer of events that begins and ends spans of the SDK."""

    def __init__(self, provider: TracerProvider, clock: Clock) -> None:
        self._time = clock.time
        self._tracer = provider.get_tracer(conventions.SCOPE, conventions.version())
        self._ids = _Ids()
        if hasattr(self._tracer, "id_generator"):
            self._tracer.id_generator = self._ids  # of this tracer only: the provider's other tracers keep theirs
        self._turns: dict[str, TurnFrame] = {}
        self._on: dict[type[events.Event], Callable[[Any], None]] = {
            events.TurnStarted: self._turn_started,
            events.StepStarted: self._step_started,
            events.StepEnded: self._step_ended,
            events.StepLeft: self._step_left,
            events.TurnCommitted: self._turn_committed,
            events.TurnLeft: self._turn_left,
            events.SessionParked: self._turn_over,
            events.StoreFailed: self._turn_over,
            events.SessionFailed: self._failed,
            events.SessionEndedEvent: self._session_ended,
            **{kind: self._step_note for kind in notes.OF_STEP if kind is not events.StepLeft},
            **{kind: self._turn_note for kind in notes.OF_TURN if kind not in (events.TurnLeft, events.SessionParked, events.StoreFailed)},
        }

    def __call__(self, event: events.Event) -> None:
        """Record an event; call it in the task of that event."""
        do = self._on.get(type(event))
        if do is not None:
            do(event)

    # ------------------------------------------------------------ turns

    def _turn_started(self, event: events.TurnStarted) -> None:
        before, turn = self._turns.get(event.session), TurnFrame(event)
        self._turns[event.session] = turn
        if before is not None and before.ids == turn.ids:
            turn.span, turn.left = before.span, before.left  # the run before crashed: its spans continue
        else:
            turn.span = self._begun(event, turn)
        _here.set(turn)
        current.begin(turn.span)

    def _begun(self, event: events.TurnStarted, turn: TurnFrame) -> Span:
        parent, links = Context(), []
        if turn.carried is not None:
            flags = TraceFlags(TraceFlags.SAMPLED if turn.carried.sampled else TraceFlags.DEFAULT)
            sender = SpanContext(turn.carried.trace_id, turn.carried.span_id, is_remote=True, trace_flags=flags)
            if turn.carried.link:
                links.append(Link(sender))
            else:
                parent = set_span_in_context(NonRecordingSpan(sender), parent)
        attributes = conventions.session_attributes(event.session, event.agent, event.tenant, event.user, event.turn, event.message)
        attributes[conventions.OPERATION] = conventions.INVOKE_AGENT
        self._ids.trace_id, self._ids.span_id = turn.ids.trace_id, turn.ids.span_id
        return self._tracer.start_span(conventions.turn_name(event.agent), parent, SpanKind.INTERNAL, attributes, links, _ns(event.began))

    def _turn_committed(self, event: events.TurnCommitted) -> None:
        with self._ending(event.session, event.status) as span:
            span.set_attributes(conventions.cost_attributes(event.tokens, event.microusd, total=True))

    def _failed(self, event: events.SessionFailed) -> None:
        with self._ending(event.session, "failed") as span:
            _set_error(span, "TurnFailed", event.cause)

    def _session_ended(self, event: events.SessionEndedEvent) -> None:
        if event.session in self._turns:
            with self._ending(event.session, event.status) as span:
                _set_error(span, "SessionEnded", f"the session was {event.status} during this turn")

    @contextmanager
    def _ending(self, session: str, status: str) -> Iterator[Span]:
        turn = self._turns.pop(session, None)
        if turn is None:
            yield NonRecordingSpan(SpanContext(0, 0, False))
            return
        for step, until in (turn.left or {}).values():
            _set_error(step.span, "CancelledError", "its caller let go of it")
            step.span.end(_ns(until))
        turn.span.set_attribute(conventions.STATUS, status)
        if turn.restarts:
            turn.span.set_attribute(conventions.RESTARTS, turn.restarts)
        yield turn.span
        turn.span.end(_ns(max(self._time(), turn.began)))

    def _turn_left(self, event: events.TurnLeft) -> None:
        if event.why != "ended":
            self._turn_over(event)

    def _turn_over(self, event: events.Event) -> None:
        """Drop what memory holds of the turn: it resumes later, here or in another process, or never."""
        self._turns.pop(event.session, None)

    def _turn_note(self, event: events.Event) -> None:
        turn = self._turns.get(event.session)
        if turn is not None:
            turn.span.add_event(notes.OF_TURN[type(event)], notes.facts(event), _ns(self._time()))

    # ------------------------------------------------------------ steps

    def _step_started(self, event: events.StepStarted) -> None:
        turn, within = self._turns.get(event.session), _here.get()
        if turn is None:
            return
        step = StepFrame(event, turn, within)
        around = within.span if type(within) is StepFrame and within.of is turn else turn.span
        left = turn.left.pop(event.key, None) if turn.left else None
        step.span = self._step_begun(event, step, around) if left is None else left[0].span
        _here.set(step)
        step.outer = current.enter(step.span)

    def _step_begun(self, event: events.StepStarted, step: StepFrame, around: Span) -> Span:
        turn = step.of
        attributes = turn_attributes(turn) | conventions.step_attributes(event.kind, event.name, event.effect)
        kind = SpanKind.CLIENT if event.kind == "model" else SpanKind.INTERNAL
        self._ids.trace_id, self._ids.span_id = turn.ids.trace_id, step.span_id
        return self._tracer.start_span(
            conventions.step_name(event.kind, event.name), set_span_in_context(around, Context()), kind, attributes, (), _ns(event.opened)
        )

    def _step_ended(self, event: events.StepEnded) -> None:
        step = self._leave(event.session, event.key)
        if step is None:
            return
        if step.of.left:
            step.of.left.pop(event.key, None)
        span: Span = step.span
        span.set_attribute(conventions.ATTEMPTS, event.attempts)
        span.set_attributes(conventions.cost_attributes(event.tokens, event.microusd))
        if event.facts:
            span.set_attributes(conventions.fact_attributes(event.facts))
        if not event.ok:
            _set_error(span, event.error or "error", event.cause)
        span.end(_ns(step.opened + event.duration_s))

    def _step_left(self, event: events.StepLeft) -> None:
        step = self._leave(event.session, event.key)
        if step is not None:
            step.span.add_event(notes.OF_STEP[events.StepLeft], notes.facts(event), _ns(self._time()))
            step.of.left = step.of.left or {}
            step.of.left[event.key] = (step, self._time())

    def _leave(self, session: str, key: bytes) -> StepFrame | None:
        step = step_of(_here.get(), session, key)
        if step is not None:
            _here.set(step.within)
            current.leave(step.outer)
        return step

    def _step_note(self, event: events.Event) -> None:
        here, turn = _here.get(), self._turns.get(event.session)
        if turn is not None:
            span = here.span if type(here) is StepFrame and here.of is turn else turn.span
            span.add_event(notes.OF_STEP[type(event)], notes.facts(event), _ns(self._time()))


def turn_attributes(turn: TurnFrame) -> conventions.Attributes:
    """The attributes that the spans of a turn's steps share with its own span."""
    return conventions.session_attributes(turn.session, turn.agent, turn.tenant, turn.user, turn.turn, turn.message)


def _set_error(span: Span, kind: str, cause: str) -> None:
    span.set_attribute(conventions.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, notes.text(cause)))


def _ns(seconds: float) -> int:
    return max(round(seconds * 1e9), 0)
