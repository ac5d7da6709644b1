"""The branches of a run: lines of code that count their steps for themselves, under names that are the same on every run.

A branch is the handler's own line, one line of a `session.gather`, what a streamed answer is read in, or the inside of a step. Tasks that
the handler makes itself (asyncio.gather, TaskGroup, create_task) share the branch of the code that made them.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Protocol


class Branch:
    """One line of code of one run.

    Attributes:
        run: the turn's run that it belongs to; code of any other run has another.
        path: its name, "" for the handler's own; what lies in it begins with the same text.
        nth: how often each identity was asked for in it.
        busy: how many of its steps are in flight.
        task: the task that is its own: what other tasks do in it has no place in its order.
    """

    __slots__ = ("_numbers", "busy", "nth", "path", "run", "task")

    def __init__(self, run: object, path: str) -> None:
        self.run, self.path = run, path
        self.nth: dict[bytes, int] = {}
        self.busy = 0
        self.task: object = None
        self._numbers: dict[str, int] | None = None

    def number(self, what: str) -> str:
        """The next name of a kind of thing in this branch."""
        if self._numbers is None:
            self._numbers = {}
        nth = self._numbers.get(what, 0)
        self._numbers[what] = nth + 1
        return f"{self.path}{what}{nth}"


class Inside(Protocol):
    """A step that is being performed: the branch that its function's own steps are in, made when the first of them asks."""

    def inside(self) -> Branch: ...


_here: ContextVar[Branch | Inside | None] = ContextVar("holdfast_branch", default=None)


def here(run: object) -> Branch | None:
    """The branch of `run` that the calling code is in; None where the code belongs to no branch of it."""
    found = _here.get()
    if found is None:
        return None
    branch = found if type(found) is Branch else found.inside()  # type: ignore[union-attr] # the two kinds that are put there
    return branch if branch.run is run else None


def enter(branch: Branch | Inside) -> Token[Branch | Inside | None]:
    """The calling code is in `branch` from here on; `leave` takes the token."""
    return _here.set(branch)


leave = _here.reset

_STEP = "@"
"""How the part of a path begins that is the inside of a step."""


def inside_of(path: str, key: bytes) -> str:
    """The path of the inside of the step `key`, whose own branch is `path`."""
    return f"{path}{_STEP}{key.hex()}/"


def enclosing(path: str) -> list[str]:
    """The paths of the insides of steps that `path` lies in, itself included, outermost first."""
    found, parts = [], path.split("/")
    for at, part in enumerate(parts):
        if part.startswith(_STEP):
            found.append("/".join(parts[: at + 1]) + "/")
    return found


def follows(later: str, branch: str) -> bool:
    """Whether what ran in `later` can be a consequence of what ran in `branch`: siblings of one gather know nothing of each other."""
    for ours, theirs in zip(later.split("/"), branch.split("/"), strict=False):
        if ours != theirs:
            return not ("." in ours and ours.partition(".")[0] == theirs.partition(".")[0])
    return True
