"""A world in which Runtimes live and die: one store in memory, virtual time, and a record of all that was done and said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from holdfast import Agent, Handle, Runtime
from holdfast.events import Event
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.records import MessageState, Step
from holdfast.testing import Crashed, Simulation

E = TypeVar("E", bound=Event)
BAD = b"\xc1"  # the one byte that begins nothing in MessagePack
Main = Callable[[Runtime], Awaitable[Any]]

NOT_RUNNING = ("parked", "failed", "finished", "cancelled", "killed")


class World:
    """What outlives a process: the disk, the clock on the wall, and what was done outside.

    Attributes:
        store: the disk.
        done: what effects did, in order; they note it themselves.
        events: of all lives, in order.
        time_s: how late it is.
        ahead_s: by how much the clock on the wall was set ahead.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        self.store = MemoryStore()
        self.done: list[Any] = []
        self.events: list[Event] = []
        self.time_s = 0.0
        self.ahead_s = 0.0
        self.lives = 0
        self._seed = seed
        self._simulation: Simulation | None = None

    def life(self, agents: Agent | list[Agent], main: Main, *, crash_at: int | None = None, **options: Any) -> Any:
        """Run `main` with a Runtime on the store until it returns, or until something crashes; what it returned, or Crashed."""
        self.lives += 1
        simulation = self._simulation = Simulation(seed=self._seed, start_s=self.time_s, crash_at=crash_at, max_points=500_000)
        simulation.clock.jump(self.ahead_s)

        async def run(_: Simulation) -> Any:
            own = [agents] if isinstance(agents, Agent) else agents
            runtime = Runtime(self.store, own, clock=simulation.clock, random=simulation.random, **options)
            runtime.observe(self.events.append)
            async with runtime:
                return await main(runtime)

        result = simulation.run(run)
        self.time_s = simulation.loop.time()
        if isinstance(result, Crashed):
            self.store.crash()
        return result

    async def crash(self) -> None:
        """The process is killed here and now."""
        assert self._simulation is not None
        await self._simulation.crash()

    def jump(self, by_s: float) -> None:
        """Set the clock on the wall; in the life that is under way, and for those that follow."""
        self.ahead_s += by_s
        if self._simulation is not None:
            self._simulation.clock.jump(by_s)

    def suspend(self, for_s: float) -> None:
        """The machine was suspended, until now."""
        self.ahead_s += for_s
        assert self._simulation is not None
        self._simulation.clock.suspend(for_s)

    def damage(self, what: str, session: str = "s") -> Callable[[], None]:
        """Make a stored row of the open turn undecodable, as a flipped byte does; call what this returns to restore it.

        `what`: the first "record" that is there, the "state" or "usage" of the last commit, the "message" that is handled or its "sender",
        the first message's "reply", or what the "gates" remember.
        """
        tables = self.store._tables
        row = tables.sessions[session]
        match what:
            case "record":
                table: dict[Any, Any] = tables.steps[session, row.turn + 1]
                key: Any = next(iter(table))
                bad: Any = msgspec.structs.replace(table[key], body=BAD)
            case "state" | "usage":
                table, key = tables.checkpoints[session], row.turn
                bad = msgspec.structs.replace(table[key], **({"state": BAD} if what == "state" else {"unreadable": "bad usage"}))
            case "reply":
                table = tables.messages[session]
                key = next(iter(table))
                bad = msgspec.structs.replace(table[key], reply=BAD)
            case "message" | "sender":
                table = tables.messages[session]
                key = next(id for id, message in table.items() if message.state is MessageState.QUEUED)
                bad = msgspec.structs.replace(table[key], **({"body": BAD} if what == "message" else {"unreadable": "bad address"}))
            case _:
                table, key, bad = tables.sessions, session, msgspec.structs.replace(row, gates=BAD)
        good, table[key] = table[key], bad

        def restore() -> None:
            # Only what was damaged: the rest of the row may have changed meanwhile.
            field = {"record": "body", "message": "body", "usage": "unreadable", "sender": "unreadable"}.get(what, what)
            table[key] = msgspec.structs.replace(table[key], **{field: getattr(good, field)})

        return restore

    def lose(self, session: str) -> Callable[[], None]:
        """Remove the row of a session's last commit, so that it cannot be loaded; call what this returns to restore it."""
        table = self.store._tables.checkpoints[session]
        lost = dict(table)
        table.clear()
        return lambda: table.update(lost)

    def now_s(self) -> float:
        """The virtual time of the life that is under way."""
        assert self._simulation is not None
        return self._simulation.loop.time()

    def wall_s(self) -> float:
        """The time on the wall, in the life that is under way."""
        assert self._simulation is not None
        return self._simulation.clock.time()

    def seen(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


async def rest(handle: Handle, *, within_s: float = 10_000.0) -> Any:
    """Wait until the session rests (parked, failed or ended); its row."""
    deadline = asyncio.get_running_loop().time() + within_s
    while (row := await handle.row()).status not in NOT_RUNNING:
        assert asyncio.get_running_loop().time() < deadline, f"{handle.id} is still {row.status}, {row.pending} pending"
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    return row


async def idle(handle: Handle, *, within_s: float = 10_000.0) -> Any:
    """Wait until the session has handled all its messages; its row."""
    deadline = asyncio.get_running_loop().time() + within_s
    while (row := await handle.row()).pending:
        assert row.status not in NOT_RUNNING, f"{handle.id} is {row.status}: {row.park}"
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    return row


async def steps(runtime: Runtime, handle: Handle, turn: int = 1) -> list[Step]:
    """The journal of one turn."""
    return await runtime.store.steps(handle.id, turn)
