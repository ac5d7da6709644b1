"""OTLP's protobuf messages for traces, written by hand: a span takes a few microseconds, and no package has to be installed.

Field numbers are those of opentelemetry/proto/trace/v1/trace.proto and its neighbours, version 1; the tests read the output of this module
with the messages generated from those files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from holdfast.telemetry.conventions import Attributes, Value

INTERNAL, CLIENT = 1, 3
_OK_FLAGS, _REMOTE = 0x101, 0x200  # sampled, and "whether the parent is remote is known"; then: it is
_pack_u64, _pack_double, _pack_u32 = struct.Struct("<Q").pack, struct.Struct("<d").pack, struct.Struct("<I").pack
_TWO_TIMES = struct.Struct("<BQBQ").pack
_NEAR, _FAR = b"\x85\x01" + _pack_u32(_OK_FLAGS), b"\x85\x01" + _pack_u32(_OK_FLAGS | _REMOTE)
_START, _END = 0x39, 0x41  # fields 7 and 8 of a span, fixed64


class Note(NamedTuple):
    """An event of a span."""

    at_ns: int
    name: str
    attributes: Mapping[str, Value]


class Span(NamedTuple):
    """A finished span. `parent` and `link` are empty where there is none; `link` is a trace id and a span id.

    `attributes` are encoded already (see `attributes`), because many spans share them.
    """

    trace_id: bytes
    span_id: bytes
    parent: bytes
    remote: bool
    name: str
    kind: int
    began_ns: int
    ended_ns: int
    attributes: bytes
    notes: Iterable[Note] = ()
    link: bytes = b""
    error: str | None = None


def varint(number: int) -> bytes:
    """A number, 0 or more, seven bits a byte."""
    if number < 0x80:
        return bytes((number,))
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _field(number: int, body: bytes) -> bytes:
    """A field that has a length: a string, bytes or a message."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def _text(value: str) -> bytes:
    return value.encode("utf-8", "replace")


@lru_cache(maxsize=8192, typed=True)
def _attribute(key: str, value: Value) -> bytes:
    """The body of a KeyValue. Most are the same in many spans."""
    return _field(1, _text(key)) + _field(2, _value(value))


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(value & 0xFFFFFFFFFFFFFFFF)
    if isinstance(value, float):
        return b"\x21" + _pack_double(value)
    if isinstance(value, str):
        return _field(1, _text(value))
    return _field(5, b"".join([_field(1, _value(item)) for item in value]))


@lru_cache(maxsize=1024)
def _name_and_kind(name: str, kind: int) -> bytes:
    return _field(5, _text(name)) + b"\x30" + bytes((kind,))


@lru_cache(maxsize=8192, typed=True)
def _span_attribute(key: str, value: Value) -> bytes:
    return _field(9, _attribute(key, value))


def attributes(pairs: Attributes) -> bytes:
    """The encoded attributes of a span."""
    return b"".join([_span_attribute(key, value) for key, value in pairs.items()])


def span(one: Span) -> bytes:
    """A span as a field of ScopeSpans."""
    parts = [b"\x0a\x10", one.trace_id, b"\x12\x08", one.span_id]
    if one.parent:
        parts += (b"\x22\x08", one.parent)
    parts += (_name_and_kind(one.name, one.kind), _TWO_TIMES(_START, one.began_ns, _END, one.ended_ns))
    parts.append(one.attributes)
    for note in one.notes:
        body = b"\x09" + _pack_u64(note.at_ns) + _field(2, _text(note.name))
        parts.append(_field(11, body + b"".join([_field(3, _attribute(key, value)) for key, value in note.attributes.items()])))
    if one.link:
        parts.append(_field(13, _field(1, one.link[:16]) + _field(2, one.link[16:])))
    if one.error is not None:
        parts.append(_field(15, (_field(2, _text(one.error)) if one.error else b"") + b"\x18\x02"))
    parts.append(_FAR if one.remote else _NEAR)
    return _field(2, b"".join(parts))


class Envelope:
    """The OTLP message around the spans of one process."""

    __slots__ = ("_resource", "_scope")

    def __init__(self, resource: Mapping[str, Value], scope: str, version: str) -> None:
        self._resource = _field(1, b"".join([_field(1, _attribute(key, value)) for key, value in resource.items()]))
        self._scope = _field(1, _field(1, _text(scope)) + _field(2, _text(version)))

    def request(self, spans: list[bytes]) -> bytes:
        """An ExportTraceServiceRequest with these spans."""
        size = len(self._scope) + sum(map(len, spans))
        scope_head = b"\x12" + varint(size)
        inner = len(self._resource) + len(scope_head) + size
        return b"".join([b"\x0a", varint(inner), self._resource, scope_head, self._scope, *spans])


def rejected(response: bytes) -> int:
    """The number of rejected spans in an ExportTraceServiceResponse (partial_success.rejected_spans)."""
    partial = _first(response, 1)
    count = _first(partial, 1) if isinstance(partial, bytes) else 0
    return count if isinstance(count, int) else 0


def _first(message: bytes, wanted: int) -> bytes | int | None:
    """The first field of that number, a varint or with a length; None if there is none, or the message is not valid."""
    at = 0
    try:
        while at < len(message):
            tag, at = _read_varint(message, at)
            if tag & 7 == 2:
                length, at = _read_varint(message, at)
                value: bytes | int = message[at : at + length]
                at += length
            elif tag & 7 == 0:
                value, at = _read_varint(message, at)
            else:
                return None
            if tag >> 3 == wanted:
                return value
    except IndexError:
        return None
    return None


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
