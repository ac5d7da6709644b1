"""The trials of sessions after unclean ends, one after another (`holdfast.policies.culprit` has the order)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from holdfast.policies.culprit import Trial, together

_NOT_STARTED = object()


class Trials:
    """The trial under way, and those that wait for it.

    Args:
        begin: starts these sessions, and charges each with the last end; the second argument tells whether it is tried alone.
        progress: what changes with each new record and each turn of a session; None where it is not in memory.
        passed: a suspect has passed its trial, without a new record.

    Attributes:
        held: the sessions that must not run yet.
        open: the sessions of the trial under way that have not passed yet, each with its progress when it started.
    """

    __slots__ = ("_begin", "_clean", "_hunting", "_left_s", "_next", "_passed", "_progress", "_trial", "held", "open")

    def __init__(
        self, begin: Callable[[Sequence[str], bool], None], progress: Callable[[str], object], passed: Callable[[str], None]
    ) -> None:
        self._begin, self._progress, self._passed = begin, progress, passed
        self._next: deque[Trial] = deque()
        self._trial = Trial((), 0.0)
        self._left_s, self._hunting, self._clean = 0.0, False, True
        self.held: set[str] = set()
        self.open: dict[str, object] = {}

    def run(self, trials: Sequence[Trial]) -> None:
        """Begin the first of these; the others follow."""
        self._hunting = self._hunting or len(trials) > 1
        self._next.extend(trials)
        self.held.update(id for trial in trials for id in trial.sessions)
        self._advance()

    def started(self, id: str) -> None:
        """A session was loaded, and may run."""
        if id in self.open:
            self.open[id] = self._progress(id)

    def settles(self, id: str) -> None:
        """A session has no work for now."""
        if id in self.open:
            self._pass(id)
            self._advance()

    def found(self, id: str) -> None:
        """This session is the culprit, and is parked: the others start now."""
        self.open.clear()
        left = together(self._next)
        self._next.clear()
        self.run(left)

    def look(self, seconds: float) -> None:
        """So much time has passed."""
        if self.open:
            self._left_s -= seconds
            for id, before in list(self.open.items()):
                late = self._left_s <= 0.0
                if late or (before is not _NOT_STARTED and self._progress(id) != before):
                    self._pass(id)
                    self._clean = self._clean and not (late and self._trial.suspects)
            self._advance()

    def _pass(self, id: str) -> None:
        if self.open.pop(id) == self._progress(id) and self._trial.suspects:
            self._passed(id)

    def _advance(self) -> None:
        if self._next and not self.open:
            trial = self._trial = self._next.popleft()
            self._left_s = trial.seconds
            self.held.difference_update(trial.sessions)
            if self._hunting or trial.alone:  # else nothing depends on its end
                self.open = dict.fromkeys(trial.sessions, _NOT_STARTED)
            self._begin(trial.sessions, trial.alone and self._clean)  # a suspect whose time is over still runs, and may be the culprit
