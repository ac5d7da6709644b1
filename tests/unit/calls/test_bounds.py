"""Values that are too large, or that no one can show: refused at once, in one line, and by the code that was given them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, model_serializer

from holdfast import NotJournalable
from holdfast.codec import MAX_BYTES, body_of, canonical, codec_for, encode
from holdfast.given import LONGEST, brief, decimal_of, is_number, text_of

OVER = "x" * (MAX_BYTES + 1)
TOO_LARGE: dict[str, Any] = {
    "text": OVER,
    "bytes": bytes(MAX_BYTES + 1),
    "text in a message": {"messages": [{"role": "user", "content": OVER}]},
    "a key": {OVER: 1},
    "one text, again and again": ["x" * 1_000] * (MAX_BYTES // 1_000 + 1),
    "one list, again and again": [list(range(1_000))] * (MAX_BYTES // 1_000 + 1),
    "many numbers": [1] * (MAX_BYTES + 1),
}


@pytest.mark.parametrize("value", TOO_LARGE.values(), ids=TOO_LARGE)
@pytest.mark.parametrize("take", [encode, canonical, body_of, codec_for(Any).encode], ids=["encode", "canonical", "body_of", "plain"])
def test_a_value_over_the_bound_is_refused(take: Any, value: Any) -> None:
    """In a line that says how much it may be."""
    with pytest.raises(NotJournalable, match=rf"cannot be journaled: give at most|of over {MAX_BYTES:,} bytes"):
        take(value)


@pytest.mark.parametrize("size", [0, 1, 4_000, 4_090, 4_100, 65_500, 65_600, 1 << 20, (1 << 23) + 5, MAX_BYTES - 5])
def test_a_value_of_any_size_below_reads_back(size: int) -> None:
    """Also where a buffer is just full."""
    value = {"a": "x" * size}
    if size < MAX_BYTES - 5:
        assert codec_for(dict[str, str]).round_trip(value) == (msgspec.msgpack.encode(value), value)
    assert len(encode("x" * size)) == len(msgspec.msgpack.encode("x" * size))


def test_a_value_over_the_bound_is_not_encoded_to_its_end() -> None:
    """What comes after the bound is not even looked at: that would hold up the other sessions."""
    asked: list[int] = []

    class Model(BaseModel):
        @model_serializer
        def dump(self) -> str:
            asked.append(1)
            return "x" * 1_000_000

    with pytest.raises(NotJournalable, match="of over"):
        encode([Model() for _ in range(1_000)])
    assert len(asked) < 100


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


class Lines:
    def __repr__(self) -> str:
        return "one\ntwo\x1b[2J\ud83d"


ODD: dict[str, Any] = {
    "raises": Odd(),
    "raises within": [Odd()],
    "nested": nested(100_000),
    "digits": 10**5_000,
    "half an emoji": "\ud83d\0\n",
    "several lines": Lines(),
    "large": OVER,
    "large in a dict": {OVER: OVER},
    "bytes": b"\xff" * 10_000,
    "many": ["x"] * 10_000_000,
    "a set": {1, 2},
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_every_value_can_be_quoted(value: Any) -> None:
    """In one short line that every store and terminal takes."""
    line = brief(value)
    assert 0 < len(line) <= LONGEST
    assert line.isprintable()
    line.encode()


@pytest.mark.parametrize(
    ("value", "line"), [("a", "'a'"), (3, "3"), ([1, "b"], "[1, 'b']"), ({"b": 1, "a": 2}, "{'b': 1, 'a': 2}"), (None, "None")]
)
def test_a_usual_value_is_quoted_as_in_code(value: Any, line: str) -> None:
    assert brief(value) == line


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such order"), "no such order"),
        (ValueError(), ""),
        (ValueError("a", 1), "('a', 1)"),
        (KeyError("a"), "'a'"),
        (ValueError(17), "17"),
        (ValueError(ValueError("inner")), "inner"),
        (OSError(2, "gone"), "[Errno 2] gone"),
        (ExceptionGroup("two", [ValueError(), TypeError()]), "two (2 sub-exceptions)"),
        (ExceptionGroup("one", [ValueError()]), "one (1 sub-exception)"),
        (ValueError(["a", {"b": 1}]), "['a', {'b': 1}]"),
    ],
)
def test_the_text_of_a_usual_exception_is_its_own(error: BaseException, text: str) -> None:
    assert text_of(error, 2_000) == text == str(error)


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError])
def test_every_exception_has_a_text(kind: type[Exception], value: Any) -> None:
    """Of a limited length, also where its own would not end, or raises."""
    for error in (kind(value), kind("this", value), ExceptionGroup(OVER, [kind(value)])):
        assert len(text_of(error, 2_000)) <= 2_000


def test_a_number_is_one_that_can_be_computed_with() -> None:
    assert all(map(is_number, (0, -1, 1.5, 10**300)))
    assert not any(map(is_number, (True, float("nan"), float("inf"), 10**400, "1", None, Odd())))
    assert decimal_of("0.10") == decimal_of(0.1) == Decimal("0.1")
    assert [decimal_of(value) for value in (True, "x", "1" * 300, float("nan"), "Infinity", 10**5_000, nested(100_000), Odd())] == [
        None
    ] * 8
