"""A store in memory: the same semantics as the durable ones on plain dicts, for tests, simulation and trying things out.

An instance stands for the disk: it keeps its data over `close` and `open`, so that one Runtime after the other can use it. It
has no threads and reads no clock, so it is deterministic on a loop with virtual time. A cancellation, like a crash, lands either
before a batch was applied or after it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from holdfast.clock import Clock, SystemClock
from holdfast.errors import NotWritten, StoreError, StoreLocked, WriteRefused
from holdfast.stores.excerpt import brief, brief_outcome, brief_step
from holdfast.stores.listed import ALL, Filter, Listed, Place, listed
from holdfast.stores.ops import Op, Result
from holdfast.stores.records import (
    ENDED,
    Address,
    Checkpoint,
    DeadLetter,
    Message,
    MessageState,
    Owner,
    Runnable,
    Session,
    Step,
    display_status,
    rank,
)
from holdfast.stores.returns import Account
from holdfast.stores.tables import Tables

_replace = msgspec.structs.replace


class StoreFaults(Protocol):
    """The faults that a test injects around a batch. `n` counts the calls of `apply`, from 1."""

    async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
        """May sleep, or raise NotWritten or OutcomeUnknown: the batch is not applied then."""
        ...

    async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
        """May sleep, or raise OutcomeUnknown although the batch was applied."""
        ...


class MemoryStore:
    """A Store that lasts as long as the object.

    Args:
        clock: the clock from which Runtimes on this store take stored times; the store itself never reads it.

    Attributes:
        faults: the faults around each batch; None for no faults.
        batches: how often `apply` was called.
        unclean: whether the owner before this one ended without `close`.
    """

    overlaps = False

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.clock: Clock = SystemClock() if clock is None else clock
        self.faults: StoreFaults | None = None
        self.batches = 0
        self.unclean = False
        self._clean = True
        self._owner: object | None = None
        self._tables = Tables()

    # ------------------------------------------------------------ ownership

    async def open(self) -> None:
        """Take ownership.

        Raises:
            StoreLocked: it is open already.
        """
        if self._owner is not None:
            raise StoreLocked("the store is open already: close it first")
        self._owner = object()
        self.unclean, self._clean = not self._clean, False

    async def close(self) -> None:
        """Give up ownership; the data stays. Idempotent."""
        if self._owner is not None:
            self._owner, self._clean = None, True

    def crash(self) -> None:
        """The owner dies as a killed process does: ops not applied yet never are, and the next open is `unclean`."""
        self._owner = None

    # ------------------------------------------------------------ writes

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        """Apply all ops, in order, or none; one result each.

        Raises:
            NotWritten: the store is not open, or `faults` raises it; as WriteRefused, an op is at fault.
            OutcomeUnknown: `faults` raises it.
        If cancelled, the ops may have been applied.
        """
        self.batches += 1
        n, faults, owner = self.batches, self.faults, self._owner
        await asyncio.sleep(0)  # a crash that lands here is before the commit
        if faults is not None:
            await faults.before_apply(n, ops)
        if owner is None or owner is not self._owner:
            raise NotWritten("the store is not open: nothing was written", passing=False)
        try:
            results = self._tables.apply(ops)
        except Exception as error:
            # No disk can be full here: the op is at fault.
            raise WriteRefused(f"nothing was written: {type(error).__name__}: {error}") from error
        if faults is not None:
            await faults.after_apply(n, ops)
        await asyncio.sleep(0)  # a crash that lands here is after it
        return results

    def release(self, session: str) -> None:
        """Does nothing: this store caches nothing."""

    # ------------------------------------------------------------ reads

    async def session(self, id: str) -> Session | None:
        """The session's row, or None."""
        self._check_open()
        return self._tables.sessions.get(id)

    async def sessions(self, which: Filter = ALL, *, limit: int = 1000, after: Place | None = None) -> list[Listed]:
        """Sessions for people, those that need a person first."""
        self._check_open()
        rows = [row for row in self._listed(which.takes) if after is None or _order(row.place) > _order(after)]
        return sorted(rows, key=lambda row: _order(row.place))[:limit]

    def _listed(self, wanted: Callable[[Session], bool]) -> list[Listed]:
        """These sessions in the order in which they were made."""
        # No session is ever deleted, so each keeps its number.
        numbered = enumerate(self._tables.sessions.values(), 1)
        return [listed(row, Place(rank(row), row.updated, num)) for num, row in numbered if wanted(row)]

    async def family(self, session: str, *, limit: int = 1000) -> list[Account]:
        """The accounts of a session and of all below it that are not detached."""
        self._check_open()
        below: dict[str, list[Session]] = {}
        for row in self._tables.sessions.values():
            if row.parent is not None and not row.detached:
                below.setdefault(row.parent.session, []).append(row)
        first = self._tables.sessions.get(session)
        found = [] if first is None else [Account(first.id, "", 0, first.budget, first.usage, first.returns)]
        for above in found:  # it grows meanwhile
            rows = below.get(above.id, ())
            found += [Account(row.id, above.id, above.depth + 1, row.budget, row.usage, row.returns) for row in rows]
        return found[:limit]

    async def counts(self) -> dict[str, int]:
        """How many sessions there are of each status that people see."""
        self._check_open()
        return dict(Counter(map(display_status, self._tables.sessions.values())))

    async def agents(self) -> dict[str, int]:
        """How many sessions of each agent have not ended."""
        self._check_open()
        return dict(sorted(Counter(row.agent for row in self._tables.sessions.values() if row.status not in ENDED).items()))

    async def open_steps(self, sessions: Sequence[str]) -> dict[str, list[Step]]:
        """The journals of the open turns of these sessions, without values; without those that have no record."""
        self._check_open()
        rows = [row for id in sessions if (row := self._tables.sessions.get(id)) is not None]
        journals = {row.id: self._tables.journal(row.id, row.turn + 1) for row in rows}
        return {id: [brief_step(step, 0) for step in steps] for id, steps in journals.items() if steps}

    async def similar(self, text: str, *, limit: int = 3) -> list[str]:
        """Ids of sessions that contain `text`, the earliest made first."""
        self._check_open()
        return [id for id in self._tables.sessions if text in id][:limit]

    async def owner(self) -> Owner:
        """This process: no other process can have it open."""
        self._check_open()
        return Owner(os.getpid(), socket.gethostname(), self._clean)

    async def message(self, session: str, id: str) -> Message | None:
        """The message, or None."""
        self._check_open()
        return self._tables.messages.get(session, {}).get(id)

    async def messages(
        self, session: str, *, limit: int = 1000, after: int = 0, queued: bool = False, most: int | None = None
    ) -> list[Message]:
        """A session's messages in order of arrival, a page at a time."""
        self._check_open()
        rows = [row for row in self._tables.messages.get(session, {}).values() if row.seq > after]
        rows = [row for row in rows if row.state is MessageState.QUEUED or not queued][:limit]
        return [_replace(row, body=brief(row.body, most), reply=brief_outcome(row.reply, most)) for row in rows]

    async def steps(
        self, session: str, turn: int, *, limit: int | None = None, before: bytes | None = None, most: int | None = None
    ) -> list[Step]:
        """The journal of one turn, in the order the records were first written, or the end of it."""
        self._check_open()
        found = self._tables.journal(session, turn)
        if before is not None:
            found = found[: next((at for at, step in enumerate(found) if step.key == before), 0)]
        return [brief_step(step, most) for step in found[-limit if limit else 0 :]]

    async def checkpoints(self, session: str, *, first: int = 0, last: int | None = None, most: int | None = None) -> list[Checkpoint]:
        """The states after the turns from `first` to `last`, in order; turn 0 is the state it was spawned with."""
        self._check_open()
        points = sorted(self._tables.checkpoints.get(session, {}).items())
        wanted = [point for turn, point in points if turn >= first and (last is None or turn <= last)]
        return [_replace(point, state=brief(point.state, most)) for point in wanted]

    async def dead_letters(
        self, session: str | None = None, *, limit: int = 1000, after: tuple[float, str] | None = None
    ) -> list[DeadLetter]:
        """Dead letters that were neither retried nor dropped, oldest first, a page at a time; of all sessions if None."""
        self._check_open()
        letters = [letter for letter in self._tables.letters.values() if session is None or letter.session == session]
        wanted = [letter for letter in letters if after is None or (letter.created, letter.session) > after]
        return sorted(wanted, key=lambda letter: (letter.created, letter.session))[:limit]

    async def blocking_letters(self, sessions: Sequence[str]) -> dict[str, DeadLetter]:
        """The dead letters of the open turns of these sessions, by session."""
        self._check_open()
        rows = [row for id in sessions if (row := self._tables.sessions.get(id)) is not None]
        letters = {row.id: self._tables.letters.get((row.id, row.turn + 1)) for row in rows}
        return {id: letter for id, letter in letters.items() if letter is not None}

    async def children(self, session: str, *, limit: int = 1000, after: int = 0) -> list[Listed]:
        """The sessions whose parent it is, in the order they were created, a page at a time."""
        self._check_open()
        found = self._listed(lambda row: row.parent is not None and row.parent.session == session)
        return [row for row in found if row.place.num > after][:limit]

    async def living_children(self, session: str, *, turn: int | None = None) -> list[Listed]:
        """Its children that are not detached and have not ended, in the order they were created."""
        self._check_open()

        def wanted(row: Session) -> bool:
            made = row.parent
            ours = made is not None and made.session == session and (turn is None or made.turn == turn)
            return ours and not row.detached and row.status not in ENDED

        return self._listed(wanted)

    async def orphans(self) -> list[str]:
        """Sessions that are not detached and have not ended, though their parent has, or the turn that made them was dropped."""
        self._check_open()
        sessions, checkpoints = self._tables.sessions, self._tables.checkpoints

        def over(made: Address) -> bool:
            parent = sessions.get(made.session)
            if parent is None:
                return False
            turn = checkpoints[parent.id].get(made.turn)
            return parent.status in ENDED or (turn is not None and turn.dropped)

        return [s.id for s in sessions.values() if s.parent is not None and not s.detached and s.status not in ENDED and over(s.parent)]

    async def runnable(self) -> list[Runnable]:
        """Every session with something to do, in the order they were created."""
        self._check_open()
        return [entry for entry in map(self._runnable, self._tables.sessions.values()) if entry is not None]

    def _runnable(self, session: Session) -> Runnable | None:
        if session.status == "parked":
            park = session.park
            if park is not None and park.until is not None:
                return Runnable(session.id, park.until, park.waits_on, park.since, *self._tables.charges(session))
        elif session.pending and session.status != "failed" and session.status not in ENDED:
            return Runnable(session.id, None, (), 0.0, *self._tables.charges(session))
        return None

    def _check_open(self) -> None:
        if self._owner is None:
            raise StoreError("the store is not open")


def _order(place: Place) -> tuple[int, float, int]:
    return place.rank, -place.updated, -place.num
