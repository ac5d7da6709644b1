"""The work of the event loop for telemetry: it makes spans current, and gathers records of those that ended.

A step costs one object, two settings of a context variable and its record in a batch (see packing). Ids are computed at first use; the
exporter makes the names and attributes and encodes them (see spans).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast import events
from holdfast.clock import Clock
from holdfast.telemetry import notes
from holdfast.telemetry.current import Parent, begin, enter_step, leave, step_here
from holdfast.telemetry.frames import TurnFrame
from holdfast.telemetry.packing import Packing

FULL = 2048
"""So many records are encoded at once, without waiting for the next interval."""
_StepStarted, _StepEnded = events.StepStarted, events.StepEnded  # looked up for every step
_OWN = (events.TurnLeft, events.SessionParked, events.StoreFailed)  # those that may end a run of a turn


class Recorder:
    """An observer of events that hands packed batches to `send`, with the number of spans in each.

    Args:
        sampled: whether a trace that begins here, of this id, is recorded.
        honour_parent: whether a trace that began elsewhere is recorded exactly if its sender records it.

    Attributes:
        refused: spans that could not be encoded.
    """

    def __init__(
        self, send: Callable[[bytes, int], object], clock: Clock, sampled: Callable[[int], bool], honour_parent: bool = True
    ) -> None:
        self._send, self._time = send, clock.time
        self._sampled, self._honour_parent = sampled, honour_parent
        self._turns: dict[str, TurnFrame] = {}
        self._packing = Packing()
        self.refused = 0
        self._on: dict[type[events.Event], Callable[[Any], None]] = {
            events.TurnStarted: self._turn_started,
            events.StepLeft: self._step_left,
            events.TurnCommitted: self._turn_done,
            events.TurnLeft: self._turn_left,
            events.SessionParked: self._parked,
            events.StoreFailed: self._store_failed,
            events.SessionFailed: self._turn_done,
            events.SessionEndedEvent: self._turn_done,
            **{kind: self._step_note for kind in notes.OF_STEP if kind is not events.StepLeft},
            **{kind: self._turn_note for kind in notes.OF_TURN if kind not in _OWN},
        }

    def __call__(self, event: events.Event) -> None:
        """Record an event; call it in the task of that event."""
        kind = type(event)
        if kind is _StepStarted:
            self._step_started(event)  # type: ignore[arg-type]
        elif kind is _StepEnded:
            self._step_ended(event)  # type: ignore[arg-type]
        elif (do := self._on.get(kind)) is not None:
            do(event)

    def pack(self) -> None:
        """Send the gathered records."""
        if self._packing.records:
            packed = self._packing.frame()
            self.refused += packed.refused
            self._send(packed.frame, packed.spans)

    # ------------------------------------------------------------ turns

    def _turn_started(self, event: events.TurnStarted) -> None:
        before, turn = self._turns.get(event.session), TurnFrame(event)
        self._turns[event.session] = turn
        if before is not None and before.ids == turn.ids:
            turn.left = before.left  # the run before crashed: the steps that it left run again, or are cut at the end
        if turn.carried is not None and not turn.carried.link and self._honour_parent:
            turn.sampled = turn.carried.sampled
        else:
            turn.sampled = self._sampled(turn.ids.trace_id)
        begin(Parent(turn, None))

    def _turn_done(self, event: events.TurnCommitted | events.SessionFailed | events.SessionEndedEvent) -> None:
        turn = self._turns.pop(event.session, None)
        if turn is not None:
            for step, until in (turn.left or {}).values():
                self._note(turn, step.step, until, step.within)
            self._note(turn, event, self._time())

    def _turn_left(self, event: events.TurnLeft) -> None:
        turn = self._turns.get(event.session)
        if turn is not None:
            self._note(turn, event, self._time())
            turn.left = None
            turn.parting = event.why in ("park", "pause")
            if not turn.parting and event.why != "ended":
                del self._turns[event.session]

    def _parked(self, event: events.SessionParked) -> None:
        turn = self._turns.pop(event.session, None)
        if turn is not None:
            self._note(turn, event, self._time())

    def _store_failed(self, event: events.StoreFailed) -> None:
        turn = self._turns.get(event.session)
        if turn is not None:
            self._note(turn, event, self._time())
            if turn.running is None and not turn.concurrent:
                del self._turns[event.session]  # the session is read again; if this is within a step, the turn is left next

    def _turn_note(self, event: events.Event) -> None:
        turn = self._turns.get(event.session)
        if turn is not None:
            self._note(turn, event, self._time())
            if turn.parting:
                del self._turns[event.session]  # it was about to park, and another event came first

    # ------------------------------------------------------------ steps

    def _step_started(self, event: events.StepStarted) -> None:
        turn = self._turns.get(event.session)
        if turn is not None and turn.sampled:
            step = Parent(turn, event)
            if turn.running is None and not turn.concurrent:
                turn.running = step
            else:
                turn.concurrent[event.key] = step
                step.within = step_here(turn)
            enter_step(step)

    def _step_ended(self, event: events.StepEnded) -> None:
        turn = self._turns.get(event.session)
        if turn is None or not turn.sampled:
            return
        step = turn.running
        if step is not None and step.step.key == event.key:
            turn.running = None
        else:
            step = _taken(turn, event.key)
        if step is None:
            began, within = self._time() - event.duration_s, b""
        else:
            began, within = step.step.opened, step.within
            leave(step.outer)
        if turn.left:
            turn.left.pop(event.key, None)
        self._packing.step(turn, event, began, within)
        if len(self._packing.records) >= FULL:
            self.pack()

    def _step_left(self, event: events.StepLeft) -> None:
        turn = self._turns.get(event.session)
        step = None if turn is None else _taken(turn, event.key)
        if turn is not None and step is not None:
            leave(step.outer)
            self._note(turn, event, self._time(), event.key)
            turn.left = turn.left or {}
            turn.left[event.key] = (step, self._time())

    def _step_note(self, event: events.Event) -> None:
        turn = self._turns.get(event.session)
        if turn is not None:
            self._note(turn, event, self._time(), step_here(turn))

    def _note(self, turn: TurnFrame, event: events.Event, at: float, key: bytes = b"") -> None:
        if turn.sampled:
            self._packing.other(turn, event, at, key)


def _taken(turn: TurnFrame, key: bytes) -> Any:
    """Remove the span of a step that has ended; None if its start was not observed."""
    step = turn.running
    if step is not None and step.step.key == key:
        turn.running = None
        return step
    return turn.concurrent.pop(key, None)
