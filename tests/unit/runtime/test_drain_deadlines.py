"""While a process drains, its limits hold as ever: deadlines of steps are kept, and the store is held until nothing writes any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Runtime, Session, StoreLocked, agent, tool
from holdfast.runtime.agents.limits import Limits, RuntimeLimits
from tests.unit.runtime.support import World


def holding(world: World, *, seconds: float, timeout_s: float) -> Any:
    @tool(effect="once", timeout_s=timeout_s)
    async def work() -> str:
        world.done.append("begins")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            world.done.append(("cut", asyncio.get_running_loop().time()))
            raise
        world.done.append("ends")
        return "done"

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(work)

    return worker


def test_the_deadline_of_a_step_is_kept_during_a_drain() -> None:
    """It is cut at its own deadline, long before that of the drain, which then has nothing to cut; the next start finds it in doubt."""
    world = World()
    worker = holding(world, seconds=1000, timeout_s=5.0)

    async def first(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(1)
        whole = await runtime.drain(deadline_s=500.0)
        return whole, asyncio.get_running_loop().time()

    async def second(runtime: Runtime) -> Any:
        await asyncio.sleep(20)
        row = await runtime.session("s").row()
        return row.park.reason if row.park else row.status

    whole, ended = world.life(worker, first)
    (_, (_, cut)) = world.done
    assert whole is True
    assert 5.0 <= cut <= ended < 7.0
    assert world.life(worker, second) == "doubt"


def test_the_store_is_held_until_the_drain_is_over() -> None:
    """Another process that opened it earlier would run what is still in flight here."""
    world = World()
    worker = holding(world, seconds=10, timeout_s=60.0)

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(1)
        drain = asyncio.ensure_future(runtime.drain(deadline_s=500.0))
        await asyncio.sleep(5)
        with pytest.raises(StoreLocked):
            await world.store.open()
        assert world.done == ["begins"]
        assert await drain
        with pytest.raises(StoreLocked):
            await world.store.open()

    world.life(worker, first)
    assert world.done == ["begins", "ends"]

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("go", id="m")

    assert world.life(worker, second) == "done"
    assert world.done == ["begins", "ends"]


def test_a_drain_limit_that_was_set_from_outside_is_kept_to() -> None:
    """Also one that comes while it runs."""
    world = World()
    worker = holding(world, seconds=1000, timeout_s=900.0)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(1)
        runtime.reconfigure(Limits(runtime=RuntimeLimits(drain_s=3.0)))
        return await runtime.drain(), asyncio.get_running_loop().time()

    whole, ended = world.life(worker, main)
    assert whole is False
    assert 4.0 <= ended < 5.0
