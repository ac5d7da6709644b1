"""Every verb of the public API, cancelled at a random instant and then said again: what was begun is found by its key."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import Budget, Handle, Runtime, SessionEnded
from holdfast.errors import HoldfastError, SessionError
from holdfast.stores.postgres.store import PostgresStore
from holdfast.stores.protocol import Store
from holdfast.stores.sqlite.store import SqliteStore
from holdfast.testing import Simulation, for_each_seed, simulate
from tests.chaos.shapes import Op
from tests.chaos.world import World

WAIT_S = 200.0


class Caller:
    """Calls verbs, each on a session of its own, and lets go of each half-way.

    Attributes:
        cancelled: how many calls were really cut off.
    """

    def __init__(self, world: World, runtime: Runtime, draw: random.Random) -> None:
        self.world, self.runtime = world, runtime
        self.cancelled: Counter[str] = Counter()
        self._draw, self._number = draw, 0

    async def session(self, budget: Budget | None = None) -> tuple[Handle, str]:
        """A new session, and a label that is new too."""
        self._number += 1
        label = f"c-{self._number}"
        return await self.runtime.spawn(self.world.worker, id=label, budget=budget), label

    async def cut_off(self, name: str, call: Callable[[], Awaitable[Any]]) -> None:
        """Begin a call and cancel it after some steps of the loop."""
        task = asyncio.ensure_future(call())
        for _ in range(self._draw.randrange(14)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            self.cancelled[name] += 1
        else:
            assert isinstance(task.exception(), HoldfastError | None), task.exception()

    async def again(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Say it again to the end. That it has happened already is a fine answer."""
        for _ in range(100):
            try:
                return await call()
            except SessionError as error:
                if "is running" not in str(error):
                    return error
                await asyncio.sleep(self.world.pace)
        raise AssertionError("it is still running")

    async def twice(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Cut off first, then to the end."""
        await self.cut_off(name, call)
        return await self.again(call)

    # ------------------------------------------------------------ verbs

    async def spawn(self) -> None:
        self._number += 1
        id = f"c-{self._number}"
        await self.twice("spawn", lambda: self.runtime.spawn(self.world.worker, id=id))
        assert (await self.runtime.session(id).row()).status == "idle"

    async def tell(self) -> None:
        handle, label = await self.session()
        await self.twice("tell", lambda: handle.tell([["note", label]], id="m"))
        assert await handle.ask([["note", label]], id="m", timeout_s=WAIT_S) == [label]
        assert self.world.ledger.count(("note", label)) == 1

    async def ask(self) -> None:
        handle, label = await self.session()
        script: list[Op] = [["refund", label], ["sleep", label, 1.0], ["answer", label]]
        assert await self.twice("ask", lambda: handle.ask(script, id="m", timeout_s=WAIT_S)) == [label] * 3
        assert self.world.ledger.count(("refund", label)) == self.world.ledger.count(("answer", label)) == 1

    async def result(self) -> None:
        handle, label = await self.session()
        await self.cut_off("result", lambda: handle.result(timeout_s=WAIT_S))
        await handle.tell([["finish", label]], id="m")
        assert await self.twice("result", lambda: handle.result(timeout_s=WAIT_S)) == label

    async def end(self, verb: str, status: str) -> None:
        handle, label = await self.session()
        asked = asyncio.ensure_future(handle.ask([["sleep", label, 1_000.0]], id="m", timeout_s=WAIT_S))
        await self._until(handle, "parked")
        await self.twice(verb, handle.cancel if verb == "cancel" else handle.kill)
        assert (await handle.row()).status == status
        with pytest.raises(SessionEnded):
            await asked

    async def cancel(self) -> None:
        await self.end("cancel", "cancelled")

    async def kill(self) -> None:
        await self.end("kill", "killed")

    async def raise_budget(self) -> None:
        handle, label = await self.session(Budget(steps=2))
        asked = asyncio.ensure_future(handle.ask([["look", f"{label}-{i}"] for i in range(4)], id="m", timeout_s=WAIT_S))
        await self._until(handle, "parked")
        await self.twice("raise_budget", lambda: handle.raise_budget(Budget(steps=50)))
        assert len(await asked) == 4
        assert (await handle.row()).budget.steps in (52, 102)

    async def resume(self) -> None:
        handle, label = await self.session(Budget(steps=1))
        await handle.tell([["look", f"{label}-{i}"] for i in range(3)], id="m")
        await self._until(handle, "parked")
        await self.twice("resume", handle.resume)
        await self.again(lambda: handle.raise_budget(Budget(steps=50)))
        await self.again(handle.resume)
        assert await handle.ask([["look", f"{label}-{i}"] for i in range(3)], id="m", timeout_s=WAIT_S)

    async def resolve(self) -> None:
        handle, label = await self.session()
        self.world.plan._effect_at[self.world.plan._calls + 1] = "fail_after"
        asked = asyncio.ensure_future(handle.ask([["charge", label], ["note", label]], id="m", timeout_s=WAIT_S))
        await self._until(handle, "parked")
        await self.twice("resolve", lambda: handle.resolve("done", result=label))
        assert await asked == [label, label]
        assert self.world.ledger.count(("charge", label)) == 1

    async def retry(self) -> None:
        handle, label = await self._failed()
        await self.twice("retry", handle.retry)
        assert await handle.ask([["note", label], ["stumble", label, 3]], id="m", timeout_s=WAIT_S) == [label, label]
        assert self.world.ledger.count(("note", label)) == 1

    async def drop(self) -> None:
        handle, label = await self._failed()
        await self.twice("drop", handle.drop)
        assert await handle.ask([["look", label]], id="next", timeout_s=WAIT_S) == [label]

    async def _failed(self) -> tuple[Handle, str]:
        handle, label = await self.session()
        await handle.tell([["note", label], ["stumble", label, 3]], id="m")
        await self._until(handle, "failed")
        return handle, label

    async def _until(self, handle: Handle, status: str) -> None:
        for _ in range(500):
            if (await handle.row()).status == status:
                return
            await asyncio.sleep(0.1 * self.world.pace)
        raise AssertionError(f"{handle} is not {status}: {await handle.row()}")


VERBS = [
    Caller.spawn, Caller.tell, Caller.ask, Caller.result, Caller.cancel, Caller.kill,
    Caller.raise_budget, Caller.resume, Caller.resolve, Caller.retry, Caller.drop,
]  # fmt: skip


def alive(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """The tasks of a loop."""
    return asyncio.all_tasks(loop)


async def call_all(world: World, runtime: Runtime, draw: random.Random, rounds: int) -> Counter[str]:
    """Each verb in each round, in a drawn order."""
    caller = Caller(world, runtime, draw)
    for _ in range(rounds):
        for verb in draw.sample(VERBS, len(VERBS)):
            await verb(caller)
    return caller.cancelled


def test_two_thousand_cancelled_calls_leave_nothing_behind() -> None:
    """Whatever verb is cut off wherever: said again it comes to what it should, and no task is left."""
    total: Counter[str] = Counter()

    def case(seed: int) -> None:
        async def main(simulation: Simulation) -> None:
            world = World()
            world.stormy = True  # its plan is still but for what `resolve` scripts
            draw, before = random.Random(f"cancel {seed}"), alive(simulation.loop)
            async with Runtime(world.store, [world.worker], clock=simulation.clock, random=simulation.random) as runtime:
                total.update(await call_all(world, runtime, draw, rounds=5))
            assert alive(simulation.loop) == before
            assert world.broken == []

        simulate(main, seed=seed, max_points=200_000)

    for_each_seed(case, range(60))
    if "HOLDFAST_SEED" not in os.environ:
        assert total.total() >= 2_000, total
        assert min(total.values()) > 50, total


async def test_cancelled_calls_on_sqlite_leave_no_transaction_task_or_descriptor(tmp_path: Path) -> None:
    """The same on a real database: the file is whole and free, and as many descriptors are open as before."""
    path, loop = tmp_path / "sessions.db", asyncio.get_running_loop()
    tasks_before, files_before = alive(loop), len(os.listdir("/proc/self/fd"))
    store: Store = SqliteStore(path)
    world = World(store=store, pace=0.002)
    world.stormy = True
    async with Runtime(store, [world.worker]) as runtime:
        cancelled = await call_all(world, runtime, random.Random(1), rounds=8)
    assert cancelled.total() > 30
    assert alive(loop) == tasks_before
    assert len(os.listdir("/proc/self/fd")) == files_before
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.execute("ROLLBACK")
    db.close()


async def test_cancelled_calls_on_postgres_leave_no_task_connection_or_descriptor(postgres_url: str) -> None:
    """The same on a real server: more than a hundred calls are cut off, no connection is left, and the store is free."""
    loop = asyncio.get_running_loop()
    tasks_before, files_before = alive(loop), len(os.listdir("/proc/self/fd"))
    store = PostgresStore(postgres_url)
    world = World(store=store, pace=0.002)
    world.stormy = True
    async with Runtime(store, [world.worker]) as runtime:
        cancelled = await call_all(world, runtime, random.Random(1), rounds=14)
    assert cancelled.total() > 100, cancelled
    assert world.broken == []
    assert alive(loop) == tasks_before
    assert len(os.listdir("/proc/self/fd")) == files_before
    again = PostgresStore(postgres_url)
    await again.open()
    assert again.unclean is False
    await again.close()
