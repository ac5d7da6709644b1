"""From packed records to finished spans: names, attributes, parents. It runs in the exporter process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from holdfast.telemetry import conventions, wire
from holdfast.telemetry.conventions import Attributes, Value
from holdfast.telemetry.ids import TurnIds, step_id
from holdfast.telemetry.otlp import CLIENT, INTERNAL, Note, Span

MAX_NOTES = 64
"""Events that are kept for one span, the last ones."""
MAX_OPEN = 20_000
"""Spans for which events are kept until they are made; what is longest without one is forgotten first."""


class Spans:
    """Makes spans of records. Events wait here for the span that they belong to, which may be made hours later."""

    def __init__(self) -> None:
        self._notes: dict[bytes, list[Note]] = {}

    def of(self, batch: wire.Batch) -> Iterator[Span]:
        """The spans that the records of a batch make."""
        turns = [_Turn(turn) for turn in batch.turns]
        for record in batch.records:
            turn = turns[record.turn]
            if type(record) is wire.StepDone:
                yield self._step(turn, record)
            elif type(record) is wire.TurnDone:
                yield self._turn(turn, record)
            elif type(record) is wire.Noted:
                self._note(turn.step_id(record.key) if record.key else turn.span_id, record)

    def _step(self, turn: _Turn, record: wire.StepDone) -> Span:
        span_id, kind, error = turn.step_id(record.key), record.kind, None
        attributes = turn.attributes | conventions.step_attributes(kind, record.name, record.effect)
        attributes[conventions.ATTEMPTS] = record.attempts
        if record.tokens or record.microusd:
            attributes |= conventions.cost_attributes(record.tokens, record.microusd)
        if record.facts:
            attributes |= {key: _plain(value) for key, value in record.facts.items()}
        if not record.ok:
            attributes[conventions.ERROR_TYPE], error = record.error or "error", record.cause
        return Span(
            turn.trace_id, span_id, turn.span_id, False, conventions.step_name(kind, record.name), CLIENT if kind == "model" else INTERNAL,
            _ns(record.began), _ns(max(record.began, record.ended)), attributes, self._taken(span_id), b"", error,
        )  # fmt: skip

    def _turn(self, turn: _Turn, record: wire.TurnDone) -> Span:
        attributes, error = dict(turn.attributes), None
        attributes |= {conventions.OPERATION: conventions.INVOKE_AGENT, conventions.STATUS: record.status}
        attributes |= conventions.cost_attributes(record.tokens, record.microusd)
        if record.restarts:
            attributes[conventions.RESTARTS] = record.restarts
        if record.error:
            attributes[conventions.ERROR_TYPE], error = record.error, record.cause
        head = turn.head
        return Span(
            turn.trace_id, turn.span_id, head.parent, bool(head.parent), conventions.turn_name(head.agent), INTERNAL, _ns(head.began),
            _ns(max(head.began, record.ended)), attributes, self._taken(turn.span_id), head.link, error,
        )  # fmt: skip

    def _note(self, span_id: bytes, record: wire.Noted) -> None:
        notes = self._notes.pop(span_id, [])
        self._notes[span_id] = notes  # it is the youngest now
        notes.append(Note(_ns(record.at), record.name, {key: _plain(value) for key, value in record.facts.items()}))
        del notes[:-MAX_NOTES]
        if len(self._notes) > MAX_OPEN:
            del self._notes[next(iter(self._notes))]

    def _taken(self, span_id: bytes) -> list[Note] | tuple[()]:
        return self._notes.pop(span_id, ()) if self._notes else ()


class _Turn:
    """A turn's head with what its spans have in common, made once a batch."""

    __slots__ = ("attributes", "head", "ids", "span_id", "trace_id")

    def __init__(self, head: wire.Turn) -> None:
        self.head, self.trace_id, self.span_id = head, head.trace_id, head.span_id
        self.ids = TurnIds(int.from_bytes(head.trace_id, "big"), int.from_bytes(head.span_id, "big"), 0)
        self.attributes: Attributes = conventions.session_attributes(
            head.session, head.agent, head.tenant, head.user, head.turn, head.message
        )

    def step_id(self, key: bytes) -> bytes:
        return step_id(self.ids, key).to_bytes(8, "big")


def _ns(seconds: float) -> int:
    return max(round(seconds * 1e9), 0)


def _plain(value: Any) -> Value:
    if isinstance(value, list):
        return tuple(map(str, value))
    return value if isinstance(value, str | bool | int | float) else str(value)
