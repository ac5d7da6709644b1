"""The protocol of a store: interpret ops in one transaction, and a few reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from holdfast.stores.ops import Op, Result
from holdfast.stores.records import Checkpoint, DeadLetter, Message, Owner, Runnable, Session, Step


class Store(Protocol):
    """A durable home for sessions. One process owns it for writing; `apply` is called by one task at a time (group commit)."""

    @property
    def unclean(self) -> bool:
        """Whether the owner before this one ended without `close`."""
        ...

    @property
    def overlaps(self) -> bool:
        """Whether a transaction runs without the interpreter's lock, so that sessions run at the same time."""
        ...

    async def open(self) -> None:
        """Take ownership and bring the schema up to date.

        Raises:
            StoreLocked: another process has it open for writing.
            SchemaTooNew: it was written by a newer holdfast; nothing was changed.
        """
        ...

    async def close(self) -> None:
        """Give up ownership. Idempotent."""
        ...

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        """Apply all ops, in order, in one transaction; one result each.

        Raises:
            NotWritten: none of them took effect; `passing` where the fault is the store's own. As WriteRefused where one of the ops is at
                fault: applied without it, the others may take effect.
            OutcomeUnknown: all or none took effect; read again.
        If cancelled, the ops may have been applied: the caller has to treat it as OutcomeUnknown.
        """
        ...

    def release(self, session: str) -> None:
        """A hint: the session was passivated, so the store may drop what it caches of it."""
        ...

    async def session(self, id: str) -> Session | None: ...

    async def sessions(
        self, *, limit: int = 1000, status: str | None = None, ended: bool = True, agent: str | None = None, tenant: str | None = None
    ) -> list[Session]:
        """Rows for people, those that need a person first: by `records.rank`, then the latest updated, then the latest made.

        Args:
            limit: how many at most.
            status: only these, as `records.display_status` names them: "working" is idle or unfinished with something queued.
            ended: include ended sessions. Where `status` is an ended one, they are included in any case; so are ended sessions that
                still need a person.
            agent, tenant: only those of it.
        """
        ...

    async def counts(self) -> dict[str, int]:
        """How many sessions there are of each status, as `records.display_status` names them; only those that occur."""
        ...

    async def agents(self) -> dict[str, int]:
        """How many sessions of each agent have not ended, by the agent's name in alphabetical order; only agents that have some."""
        ...

    async def open_steps(self, sessions: Sequence[str]) -> dict[str, list[Step]]:
        """The journals of the open turns of these sessions, each as `steps` gives it; without those that have no record."""
        ...

    async def similar(self, text: str, *, limit: int = 3) -> list[str]:
        """Ids of sessions that contain `text`, the earliest made first."""
        ...

    async def owner(self) -> Owner:
        """Which process runs this store."""
        ...

    async def message(self, session: str, id: str) -> Message | None: ...

    async def messages(self, session: str, *, limit: int = 1000) -> list[Message]:
        """A session's messages in order of arrival, the latest `limit` of them."""
        ...

    async def steps(self, session: str, turn: int) -> list[Step]:
        """The journal of one turn, in the order the records were first written."""
        ...

    async def checkpoints(self, session: str, *, first: int = 0, last: int | None = None) -> list[Checkpoint]:
        """The states after the turns from `first` to `last` (None: the newest), both included, in order."""
        ...

    async def dead_letters(self, session: str | None = None) -> list[DeadLetter]: ...

    async def children(self, session: str) -> list[Session]:
        """The sessions whose parent it is, in the order they were created."""
        ...

    async def orphans(self) -> list[str]:
        """Sessions that are not detached and have not ended, though their parent has ended, or the turn that made them was dropped."""
        ...

    async def runnable(self) -> list[Runnable]:
        """Every session with something to do: messages queued and neither failed, parked nor ended; or parked with a wake time."""
        ...


@runtime_checkable
class Checked(Protocol):
    """A store that others can damage while it runs, so that it has to be looked at now and then, also while nothing is written."""

    @property
    def check_s(self) -> float:
        """The seconds from one `check` to the next."""
        ...

    async def check(self) -> None:
        """Raises StoreLost where it can never be written again."""
        ...
