"""The line of one session's steps that wait for budget: for what other attempts have reserved, or for a person who raises it.

An attempt that fits once others have settled waits for that, in the order of arrival. A step inside an attempt that holds a reservation
does not queue behind others: that attempt ends only after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from holdfast.policies.budget import ZERO, Usage
from holdfast.policies.ledger import Ledger

WAIT = ""
"""The verdict of `Line.verdict` for an attempt that waits."""


class Waiter:
    """A step that waits for budget.

    Attributes:
        most: the amounts that it needs.
        around: the reservations of the attempts that it runs inside of: they last until it has ended.
        wake: makes its code ask for its verdict again.
        lacks: the limits within which it did not fit when it was last asked.
    """

    __slots__ = ("around", "lacks", "most", "wake")

    def __init__(self, most: Usage, around: Mapping[object, Usage], wake: Callable[[], None]) -> None:
        self.most, self.around, self.wake = most, around, wake
        self.lacks: tuple[str, ...] = ()


class Line:
    """The waiters of one session.

    Attributes:
        raises: how often there was more to spend.
    """

    __slots__ = ("_first", "_inside", "_ledger", "_refused", "_waiting", "raises")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._inside: dict[Waiter, None] = {}  # those inside an attempt with a reservation, in the order of arrival
        self._refused: dict[Waiter, None] = {}
        self.raises = 0
        self._first: Waiter | None = None  # it may reserve next, before the event loop runs other code

    def __bool__(self) -> bool:
        return bool(self._waiting or self._inside or self._refused)

    def join(self, waiter: Waiter) -> None:
        """A step begins to wait."""
        self._refused.pop(waiter, None)
        waiter.lacks = self._ledger.lacks(waiter.most)
        if waiter.around:
            self._inside[waiter] = None
        else:
            self._waiting[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """It stops waiting: the next one is asked."""
        self._inside.pop(waiter, None)
        self._refused.pop(waiter, None)
        if self._waiting.pop(waiter, waiter) is None:
            self.settled()

    def refused(self, waiter: Waiter) -> None:
        """What it needs is spent: it holds up the others no longer, and waits for `raised`."""
        self.leave(waiter)
        self._refused[waiter] = None

    def raised(self) -> None:
        """There is more to spend: all that may go first ask again, and all that were refused."""
        self.raises += 1
        for waiter in (*self._refused, *self._inside):
            waiter.wake()
        if self._waiting:
            next(iter(self._waiting)).wake()

    def settled(self) -> None:
        """An attempt has given back its reservation: those that may go first ask again."""
        for waiter in self._inside:
            waiter.wake()
        if self._waiting:
            next(iter(self._waiting)).wake()

    def may_pass(self, most: Usage) -> bool:
        """Whether an attempt that arrives may reserve `most`: it was called up, or needs no limit that those in the line wait for."""
        called, self._first = self._first, None
        if called is not None and called.most is most:
            return True
        needs = {name for name, amount in self._ledger.by_name(most).items() if amount}
        return not any(needs.intersection(waiter.lacks) for waiter in self._waiting)

    def verdict(self, waiter: Waiter) -> str | None:
        """None: it fits, and has to reserve now. WAIT: it waits. Otherwise the limit that refuses it, as one line."""
        why = self._ledger.exhausted(waiter.most, _sum(waiter.around))
        if why is not None:
            return why
        lacks = waiter.lacks = self._ledger.lacks(waiter.most)
        if not lacks and (waiter.around or next(iter(self._waiting)) is waiter):
            self._first = waiter
            return None
        if lacks and waiter.around and self._stuck(lacks):
            return self._ledger.why_not(waiter.most)
        return WAIT

    def _stuck(self, lacks: tuple[str, ...]) -> bool:
        """Whether all that is reserved of these limits belongs to attempts that wait for a step inside them: none would ever end."""
        held: dict[object, Usage] = {}
        for waiter in self._inside:
            held.update(waiter.around)
        free = self._ledger.by_name(self._ledger.reserved - _sum(held))
        return any(free[name] <= 0 for name in lacks)


def _sum(held: Mapping[object, Usage]) -> Usage:
    return sum(held.values(), ZERO)
