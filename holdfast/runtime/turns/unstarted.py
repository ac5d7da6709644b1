"""Steps that were asked for and never awaited: a mistake that would pass in silence."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from typing import Any, TypeVar

C = TypeVar("C", bound=Coroutine[Any, Any, Any])


class Unstarted:
    """The coroutines that a run's session object has made and that have not begun."""

    __slots__ = ("_made", "_number")

    def __init__(self) -> None:
        self._made: dict[int, tuple[str, Coroutine[Any, Any, Any]]] = {}
        self._number = 0

    def number(self) -> int:
        """The number of the next coroutine; it says `begun(number)` first thing."""
        self._number += 1
        return self._number

    def made(self, number: int, what: str, coroutine: C) -> C:
        """Remember a coroutine until it begins. `what`: the call, or only the name of a step."""
        self._made[number] = what, coroutine
        return coroutine

    def begun(self, number: int) -> None:
        """It runs."""
        self._made.pop(number, None)

    def close(self) -> list[str]:
        """What was never awaited; its coroutines are closed."""
        found = [(what, made) for what, made in self._made.values() if inspect.getcoroutinestate(made) == inspect.CORO_CREATED]
        self._made.clear()
        for _, made in found:
            made.close()
        return [what if "(" in what else f"step({what})" for what, _ in found]
