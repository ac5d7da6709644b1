"""Which session kills the process: after unclean ends, the order in which sessions start, so that the next end tells more.

A session is charged with an unclean end when it starts after one. A new record of its turn clears it. So the charges of a session are the
lives of the process in which it ran and did not get on, and of two sessions the one with more charges is more suspect.

Sessions with few charges start first, all at once: one end may have any cause. Then the suspects are tried, those with the most charges
first, a half of them and then the rest, each group when the one before has passed. Where the process dies during a trial, only the sessions
of that trial are charged, so the next start tries the halves of that group. A session that was tried alone when the process died is the
culprit. This finds each of several culprits among n sessions in about log2(n) ends, and then `crash_limit` decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

SUSPECT_FROM = 2
"""A session with so many charges is a suspect."""

FIRST_S, LONGEST_S = 60.0, 600.0
"""How long a trial lasts at most, in seconds: doubling with each charge from the first to the second, so that it becomes longer than a
killer takes. It ends earlier where each session of it has a new record, or rests."""


class Charged(msgspec.Struct, frozen=True, gc=False):
    """A session that has work at a start after an unclean end.

    Attributes:
        id: the session.
        crashes: in how many lives that ended uncleanly it started and made no new record.
        alone: it was tried alone when the last of these lives ended.
    """

    id: str
    crashes: int = 0
    alone: bool = False


class Trial(msgspec.Struct, frozen=True, gc=False):
    """Sessions that start at once.

    Attributes:
        sessions: their ids.
        seconds: when the next trial begins at the latest.
    """

    sessions: tuple[str, ...]
    seconds: float

    @property
    def alone(self) -> bool:
        """Whether it tries one session."""
        return len(self.sessions) == 1


def trials(charged: Sequence[Charged]) -> list[Trial]:
    """The trials of one life, in order; each session is in one of them. Without suspects there is one trial of all sessions."""
    levels: dict[int, list[str]] = {}
    for session in charged:
        levels.setdefault(session.crashes if session.crashes >= SUSPECT_FROM else 0, []).append(session.id)
    ordered = [Trial(tuple(free), FIRST_S)] if (free := levels.pop(0, None)) else []
    for crashes in sorted(levels, reverse=True):
        group, seconds = levels[crashes], min(FIRST_S * 2.0 ** min(crashes - SUSPECT_FROM, 30), LONGEST_S)
        middle = (len(group) + 1) // 2
        ordered += [Trial(tuple(part), seconds) for part in (group[:middle], group[middle:]) if part]
    return ordered


def culprits(charged: Sequence[Charged]) -> frozenset[str]:
    """The sessions that a crash limit applies to: tried alone when the process died, or the only session that had work."""
    return frozenset(session.id for session in charged if session.alone or len(charged) == 1)


def together(left: Sequence[Trial]) -> list[Trial]:
    """The trials that are left, as one: a culprit was found, which explains the ends."""
    sessions = tuple(id for trial in left for id in trial.sessions)
    return [Trial(sessions, FIRST_S)] if sessions else []
