"""When a turn parks: each step in flight has waited for long enough, and no code of the turn can ask for a step by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.runtime.turns.flight import Flight
from holdfast.runtime.turns.timers import running_until
from holdfast.runtime.turns.waits import Waits
from holdfast.stores.records import Park

SETTLE_S = 0.02
"""How long a turn that waits for a person stays in memory before it parks, in seconds, so that code about to begin a step can begin it.
Also the delay after one of the handler's own timers has fired."""

QUIET_S, PERSON_S = 60.0, 5.0
"""How many seconds a task of the handler may run no step while another one waits; after that it counts as waiting for that one. In
general, and where the turn waits for a person."""


class Parking:
    """Decides for one run when to call `park`, with the park of its waits.

    It does not call it while code is between two steps (`Flight.between`), nor while a timer of the handler's own runs: a timeout around
    a wait must fire in memory, since it starts anew with each run. Where the turn waits for a person, timers do not count: lists must
    show the session among those that need a person.
    """

    __slots__ = ("_flight", "_loop", "_park", "_quiet_from", "_timer", "_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop, waits: Waits, flight: Flight, park: Callable[[Park], None]) -> None:
        self._loop, self._waits, self._flight, self._park = loop, waits, flight, park
        self._timer: asyncio.Handle | None = None
        self._quiet_from = 0.0

    def consider(self) -> None:
        """Each step in flight waits now."""
        self._quiet_from = self._loop.time()
        self._review()

    def forget(self) -> None:
        """A step runs again, or the run is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _review(self) -> None:
        self.forget()
        if self._flight.busy or not self._waits.held or self._waits.answered():
            return
        between = self._flight.between()
        if between == "yes":
            return
        now, at = self._loop.time(), self._waits.hold_until()
        if between == "maybe":
            at = max(at, self._quiet_from + (PERSON_S if self._waits.for_a_person else QUIET_S))
        if at <= now and not self._waits.for_a_person:
            if asyncio.current_task() is not None:  # this task is about to wait: its frames can be read after that
                self._timer = self._loop.call_soon(self._review)
                return
            at = running_until(self._flight.tasks(), now) + SETTLE_S
        if at > now:
            self._timer = self._loop.call_at(at, self._review)
        else:
            self._park(self._waits.joined())
