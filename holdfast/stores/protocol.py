"""What a store has to do: interpret ops in one transaction, and a few reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.stores.ops import Op, Result
from holdfast.stores.records import Checkpoint, DeadLetter, Message, Runnable, Session, Step


class Store(Protocol):
    """A durable home for sessions. One process owns it for writing; `apply` is called by one task at a time (group commit)."""

    @property
    def unclean(self) -> bool:
        """Whether the owner before this one went away without `close`."""
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
            NotWritten: none of them took effect.
            OutcomeUnknown: all or none took effect; read again.
        If cancelled, the ops may have been applied: the caller has to treat it as OutcomeUnknown.
        """
        ...

    def release(self, session: str) -> None:
        """A hint: the session is put away, so what is kept in memory to write it faster may go."""
        ...

    async def session(self, id: str) -> Session | None: ...

    async def sessions(self, *, limit: int = 1000, status: str | None = None) -> list[Session]:
        """Rows for people: failed and parked first, then the latest updated."""
        ...

    async def message(self, session: str, id: str) -> Message | None: ...

    async def messages(self, session: str, *, limit: int = 1000) -> list[Message]:
        """A session's messages in order of arrival, the latest `limit` of them."""
        ...

    async def steps(self, session: str, turn: int) -> list[Step]:
        """The journal of one turn, in the order the records were first written."""
        ...

    async def checkpoints(self, session: str) -> list[Checkpoint]: ...

    async def dead_letters(self, session: str | None = None) -> list[DeadLetter]: ...

    async def children(self, session: str) -> list[Session]:
        """The sessions whose parent it is, in the order they were created."""
        ...

    async def orphans(self) -> list[str]:
        """Sessions that are not detached and have not ended, though their parent has ended."""
        ...

    async def runnable(self) -> list[Runnable]:
        """Every session with something to do: messages queued and neither failed, parked nor ended; or parked with a wake time."""
        ...
