"""A circuit breaker: stops calls to a dependency that keeps failing, then tests it with a fixed number of half-open calls.

A closed breaker counts the last `window` calls. It opens when it has counted at least `minimum` calls and the share of failed calls reaches
its ratio. While it is open, every call waits. After `open_s` it is half-open: exactly `half_open_calls` calls pass, and their
outcomes close it or open it again. The scheme and the meaning of the fields are those of resilience4j's count-based window
(https://resilience4j.readme.io/docs/circuitbreaker).

Which failures count is in docs/failures.md. A slow call that succeeds is no failure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.policies._faults import Faults
from holdfast.policies.gate import GO, Verdict, Wait

HALF_OPEN_WAIT_S = 1.0
"""How long a call waits, in seconds, before it asks again while all half-open calls are in flight."""

_CLOSED, _OPEN, _HALF_OPEN = 0, 1, 2
_STATES = ("closed", "open", "half_open")
_NO_CALLS: dict[int, float] = {}  # one for all breakers that are not half-open: nothing is put into it


class BreakerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, for how long, and what closes it again.

    Attributes:
        window: how many of the last calls it counts.
        minimum: calls in the window before it can open; a number over `window` counts as `window`. resilience4j's default is 100, too
            many for a session.
        failure_ratio: share of failed calls at which it opens, over 0 and at most 1.
        open_s: how long the first opening lasts, in seconds. Each further opening lasts twice as long, until a whole window of calls
            succeeds; where the dependency says for how long to wait, it lasts that long, from `open_s` to `open_max_s`.
        open_max_s: the longest opening, in seconds.
        half_open_calls: calls that a half-open breaker lets through.
        kill_after: openings in a row after which the owner is killed; None is never.

    Raises:
        ConfigError: a field is out of range; the message names every such field.
    """

    window: int = 100
    minimum: int = 20
    failure_ratio: float = 0.5
    open_s: float = 60.0
    open_max_s: float = 600.0
    half_open_calls: int = 5
    kill_after: int | None = None

    def __post_init__(self) -> None:
        faults = Faults("BreakerSpec")
        for field in ("window", "minimum", "half_open_calls"):
            faults.whole(field, getattr(self, field), 1)
        faults.whole("kill_after", self.kill_after, 1, optional=True)
        faults.ratio("failure_ratio", self.failure_ratio)
        for field in ("open_s", "open_max_s"):
            faults.number(field, getattr(self, field), positive=True)
        faults.check()


class BreakerView(msgspec.Struct, frozen=True):
    """A breaker as it is now, for people.

    Attributes:
        state: "closed", "open" or "half_open".
        openings: how often it opened without a whole window of successful calls in between.
        until: when the present opening ends, on the breaker's clock; None if it is not open.
        cause: why it opened; "" if it is closed.
        error: the last failure that counted, as "type: message"; "" if there was none.
        status: the HTTP status of that failure; None if it had none.
    """

    state: str
    openings: int
    until: float | None
    cause: str
    error: str = ""
    status: int | None = None


class Breaker:
    """The breaker of one session or one dependency.

    Call `before`. On `GO`, read `generation` before the next await, and pass it to `after` once the call has ended. The outcome of a call
    that began before the last change of state is dropped. A half-open call that has not ended after `open_s` no longer keeps another one
    back; its outcome counts as long as the breaker is half-open.

    Attributes:
        spec: when it opens.
        name: what it guards; the reasons of its verdicts contain it.
        generation: grows with each change of state and each half-open call.
        openings: how often it opened without a whole window of successful calls in between.
        until: when the present opening ends, on the clock of the `now` that callers pass.
        error: the last failure that counted, for people; its HTTP `status`, if it had one.
    """

    __slots__ = (
        "_cause",
        "_count",
        "_failed",
        "_held",
        "_out",
        "_retry_at",
        "_ring",
        "_since",
        "_state",
        "_stated_s",
        "error",
        "generation",
        "name",
        "openings",
        "spec",
        "status",
        "until",
    )
    # `_ring` holds a mark for each of the last `window` calls, at its number modulo `window`; None while all of them succeeded.
    # `_count` numbers the calls since the last change of state, `_held` those that `before` held back since then. `_out` has the half-open
    # calls that have not ended: the time at which each was let through, by its generation. `_since` is the generation of the last change of
    # state. `_retry_at` is the latest time to which a failure since then asked to wait, and `_stated_s` the length of the present opening
    # where it comes from that.

    def __init__(self, spec: BreakerSpec, name: str = "") -> None:
        self.spec = spec
        self.name = name
        self.generation = 0
        self.openings = 0
        self.until = self._stated_s = self._retry_at = 0.0
        self.error = ""
        self.status: int | None = None
        self._cause = ""
        self._enter(_CLOSED)

    @property
    def state(self) -> str:
        """One of "closed", "open" and "half_open"; it changes from open to half-open at the first `before` after `until`."""
        return _STATES[self._state]

    def before(self, now: float) -> Verdict:
        """Whether a call may go: `GO`, or `Wait` while it is open or all its half-open calls are in flight."""
        if self._state == _CLOSED:
            return GO
        if self._state == _OPEN:
            if now < self.until:
                return self._wait(self.until, f"open: {self._cause}")
            self._enter(_HALF_OPEN)
        spec = self.spec
        if self._count + len(self._out) >= spec.half_open_calls:
            oldest = next(iter(self._out))
            # One that seems to begin in the future, by a clock that was set back, is replaced, too.
            if 0.0 <= now - self._out[oldest] < spec.open_s:
                return self._wait(now + HALF_OPEN_WAIT_S, f"half open: waits for its {spec.half_open_calls} half-open calls")
            del self._out[oldest]
        self.generation += 1
        self._out[self.generation] = now
        return GO

    def _wait(self, until: float, reason: str) -> Wait:
        self._held += 1
        last = f"; last error: {in_a_line(self.status, self.error)}" if self.error else ""
        return Wait(until, f"{self._title()} {reason}{last}", self._held > self.spec.half_open_calls)

    def blame(self, error: str, status: int | None, retry_at: float | None) -> None:
        """A call failed, and `after` is about to count it.

        Args:
            error: the failure as "type: message", without secrets.
            status: its HTTP status; None for none.
            retry_at: the time to which the dependency asked to wait; None if it did not say.
        """
        self.error, self.status = error, status
        if retry_at is not None:
            self._retry_at = max(self._retry_at, retry_at)

    def after(self, now: float, ok: bool | None, generation: int) -> None:
        """Count a call that `before` let through.

        Args:
            now: when the call ended.
            ok: whether it succeeded; None if that is not known (cancelled, or the caller's own error): the call does not count, and a
                half-open breaker lets another one through in its place.
            generation: the value of `generation` when `before` returned `GO`.
        """
        if self._state == _HALF_OPEN:
            if self._out.pop(generation, None) is None and not self._since < generation <= self.generation:
                return
        elif generation != self.generation:
            return
        if ok is None:
            return
        if ok and self._ring is None and self._state == _CLOSED:
            self._count += 1
            if self.openings and self._count >= self.spec.window:
                self.openings = 0
        elif self._state == _HALF_OPEN:
            self._count_half_open(now, not ok)
        else:
            self._count_call(now, not ok)

    def has_waited(self, until: float, now: float) -> None:
        """Its owner has waited to `until`, whatever the clock reads: an opening that was to end by then ends `now`."""
        if self._state == _OPEN and self.until <= until:
            self.until = min(self.until, now)

    def spent(self) -> bool:
        """Whether it opened `kill_after` times in a row, so that the caller has to kill its owner."""
        return self.spec.kill_after is not None and self.openings >= self.spec.kill_after

    def view(self) -> BreakerView:
        """The breaker as people see it."""
        shut = self._state == _CLOSED
        until, cause = self.until if self._state == _OPEN else None, "" if shut else self._cause
        return BreakerView(self.state, self.openings, until, cause, self.error, self.status)

    @property
    def remembers(self) -> bool:
        """Whether it has to be stored: it opened, or failures are in its window."""
        return self._state != _CLOSED or self.openings > 0 or self._ring is not None

    def snapshot(self) -> dict[str, Any]:
        """Its whole state as plain data, without the half-open calls in flight.

        `until` is on the clock of the `now` that callers pass: use the wall clock if you store the snapshot.
        """
        return {
            "state": self.state,
            "generation": self.generation,
            "openings": self.openings,
            "until": self.until,
            "stated_s": self._stated_s,
            "cause": self._cause,
            "marks": self._marks() if self._state == _CLOSED else "",
            "error": self.error,
            "status": self.status,
        }

    @classmethod
    def restore(cls, spec: BreakerSpec, snapshot: dict[str, Any], name: str = "", now: float | None = None) -> Breaker:
        """The breaker of a snapshot, under a `spec` that may have changed since.

        Args:
            spec: when it opens.
            snapshot: from `snapshot`.
            name: what it guards.
            now: if given, the present opening ends after its own length from then at the latest, also where the clock was set back.
        """
        breaker = cls(spec, name)
        breaker.openings = snapshot["openings"]
        breaker._stated_s = snapshot.get("stated_s", 0.0)
        lasts_s = breaker._stated_s or breaker._opening_s(max(breaker.openings - 1, 0))
        breaker.until = snapshot["until"] if now is None else min(snapshot["until"], now + lasts_s)
        breaker._cause = snapshot["cause"]
        breaker.error, breaker.status = snapshot.get("error", ""), snapshot.get("status")
        # The snapshot has no half-open calls in flight. If one ends later, its generation must not match, or it would count.
        breaker.generation = snapshot["generation"]
        state = _STATES.index(snapshot["state"])
        if state != _CLOSED:
            breaker._enter(state)
        for mark in snapshot["marks"][-spec.window :]:
            breaker._put(int(mark) & 1)  # an older version counted slow calls in another bit
        return breaker

    def _enter(self, state: int) -> None:
        self._state = state
        self.generation += 1
        self._since = self.generation
        self._retry_at = 0.0
        self._ring: bytearray | None = None
        self._count = self._failed = self._held = 0
        self._out = {} if state == _HALF_OPEN else _NO_CALLS

    def _count_half_open(self, now: float, failed: bool) -> None:
        self._count += 1
        self._failed += failed
        # The ratio is of all half-open calls, also those in flight: it opens as soon as these cannot change that, and closes when all
        # have ended.
        if self._tripped(self.spec.half_open_calls):
            self._open(now, "half-open calls", self._count)
        elif self._count >= self.spec.half_open_calls:
            self._enter(_CLOSED)

    def _count_call(self, now: float, failed: bool) -> None:
        self._put(failed)
        spec = self.spec
        calls = min(self._count, spec.window)
        if calls >= min(spec.minimum, spec.window) and self._tripped(calls):
            self._open(now, "calls", calls)
        elif self.openings and self._count >= spec.window:
            self.openings = 0

    def _put(self, failed: int) -> None:
        ring, at = self._ring, self._count % self.spec.window
        self._count += 1
        if ring is None:
            if not failed:
                return
            ring = self._ring = bytearray(self.spec.window)
        gone, ring[at] = ring[at], failed
        self._failed += failed - gone
        if not self._failed:
            self._ring = None

    def _tripped(self, calls: int) -> bool:
        return self._failed >= self.spec.failure_ratio * calls

    def _open(self, now: float, what: str, calls: int) -> None:
        self._cause = f"{self._failed} of {calls} {what} failed"
        self._stated_s = min(max(self._retry_at - now, self.spec.open_s), self.spec.open_max_s) if self._retry_at > now else 0.0
        self.until = now + (self._stated_s or self._opening_s(self.openings))
        self.openings += 1
        self._enter(_OPEN)

    def _opening_s(self, before: int) -> float:
        """How long an opening lasts after so many `before` it. The exponent has a limit, since a float overflows at 1024."""
        return min(self.spec.open_s * 2.0 ** min(before, 60), self.spec.open_max_s)

    def _marks(self) -> str:
        window, ring = self.spec.window, self._ring
        if ring is None:
            return "0" * min(self._count, window)
        return "".join(str(ring[at % window]) for at in range(max(self._count - window, 0), self._count))

    def _title(self) -> str:
        return f"breaker {self.name!r}" if self.name else "breaker"


def in_a_line(status: int | None, error: str) -> str:
    """A failure in one line for people: "HTTP 503 InternalServerError: out of order"."""
    return error if status is None else f"HTTP {status} {error}"
