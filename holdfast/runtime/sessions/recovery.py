"""The one queue of sessions that resume, a few at a time: after a start, when their alarms ring, and when they are answered.

Where they are many, the garbage collector pauses meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from holdfast.policies.culprit import Charged, culprits, trials
from holdfast.runtime.sessions.trials import Trials
from holdfast.stores.records import Runnable

_MANY = 500
"""From so many sessions on, the garbage collector pauses while they resume: it would look at all of them again and again, for nothing."""

_PAUSE_S = 5.0
"""How long it pauses at most, in seconds."""

_LOOK_S, _LOOKS = 0.5, 10
"""A place is given back after so many looks, so far apart. They are counted, not timed: while the loop is blocked, no session waits."""

_LOADING = -1


class Recovery:
    """Places for sessions that replay their records.

    A session has its place until it has replayed its records, is idle or parks. One whose code waits outside a step gives its place back
    after 5 s. A session that a caller needs is loaded at once and leaves the queue; it has a place beyond the limit then.

    After an unclean end the sessions are tried in an order that finds the one that ends the process: see `holdfast.policies.culprit`.

    Args:
        loop: the loop that the sessions run in.
        start: makes a session resume; it has its place.
        most: how many sessions may replay at once.
        progress, passed: see `Trials`.

    Attributes:
        held: sessions that must not run yet, also where a caller loads them: others are tried first.
        culprits: the sessions to which their crash limit applies.
    """

    __slots__ = (
        "_charges", "_collect", "_delayed", "_line", "_loop", "_most", "_places", "_start", "_timer", "_trials", "_waiting", "culprits",
        "held",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        start: Callable[[str], None],
        most: Callable[[], int],
        progress: Callable[[str], object],
        passed: Callable[[str], None],
    ) -> None:
        self._loop, self._start, self._most = loop, start, most
        self._collect: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        # The order, and who is in it: one that left stays in the order until its turn, since a deque has no cheap removal.
        self._line: deque[str] = deque()
        self._waiting: set[str] = set()
        self._places: dict[str, int] = {}
        self._delayed: set[str] = set()
        self._charges: dict[str, bool] = {}
        self._trials = Trials(self._begin, progress, passed)
        self.held = self._trials.held
        self.culprits: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._places) + len(self.held)

    def counts(self) -> dict[str, int]:
        """`recovering` sessions, of which so many are `held`; and those that are `delayed`: their code waits outside a step, before the
        end of its records."""
        return {"recovering": len(self), "held": len(self.held), "delayed": len(self._delayed)}

    # ------------------------------------------------------------ a start

    def queue(self, rows: Iterable[Runnable], now: float, *, unclean: bool) -> list[tuple[Runnable, float]]:
        """Queue the sessions that have work now; returns the rest, which wait for a time, each with that time.

        Args:
            unclean: the last process did not stop cleanly: each session is charged with that when it starts.
        """
        later, ready = [], []
        for row in rows:
            at = row.due(now)
            if at <= now:
                ready.append(row)
            else:
                later.append((row, at))
        if unclean:
            charged = [Charged(row.id, row.crashes, row.passes, row.alone) for row in ready]
            self.culprits = culprits(charged)
            self._trials.run(trials(charged))
        else:
            self._join(row.id for row in ready)
        if len(ready) >= _MANY and gc.isenabled():
            gc.disable()
            self._collect = self._loop.call_later(_PAUSE_S, self._collect_again)
        return later

    def _begin(self, ids: Sequence[str], alone: bool) -> None:
        self._charges.update(dict.fromkeys(ids, alone))
        self._join(ids)

    def _join(self, ids: Iterable[str]) -> None:
        joining = list(ids)
        self._line.extend(joining)
        self._waiting.update(joining)

    def _collect_again(self) -> None:
        if self._collect is not None:
            self._collect.cancel()
            self._collect = None
            # The new objects live long: they join the oldest generation, without the pass over all of them that is due by now.
            gc.freeze()
            gc.unfreeze()
            gc.enable()

    def charge(self, id: str) -> bool | None:
        """Whether the activation of this session is to be charged with the last end: None for no, True where it is tried alone."""
        return self._charges.get(id) if self._charges else None

    def found(self, id: str) -> None:
        """A session has parked at its crash limit."""
        self._trials.found(id)
        self.more()

    # ------------------------------------------------------------ places

    def admit(self, id: str) -> None:
        """Let a session that is not in memory resume when there is a place."""
        if id not in self._waiting and id not in self._places and id not in self.held:
            self._line.append(id)
            self._waiting.add(id)
            self.more()

    def more(self) -> None:
        """Let sessions resume, up to the limit."""
        while self._waiting and len(self._places) < self._most():
            id = self._line.popleft()
            if id in self._waiting:
                self._take(id)
                self._start(id)
        if self._places or self._trials.open:
            if self._timer is None:
                self._timer = self._loop.call_later(_LOOK_S, self._look)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._collect is not None and not self._places and not self._waiting:
            self._collect_again()

    def _take(self, id: str) -> None:
        self._waiting.discard(id)
        self._places[id] = _LOADING
        if not self._waiting:
            self._line.clear()

    def loading(self, id: str) -> None:
        """A session is being loaded, perhaps for a caller that does not wait for its place."""
        if id in self._waiting:
            self._take(id)

    def loaded(self, id: str) -> None:
        """A session is in memory, and its task has begun if it has work."""
        if id in self._places:
            self._places[id] = 0
        if id not in self.held:
            self._charges.pop(id, None)
            self._trials.started(id)

    def not_loaded(self, id: str) -> bool:
        """A session could not be read. True if it had a place: it has lost that, and is to be admitted again."""
        if self._places.pop(id, None) is None:
            return False
        self.more()
        return True

    def done(self, id: str) -> None:
        """A session has replayed its records: the next may resume."""
        if self._places and self._places.pop(id, None) is not None:
            self.more()
        elif self._delayed:
            self._delayed.discard(id)

    def settles(self, id: str) -> None:
        """A session has no work for now: it is idle, parked, failed or ended, or cannot be loaded."""
        self.done(id)
        if self._trials.open:
            self._trials.settles(id)
            self.more()

    def _look(self) -> None:
        self._timer = None
        for id, looks in list(self._places.items()):
            if looks + 1 >= _LOOKS:
                del self._places[id]
                self._delayed.add(id)
            elif looks != _LOADING:
                self._places[id] = looks + 1
        self._trials.look(_LOOK_S)
        self.more()

    def close(self) -> None:
        """The runtime stops."""
        self._collect_again()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
