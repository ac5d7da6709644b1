"""From events to packed records, on the event loop: what it does for a step takes about two microseconds.

A step costs one object, two settings of a context variable and one packed record. Ids are computed when somebody asks for them, names,
attributes and their encoding are the exporter's (see spans).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast import events
from holdfast.clock import Clock
from holdfast.telemetry import current, notes, wire
from holdfast.telemetry.conventions import clean, fact_attributes
from holdfast.telemetry.frames import StepFrame, TurnFrame, current_var, step_of

FULL = 1024
"""Records that are packed at once, however little time has passed."""

_here = current_var("holdfast_span")


class Recorder:
    """An observer of events that hands packed batches to `send`, with the number of spans in each.

    Args:
        sampled: whether a trace that begins here, of this id, is recorded.
        honour_parent: whether a trace that began elsewhere is recorded exactly if it is there.

    Attributes:
        refused: spans that could not be encoded.
    """

    def __init__(
        self, send: Callable[[bytes, int], object], clock: Clock, sampled: Callable[[int], bool], honour_parent: bool = True
    ) -> None:
        self._send, self._time = send, clock.time
        self._sampled, self._honour_parent = sampled, honour_parent
        self._turns: dict[str, TurnFrame] = {}
        self._batch, self._spans, self.refused = 0, 0, 0
        self._heads: list[wire.Turn] = []
        self._records: list[wire.Record] = []
        self._on: dict[type[events.Event], Callable[[Any], None]] = {
            events.TurnStarted: self._turn_started,
            events.StepStarted: self._step_started,
            events.StepEnded: self._step_ended,
            events.StepLeft: self._step_left,
            events.TurnCommitted: self._turn_committed,
            events.TurnLeft: self._turn_left,
            events.SessionParked: self._parked,
            events.SessionFailed: self._failed,
            events.SessionEndedEvent: self._session_ended,
            **{kind: self._step_note for kind in notes.OF_STEP if kind is not events.StepLeft},
            **{kind: self._turn_note for kind in notes.OF_TURN if kind not in (events.TurnLeft, events.SessionParked)},
        }

    def __call__(self, event: events.Event) -> None:
        """Take note of an event; call it in the task that the event is about."""
        do = self._on.get(type(event))
        if do is not None:
            do(event)

    def pack(self) -> None:
        """Hand over what has been gathered."""
        if self._records:
            heads, records, spans = self._heads, self._records, self._spans
            self._heads, self._records, self._spans = [], [], 0
            self._batch += 1
            try:
                frame = wire.frame(wire.Batch(heads, records))
            except (UnicodeError, OverflowError, TypeError):
                # One odd name must not take the others with it.
                records = [record for record in records if _can_be_sent(record)]
                good = sum(1 for record in records if type(record) is not wire.Noted)
                self.refused += spans - good
                frame, spans = wire.frame(wire.Batch(heads, records)), good
            self._send(frame, spans)

    # ------------------------------------------------------------ turns

    def _turn_started(self, event: events.TurnStarted) -> None:
        turn = self._turns[event.session] = TurnFrame(event)
        if turn.carried is not None and not turn.carried.link and self._honour_parent:
            turn.sampled = turn.carried.sampled
        else:
            turn.sampled = self._sampled(turn.ids.trace_id)
        _here.set(turn)
        current.begin(current.Parent(turn))

    def _turn_committed(self, event: events.TurnCommitted) -> None:
        turn = self._turns.pop(event.session, None)
        if turn is not None:
            self._turn_done(turn, event.status, event.tokens, event.microusd)

    def _failed(self, event: events.SessionFailed) -> None:
        turn = self._turns.pop(event.session, None)
        if turn is not None:
            self._turn_done(turn, "failed", 0, 0, "TurnFailed", notes.text(event.cause))

    def _session_ended(self, event: events.SessionEndedEvent) -> None:
        turn = self._turns.pop(event.session, None)
        if turn is not None:
            self._turn_done(turn, event.status, 0, 0, "SessionEnded", f"the session was {event.status} during this turn")

    def _turn_done(self, turn: TurnFrame, status: str, tokens: int, microusd: int, error: str = "", cause: str = "") -> None:
        if not turn.sampled:
            return
        now = self._time()
        for step, until in (turn.left or {}).values():
            self._span(
                wire.StepDone(
                    self._number(turn), step.key, step.opened, until, step.kind, step.name, step.effect, False, 0, 0, 0,
                    "CancelledError", "its caller let go of it", None,
                )
            )  # fmt: skip
        self._span(wire.TurnDone(self._number(turn), now, status, turn.restarts, tokens, microusd, error, cause))

    def _turn_left(self, event: events.TurnLeft) -> None:
        turn = self._turns.get(event.session)
        if turn is not None:
            self._note(turn, b"", notes.OF_TURN[events.TurnLeft], event)
            turn.left = None
            turn.parting = event.why == "park"
            if not turn.parting and event.why != "ended":
                del self._turns[event.session]

    def _parked(self, event: events.SessionParked) -> None:
        turn = self._turns.pop(event.session, None)
        if turn is not None:
            self._note(turn, b"", notes.OF_TURN[events.SessionParked], event)

    def _turn_note(self, event: events.Event) -> None:
        turn = self._turns.get(event.session)
        if turn is not None:
            self._note(turn, b"", notes.OF_TURN[type(event)], event)
            if turn.parting:
                del self._turns[event.session]  # it was to park, and something else came

    # ------------------------------------------------------------ steps

    def _step_started(self, event: events.StepStarted) -> None:
        turn = self._turns.get(event.session)
        if turn is not None and turn.sampled:
            step = StepFrame(event, turn, _here.get())
            step.outer = current.enter(current.Parent(step))
            _here.set(step)

    def _step_ended(self, event: events.StepEnded) -> None:
        turn = self._turns.get(event.session)
        if turn is None or not turn.sampled:
            return
        step = self._leave(event.session, event.key)
        began = self._time() - event.duration_s if step is None else step.opened
        if turn.left:
            turn.left.pop(event.key, None)
        facts = None if event.facts is None else fact_attributes(event.facts)
        self._span(
            wire.StepDone(
                turn.number if turn.batch == self._batch else self._number(turn), event.key, began, began + event.duration_s, event.kind,
                event.name, event.effect, event.ok, event.attempts, event.tokens, event.microusd, event.error,
                notes.text(event.cause), facts,
            )
        )  # fmt: skip

    def _step_left(self, event: events.StepLeft) -> None:
        turn, step = self._turns.get(event.session), self._leave(event.session, event.key)
        if turn is not None and step is not None:
            self._note(turn, event.key, notes.OF_STEP[events.StepLeft], event)
            turn.left = turn.left or {}
            turn.left[event.key] = (step, self._time())

    def _leave(self, session: str, key: bytes) -> StepFrame | None:
        step = step_of(_here.get(), session, key)
        if step is not None:
            _here.set(step.within)
            current.leave(step.outer)
        return step

    def _step_note(self, event: events.Event) -> None:
        here = _here.get()
        turn = self._turns.get(event.session)
        if turn is not None:
            key = here.key if type(here) is StepFrame and here.of is turn else b""
            self._note(turn, key, notes.OF_STEP[type(event)], event)

    # ------------------------------------------------------------ records

    def _note(self, turn: TurnFrame, key: bytes, name: str, event: events.Event) -> None:
        if turn.sampled:
            self._records.append(wire.Noted(self._number(turn), key, self._time(), name, notes.facts(event)))

    def _span(self, record: wire.Record) -> None:
        self._spans += 1
        self._records.append(record)
        if len(self._records) >= FULL:
            self.pack()

    def _number(self, turn: TurnFrame) -> int:
        if turn.batch != self._batch:
            turn.batch, turn.number = self._batch, len(self._heads)
            self._heads.append(_head(turn))
        return turn.number


def _can_be_sent(record: wire.Record) -> bool:
    try:
        wire.frame(wire.Batch([], [record]))
    except (UnicodeError, OverflowError, TypeError):
        return False
    return True


def _head(turn: TurnFrame) -> wire.Turn:
    trace_id, span_id, parent = turn.ids
    carried = turn.carried
    link = b"" if carried is None or not carried.link else carried.trace_id.to_bytes(16, "big") + carried.span_id.to_bytes(8, "big")
    return wire.Turn(
        clean(turn.session), clean(turn.agent), clean(turn.tenant), clean(turn.user), turn.turn, clean(turn.message),
        trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big"), parent.to_bytes(8, "big") if parent else b"", link, turn.began,
    )  # fmt: skip
