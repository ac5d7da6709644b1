"""What a turn made is freed when it ends, without the garbage collector, whose work would grow with the number of turns."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator

import pytest

from holdfast import Agent, Runtime, Session, agent, tool


@tool
async def look(n: int) -> int:
    return n


@tool(effect="once")
async def pay(n: int) -> int:
    return n


@agent
async def plain(session: Session[None], text: str) -> int:
    return await session.step(look, 1)


@agent
async def gathers(session: Session[None], text: str) -> int:
    return sum(await session.gather(*(session.step(look, n) for n in range(3))))


@agent
async def own_tasks(session: Session[None], text: str) -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(session.step(look, n)) for n in range(3)]
    return sum(await asyncio.gather(*(session.step(look, n) for n in range(3)))) + len(tasks)


@agent
async def buys(session: Session[None], text: str) -> int:
    return await session.step(pay, 1)


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("shape", [plain, gathers, own_tasks, buys], ids=lambda shape: shape.name)
def test_a_turn_leaves_nothing_to_the_garbage_collector(without_collector: None, shape: Agent) -> None:
    """Whatever tasks its steps ran in. In the usual loop: that of the simulation keeps what it ran."""

    async def some_turns() -> None:
        async with Runtime("memory:", [shape]) as runtime:
            handle = await runtime.spawn(shape, id="s")
            await handle.ask("the first makes what is made once")
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
            for _ in range(3):
                await handle.ask("again")
            gc.collect()
            gc.set_debug(0)

    asyncio.run(some_turns())
    assert not Counter(type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("holdfast."))
