"""Which session kills the process: after unclean ends, the order in which sessions start, so that the next end tells more.

A session is charged with an unclean end when it starts after one. A new record of its turn clears it. So the charges of a session are the
lives of the process in which it ran and made no new record.

Sessions with few charges start first, all at once: one end may have any cause. Then the suspects are tried, the most suspect first, a half
of them and then the rest, each group when the one before has passed: each session of it has a new record, is idle, or the trial's time is
over. A suspect's pass without a new record counts against its charge. So where the process dies during a trial, only the sessions of that
trial are more suspect than before, and the next start tries the halves of that group. A session that was tried alone when the process died
(and no suspect still ran that had passed by time) is the culprit. This finds each of several culprits among n sessions in about log2(n)
ends, and then `crash_limit` decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

SUSPECT_FROM = 2
"""A session with so many charges more than passes is a suspect."""

FIRST_S, LONGEST_S = 60.0, 600.0
"""How long a trial lasts at most, in seconds: doubling with each charge of a session from the first to the second, so that it becomes
longer than a killer takes."""


class Charged(msgspec.Struct, frozen=True, gc=False):
    """A session that has work at a start after an unclean end.

    Attributes:
        id: the session.
        crashes: in how many lives that ended uncleanly it started and made no new record.
        passes: in how many of these it passed a trial.
        alone: it was tried alone when the last of these lives ended.
    """

    id: str
    crashes: int = 0
    passes: int = 0
    alone: bool = False


class Trial(msgspec.Struct, frozen=True, gc=False):
    """Sessions that start at once.

    Attributes:
        sessions: their ids.
        seconds: when the next trial begins at the latest.
        suspects: whether they are suspects.
    """

    sessions: tuple[str, ...]
    seconds: float
    suspects: bool = False

    @property
    def alone(self) -> bool:
        """Whether it tries one suspect."""
        return self.suspects and len(self.sessions) == 1


def trials(charged: Sequence[Charged]) -> list[Trial]:
    """The trials of one life, in order; each session is in one of them. Without suspects there is one trial of all sessions."""
    levels: dict[int, list[Charged]] = {}
    for session in charged:
        level = session.crashes - session.passes
        levels.setdefault(level if level >= SUSPECT_FROM else 0, []).append(session)
    ordered = [Trial(tuple(session.id for session in free), FIRST_S)] if (free := levels.pop(0, None)) else []
    for level in sorted(levels, reverse=True):
        group = levels[level]
        middle = (len(group) + 1) // 2
        ordered += [_trial(part) for part in (group[:middle], group[middle:]) if part]
    return ordered


def _trial(group: Sequence[Charged]) -> Trial:
    lives = min(max(session.crashes for session in group) - SUSPECT_FROM, 30)
    return Trial(tuple(session.id for session in group), min(FIRST_S * 2.0**lives, LONGEST_S), suspects=True)


def culprits(charged: Sequence[Charged]) -> frozenset[str]:
    """The sessions that a crash limit applies to: tried alone when the process died, or the only session that had work."""
    return frozenset(session.id for session in charged if session.alone or len(charged) == 1)


def together(left: Sequence[Trial]) -> list[Trial]:
    """The trials that are left, as one: a culprit was found, which explains the ends."""
    sessions = tuple(id for trial in left for id in trial.sessions)
    return [Trial(sessions, FIRST_S)] if sessions else []
