"""The bytes of a streamed answer, in whatever pieces they arrive."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.calls.models.replies import NoReply
from holdfast.calls.models.wire import END, EventReader, events_in

EVENTS: list[dict[str, Any]] = [{"text": "é\u2028\u0085 \\r\\n"}, {"text": "data: [DONE]"}, {"n": [1, {"x": None}]}, {}]
BREAKS = ["\n\n", "\r\n\r\n", "\r\r", "\n\n\n"]


def read(pieces: list[bytes]) -> list[Any]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)] + list(reader.end())


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


@settings(max_examples=60)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=30), between=st.sampled_from(BREAKS), mark=st.booleans(), last=st.booleans())
def test_the_pieces_in_which_bytes_arrive_change_nothing(cuts: list[int], between: str, mark: bool, last: bool) -> None:
    """Also where one splits a character, or a line end of two; with and without the last line end, and with a byte order mark."""
    text = between.join([f"data: {json.dumps(event, ensure_ascii=False)}" for event in EVENTS] + ["data: [DONE]"])
    data = (("\ufeff" if mark else "") + text + (between if last else "")).encode()
    assert read(pieces_of(data, cuts)) == [*EVENTS, END]


@settings(max_examples=50)
@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_no_bytes_are_too_odd_to_be_read(data: bytes, cuts: list[int]) -> None:
    """At worst they are no stream."""
    try:
        found = read(pieces_of(data, cuts) if data else [])
    except (ValueError, NoReply):
        return
    assert all(event is END or isinstance(event, dict) for event in found)


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ('data: {"a": 1}\ndata: {"b": 2}\n\n', [{"a": 1}, {"b": 2}]),
        ('data: {"a":\ndata: 1}\n\n', [{"a": 1}]),
        ('data: {\n  "a": 1\n}\n\n', [{"a": 1}]),
        ('data: {"a": 1}\ndata: [DONE]\n\n', [{"a": 1}, END]),
        ('event: message_stop\ndata: {"a": 1}\n\n', [{"type": "message_stop", "a": 1}]),
        ('event: error\ndata: {"message": "no"}\n\n', [{"type": "error", "error": {"message": "no"}}]),
        ("event: error\ndata: no\n\n", [{"type": "error", "error": {"message": "no"}}]),
        ('data: [{"a": 1}, {"b": 2}]\n\n', [{"a": 1}, {"b": 2}]),
        ('{\n  "a": 1\n}\n', [{"a": 1}, END]),
        ("", []),
    ],
)
def test_events_that_do_not_quite_keep_to_the_protocol(text: str, events: list[Any]) -> None:
    """One line end instead of two, an event in several lines, names instead of types, a whole answer in place of events."""
    assert read([text.encode()]) == events


@pytest.mark.parametrize(("text", "error"), [('data: {"a": 1', ValueError), ("<html>", NoReply), ('data: {"a": 1}x\n\n', ValueError)])
def test_an_unreadable_rest_is_an_error(text: str, error: type[Exception]) -> None:
    """A part of an event is never dropped in silence."""
    with pytest.raises(error):
        read([text.encode()])
    assert events_in("<html>") == []


def test_a_long_line_in_small_pieces_is_read_in_linear_time() -> None:
    """4 MB in pieces of 1 kB."""
    line = b'data: {"text": "' + b"x" * 4_000_000 + b'"}\n\n'
    began = time.process_time()
    (event,) = read([line[at : at + 1_000] for at in range(0, len(line), 1_000)])
    assert len(event["text"]) == 4_000_000
    assert time.process_time() - began < 2.0
