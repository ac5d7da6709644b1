"""Steps that a handler asked for and never awaited: a mistake that would otherwise pass in silence."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

C = TypeVar("C", bound=Coroutine[Any, Any, Any])

_MANY = 64
"""How many that had not begun when the next was made are kept before those that have begun are dropped."""


class Unstarted:
    """The coroutines that a run's session object has made and that may not have begun.

    Usually a coroutine has ended when the next one is made. So the last one is kept by itself, at almost no cost.
    """

    __slots__ = ("_last", "_most", "_others", "_what", "_within")

    def __init__(self) -> None:
        self._what = ""
        self._last: Any = None
        self._within: Sequence[Any] = ()
        self._others: list[tuple[str, Any, Sequence[Any]]] = []
        self._most = _MANY

    def made(self, what: str, coroutine: C, within: Sequence[Any] = ()) -> C:
        """Remember a coroutine until it begins.

        Args:
            what: the call, or only the name of a step.
            within: coroutines that this one awaits: they are not reported themselves, and where this one does not begin, neither do they.
        """
        if self._last is not None and self._last.cr_frame is not None:
            self._keep_last()
        if within:
            taken = {id(each) for each in within}
            self._others = [entry for entry in self._others if id(entry[1]) not in taken]
        self._what, self._last, self._within = what, coroutine, within
        return coroutine

    def _keep_last(self) -> None:
        self._others.append((self._what, self._last, self._within))
        if len(self._others) > self._most:
            self._others = [entry for entry in self._others if not _begun(entry[1])]
            self._most = _MANY + 2 * len(self._others)

    def close(self) -> list[str]:
        """The names of the steps that were never awaited; their coroutines are closed."""
        if self._last is not None:
            self._keep_last()
            self._last = None
        found: list[str] = []
        if not self._others:
            return found
        for what, made, within in self._others:
            if not _begun(made):
                found.append(what if "(" in what else f"step({what})")
            for each in (made, *within):  # one that was cancelled before it began never awaits those within it
                if not _begun(each):
                    each.close()
        self._others.clear()
        return found


def _begun(coroutine: Any) -> bool:
    return not inspect.iscoroutine(coroutine) or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
