"""The branches of a run: lines of code that count their steps for themselves, under names that are the same on every run.

A branch is the handler's own line, one line of a `session.gather`, the reading of a streamed answer, or the inside of a step. A task that
the handler makes itself (asyncio.gather, TaskGroup, create_task) is a line of its own in the branch that made it. It has its own counters
for names, and its steps are found by content among the steps of the whole branch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from typing import Any, NamedTuple, Protocol

from holdfast.calls.caller import Caller, caller


class Run(Protocol):
    """One run of a turn: how often each identity was asked for, by the path of its branch; the last outcome that its code has seen; and
    its tasks."""

    @property
    def counts(self) -> dict[str, dict[bytes, int]]: ...
    @property
    def seen(self) -> int: ...
    def task_made(self, task: Any, line: Branch) -> None:
        """Code of the run made a task, which is a line of its own."""


class Branch:
    """One line of code of one run.

    Attributes:
        run: the run of the turn that it belongs to.
        path: its name, "" for the handler's own; the paths of branches inside it begin with it.
        line: the name of this line, or of the line that began the branch; "" for the handler's own task and the branches that it begins.
        since: the places at which this line, and the lines that it descends from, were made.
        nth: how often each identity was asked for in the branch.
        busy: how many of its steps are in flight.
        task: its own task: steps of other tasks in it have no place in its order.
        asked: whether a step was asked for in it.
        apart: whether other lines have branches of the same path, so that its own order has no meaning either.
    """

    __slots__ = ("_numbers", "apart", "asked", "busy", "line", "nth", "path", "run", "since", "task")

    def __init__(self, run: Run, path: str, line: str = "", since: tuple[int, ...] = (), *, apart: bool = False) -> None:
        self.run, self.path, self.line, self.since = run, path, line, since
        self.apart = apart or bool(line)
        self.nth = run.counts.setdefault(path, {})
        self.busy = 0
        self.asked = False
        self.task: object = None
        self._numbers: dict[str, int] | None = None

    @property
    def in_step(self) -> bool:
        """Whether it is inside a step."""
        return _STEP in self.path

    def number(self, what: str) -> str:
        """The next name of a kind of thing in this branch."""
        if self._numbers is None:
            self._numbers = {}
        nth = self._numbers.get(what, 0)
        self._numbers[what] = nth + 1
        return f"{self.path}{self.line}{what}{nth}"

    def below(self, what: str) -> str:
        """The path of the next branch of a kind below this one. It is the same for each line, since steps are found by content."""
        return self.path + self.number(what).removeprefix(self.path + self.line)

    def beneath(self, path: str) -> Branch:
        """A branch of that path, begun by this line: another line with a branch of the same path has its own counters."""
        return Branch(self.run, path, self.line, self.since, apart=self.apart)

    def another_line(self) -> Branch:
        """A line for a task that this line makes."""
        name = self.number("t").removeprefix(self.path + self.line)
        return Branch(self.run, self.path, f"{self.line}{self.path}{name}~", (*self.since, self.run.seen))


class Inside(Caller, Protocol):
    """A step that is being performed, with the branch of the steps inside it, made when the first of these asks."""

    def inside(self) -> Branch: ...


def here(run: object) -> Branch | None:
    """The branch of `run` that the calling code is in; None where it is in no branch of `run`."""
    found = caller.get()
    if type(found) is not Branch:
        if found is None:
            return None
        found = found.inside()  # type: ignore[attr-defined] # the two kinds that are put there
    return found if found.run is run else None


def of_a_new_task() -> Branch | None:
    """The line of a task that the calling code makes; None where the code belongs to no turn."""
    found = caller.get()
    if found is None:
        return None
    branch = found if type(found) is Branch else found.inside()  # type: ignore[attr-defined] # the two kinds that are put there
    return branch.another_line()


enter: Callable[[Branch | Inside], Token[Caller | None]] = caller.set
"""Put the calling code into a branch; `leave` takes the token."""

leave = caller.reset

_STEP = "@"
"""The prefix of a path's part that is the inside of a step."""


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


def keys_around(path: str) -> list[bytes]:
    """The keys of the steps whose insides `path` lies in."""
    return [bytes.fromhex(part[len(_STEP) :]) for part in path.split("/") if part.startswith(_STEP)]


class Gathered(NamedTuple):
    """The branches of one `session.gather`.

    Attributes:
        path: the prefix of the paths of its branches.
        line: the line that called it.
    """

    path: str
    line: str

    def holds(self, path: str, line: str) -> bool:
        """Whether a step of that branch and line was asked for in it."""
        return path.startswith(self.path) and (line == self.line or line.startswith(self.line + self.path))


def follows(later: str, branch: str) -> bool:
    """Whether a step in `later` can be a consequence of a step in `branch`: siblings of one gather do not see each other's outcomes."""
    for ours, theirs in zip(later.split("/"), branch.split("/"), strict=False):
        if ours != theirs:
            return not ("." in ours and ours.partition(".")[0] == theirs.partition(".")[0])
    return True
