"""In what order the outcomes of steps that run at once come to the code of a turn: on replay as they came before, each by itself.

An outcome has a place: they are counted over all runs of the turn. A record has the place of its own outcome (`ended`), and the last
place that its code had seen when it was asked for (`seen`). So replay knows which steps were under way at the same time. It gives an
outcome to the code when all is asked for that was asked for before, and all that came before has come. Some rounds of the loop lie
between two outcomes, live as on replay, so that code that looks at what is done finds the same.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from holdfast.runtime.turns.branches import Branch, inside_of
from holdfast.stores.records import Step

ROUNDS = 6
"""Rounds of the loop between two outcomes: a task that awaits a step through two others, or through `asyncio.wait`, runs within them."""

SLACK_S = 1.0
"""How much later than in the run before code may ask for a step, in seconds, until it is taken not to ask for it any more."""

_MANY = 64
_LAST = 2**62
"""The place of an outcome that no record proves to have been seen: another session answered, and nothing was asked for after that."""


class Coming:
    """An outcome on record that is about to come to the code."""

    __slots__ = ("first", "gone", "step")

    def __init__(self, step: Step, loop: asyncio.AbstractEventLoop) -> None:
        self.step = step
        self.gone = False
        self.first: asyncio.Future[None] = loop.create_future()


class _Place(NamedTuple):
    place: int
    number: int
    of: Coming


class Order:
    """The order of one turn, over its runs.

    Attributes:
        seen: the last place whose outcome the code of this run has seen.
        unwritten: the answers of other sessions that came since a record was written.
    """

    __slots__ = (
        "_asked", "_at_once", "_by_seen", "_coming", "_first", "_heard", "_held", "_missed", "_number", "_places", "_queue", "_unclaimed",
        "seen", "unwritten",
    )  # fmt: skip

    def __init__(self) -> None:
        self._places = 1
        self._heard: dict[bytes, int] = {}
        self.unwritten: list[tuple[bytes, int]] = []
        self._held = 0
        self._queue: list[asyncio.Future[None]] = []

    def known(self, step: Step) -> None:
        """There is a record: its place, and those that it gives to answers of other sessions, are taken."""
        self._places = max(self._places, step.record.ended, *(place for _, place in step.record.heard))
        self._heard.update(step.record.heard)

    def rewind(self, unclaimed: Mapping[bytes, Step]) -> None:
        """Another run begins; `unclaimed` are, from now on, the records that it has not asked for."""
        self.seen, self._number = 1, 0
        self._unclaimed = unclaimed
        self._asked: list[asyncio.Future[None]] = []
        self._missed: dict[bytes, None] = {}  # what was waited for in vain: it is waited for once in a run
        self._coming: list[_Place] = []
        self.reopened()

    def reopened(self) -> None:
        """Records can be claimed again."""
        steps = sorted((step for step in self._unclaimed.values() if step.record.seen), key=_seen)
        self._at_once, self._by_seen, self._first = self._overlap(steps), steps, 0

    # ------------------------------------------------------------ places

    def place(self) -> int:
        """The next place."""
        self._places += 1
        return self._places

    def sees(self, place: int) -> None:
        """The outcome that has this place has come to the code."""
        if place > self.seen:
            self.seen = place

    def heard(self, key: bytes) -> None:
        """The answer of another session, which has no place in its own record, has come to the code: the next record of the turn tells."""
        place = self._heard.get(key)
        if place is None:
            place = self._heard[key] = self.place()
            self.unwritten.append((key, place))
        self.sees(place)

    def take_heard(self) -> tuple[tuple[bytes, int], ...]:
        """The answers that came since the last record was written, with their places."""
        taken, self.unwritten = tuple(self.unwritten), []
        return taken

    def place_of(self, step: Step) -> int:
        """The place of a step's outcome; one after all others where it is not known to have come to the code."""
        return step.record.ended or self._heard.get(step.key, _LAST)

    # ------------------------------------------------------------ live

    async def by_itself(self) -> None:
        """An outcome is there while other steps are in flight: wait until the code has seen the one before it.

        If cancelled, it has not come.
        """
        if not self._held:
            self._hold()
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        await turn

    def _hold(self) -> None:
        self._held = ROUNDS
        asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        self._held -= 1
        if self._held:
            asyncio.get_running_loop().call_soon(self._round)
            return
        while self._queue:
            turn = self._queue.pop(0)
            if not turn.done():
                turn.set_result(None)
                return self._hold()

    # ------------------------------------------------------------ replay

    def claimed(self) -> None:
        """A record was asked for: what waits for that looks again."""
        while self._asked:
            waiting = self._asked.pop()
            if not waiting.done():
                waiting.set_result(None)

    def comes_alone(self, step: Step) -> bool:
        """Whether nothing on record was under way together with this step."""
        return step.key not in self._at_once and not self._coming and not self._held

    def begin(self, step: Step) -> Coming:
        """The code asks for a step whose outcome is on record, or has come to it by now; `end` it in any case."""
        coming = Coming(step, asyncio.get_running_loop())
        before = self._head()
        self._number += 1
        heapq.heappush(self._coming, _Place(self.place_of(step), self._number, coming))
        if before is not None and self._head() is not before:
            self.claimed()  # it was the first: it looks again
        return coming

    def end(self, coming: Coming) -> None:
        """It has come to the code, or its code has let go of it."""
        coming.gone = True
        first = self._head()
        if first is not None and not first.first.done():
            first.first.set_result(None)
        self.claimed()

    async def comes(self, coming: Coming, within_s: float) -> None:
        """Wait until the outcome comes to the code when it did before.

        A race that it lost, or a timeout that it met, in a task that was let run, comes out as it did. Code that does not ask any more for
        what was asked for then is waited for `within_s` seconds, or for as long after this step as it was asked for; once in a run.
        """
        loop = asyncio.get_running_loop()
        began, step = loop.time(), coming.step
        while True:
            if self._head() is not coming:
                if coming.first.done():
                    coming.first = loop.create_future()
                await asyncio.wait((coming.first,))
                continue
            missing = next(self._missing(step), None)
            if missing is None:
                break
            after_s = max(within_s, missing.record.opened - step.record.opened + SLACK_S)
            await self._another_asked(missing, began + after_s - loop.time())
        await self.by_itself()

    async def others_asked(self, branch: Branch, within_s: float) -> None:
        """Wait until all is asked for that other lines and branches have records of: a free read that was under way at the crash left no
        record, and what they did meanwhile they did without it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while (missing := next(self._of_others(branch), None)) is not None:
            await self._another_asked(missing, until - loop.time())

    async def asked_elsewhere(self, step: Step, within_s: float) -> bool:
        """Wait until other code has asked for a record; False where none does."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while step.key in self._unclaimed and step.key not in self._missed:
            await self._another_asked(step, until - loop.time())
        return step.key not in self._unclaimed

    async def _another_asked(self, missing: Step, left_s: float) -> None:
        if left_s <= 0:
            self._missed[missing.key] = None
            return
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        await asyncio.wait((asked,), timeout=left_s)

    def _head(self) -> Coming | None:
        """The one of the lowest place."""
        while self._coming and self._coming[0].of.gone:
            heapq.heappop(self._coming)
        return self._coming[0].of if self._coming else None

    def _of_others(self, branch: Branch) -> Iterator[Step]:
        ours = branch.path, branch.line
        for step in self._unclaimed.values():
            if (step.record.branch, step.record.line) != ours and step.key not in self._missed:
                yield step

    def _missing(self, step: Step) -> Iterator[Step]:
        """What is still to be asked for and was under way together with this step, but for the steps inside it."""
        order, at, inside = self._by_seen, self.place_of(step), inside_of(step.record.branch, step.key)
        while self._first < len(order) and order[self._first].key not in self._unclaimed:
            self._first += 1
        gone = 0
        for number in range(self._first, len(order)):
            other = order[number]
            if other.record.seen >= at:
                break
            if other.key not in self._unclaimed:
                gone += 1
            elif other.key not in self._missed and not other.record.branch.startswith(inside) and step.record.seen < self.place_of(other):
                yield other
        if gone > _MANY:  # one that is never asked for stands before all that were: they are gone over once
            self._by_seen, self._first = [other for other in order if other.key in self._unclaimed], 0

    def _overlap(self, steps: Iterable[Step]) -> dict[bytes, None]:
        """The keys of those, sorted by `seen`, that were under way together with another of them."""
        found: dict[bytes, None] = {}  # an empty set takes three times as much, and each idle session has one
        latest: Step | None = None
        for step in steps:
            if latest is not None and step.record.seen < self.place_of(latest):
                found[latest.key] = found[step.key] = None
            if latest is None or self.place_of(step) > self.place_of(latest):
                latest = step
        return found


def _seen(step: Step) -> int:
    return step.record.seen
