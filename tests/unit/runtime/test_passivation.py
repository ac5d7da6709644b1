"""Idle sessions are passivated and activated again by their next message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast import Runtime, Session, agent
from holdfast.events import Resumed, SessionParked
from holdfast.stores.ops import Op, Result, WriteStep
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


def test_an_answer_in_the_same_batch_as_the_park_that_waits_for_it_wakes_the_session() -> None:
    """The park is written first, the reply after it, and both are known at once: the session does not sleep on."""
    world = World()
    store, write = world.store, world.store.apply

    async def slowly(ops: Sequence[Op]) -> list[Result]:
        if any(isinstance(op, WriteStep) and op.session == "third" for op in ops):
            await asyncio.sleep(1.1)  # what comes meanwhile is one batch after this one
        return await write(ops)

    store.apply = slowly  # type: ignore[method-assign]

    @agent
    async def clerk(session: Session[None], text: str) -> str:
        await asyncio.sleep(1.0)
        return "answer"

    @agent(park_after_s=0.5)
    async def worker(session: Session[None], text: str) -> str:
        return str(await session.ask("clerk", text, timeout_s=1_000))

    @agent
    async def third(session: Session[None], text: str) -> None:
        await asyncio.sleep(0.4)
        await session.now()

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(clerk, id="clerk")
        await (await runtime.spawn(third, id="third")).tell("go")
        handle = await runtime.spawn(worker, id="s")
        answer = await handle.ask("go", id="m", timeout_s=5_000)
        return answer, len(world.seen(SessionParked))

    assert world.life([clerk, worker, third], main) == ("answer", 1)
    assert world.now_s() < 60
