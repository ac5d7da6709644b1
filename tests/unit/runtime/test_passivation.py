"""Idle sessions are passivated and activated again by their next message."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from holdfast import Runtime, Session, agent
from holdfast.events import Resumed
from tests.unit.runtime.support import World


class Count(msgspec.Struct):
    n: int = 0


@agent
async def counter(session: Session[Count], seconds: float) -> int:
    await asyncio.sleep(seconds)
    session.state.n += 1
    return session.state.n


def test_an_idle_session_is_passivated_and_comes_back() -> None:
    """No memory after `idle_s`; its state is there with the next message."""
    world = World()

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(counter, id="s")
        first = await handle.ask(0)
        live = runtime.statistics()["live"]
        await asyncio.sleep(100)
        return [first, live, runtime.statistics()["live"], await handle.ask(0)]

    assert world.life(counter, main, idle_s=30.0) == [1, 1, 0, 2]
    assert len(world.seen(Resumed)) == 2


def test_a_working_session_is_not_passivated() -> None:
    """However long its turn takes."""
    world = World()

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(counter, id="s")).ask(500, timeout_s=1000)

    assert world.life(counter, main, idle_s=10.0) == 1
    assert len(world.seen(Resumed)) == 1


def test_a_session_that_is_only_spawned_takes_no_memory() -> None:
    """It is a row until its first message."""

    async def main(runtime: Runtime) -> int:
        for number in range(100):
            await runtime.spawn(counter, id=str(number))
        return runtime.statistics()["live"]

    assert World().life(counter, main) == 0


def test_thousands_of_sessions_come_and_go() -> None:
    """Each keeps its own state while they are passivated between their messages."""

    async def main(runtime: Runtime) -> list[Any]:
        handles = [await runtime.spawn(counter, id=str(number)) for number in range(200)]
        found = set()
        for _ in range(3):
            found |= set(await asyncio.gather(*(handle.ask(0) for handle in handles)))
            await asyncio.sleep(100)
        return [found, runtime.statistics()["live"]]

    assert World().life(counter, main, idle_s=10.0) == [{1, 2, 3}, 0]
