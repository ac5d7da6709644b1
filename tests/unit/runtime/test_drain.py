"""Leaving: steps in flight end, open turns stay in the journal, and the next start goes on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from holdfast import Runtime, RuntimeStopped, Session, agent, tool
from holdfast.events import Event, Resumed, StepReplayed, TurnStarted
from tests.unit.runtime.support import World


def working(world: World) -> Any:
    @tool(effect="once")
    async def work(number: int) -> int:
        world.done.append(f"begins {number}")
        await asyncio.sleep(5)
        world.done.append(f"ends {number}")
        return number

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        for number in range(3):
            await session.step(work, number)
        return "done"

    return worker


def test_a_drain_lets_the_step_in_flight_end_and_the_next_start_goes_on() -> None:
    """No step begins after it, none is cut off, none runs twice."""
    world = World()
    worker = working(world)

    async def first(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(7)
        return [await runtime.drain(), list(world.done)]

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("go", id="m")

    half = ["begins 0", "ends 0", "begins 1", "ends 1"]
    assert world.life(worker, first) == [True, half]
    assert world.life(worker, second) == "done"
    assert world.done == [*half, "begins 2", "ends 2"]
    assert len(world.seen(StepReplayed)) == 2


def test_a_step_that_outlasts_the_drain_is_cut_off_and_in_doubt() -> None:
    """drain says that it had to; a `once` effect is then nobody's guess."""
    world = World()
    worker = working(world)

    async def first(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(1)
        return await runtime.drain(deadline_s=2.0)

    async def second(runtime: Runtime) -> Any:
        await asyncio.sleep(20)
        row = await runtime.session("s").row()
        return row.park.reason if row.park else row.status

    assert world.life(worker, first) is False
    assert world.life(worker, second) == "doubt"
    assert world.done == ["begins 0"]


def test_a_draining_runtime_accepts_nothing() -> None:
    """A refusal, not silence: the caller goes to another process."""
    world = World()
    worker = working(world)

    async def main(runtime: Runtime) -> None:
        handle = await runtime.spawn(worker, id="s")
        await runtime.drain()
        with pytest.raises(RuntimeStopped):
            await handle.tell("go")
        with pytest.raises(RuntimeStopped):
            await runtime.spawn(worker, id="t")

    world.life(worker, main)


def test_no_turn_starts_during_a_drain() -> None:
    """What waits in the mailbox is handled by the next process."""
    world = World()
    worker = working(world)

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("one", id="m")
        await handle.tell("two", id="n")
        await asyncio.sleep(12)

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("two", id="n")

    world.life(worker, first)
    assert [event.message for event in world.seen(TurnStarted)] == ["m"]
    assert world.life(worker, second) == "done"


async def test_a_drain_loads_no_session_whose_outcomes_are_written() -> None:
    """Its thread ended after its handler had let go of it, and its outcome was written: the drain has nothing to write."""
    ends, seen = threading.Event(), list[Event]()

    @tool(effect="once")
    def pay() -> str:
        ends.wait(20)
        return "paid"

    @agent(tools=[pay])
    async def worker(session: Session[Any], text: str) -> str:
        try:
            async with asyncio.timeout(0.05):
                return await session.step(pay)
        except TimeoutError:
            ends.set()
            return "late"

    async with Runtime("memory:", [worker]) as runtime:
        runtime.observe(seen.append)
        handle = await runtime.spawn(worker, id="s")
        assert await handle.ask("go", timeout_s=20) == "late"
        await handle.pause()  # it leaves memory
        assert await runtime.drain()
    assert [event.session for event in seen if isinstance(event, Resumed)] == ["s"]
