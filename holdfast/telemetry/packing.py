"""From events to a batch of records for the exporter: small structs, one for each event, many encoded at once."""

from __future__ import annotations

from typing import NamedTuple

from holdfast import events
from holdfast.telemetry import notes, wire
from holdfast.telemetry.conventions import clean, fact_attributes
from holdfast.telemetry.frames import TurnFrame

_StepDone = wire.StepDone  # looked up for every step


class Packed(NamedTuple):
    """A frame for the pipe, the number of spans in it, and the number of spans that could not be encoded."""

    frame: bytes
    spans: int
    refused: int


class Packing:
    """The batch that is being gathered."""

    __slots__ = ("_heads", "_number", "records")

    def __init__(self) -> None:
        self.records: list[wire.Record] = []
        self._heads: list[wire.Turn] = []
        self._number = 0

    def step(self, turn: TurnFrame, event: events.StepEnded, began: float, within: bytes) -> None:
        """Add the end of a step; `within` is the key of the enclosing step, or empty. It is called for every step."""
        self.records.append(
            _StepDone(
                turn.number if turn.batch == self._number else self._add(turn), event.key, began, began + event.duration_s, event.kind,
                event.name, event.effect, event.ok, event.attempts, event.tokens, event.microusd, event.error,
                notes.text(event.cause) if event.cause else "", None if event.facts is None else fact_attributes(event.facts), within,
            )
        )  # fmt: skip

    def other(self, turn: TurnFrame, event: events.Event, at: float, key: bytes = b"") -> None:
        """Add another event. `key` is the step whose span gets the event; for a step that never ended, the enclosing step."""
        self.records.append(_record(turn, turn.number if turn.batch == self._number else self._add(turn), event, at, key))

    def frame(self) -> Packed:
        """One frame of all gathered records; the next batch begins empty."""
        heads, records = self._heads, self.records
        self._heads, self.records = [], []
        self._number += 1
        try:
            return Packed(wire.frame(wire.Batch(heads, records)), _spans(records), 0)
        except (UnicodeError, OverflowError, TypeError):
            # One name that cannot be encoded must not cost the other records.
            good = [record for record in records if _can_be_sent(record)]
            return Packed(wire.frame(wire.Batch(heads, good)), _spans(good), _spans(records) - _spans(good))

    def _add(self, turn: TurnFrame) -> int:
        """Add a turn that is not in this batch yet. Returns its place."""
        turn.batch, turn.number = self._number, len(self._heads)
        self._heads.append(turn.head or _head(turn))
        return turn.number


def _record(turn: TurnFrame, number: int, event: events.Event, at: float, key: bytes) -> wire.Record:
    match event:
        case events.TurnCommitted():
            return wire.TurnDone(number, at, event.status, turn.restarts, event.tokens, event.microusd, "", "")
        case events.SessionFailed():
            return wire.TurnDone(number, at, "failed", turn.restarts, 0, 0, "TurnFailed", notes.text(event.cause))
        case events.SessionEndedEvent():
            cause = f"the session was {event.status} during this turn"
            return wire.TurnDone(number, at, event.status, turn.restarts, 0, 0, "SessionEnded", cause)
        case events.StepStarted():  # it never ended: its caller let go of it
            until, cause = max(at, event.opened), "its caller let go of it"
            return wire.StepDone(
                number,
                event.key,
                event.opened,
                until,
                event.kind,
                event.name,
                event.effect,
                False,
                0,
                0,
                0,
                "CancelledError",
                cause,
                None,
                key,
            )
        case _:
            return wire.Noted(number, key, at, notes.NAMES[type(event)], notes.facts(event))


def _head(turn: TurnFrame) -> wire.Turn:
    trace_id, span_id, parent = turn.ids
    carried = turn.carried
    link = b"" if carried is None or not carried.link else carried.trace_id.to_bytes(16, "big") + carried.span_id.to_bytes(8, "big")
    turn.head = head = wire.Turn(
        clean(turn.session), clean(turn.agent), clean(turn.tenant), clean(turn.user), turn.turn, clean(turn.message),
        trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big"), parent.to_bytes(8, "big") if parent else b"", link, turn.began,
    )  # fmt: skip
    return head


def _can_be_sent(record: wire.Record) -> bool:
    try:
        wire.frame(wire.Batch([], [record]))
    except (UnicodeError, OverflowError, TypeError):
        return False
    return True


def _spans(records: list[wire.Record]) -> int:
    return sum(1 for record in records if type(record) is not wire.Noted)
