"""Sessions in lists for people: which of them, the part of a row that lists show, their order, and the place where a page ends."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from holdfast.errors import ConfigError
from holdfast.policies.budget import Budget, Usage
from holdfast.stores.records import RANK_ENDED, RANK_PERSON, Park, Session, SessionStatus, display_status, rank

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


class Filter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which sessions a list for people has; by default all.

    Attributes:
        status: only these, as `records.display_status` names them: "working" is idle or unfinished with something queued.
        ended: include ended sessions. Where `status` is an ended one, they are included in any case; so are ended sessions that still need
            a person.
        agent, tenant: only those of it.
    """

    status: str | None = None
    ended: bool = True
    agent: str | None = None
    tenant: str | None = None

    def takes(self, session: Session) -> bool:
        """Whether the list has this session."""
        if self.agent not in (None, session.agent) or self.tenant not in (None, session.tenant):
            return False
        return self.ended or rank(session) < RANK_ENDED if self.status is None else display_status(session) == self.status

    def columns(self) -> dict[str, str]:
        """The columns that must have a certain value, beyond a rank of `spans`: some statuses share their rank with others."""
        status = self.status if self.status == "parked" or self.status not in _RANKS else None
        wanted = {"status": status, "agent": self.agent, "tenant": self.tenant}
        return {column: value for column, value in wanted.items() if value is not None}

    def spans(self, after: Place | None) -> list[Span]:
        """The spans of ranks that hold the sessions of the list behind `after`, in order.

        Within each, an index on (rank, updated, num) gives them in order.
        """
        if self.status is None:
            found = [Span(0, RANK_ENDED if self.ended else RANK_ENDED - 1)]
        elif self.status in _RANKS:
            found = [Span(*_RANKS[self.status])]
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


ALL = Filter()
