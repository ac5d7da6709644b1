"""The records that the code has not asked for in this run, in groups: the first of each group, without a pass over all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping

from holdfast.stores.records import Step

Group = Callable[[Step], Hashable | None]
"""The group of a record; None for a record that is in none."""


class Unclaimed:
    """The unclaimed records by a key, oldest first.

    The first look groups them in one pass. After that, each record is passed once, since a claimed record does not come back. Where records
    are reopened, make another one.

    Args:
        left: the live view of the unclaimed records.
        group: the group of a record.
        passed: other records to leave out, as a live view.
    """

    __slots__ = ("_group", "_groups", "_left", "_order", "_passed")

    def __init__(self, left: Mapping[bytes, Step], group: Group, passed: Mapping[bytes, None] | None = None) -> None:
        self._left, self._group, self._passed = left, group, {} if passed is None else passed
        self._groups: dict[Hashable, deque[Step]] | None = None
        self._order: deque[Hashable] = deque()  # not the dict's own: a search from its start passes all that were deleted there

    def first(self, group: Hashable) -> Step | None:
        """The oldest record of a group; None if all are claimed."""
        waiting = self._grouped().get(group, ())
        while waiting:
            step = waiting[0]
            if step.key in self._left and step.key not in self._passed:
                return step
            waiting.popleft()
        return None

    def other(self, group: Hashable) -> Step | None:
        """The oldest record of some other group; None if all are claimed."""
        self._grouped()
        order = self._order
        for _ in range(len(order)):
            if order[0] == group:
                order.rotate(-1)
            elif (step := self.first(order[0])) is not None:
                return step
            else:
                order.popleft()
        return None

    def _grouped(self) -> dict[Hashable, deque[Step]]:
        if self._groups is None:
            self._groups = {}
            for step in self._left.values():
                group = self._group(step)
                if group is not None:
                    self._groups.setdefault(group, deque()).append(step)
            self._order.extend(self._groups)
        return self._groups
