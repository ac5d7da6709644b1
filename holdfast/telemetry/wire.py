"""The protocol between the event loop and the exporter process: packed records in frames of MessagePack.

A frame is its length, 4 bytes big-endian, and one value: first a `Config`, then any number of `Batch`. The exporter sends `Report`s back.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

_LENGTH = 4


class Config(msgspec.Struct, frozen=True):
    """The exporter's destination. It is written to the pipe, because headers hold credentials.

    Attributes:
        url: of the traces endpoint.
        resource: its attributes.
        timeout_s: the longest time of one post, in seconds.
        interval_s: how long spans are gathered for one post, in seconds.
        flush_s: how long, in seconds, it may take to post its last spans once its parent has ended.
        queue_bytes: the most bytes of spans that wait for a post; spans over it are dropped.
    """

    url: str
    headers: dict[str, str]
    resource: dict[str, str]
    version: str
    timeout_s: float
    interval_s: float
    flush_s: float
    queue_bytes: int
    gzip: bool


class Turn(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The turn of some records. Ids are bytes; `parent` and `link` are empty if there are none; `link` is a trace id and a span id."""

    session: str
    agent: str
    tenant: str
    user: str
    turn: int
    message: str
    trace_id: bytes
    span_id: bytes
    parent: bytes
    link: bytes
    began: float


class StepDone(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A step ended: one span. `turn` is the index of its turn in the batch, `within` the key of the enclosing step, if any."""

    turn: int
    key: bytes
    began: float
    ended: float
    kind: str
    name: str
    effect: str
    ok: bool
    attempts: int
    tokens: int
    microusd: int
    error: str
    cause: str
    facts: dict[str, Any] | None
    within: bytes = b""


class TurnDone(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """A turn ended: one span."""

    turn: int
    ended: float
    status: str
    restarts: int
    tokens: int
    microusd: int
    error: str
    cause: str


class Noted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """An event in a step, or in the turn if `key` is empty: it becomes an event of the span, which is made later."""

    turn: int
    key: bytes
    at: float
    name: str
    facts: dict[str, Any]


Record: TypeAlias = StepDone | TurnDone | Noted


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Records with all that is needed to read them: if one batch is lost, the others can still be read."""

    turns: list[Turn]
    records: list[Record]


class Report(msgspec.Struct, frozen=True, array_like=True):
    """The counts of the spans so far; `trouble` is the last fault of the collector, "" if the last post was accepted."""

    delivered: int
    dropped: int
    trouble: str


_encode = msgspec.msgpack.Encoder().encode


def frame(value: Config | Batch | Report) -> bytes:
    """The value as a frame."""
    body = _encode(value)
    return len(body).to_bytes(_LENGTH, "big") + body


class Frames:
    """Cuts a stream of bytes into the bodies of its frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add `data`. Returns the bodies that are complete now."""
        buffer, bodies, start = self._buffer, [], 0
        buffer += data
        while len(buffer) - start >= _LENGTH:
            end = start + _LENGTH + int.from_bytes(buffer[start : start + _LENGTH], "big")
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[start + _LENGTH : end]))
            start = end
        del buffer[:start]
        return bodies


read_config = msgspec.msgpack.Decoder(Config).decode
read_batch = msgspec.msgpack.Decoder(Batch).decode
read_report = msgspec.msgpack.Decoder(Report).decode
