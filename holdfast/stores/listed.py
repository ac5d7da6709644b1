"""Sessions in lists for people: the part of a row that lists show, their order, and the place where a page ends."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from holdfast.errors import ConfigError
from holdfast.policies.budget import Budget, Usage
from holdfast.stores.records import RANK_ENDED, RANK_PERSON, Park, Session, SessionStatus, rank

MAX_ENDING = 1 << 16
"""The longest `ending` that a list gives, in bytes."""

_RANKS = {"failed": (0, 0), "parked": (1, 2), "working": (3, 3), "unfinished": (4, 4), "idle": (5, 5)}
"""The ranks (records.rank) that each status has; the others are those of sessions that have ended."""

_ENDED_BY_PEOPLE = ("cancelled", "killed")


class Place(msgspec.Struct, frozen=True, gc=False):
    """The place of a session in lists for people when it was read: by `rank`, then the latest updated, then the latest made.

    A session that changes between two pages has another place: it may be on both, or on neither.
    """

    rank: int
    updated: float
    num: int

    def __str__(self) -> str:
        return f"{self.rank}:{self.updated!r}:{self.num}"

    @classmethod
    def of(cls, text: str) -> Place:
        """The place that `str` spelled. Raises ConfigError for any other text."""
        try:
            rank, updated, num = text.split(":")
            return cls(int(rank), float(updated), int(num))
        except ValueError:
            raise ConfigError(f"{text[:40]!r} is no end of a page: use the `next` of the page before") from None


class Listed(msgspec.Struct, frozen=True, gc=False):
    """The part of a session's row that lists show; see records.Session for the fields that are not here.

    Attributes:
        place: in lists for people; `place.num` grows in the order in which sessions are made.
        ending: for a cancelled or killed session, the Outcome (MessagePack) that says why, if it is at most MAX_ENDING long; else None.
    """

    id: str
    agent: str
    tenant: str
    status: SessionStatus
    turn: int
    pending: int
    budget: Budget
    usage: Usage
    park: Park | None
    unresolved: Park | None
    updated: float
    ending: bytes | None
    place: Place
    unreadable: str = ""


def listed(session: Session, place: Place | None = None) -> Listed:
    """The row of a list for a whole row."""
    result = session.result if session.status in _ENDED_BY_PEOPLE else None
    return Listed(
        id=session.id,
        agent=session.agent,
        tenant=session.tenant,
        status=session.status,
        turn=session.turn,
        pending=session.pending,
        budget=session.budget,
        usage=session.usage,
        park=session.park,
        unresolved=session.unresolved,
        updated=session.updated,
        ending=None if result is None or len(result) > MAX_ENDING else result,
        place=Place(rank(session), session.updated, 0) if place is None else place,
        unreadable=session.unreadable,
    )


class Span(NamedTuple):
    """The ranks from `first` to `last`; of a single one, only what comes after (`updated`, `num`) where `after` is given."""

    first: int
    last: int
    after: tuple[float, int] | None = None


def spans(status: str | None, ended: bool, after: Place | None) -> list[Span]:
    """The spans of ranks that hold the sessions of a list, in order. Within each, an index on (rank, updated, num) gives them in order."""
    if status is None:
        found = [Span(0, RANK_ENDED if ended else RANK_ENDED - 1)]
    elif status in _RANKS:
        found = [Span(*_RANKS[status])]
    else:
        found = [Span(RANK_PERSON, RANK_PERSON), Span(RANK_ENDED, RANK_ENDED)]
    if after is None:
        return found
    rest: list[Span] = []
    for span in found:
        if span.first <= after.rank <= span.last:
            rest.append(Span(after.rank, after.rank, (after.updated, after.num)))
        if after.rank < span.last:
            rest.append(Span(max(span.first, after.rank + 1), span.last))
    return rest


def status_in(status: str | None) -> str | None:
    """The stored status that a row has to have beyond its rank: other sessions share the ranks of these."""
    return status if status == "parked" or status not in _RANKS else None
