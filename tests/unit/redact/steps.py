"""Counts what `re` does: a matcher that walks the parsed pattern as `re` does, one step for each character that it compares."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

_parser: Any = importlib.import_module("re._parser")

Ends = Iterator[int]
"""Where a match can end, the first choice first."""

Part = Callable[["Matcher", int], Ends]
"""A part of a pattern: where its matches end that begin at a place."""


class Matcher:
    """One pattern over texts.

    Attributes:
        steps: how many characters were compared with a letter or a set.
    """

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._part = _sequence(_parser.parse(pattern.pattern, pattern.flags), bool(pattern.flags & re.IGNORECASE))
        self.text, self.steps = "", 0

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The matches that `finditer` finds."""
        self.text, self.steps, found, at = text, 0, [], 0
        while at <= len(text):
            end = self.first(self._part, at)
            if end is not None:
                found.append((at, end))
            at = max(at + 1, end or 0)
        return found

    def first(self, part: Part, at: int) -> int | None:
        return next(part(self, at), None)


def _sequence(items: Any, fold: bool) -> Part:
    parts = [_part(str(op), of, fold) for op, of in items.data]
    if len(parts) == 1:
        return parts[0]

    def ends(m: Matcher, at: int, index: int = 0) -> Ends:
        if index == len(parts):
            yield at
            return
        for end in parts[index](m, at):
            yield from ends(m, end, index + 1)

    return ends


def _part(op: str, of: Any, fold: bool) -> Part:
    match op:
        case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
            return _letter(op, of, fold)
        case "BRANCH":
            return _branch([_sequence(items, fold) for items in of[1]])
        case "SUBPATTERN":
            return _sequence(of[3], (fold or bool(of[1] & re.IGNORECASE)) and not of[2] & re.IGNORECASE)
        case "ATOMIC_GROUP":
            return _repeated(1, 1, _sequence(of, fold))
        case "POSSESSIVE_REPEAT":
            return _repeated(of[0], of[1], _sequence(of[2], fold))
        case "MAX_REPEAT":
            return _greedy(of[0], of[1], _sequence(of[2], fold))
        case "ASSERT" | "ASSERT_NOT":
            return _look(op == "ASSERT", 0 if of[0] > 0 else of[1].getwidth()[0], _sequence(of[1], fold))
        case "AT":
            assert str(of) == "AT_END_STRING", of
            return lambda m, at: iter((at,) if at == len(m.text) else ())
        case _:
            raise NotImplementedError(op)


def _letter(op: str, of: Any, fold: bool) -> Part:
    known: dict[str, bool] = {}

    def ends(m: Matcher, at: int) -> Ends:
        m.steps += 1
        letter = m.text[at : at + 1]
        if letter and letter not in known:
            known[letter] = any(_is(op, of, each) for each in ((letter, letter.swapcase()) if fold else (letter,)))
        return iter((at + 1,) if letter and known[letter] else ())

    return ends


def _branch(parts: list[Part]) -> Part:
    def ends(m: Matcher, at: int) -> Ends:
        for part in parts:
            yield from part(m, at)

    return ends


def _repeated(least: int, most: int, part: Part) -> Part:
    def ends(m: Matcher, at: int) -> Ends:
        times = 0
        while times < most and (end := m.first(part, at)) is not None and (end > at or times < least):
            at, times = end, times + 1
        return iter((at,) if times >= least else ())

    return ends


def _greedy(least: int, most: int, part: Part) -> Part:
    def ends(m: Matcher, at: int, times: int = 0) -> Ends:
        if times < most:
            for end in part(m, at):
                if end > at:
                    yield from ends(m, end, times + 1)
        if times >= least:
            yield at

    return ends


def _look(wanted: bool, behind: int, part: Part) -> Part:
    def ends(m: Matcher, at: int) -> Ends:
        held = at >= behind and m.first(part, at - behind) is not None
        return iter((at,) if held == wanted else ())

    return ends


def _is(op: str, of: Any, letter: str) -> bool:
    match op:
        case "ANY":
            return True
        case "LITERAL" | "NOT_LITERAL":
            return bool(ord(letter) == of) == (op == "LITERAL")
        case "IN":
            return any(_is(str(each), of_each, letter) for each, of_each in of) != (str(of[0][0]) == "NEGATE")
        case "RANGE":
            return bool(of[0] <= ord(letter) <= of[1])
        case "CATEGORY":
            name = str(of)
            kind = letter.isspace() if "SPACE" in name else letter.isdigit() if "DIGIT" in name else letter.isalnum() or letter == "_"
            return kind != ("NOT" in name)
        case _:
            return False  # NEGATE
