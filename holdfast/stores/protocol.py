"""The protocol of a store: interpret ops in one transaction, and reads: some for people, the others for the runtime and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from holdfast.stores.listed import ALL, Filter, Listed, Place
from holdfast.stores.ops import Op, Result
from holdfast.stores.records import Checkpoint, DeadLetter, Message, Owner, Runnable, Session, Step
from holdfast.stores.returns import Account


class Store(Protocol):
    """A durable home for sessions. One process owns it for writing; `apply` is called by one task at a time (group commit).

    Errors. `open`, `close`, `apply` and `release` say what they raise. Every read raises StoreError and nothing else, for one of these
    reasons: the store is not open, was never, or was closed meanwhile; its file or its server cannot be read, or does not answer within
    the store's deadline. It is StoreLost where the read found that this process can never write again (another one owns the store, or a
    file is damaged). A read never raises NotWritten otherwise, nor OutcomeUnknown, and never returns a part. A row or a cell that does not
    decode raises nothing: it is a stand-in, whose `unreadable` has the reason. Something that is not there raises nothing either: it is
    None, or missing in the result. A read sees each write that was acknowledged before it.

    Cancellation. If cancelled, a method that does not say otherwise has changed nothing: it only reads.

    Bounds. Lists have a `limit`, and a cursor that begins where the page before ended. `most`: values over so many bytes are left out, and
    their size stands for them (stores.excerpt); None leaves nothing out, for programs. Reads without both are for the runtime alone.
    """

    @property
    def unclean(self) -> bool:
        """Whether the owner before this one ended without `close`. False until `open`."""
        ...

    @property
    def overlaps(self) -> bool:
        """Whether a transaction runs without the interpreter's lock, so that sessions run at the same time."""
        ...

    async def open(self) -> None:
        """Take ownership and bring the schema up to date.

        Raises:
            StoreLocked: another process has it open for writing, or this one has.
            SchemaTooNew: it was written by a newer holdfast; nothing was changed.
            ConfigError: its URL has an option that cannot be understood.
            StoreError: it cannot be reached, or is not ours; opened for reading only, also where it is missing or of an older version.
        Where it raises or is cancelled, it is closed: nothing is held.
        """
        ...

    async def close(self) -> None:
        """Give up ownership. Idempotent.

        It raises nothing of the store's own: where the marker of a clean stop cannot be written, it logs that, and the next owner
        finds the store `unclean`. If cancelled, it may be closed without the marker.
        """
        ...

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        """Apply all ops, in order, in one transaction; one result each.

        Raises:
            NotWritten: none of them took effect. `passing` where the fault is the store's own and can pass (a full disk, a server that
                restarts); not where it is closed, or open for reading only. It is one of these where no other try can help:
            WriteRefused: one of the ops is at fault: applied without it, the others may take effect.
            StoreLost: this process can never write again: another one owns the store, or its files are gone or damaged.
            OutcomeUnknown: all or none took effect; read again.
        If cancelled, the ops may have been applied: the caller has to treat it as OutcomeUnknown.
        """
        ...

    def release(self, session: str) -> None:
        """A hint: the session was passivated, so the store may drop what it caches of it. Raises nothing, also where it is closed."""
        ...

    async def owner(self) -> Owner:
        """Which process runs this store."""
        ...

    # ------------------------------------------------------------ lists for people

    async def sessions(self, which: Filter = ALL, *, limit: int = 1000, after: Place | None = None) -> list[Listed]:
        """Sessions for people, those that need a person first: by `records.rank`, then the latest updated, then the latest made.

        Args:
            which: only these.
            limit: how many at most.
            after: only those after this place: that of the last one on the page before.
        """
        ...

    async def children(self, session: str, *, limit: int = 1000, after: int = 0) -> list[Listed]:
        """The sessions whose parent it is, in the order they were created; `after`: only those after this `place.num`."""
        ...

    async def family(self, session: str, *, limit: int = 1000) -> list[Account]:
        """The accounts of a session and of all below it that are not detached, for `returns.sums`; parents before their children."""
        ...

    async def counts(self) -> dict[str, int]:
        """How many sessions there are of each status, as `records.display_status` names them; only those that occur."""
        ...

    async def agents(self) -> dict[str, int]:
        """How many sessions of each agent have not ended, by the agent's name in alphabetical order; only agents that have some."""
        ...

    async def similar(self, text: str, *, limit: int = 3) -> list[str]:
        """Ids of sessions that contain `text`, the earliest made first."""
        ...

    async def open_steps(self, sessions: Sequence[str]) -> dict[str, list[Step]]:
        """The journals of the open turns of these sessions, in the order the records were first written, without arguments and results;
        without the sessions that have no record."""
        ...

    async def blocking_letters(self, sessions: Sequence[str]) -> dict[str, DeadLetter]:
        """The dead letters of the open turns of these sessions, by session; without those that have none."""
        ...

    async def messages(
        self, session: str, *, limit: int = 1000, after: int = 0, queued: bool = False, most: int | None = None
    ) -> list[Message]:
        """A session's messages in order of arrival; `after`: only those after this `seq`; `queued`: only those that wait."""
        ...

    async def steps(
        self, session: str, turn: int, *, limit: int | None = None, before: bytes | None = None, most: int | None = None
    ) -> list[Step]:
        """The journal of one turn, in the order the records were first written; with `limit`, the last of them.

        Args:
            before: only those before the record of this key; none where there is no such record.
        """
        ...

    async def checkpoints(self, session: str, *, first: int = 0, last: int | None = None, most: int | None = None) -> list[Checkpoint]:
        """The states after the turns from `first` to `last` (None: the newest), both included, in order; turn 0 is the state it was
        spawned with."""
        ...

    async def dead_letters(
        self, session: str | None = None, *, limit: int = 1000, after: tuple[float, str] | None = None
    ) -> list[DeadLetter]:
        """Dead letters that were neither retried nor dropped, oldest first; of all sessions if None.

        Args:
            after: only those after this (`created`, `session`): that of the last one on the page before.
        """
        ...

    # ------------------------------------------------------------ whole rows, and reads of the runtime

    async def session(self, id: str) -> Session | None:
        """The session's row, whole; None where there is none."""
        ...

    async def message(self, session: str, id: str) -> Message | None:
        """The message, whole; None where there is none."""
        ...

    async def living_children(self, session: str, *, turn: int | None = None) -> list[Listed]:
        """Its children that are not detached and have not ended, in the order they were created; only those that `turn` made, if given."""
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
        """Look whether the files are still those that were opened, and undamaged; nothing where the store is not open.

        Raises:
            StoreLost: it can never be written again.
            StoreError: they cannot be looked at now.
        If cancelled, nothing has changed.
        """
        ...
