"""Values that some codec, store, log or terminal cannot take, by name; each is made when it is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from holdfast.codec import MAX_BYTES

DEEP = 100_000
GIGABYTE = 1_000_000_000


class Opaque:
    """No codec knows it."""


class Explodes:
    """Cannot be shown, compared or hashed."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __str__(self) -> str:
        raise RuntimeError("no str")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


class Verbose:
    """Its text is larger than any message may be."""

    def __repr__(self) -> str:
        return text_of(10_000_000)


@cache  # to make one takes longer than to try it
def _deep_list() -> Any:
    value: Any = []
    for _ in range(DEEP):
        value = [value]
    return value


@cache
def _deep_dict() -> Any:
    value: Any = {}
    for _ in range(DEEP):
        value = {"a": value}
    return value


def _cycle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def _generator() -> Iterator[int]:
    yield 1


@cache
def text_of(length: int) -> str:
    return "x" * length


SMALL: dict[str, Callable[[], Any]] = {
    "NUL": lambda: "a\0b",
    "first half of an emoji": lambda: "cut \ud83d",
    "second half of an emoji": lambda: "\ude00 cut",
    "10^30": lambda: 10**30,
    "-10^30": lambda: -(10**30),
    "10^5000": lambda: 10**5000,
    "no number": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "-infinity": lambda: float("-inf"),
    "lists nested 100,000 deep": _deep_list,
    "dicts nested 100,000 deep": _deep_dict,
    "a list in itself": _cycle,
    "an object": Opaque,
    "a lock": threading.Lock,
    "a generator": _generator,
    "an object that explodes": Explodes,
    "an object of much text": Verbose,
    "several lines": lambda: "one\ntwo\r\x1b[2Jthree",
}

LARGE: dict[str, Callable[[], Any]] = {
    "text over the bound": lambda: text_of(MAX_BYTES + 1),
    "text over the bound in a dict": lambda: {"a": [{"b": text_of(MAX_BYTES + 1)}]},
    "many texts over the bound": lambda: ["x" * 1000] * (MAX_BYTES // 1000 + 1),
}

GIGABYTES: dict[str, Callable[[], Any]] = {
    "1 GB of text": lambda: text_of(GIGABYTE),
    "1 GB of text in a dict": lambda: {"a": [{"b": text_of(GIGABYTE)}]},
    "1 GB of texts": lambda: ["x" * 1000] * (GIGABYTE // 1000),
}
