"""The failures of a turn that no record follows: a restart of the turn drops them, so that a dependency that was down is called again.

A record follows a failure if its code could have seen it: not siblings of one gather, no tasks made before the failure, and not the steps
inside the failed one. Everything is indexed by line and branch and taken in from the last place to the first, so that many failures among
many records take one pass.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from holdfast.runtime.turns.branches import enclosing, follows, inside_of
from holdfast.stores.records import Step, StepRecord, StepState

_OF, _BELOW = "of", "below"


def trailing(steps: Collection[Step], place_of: Callable[[Step], int]) -> list[Step]:
    """The failures that no step follows: except siblings and the steps inside them, no step that stays began after their end."""
    closed = {inside_of(step.record.branch, step.key) for step in steps if step.state is StepState.CLOSED}
    staying, failures = _Staying(), list[tuple[int, int, Step]]()
    for at, step in enumerate(steps):
        if step.record.branch and not closed.isdisjoint(enclosing(step.record.branch)):
            continue  # it belongs to a step that succeeded
        if step.state is StepState.FAILED and not step.record.note:
            failures.append((place_of(step), at, step))
        else:
            staying.add(step.record)
    found: list[Step] = []
    for place, _, step in sorted(failures, key=lambda each: each[:2], reverse=True):
        if staying.follow(step, place):
            staying.add(step.record)
        else:
            found.append(step)
    return found


def could_know(path: str, line: str, since: tuple[int, ...], seen: int, failed: StepRecord, place: int) -> bool:
    """Whether the code that asks for a step can know of a failure at `place`: the rule above, for one step.

    Args:
        path, line, since: of its branch.
        seen: the last outcome that its code had seen, as of the step.
    """
    if not follows(path, failed.branch):
        return False
    ours, theirs = _lines(line), _lines(failed.line)
    shared = sum(1 for one, other in zip(ours, theirs, strict=False) if one == other)
    # A task that was made before the failure does not know of it, unless the failure is its own or that of a task below it.
    return (seen if shared == len(ours) else min(seen, since[shared - 1])) >= place


class _Staying:
    """The records that stay, as far as they began at or after the place asked about last; places are asked about in falling order."""

    __slots__ = ("_counts", "_later", "_unordered")

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()  # records, by line and by part of their branch's path
        self._later: list[tuple[float, int, tuple[str, str], str]] = []
        self._unordered: dict[tuple[str, str], StepRecord] = {}  # the last of each line that has no order, as old records have none

    def add(self, record: StepRecord) -> None:
        if not record.seen:
            before = self._unordered.setdefault((record.branch, record.line), record)
            if record.opened > before.opened:
                self._unordered[record.branch, record.line] = record
            return
        lines = _lines(record.line)
        self._push(record.seen, (_OF, lines[-1]), record.branch)
        for depth, line in enumerate(lines[:-1]):
            made = record.since[depth] if depth < len(record.since) else math.inf
            self._push(min(record.seen, made), (_BELOW, line), record.branch)

    def _push(self, place: float, where: tuple[str, str], path: str) -> None:
        heapq.heappush(self._later, (-place, len(self._later), where, path))

    def follow(self, failed: Step, place: int) -> bool:
        """Whether one of them is a consequence of a failure at `place`."""
        while self._later and -self._later[0][0] >= place:
            _, _, where, path = heapq.heappop(self._later)
            for part in ("", *_parts(path)):
                self._counts[*where, part] += 1
        record = failed.record
        inside = inside_of(record.branch, failed.key)
        if any(self._among((kind, line), record.branch, inside) for line in _lines(record.line) for kind in (_OF, _BELOW)):
            return True
        return any(
            later.opened >= record.closed and not later.branch.startswith(inside) and follows(later.branch, record.branch)
            for later in self._unordered.values()
        )

    def _among(self, where: tuple[str, str], path: str, inside: str) -> bool:
        """Whether the records of a line, or of the lines below it, include one that is no sibling of the branch `path`, nor `inside`."""
        count = self._counts[*where, ""]
        if not count:
            return False
        gather = ""
        for part in (*_parts(path), inside):
            if part.endswith("."):
                gather = part
            elif gather:  # the siblings: all branches of the gather but this one
                count -= self._counts[*where, gather] - self._counts[*where, part]
                gather = ""
        return count - self._counts[*where, inside] > 0


def _lines(line: str) -> list[str]:
    """The lines that it descends from, "" for the first, and itself last."""
    parts = line.split("~")[:-1]
    return ["", *("~".join(parts[: depth + 1]) + "~" for depth in range(len(parts)))]


def _parts(path: str) -> Iterator[str]:
    """The paths that it lies in and itself, outermost first; that of a gather, which ends with a point, is before that of its branch."""
    at = 0
    while at < len(path):
        end = path.find("/", at) + 1 or len(path)
        name = path[at:end]
        if "." in name:
            yield path[: at + name.index(".") + 1]
        yield path[:end]
        at = end
