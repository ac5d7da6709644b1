"""A circuit breaker: stops calls to what keeps failing, then lets exactly so many probes through to see whether it is back.

Closed, it looks at the last `window` calls. When at least `minimum` were counted and the share of failed (or slow) ones has
reached its ratio, it opens: everybody waits. After `open_s` it is half-open: exactly `probes` calls pass; together they decide.
The scheme and the meaning of the fields are those of resilience4j's count-based window
(https://resilience4j.readme.io/docs/circuitbreaker).

Cancelled calls, and errors that are the caller's own, never count.
"""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.policies._faults import Faults
from holdfast.policies.gate import GO, Verdict, Wait

PROBE_WAIT_S = 1.0
"""How long to wait, in seconds, before asking again while the probes of others are under way."""

_CLOSED, _OPEN, _HALF_OPEN = 0, 1, 2
_STATES = ("closed", "open", "half_open")
_FAILED, _SLOW = 1, 2


class BreakerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, for how long, and what closes it again.

    Attributes:
        window: how many of the last calls are looked at.
        minimum: calls in the window before it can open (at most `window` is asked for). resilience4j has 100, too many for a
            session.
        failure_ratio: share of failed calls at which it opens, over 0 and at most 1.
        slow_s: a call that takes longer is slow, in seconds.
        slow_ratio: share of slow calls at which it opens.
        open_s: how long the first opening lasts, in seconds; each one that follows before a whole window went well lasts twice
            as long.
        open_max_s: the longest opening, in seconds.
        probes: calls that pass when half-open.
        kill_after: openings in a row after which the owner is to be killed; None is never.

    Raises:
        ConfigError: when a field makes no sense; it names every such field.
    """

    window: int = 100
    minimum: int = 20
    failure_ratio: float = 0.5
    slow_s: float = 60.0
    slow_ratio: float = 1.0
    open_s: float = 60.0
    open_max_s: float = 600.0
    probes: int = 5
    kill_after: int | None = None

    def __post_init__(self) -> None:
        faults = Faults("BreakerSpec")
        for field in ("window", "minimum", "probes"):
            faults.whole(field, getattr(self, field), 1)
        faults.whole("kill_after", self.kill_after, 1, optional=True)
        for field in ("failure_ratio", "slow_ratio"):
            faults.ratio(field, getattr(self, field))
        for field in ("slow_s", "open_s", "open_max_s"):
            faults.number(field, getattr(self, field), positive=True)
        faults.check()


class BreakerView(msgspec.Struct, frozen=True):
    """A breaker as it is now, for people.

    Attributes:
        state: "closed", "open" or "half_open".
        openings: how often it opened without a whole window of calls going well in between.
        until: when the present opening ends, on the breaker's clock; None where it is not open.
        cause: what it opened for; "" where it is closed.
    """

    state: str
    openings: int
    until: float | None
    cause: str


class Breaker:
    """The breaker of one session or one dependency.

    Ask `before`; on `GO` read `generation` in the same breath and hand it to `after` once the call has ended. A call that was let
    through before the breaker changed its state says nothing about the state it ends in: its outcome is dropped.

    Attributes:
        spec: when it opens.
        name: what it guards, for the reasons it gives.
        generation: grows with each change of state.
        openings: how often it opened without a whole window of calls going well in between.
        until: when the present opening ends, on the clock that is handed in.
    """

    __slots__ = (
        "_admitted",
        "_cause",
        "_count",
        "_failed",
        "_ring",
        "_slow",
        "_state",
        "generation",
        "name",
        "openings",
        "spec",
        "until",
    )
    # `_ring` holds a mark for each of the last `window` calls, at its number modulo `window`; None while all of them were good.
    # `_count` numbers the calls since the last change of state. `_admitted` is what `before` let through while half-open.

    def __init__(self, spec: BreakerSpec, name: str = "") -> None:
        self.spec = spec
        self.name = name
        self.generation = 0
        self.openings = 0
        self.until = 0.0
        self._cause = ""
        self._enter(_CLOSED)

    @property
    def state(self) -> str:
        """One of "closed", "open" and "half_open"; it goes from open to half-open when somebody asks after `until`."""
        return _STATES[self._state]

    def before(self, now: float) -> Verdict:
        """Whether a call may go: `GO`, or `Wait` while it is open or all its probes are out."""
        if self._state == _CLOSED:
            return GO
        if self._state == _OPEN:
            if now < self.until:
                return Wait(self.until, f"{self._title()} open: {self._cause}")
            self._enter(_HALF_OPEN)
        if self._admitted >= self.spec.probes:
            return Wait(now + PROBE_WAIT_S, f"{self._title()} half open: {self.spec.probes} probes are under way")
        self._admitted += 1
        return GO

    def after(self, now: float, ok: bool | None, duration_s: float, generation: int) -> None:
        """Counts a call that `before` let through.

        Args:
            now: when the call ended.
            ok: True or False; None if it says nothing (cancelled, or the caller's own error), which also gives a probe back.
            duration_s: how long it took, in seconds.
            generation: what `generation` was when `before` said `GO`.
        """
        if generation != self.generation:
            return
        if ok is None:
            if self._state == _HALF_OPEN:
                self._admitted -= 1
            return
        spec = self.spec
        if ok and self._ring is None and duration_s <= spec.slow_s and self._state == _CLOSED:
            self._count += 1
            if self.openings and self._count >= spec.window:
                self.openings = 0
            return
        mark = (0 if ok else _FAILED) | (_SLOW if duration_s > spec.slow_s else 0)
        if self._state == _HALF_OPEN:
            self._count_probe(now, mark)
        else:
            self._count_call(now, mark)

    def spent(self) -> bool:
        """Whether it opened so often in a row that its owner is to be killed."""
        return self.spec.kill_after is not None and self.openings >= self.spec.kill_after

    def view(self) -> BreakerView:
        """What people are shown of it."""
        shut = self._state == _CLOSED
        return BreakerView(self.state, self.openings, self.until if self._state == _OPEN else None, "" if shut else self._cause)

    def snapshot(self) -> dict[str, Any]:
        """All of it but the probes under way, as plain data.

        `until` is on the clock that was handed in: for a snapshot that is stored that has to be the wall clock.
        """
        return {
            "state": self.state,
            "generation": self.generation,
            "openings": self.openings,
            "until": self.until,
            "cause": self._cause,
            "marks": self._marks() if self._state == _CLOSED else "",
        }

    @classmethod
    def restore(cls, spec: BreakerSpec, snapshot: dict[str, Any], name: str = "", now: float | None = None) -> Breaker:
        """The breaker that a snapshot was taken of, under a `spec` that may have changed since.

        Args:
            spec: when it opens.
            snapshot: from `snapshot`.
            name: what it guards.
            now: if given, an opening that would last longer than `spec` allows from now is cut to that.
        """
        breaker = cls(spec, name)
        breaker.openings = snapshot["openings"]
        breaker.until = snapshot["until"] if now is None else min(snapshot["until"], now + spec.open_max_s)
        breaker._cause = snapshot["cause"]
        # Probes under way are forgotten, so those that end later must not find their generation.
        breaker.generation = snapshot["generation"]
        state = _STATES.index(snapshot["state"])
        if state != _CLOSED:
            breaker._enter(state)
        for mark in snapshot["marks"][-spec.window :]:
            breaker._put(int(mark))
        return breaker

    def _enter(self, state: int) -> None:
        self._state = state
        self.generation += 1
        self._ring: bytearray | None = None
        self._count = self._failed = self._slow = self._admitted = 0

    def _count_probe(self, now: float, mark: int) -> None:
        self._count += 1
        self._failed += mark & _FAILED
        self._slow += mark >> 1
        # Against all probes, also those still out: it opens as soon as they cannot change that, and closes when all have ended.
        if self._tripped(self.spec.probes):
            self._open(now, "probes", self._count)
        elif self._count >= self.spec.probes:
            self._enter(_CLOSED)

    def _count_call(self, now: float, mark: int) -> None:
        self._put(mark)
        spec = self.spec
        calls = min(self._count, spec.window)
        if calls >= min(spec.minimum, spec.window) and self._tripped(calls):
            self._open(now, "calls", calls)
        elif self.openings and self._count >= spec.window:
            self.openings = 0

    def _put(self, mark: int) -> None:
        ring, at = self._ring, self._count % self.spec.window
        self._count += 1
        if ring is None:
            if not mark:
                return
            ring = self._ring = bytearray(self.spec.window)
        gone, ring[at] = ring[at], mark
        self._failed += (mark & _FAILED) - (gone & _FAILED)
        self._slow += (mark >> 1) - (gone >> 1)
        if not self._failed and not self._slow:
            self._ring = None

    def _tripped(self, calls: int) -> bool:
        return self._failed >= self.spec.failure_ratio * calls or self._slow >= self.spec.slow_ratio * calls

    def _open(self, now: float, what: str, calls: int) -> None:
        slow = self._failed < self.spec.failure_ratio * calls
        self._cause = f"{self._slow if slow else self._failed} of {calls} {what} {'were slow' if slow else 'failed'}"
        # The exponent is bounded, since a float overflows at 1024 openings.
        self.until = now + min(self.spec.open_s * 2.0 ** min(self.openings, 60), self.spec.open_max_s)
        self.openings += 1
        self._enter(_OPEN)

    def _marks(self) -> str:
        window, ring = self.spec.window, self._ring
        if ring is None:
            return "0" * min(self._count, window)
        return "".join(str(ring[at % window]) for at in range(max(self._count - window, 0), self._count))

    def _title(self) -> str:
        return f"breaker {self.name!r}" if self.name else "breaker"
