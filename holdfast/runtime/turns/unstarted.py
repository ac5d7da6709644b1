"""Steps that were asked for and never awaited: a mistake that would pass in silence."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

C = TypeVar("C", bound=Coroutine[Any, Any, Any])


class Unstarted:
    """The coroutines that a run's session object has made and that have not begun."""

    __slots__ = ("_made", "_number")

    def __init__(self) -> None:
        self._made: dict[int, tuple[str, Coroutine[Any, Any, Any], Sequence[Any]]] = {}
        self._number = 0

    def number(self) -> int:
        """The number of the next coroutine; it says `begun(number)` first thing."""
        self._number += 1
        return self._number

    def made(self, number: int, what: str, coroutine: C, within: Sequence[Any] = ()) -> C:
        """Remember a coroutine until it begins.

        Args:
            what: the call, or only the name of a step.
            within: coroutines that it takes over: they are not missed for themselves, and where it does not begin they do not, either.
        """
        if within:
            taken = {id(each) for each in within}
            self._made = {at: entry for at, entry in self._made.items() if id(entry[1]) not in taken}
        self._made[number] = what, coroutine, within
        return coroutine

    def begun(self, number: int) -> None:
        """It runs."""
        self._made.pop(number, None)

    def close(self) -> list[str]:
        """What was never awaited; its coroutines are closed."""
        found = []
        for what, made, within in self._made.values():
            if _not_begun(made):
                found.append(what if "(" in what else f"step({what})")
            for each in (made, *within):
                if _not_begun(each):
                    each.close()
        self._made.clear()
        return found


def _not_begun(coroutine: Any) -> bool:
    return inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
