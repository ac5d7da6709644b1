"""Finds an agent in a loop: one call with the same arguments again and again, or a short cycle of calls.

A verdict depends only on the calls, so the same calls always get the same verdict. A call that is new to the window costs one look-up; only
a repeated call is compared with the calls before it.
"""

from __future__ import annotations

from collections import deque

import msgspec

from holdfast.policies._faults import Faults


class RepetitionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How much repetition is too much.

    Attributes:
        same: how many identical calls (name and arguments) the last `window` calls may hold; one more is refused.
        window: how many of the last calls are compared.
        cycle_max: the longest cycle to look for, in calls; below 2: none.
        cycles: how often a cycle may run, 2 or more; the call that would begin it once more is refused.

    Raises:
        ConfigError: a field is out of range; the message names every such field.
    """

    same: int = 8
    window: int = 40
    cycle_max: int = 4
    cycles: int = 4

    def __post_init__(self) -> None:
        faults = Faults("RepetitionSpec")
        faults.whole("same", self.same, 1)
        faults.whole("window", self.window, 1)
        faults.whole("cycle_max", self.cycle_max, 0)
        faults.whole("cycles", self.cycles, 2)
        faults.check()
        if self.window < max(self.same, self.cycle_max):
            faults.add(f"window is {self.window}: it has to be at least same ({self.same}) and cycle_max ({self.cycle_max})")
        faults.check()


class Repetition:
    """The last calls of one session.

    `before` checks a call and notes it unless it is refused. `note` only notes a call: use it for the records of a resumed turn, in order
    and without the refused ones.

    Attributes:
        spec: the limits.
        refused: refusals in a row. A refused call is not noted, so an agent that repeats it stays refused; this counts the refusals.
    """

    __slots__ = ("_counts", "_last", "_names", "_runs", "refused", "spec")
    # `_last` are the keys of the last `window` calls and `_counts` how often each is among them. `_runs[p]` counts the latest calls in a
    # row that each equal the call p before. `_names` has the names of the keys that occurred more than once.

    def __init__(self, spec: RepetitionSpec) -> None:
        self.spec = spec
        self.refused = 0
        self.clear()

    def before(self, name: str, digest: bytes) -> str | None:
        """Whether the call may be made.

        Args:
            name: of the tool or function.
            digest: of its arguments.

        Returns:
            None if it may, and it is noted; otherwise one line that names the repetition, and it is not noted.
        """
        key = hash((name, digest))
        counts = self._counts
        if counts is not None and key in counts:
            text = self._too_many(key, name, counts[key]) or self._too_round(key, name)
            if text is not None:
                self.refused += 1
                return text
        self.refused = 0
        self._note(key, name)
        return None

    def note(self, name: str, digest: bytes) -> None:
        """Note a call that was made."""
        self.refused = 0
        self._note(hash((name, digest)), name)

    def clear(self) -> None:
        """Forget all calls; takes no memory until the next one."""
        self._last: deque[int] | None = None
        self._counts: dict[int, int] | None = None
        self._names: dict[int, str] | None = None
        self._runs: list[int] | None = None
        self.refused = 0

    def _note(self, key: int, name: str) -> None:
        last, counts = self._last, self._counts
        if last is None or counts is None:
            last = self._last = deque()
            counts = self._counts = {}
        if key in counts:
            self._follow(key, name, last)
            counts[key] += 1
        else:
            # A cycle cannot contain a call that is new to the window.
            self._runs = None
            counts[key] = 1
        last.append(key)
        if len(last) > self.spec.window:
            self._forget(last.popleft(), counts)

    def _follow(self, key: int, name: str, last: deque[int]) -> None:
        if self._names is None:
            self._names = {}
        self._names[key] = name
        runs = self._runs
        if runs is None:
            runs = self._runs = [0] * (self.spec.cycle_max + 1)
        for period in range(2, min(self.spec.cycle_max, len(last)) + 1):
            runs[period] = runs[period] + 1 if last[-period] == key else 0

    def _forget(self, key: int, counts: dict[int, int]) -> None:
        left = counts[key] - 1
        if left:
            counts[key] = left
            return
        del counts[key]
        if self._names is not None:
            self._names.pop(key, None)
            if not self._names:
                self._names = None

    def _too_many(self, key: int, name: str, times: int) -> str | None:
        # The oldest call leaves the window as this one enters it.
        if self._last is not None and len(self._last) == self.spec.window and self._last[0] == key:
            times -= 1
        if times < self.spec.same:
            return None
        return f"{name} was called {times} times with the same arguments within the last {self.spec.window} calls"

    def _too_round(self, key: int, name: str) -> str | None:
        runs, last = self._runs, self._last
        if runs is None or last is None:
            return None
        for period in range(2, self.spec.cycle_max + 1):
            if runs[period] >= period * (self.spec.cycles - 1) and len(last) >= period and last[-period] == key:
                cycle = [last[at] for at in range(-period, 0)]
                # One call over and over is also a cycle of every length, but `same` is the limit for that.
                if len(set(cycle)) > 1:
                    calls = ", ".join((self._names or {}).get(each, name if each == key else "?") for each in cycle)
                    return f"the cycle {calls} ran {self.spec.cycles} times with the same arguments"
        return None
