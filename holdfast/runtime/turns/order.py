"""The order in which the outcomes of concurrent steps reach the code of a turn: one by one, on replay in the recorded order.

Each outcome has a place, counted over all runs of the turn. A record has the place of its own outcome (`ended`), and the last place that
its code had seen when it asked for the step (`seen`). So replay knows which steps were under way at the same time. It gives an outcome to
the code when the code has asked for each step that it had asked for before, and each earlier outcome has reached it. Live and on replay,
some rounds of the loop pass between two outcomes, so that code that checks which tasks are done finds the same ones.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from holdfast.runtime.turns.branches import Branch, inside_of
from holdfast.runtime.turns.unclaimed import Unclaimed
from holdfast.stores.records import Step, StepRecord

_GAP = 1 << 20
"""The distance of two places, which leaves room for others between them."""

FAR_S, FAR_ROUNDS = 0.01, 60
"""Outcomes that came more than FAR_S seconds apart have FAR_ROUNDS loop rounds between them on replay: the code had time for more."""

ROUNDS = 6
"""Rounds of the loop between two outcomes: a task that awaits a step through two others, or through `asyncio.wait`, runs within them."""

NEXT_S, ROUNDS_S = 0.001, 0.5
"""How much later than now, in seconds, a timeout of the handler's own passes on replay at the earliest, where an outcome that came before
it is about to reach the code: at once, or after some rounds of the loop, which other sessions may keep busy. Less than SLACK_S: the same
timeout may cut a step that ran next to it."""

SLACK_S = 1.0
"""How much later than in the earlier run code may ask for a step, in seconds; after that, replay assumes that it never asks."""

PATIENCE_S = 60.0
"""The longest wait for code that diverged from its records, in seconds; after that, replay assumes that it never asks for the step."""

_MANY = 64
_LAST = 2**62
"""The place of an outcome that no record proves to have been seen: another session answered, and the code asked for no step after that."""


_NONE: dict[bytes, None] = {}
"""The steps that were under way with another one, for a turn without records; never changed."""


class Coming:
    """An outcome on record that is about to reach the code."""

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
        claim_waiters: those that wait until the code asks for a record.
        held: how many rounds of the loop are left until the next outcome may come; 0 where none came just now.
        unwritten: the answers of other sessions that arrived since the last record was written.
    """

    __slots__ = (
        "_at_once", "_by_seen", "_closed", "_coming", "_due", "_first", "_heard", "_lines", "_missed", "_number", "_places", "_queue",
        "_unclaimed", "_until", "claim_waiters", "held", "seen", "unwritten",
    )  # fmt: skip

    def __init__(self) -> None:
        self._places = 1
        self._due: dict[int, None] = {}
        self._heard: dict[bytes, int] = {}
        self.unwritten: list[tuple[bytes, int]] = []
        self.held = 0
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []

    def known(self, record: StepRecord) -> None:
        """Take in a record: its place, and the places that it gives to answers of other sessions, are used."""
        if record.ended > self._places:
            self._places = record.ended
        if record.heard:
            self._places = max(self._places, *(place for _, place in record.heard))
            self._heard.update(record.heard)

    def rewind(self, unclaimed: Mapping[bytes, Step]) -> None:
        """Another run begins; `unclaimed` is the live view of the records that it has not asked for."""
        self.seen, self._number, self._closed, self._until = 1, 0, 0.0, 0.0
        self._unclaimed = unclaimed
        self._due.clear()
        self.claim_waiters: list[asyncio.Future[None]] = []
        self._missed: dict[bytes, None] = {}  # steps whose wait timed out: a run waits for each only once
        self._coming: list[_Place] = []
        self.reopened()

    def reopened(self) -> None:
        """Records can be claimed again."""
        self._lines: Unclaimed | None = None
        if not self._unclaimed:
            self._at_once, self._by_seen, self._first = _NONE, [], 0
            return
        steps, end = [step for step in self._unclaimed.values() if step.record.seen], 0
        for step in steps:
            record = step.record
            if record.seen < end or not record.ended:
                steps.sort(key=_seen)
                self._at_once = self._overlap(steps)
                break
            end = record.ended
        else:
            self._at_once = _NONE  # each step was asked for after the one before it had ended
        self._by_seen, self._first = steps, 0

    # ------------------------------------------------------------ places

    def place(self) -> int:
        """The next place, for an outcome that reaches the code once its record is written; `sees` or `forgo` it."""
        self._places += _GAP
        self._due[self._places] = None
        return self._places

    def place_at_once(self) -> int:
        """A place for an event that the code has seen already (a reply, a step that it cancelled): before the outcomes being written."""
        before = self.seen + 1
        if self._due and before < min(self._due):
            return before
        self._places += _GAP
        return self._places

    def forgo(self, place: int) -> None:
        """Give up a place: its outcome does not reach the code."""
        self._due.pop(place, None)

    def sees(self, place: int) -> None:
        """The outcome with this place has reached the code."""
        if self._due:
            self._due.pop(place, None)
        if place > self.seen:
            self.seen = place

    def heard(self, key: bytes) -> None:
        """The answer of another session reached the code. Its own record has no place, so the next record of the turn stores it."""
        place = self._heard.get(key)
        if place is None:
            place = self._heard[key] = self.place_at_once()
            self.unwritten.append((key, place))
        self.sees(place)

    def take_heard(self) -> tuple[tuple[bytes, int], ...]:
        """The answers that arrived since the last record was written, with their places."""
        taken, self.unwritten = tuple(self.unwritten), []
        return taken

    def place_of(self, step: Step) -> int:
        """The place of a step's outcome; one after all others where it is not known to have reached the code."""
        return step.record.ended or self._heard.get(step.key, _LAST)

    # ------------------------------------------------------------ live

    async def by_itself(self, place: int) -> None:
        """For an outcome while other steps are in flight: wait until the code has seen the outcomes before it.

        Args:
            place: the place of the outcome; 0 where it has none yet.
        If cancelled, it has not reached the code.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._queue, (place or _LAST, self._number, turn))
        if not self.held:
            self._hold()
        await turn

    def _hold(self) -> None:
        self.held = ROUNDS
        asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        self.held -= 1
        if self.held:
            asyncio.get_running_loop().call_soon(self._round)
            return
        while self._queue:
            turn = heapq.heappop(self._queue)[2]
            if not turn.done():
                turn.set_result(None)
                return self._hold()

    # ------------------------------------------------------------ replay

    def claimed(self) -> None:
        """The code asked for a record: those that wait for it check again."""
        while self.claim_waiters:
            waiting = self.claim_waiters.pop()
            if not waiting.done():
                waiting.set_result(None)

    def arrives(self, step: Step, *, in_one_run: bool) -> float | None:
        """The code asks for a step whose outcome is on record: None where it reaches the code at once, and has done so by now.

        Else how many seconds replay skips: those that no outcome before it took as well. 0 where the code did not wait for it in one run.
        """
        record, before, skipped_s = step.record, self._until, 0.0
        if record.closed > before:
            self._until = record.closed
            if in_one_run:
                skipped_s = record.closed - (record.opened if record.opened > before else before)
        if record.cut or (record.seen and (skipped_s > FAR_S or self._coming or self.held or step.key in self._at_once)):
            return skipped_s
        if record.seen:
            self.arrived(step)
        return None

    def arrived(self, step: Step) -> None:
        """The outcome on record has reached the code."""
        if step.record.ended:
            self.sees(step.record.ended)
        else:
            self.heard(step.key)

    def comes_alone(self, step: Step) -> bool:
        """Whether no step on record was under way together with this step."""
        return step.key not in self._at_once and not self._coming and not self.held

    def begin(self, step: Step) -> Coming:
        """The code asks for a step whose outcome is on record, or has reached it by now; always call `end` after it."""
        coming = Coming(step, asyncio.get_running_loop())
        before = self._head()
        self._number += 1
        heapq.heappush(self._coming, _Place(self.place_of(step), self._number, coming))
        if before is not None and self._head() is not before:
            self.claimed()  # it was the first: it checks again
        return coming

    def end(self, coming: Coming) -> None:
        """The outcome has reached the code, or the code has cancelled the step."""
        coming.gone = True
        first = self._head()
        if first is not None and not first.first.done():
            first.first.set_result(None)
        self.claimed()

    async def comes(self, coming: Coming, within_s: float) -> None:
        """Wait until it is this outcome's turn in the recorded order.

        So a race that the step lost, or a timeout that passed while its task kept running, has the same result. Where the code has not
        asked again for a step of the earlier run, this waits for it `within_s` seconds, or as long after this step as the code asked for it
        then; once in a run.
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
            after_s = max(min(within_s, PATIENCE_S), missing.record.opened - step.record.opened + SLACK_S)
            await self._another_asked(missing, began + after_s - loop.time())
        if self._closed and step.record.closed - self._closed > FAR_S:
            for _ in range(FAR_ROUNDS):
                await asyncio.sleep(0)
        self._closed = step.record.closed
        await self.by_itself(self.place_of(step))

    async def others_asked(self, branch: Branch, within_s: float) -> None:
        """Wait until other lines and branches have asked for all their records: a free read that was under way at the crash left no
        record, and the other lines made theirs without its answer."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while (missing := self._other_line(branch)) is not None:
            await self._another_asked(missing, until - loop.time())

    def _other_line(self, branch: Branch) -> Step | None:
        """The oldest record that another line or branch has not asked for."""
        if self._lines is None:
            self._lines = Unclaimed(self._unclaimed, lambda step: (step.record.branch, step.record.line), self._missed)
        return self._lines.other((branch.path, branch.line))

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
        self.claim_waiters.append(asked)
        await asyncio.wait((asked,), timeout=left_s)

    def _head(self) -> Coming | None:
        """The coming outcome with the lowest place."""
        while self._coming and self._coming[0].of.gone:
            heapq.heappop(self._coming)
        return self._coming[0].of if self._coming else None

    def _missing(self, step: Step) -> Iterator[Step]:
        """The unclaimed steps that were under way together with this step, without the steps inside it."""
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
        if gone > _MANY:  # a record that is never claimed stays in front of the claimed ones: skip these only once
            self._by_seen, self._first = [other for other in order if other.key in self._unclaimed], 0

    def _overlap(self, steps: Iterable[Step]) -> dict[bytes, None]:
        """The keys of the steps that were under way together with another one of `steps`, which are sorted by `seen`."""
        found: dict[bytes, None] = {}
        latest, end = b"", 0
        for step in steps:
            if step.record.seen < end:
                found[latest] = found[step.key] = None
            place = step.record.ended or self.place_of(step)
            if place > end:
                latest, end = step.key, place
        return found


def _seen(step: Step) -> int:
    return step.record.seen
