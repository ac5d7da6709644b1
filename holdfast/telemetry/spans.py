"""From packed records to finished spans: names, attributes, parents. This module runs in the exporter process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from holdfast.telemetry import conventions, otlp, wire
from holdfast.telemetry.conventions import Value
from holdfast.telemetry.ids import step_bytes
from holdfast.telemetry.otlp import CLIENT, INTERNAL, Note, Span

MAX_NOTES = 64
"""The most events of one span; the last ones are kept."""
MAX_OPEN = 20_000
"""The most spans for which events are kept until the span ends; the span without a new event for longest is forgotten first."""


class Spans:
    """Makes spans of records. Events wait here for their span, which may end hours later."""

    def __init__(self) -> None:
        self._notes: dict[bytes, list[Note]] = {}
        self._turns: dict[bytes, _Turn] = {}

    def of(self, batch: wire.Batch) -> Iterator[Span]:
        """The spans that the records of a batch make."""
        turns = [self._known(head) for head in batch.turns]
        for record in batch.records:
            turn = turns[record.turn]
            if type(record) is wire.StepDone:
                yield self._step(turn, record)
            elif type(record) is wire.TurnDone:
                yield self._turn(turn, record)
            elif type(record) is wire.Noted:
                self._note(turn.step_id(record.key) if record.key else turn.span_id, record)

    def _known(self, head: wire.Turn) -> _Turn:
        turn = self._turns.get(head.span_id)
        if turn is None or turn.head != head:
            if len(self._turns) >= MAX_OPEN:
                self._turns.clear()  # the heads in the next batches fill it again
            turn = self._turns[head.span_id] = _Turn(head)
        return turn

    def _step(self, turn: _Turn, record: wire.StepDone) -> Span:
        span_id, error, own = turn.step_id(record.key), None, record.facts
        name, kind, known = _step(record.kind, record.name, record.effect, record.attempts)
        parent = turn.step_id(record.within) if record.within else turn.span_id
        attributes = turn.attributes + known
        if own or record.tokens or record.microusd or not record.ok:
            more = conventions.cost_attributes(record.tokens, record.microusd)
            if not record.ok:
                more[conventions.ERROR_TYPE], error = record.error or "error", record.cause
            attributes += otlp.attributes(more | {key: _plain(value) for key, value in (own or {}).items()})
        return Span(
            turn.trace_id, span_id, parent, False, name, kind, _ns(record.began), _ns(record.ended), attributes,
            self._taken(span_id), b"", error,
        )  # fmt: skip

    def _turn(self, turn: _Turn, record: wire.TurnDone) -> Span:
        error: str | None = None
        own: conventions.Attributes = {conventions.OPERATION: conventions.INVOKE_AGENT, conventions.STATUS: record.status}
        own |= conventions.cost_attributes(record.tokens, record.microusd, total=True)
        if record.restarts:
            own[conventions.RESTARTS] = record.restarts
        if record.error:
            own[conventions.ERROR_TYPE], error = record.error, record.cause
        head = turn.head
        self._turns.pop(turn.span_id, None)
        return Span(
            turn.trace_id, turn.span_id, head.parent, bool(head.parent), conventions.turn_name(head.agent), INTERNAL, _ns(head.began),
            _ns(max(head.began, record.ended)), turn.attributes + otlp.attributes(own), self._taken(turn.span_id), head.link, error,
        )  # fmt: skip

    def _note(self, span_id: bytes, record: wire.Noted) -> None:
        notes = self._notes.pop(span_id, [])
        self._notes[span_id] = notes  # moved to the end: it has the newest event
        notes.append(Note(_ns(record.at), record.name, {key: _plain(value) for key, value in record.facts.items()}))
        del notes[:-MAX_NOTES]
        if len(self._notes) > MAX_OPEN:
            del self._notes[next(iter(self._notes))]

    def _taken(self, span_id: bytes) -> list[Note] | tuple[()]:
        return self._notes.pop(span_id, ()) if self._notes else ()


class _Turn:
    """A turn's head with the attributes that its spans share, encoded once."""

    __slots__ = ("_seed", "attributes", "head", "span_id", "trace_id")

    def __init__(self, head: wire.Turn) -> None:
        self.head, self.trace_id, self.span_id = head, head.trace_id, head.span_id
        self._seed = head.trace_id + head.span_id
        self.attributes = otlp.attributes(
            conventions.session_attributes(head.session, head.agent, head.tenant, head.user, head.turn, head.message)
        )

    def step_id(self, key: bytes) -> bytes:
        return step_bytes(self._seed, key)


@lru_cache(maxsize=4096)
def _step(kind: str, name: str, effect: str, attempts: int) -> tuple[str, int, bytes]:
    """The name, kind and encoded attributes of a step's span; cached, as there are few different ones."""
    known = conventions.step_attributes(kind, name, effect) | {conventions.ATTEMPTS: attempts}
    return conventions.step_name(kind, name), CLIENT if kind == "model" else INTERNAL, otlp.attributes(known)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9) if seconds > 0 else 0


def _plain(value: Any) -> Value:
    if isinstance(value, list):
        return tuple(map(str, value))
    return value if isinstance(value, str | bool | int | float) else str(value)
