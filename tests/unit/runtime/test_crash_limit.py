"""A turn during which the process keeps dying is kept from taking it down for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast import Runtime, Session, agent
from holdfast.testing import Crashed
from tests.unit.runtime.support import World, rest


def test_a_turn_that_kills_the_process_parks_and_the_others_go_on() -> None:
    """After `crash_limit` unclean ends without a new record; resume tries it again."""
    world = World()

    async def deadly(number: int) -> int:
        world.done.append("deadly")
        if "fixed" not in world.done:
            await world.crash()
        return number

    @agent(crash_limit=3)
    async def worker(session: Session[Any], text: str) -> str:
        if text == "deadly":
            await session.step(deadly, 1)
        return text

    async def first(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("deadly", id="m")
        return (await rest(handle)).park.reason

    async def last(runtime: Runtime) -> Any:
        other = await (await runtime.spawn(worker, id="other")).ask("fine")
        handle = runtime.session("s")
        world.done.append("fixed")
        await handle.resume()
        return [other, await handle.ask("deadly", id="m")]

    ends = [world.life(worker, first) for _ in range(4)]
    assert [isinstance(end, Crashed) for end in ends] == [True, True, True, False]
    assert ends[3] == "crashes"
    assert world.life(worker, last) == ["fine", "deadly"]


def test_a_turn_that_gets_on_between_crashes_does_not_park() -> None:
    """Each new record starts the count again: a 20-step turn may die at every step."""
    world = World()

    async def work(number: int) -> int:
        world.done.append(number)
        return number

    @agent(crash_limit=2)
    async def worker(session: Session[Any], text: str) -> int:
        for number in range(10):
            await session.step(work, number)
            if world.lives == number + 1:
                await world.crash()
        return 10

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    for _ in range(10):
        assert isinstance(world.life(worker, main), Crashed)
    assert world.life(worker, main) == 10
    assert world.done == list(range(10))


def test_a_clean_stop_does_not_count() -> None:
    """Deploys are no crashes: a slow turn survives any number of them."""
    world = World()

    @agent(crash_limit=1)
    async def worker(session: Session[Any], text: str) -> str:
        await session.sleep(3)
        await session.sleep(4)
        return "done"

    async def first(runtime: Runtime) -> None:
        await (await runtime.spawn(worker, id="s")).tell("go", id="m")
        await asyncio.sleep(0.5)

    async def last(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("go", id="m")

    for _ in range(4):
        world.life(worker, first)
    assert world.life(worker, last) == "done"
