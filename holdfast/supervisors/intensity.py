"""How often a child may be restarted, and how long to wait before it is: pure decisions that take `now`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import msgspec

from holdfast.given import LARGEST, brief, is_number

Uniform = Callable[[float, float], float]
"""Draws a number between two bounds, like `random.uniform`."""


class Intensity(msgspec.Struct, frozen=True):
    """The supervisor gives up at more than `restarts` restarts within `within_s` seconds.

    Attributes:
        restarts: how many are allowed; 0 allows none.
        within_s: length of the sliding period, in seconds.

    The defaults are Elixir's (3 in 5 s); Erlang's are 1 in 5 s.
    """

    restarts: int = 3
    within_s: float = 5.0

    def faults(self) -> list[str]:
        """Its faults; empty if there are none."""
        found = []
        if not is_count(self.restarts):
            found.append(f"intensity.restarts is {brief(self.restarts)}: use a whole number from 0")
        if not is_duration(self.within_s) or self.within_s == 0:
            found.append(f"intensity.within_s is {brief(self.within_s)}: use seconds above 0")
        return found


class RestartWindow:
    """The times of the restarts in the last `within_s` seconds: none for a child that never crashed, and never more than `restarts` + 1."""

    __slots__ = ("_at", "_intensity")

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        self._at: deque[float] | None = None

    def allow(self, now: float) -> bool:
        """Record a restart. Returns whether it is within the intensity.

        Args:
            now: monotonic seconds.
        """
        if self._at is None:
            # One time more than the limit is enough for each decision; older ones would only take memory.
            self._at = deque(maxlen=self._intensity.restarts + 1)
        self._at.append(now)
        return self.count(now) <= self._intensity.restarts

    def count(self, now: float) -> int:
        """How many restarts fall into the period that ends now (at most `restarts` + 1 are counted)."""
        if self._at is None:
            return 0
        # As in OTP's supervisor.erl, a restart exactly one period ago still counts.
        while self._at and now > self._at[0] + self._intensity.within_s:
            self._at.popleft()
        return len(self._at)


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before a restart: growing, capped, with full jitter. The default is OTP's: no wait.

    OTP has no backoff. One that is long for its intensity would keep the supervisor from ever giving up: see `faults_of`.

    Attributes:
        base_s: upper bound of the first wait, in seconds; 0 restarts at once.
        max_s: upper bound of every wait, in seconds.
        factor: how much the bound grows with each restart in a row.
        healthy_s: a child that ran this long, in seconds, starts at the first wait again.
    """

    base_s: float = 0.0
    max_s: float = 30.0
    factor: float = 2.0
    healthy_s: float = 60.0

    def faults(self) -> list[str]:
        """Its faults; empty if there are none."""
        fields = {"base_s": self.base_s, "max_s": self.max_s, "healthy_s": self.healthy_s}
        found = [f"backoff.{name} is {brief(value)}: use seconds from 0" for name, value in fields.items() if not is_duration(value)]
        if not is_duration(self.factor) or self.factor < 1 or math.isinf(self.factor):
            found.append(
                f"backoff.factor is {brief(self.factor)}: use a number from 1{', not infinity' if self.factor == math.inf else ''}"
            )
        return found


def delay(backoff: Backoff, nth: int, uniform: Uniform) -> float:
    """How long to wait before the nth restart in a row.

    Args:
        backoff: the rule.
        nth: 1 for the first restart after a healthy period.
        uniform: draws the jitter.

    Returns:
        Seconds, between 0 and the bound ("full jitter": AWS Architecture Blog, "Exponential Backoff and Jitter").
    """
    if backoff.base_s == 0:
        return 0.0
    try:
        bound = min(backoff.max_s, backoff.base_s * backoff.factor ** (nth - 1))
    except OverflowError:
        bound = backoff.max_s
    return uniform(0.0, bound)


class Streak:
    """How many times in a row one child was restarted."""

    __slots__ = ("_nth",)

    def __init__(self) -> None:
        self._nth = 0

    def wait_s(self, backoff: Backoff, ran_s: float, uniform: Uniform) -> float:
        """Count one more restart, the first one again after a healthy life. Returns how many seconds to wait before it.

        Args:
            backoff: the rule.
            ran_s: how long the child ran before it crashed, in seconds.
            uniform: draws the jitter.
        """
        self._nth = 1 if ran_s >= backoff.healthy_s else self._nth + 1
        return delay(backoff, self._nth, uniform)


class Restarts:
    """The restarts of one child with an intensity of its own: the decision of its supervisor, or of a session's runtime, after a crash."""

    __slots__ = ("_since", "_streak", "_window")

    def __init__(self, intensity: Intensity) -> None:
        self._window = RestartWindow(intensity)
        self._streak: Streak | None = None
        self._since = -math.inf

    def count(self, now: float) -> int:
        """How many restarts fall into the period that ends now."""
        return self._window.count(now)

    def after_crash(self, backoff: Backoff, now: float, uniform: Uniform, ran_s: float | None = None) -> float | None:
        """Record a crash. Returns how many seconds to wait before the restart, or None if the intensity is spent.

        Args:
            backoff: the rule.
            now: monotonic seconds.
            uniform: draws the jitter.
            ran_s: how long the child ran, in seconds; None: since the last restart.
        """
        if not self._window.allow(now):
            return None
        self._streak = self._streak or Streak()
        wait_s = self._streak.wait_s(backoff, now - self._since if ran_s is None else ran_s, uniform)
        self._since = now + wait_s
        return wait_s


def longest_s(backoff: Backoff, restarts: int) -> float:
    """The longest that so many restarts in a row can wait together, in seconds."""
    if restarts == 0 or backoff.base_s == 0:
        return 0.0
    if backoff.base_s >= backoff.max_s:
        return backoff.max_s * restarts
    growing = min(restarts, _growing(backoff))
    capped = restarts - growing
    return _grown_s(backoff, growing) + (capped * backoff.max_s if capped else 0.0)


def _growing(backoff: Backoff) -> float:
    """How many waits in a row are below the cap; `base_s` is one of them."""
    if backoff.factor == 1 or math.isinf(backoff.max_s):
        return math.inf
    # The logarithm of the quotient would overflow sooner.
    return max(1, math.ceil((math.log(backoff.max_s) - math.log(backoff.base_s)) / math.log(backoff.factor)))


def _grown_s(backoff: Backoff, waits: float) -> float:
    """The sum of the first waits, none of them capped: a geometric series."""
    if waits == 1 or backoff.factor == 1:
        return backoff.base_s * waits
    more = backoff.factor - 1
    try:
        # As exact for a factor barely above 1.
        return backoff.base_s * math.expm1(waits * math.log1p(more)) / more
    except OverflowError:
        return math.inf


def faults_of(intensity: Intensity, backoff: Backoff) -> list[str]:
    """The faults of both, and of one against the other; empty if there are none.

    A child that crashes at each start has to spend its intensity, whatever waits the backoff draws. Else it would be restarted for ever, or
    chance would decide.
    """
    if found := intensity.faults() + backoff.faults():
        return found
    longest = longest_s(backoff, intensity.restarts)
    # Not a hair above: both are sums of floats.
    if longest <= intensity.within_s * (1 + 1e-9):
        return []
    enough = "" if math.isinf(longest) else f"set intensity.within_s to at least {math.ceil(longest)}, or "
    times = "restart" if intensity.restarts == 1 else "restarts"
    return [
        f"intensity allows {intensity.restarts} {times} within {intensity.within_s:g} s, and the backoff waits up to "
        f"{longest:g} s together, so it may never be spent: {enough}lower backoff.base_s, backoff.max_s or intensity.restarts"
    ]


OFTEN = Intensity()
"""The default intensity."""
AT_ONCE = Backoff()
"""The default backoff: none."""


def is_count(value: object) -> bool:
    """Whether a value is a whole number from 0, and not absurdly large."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def is_duration(value: object) -> bool:
    """Whether a value is a number of seconds from 0 to infinity."""
    return isinstance(value, int | float) and (value == math.inf or (is_number(value) and value >= 0))
