"""Sessions that resume pass one queue: none of them holds it up, and all come to their turn."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast import NO_RETRY, Agent, BreakerSpec, Runtime, Session, agent, tool
from holdfast.testing import Crashed, FaultPlan
from tests.unit.runtime.support import World, idle

IDS = [f"s{number}" for number in range(12)]


def crashed(world: World, late_s: float = 0.0) -> Agent:
    """Let the process die when each of the sessions has got a message; returns their agent. The first waits so long outside a step."""

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        if session.id == IDS[0]:
            await asyncio.sleep(late_s)
        await session.sleep(1)
        world.done.append(session.id)
        return "done"

    async def first(runtime: Runtime) -> None:
        for id in IDS:
            await (await runtime.spawn(worker, id=id)).tell("go", id="m")
        await world.crash()

    assert isinstance(world.life(worker, first), Crashed)
    return worker


def test_a_handler_that_waits_outside_a_step_gives_its_place_back() -> None:
    """One place, and the first session waits for minutes before it asks for a step: the others are not held up, and it is shown."""
    world = World()
    worker = crashed(world, late_s=300)

    async def second(runtime: Runtime) -> list[Any]:
        before = runtime.statistics()
        await asyncio.sleep(20)
        meanwhile, ended = runtime.statistics(), list(world.done)
        await idle(runtime.session("s0"))
        after = runtime.statistics()
        return [[counts[name] for counts in (before, meanwhile, after) for name in ("recovering", "delayed")], sorted(ended)]

    assert world.life(worker, second, max_recovering=1) == [[12, 0, 0, 1, 0, 0], sorted(IDS[1:])]


def test_sessions_that_clients_need_leave_the_queue() -> None:
    """Asked, cancelled or paused while they stand in it: each is served at once, and no place is lost."""
    world = World()
    worker = crashed(world, late_s=4)

    async def second(runtime: Runtime) -> list[Any]:
        answer = await runtime.session("s5").ask("go", id="m")
        soon = list(world.done)
        await runtime.session("s6").cancel()
        await runtime.session("s7").pause()
        for id in IDS:
            if id not in ("s6", "s7"):
                await idle(runtime.session(id), within_s=60)
        return [answer, soon, runtime.statistics()["recovering"], len(world.done)]

    assert world.life(worker, second, max_recovering=1) == ["done", ["s5"], 0, 10]


def test_sessions_whose_read_fails_are_read_again_and_hold_no_place() -> None:
    """The store fails while sessions resume, two at a time: all of them come to their end."""
    world = World()
    worker = crashed(world)

    async def second(runtime: Runtime) -> list[Any]:
        for id in IDS:
            await idle(runtime.session(id), within_s=120)
        return [sorted(world.done), runtime.statistics()["recovering"]]

    batches = world.store.batches
    world.store.faults = FaultPlan(store_at={batches + number: "fail" for number in range(1, 5)}).store_hook()
    assert world.life(worker, second, max_recovering=2) == [sorted(IDS), 0]


def test_alarms_of_the_same_instant_ring_one_after_another() -> None:
    """A thousand sessions sleep until the same time: what they call then is called over a second, not at once; none is early."""
    world = World()

    @agent
    async def worker(session: Session[Any], until: float) -> str:
        await session.sleep(until - world.now_s())
        world.done.append(world.now_s())
        return "done"

    async def main(runtime: Runtime) -> None:
        handles = [await runtime.spawn(worker, id=f"s{number}") for number in range(1000)]
        await asyncio.gather(*(handle.ask(7200.0, timeout_s=10_000) for handle in handles))

    world.life(worker, main)
    first, last = min(world.done), max(world.done)
    assert 7199.9 <= first <= 7200.1
    assert 0.5 <= last - first <= 2.0
    assert len(world.done) == 1000


def test_sessions_that_wait_for_one_breaker_call_again_at_different_times() -> None:
    """A dependency that comes back meets its half-open calls, and then no wave of all that waited."""
    world = World()

    @tool(retry=NO_RETRY, dependency="provider")
    async def ask_provider(number: int) -> int:
        if world.now_s() < 100:
            raise ConnectionError("down")
        world.done.append(world.now_s())
        return number

    @agent(tools=[ask_provider], breaker=BreakerSpec(minimum=1000, window=1000))
    async def worker(session: Session[Any], number: int) -> str:
        return (await session.call_tool("ask_provider", {"number": number})).content

    async def main(runtime: Runtime) -> None:
        for number in range(5):
            await (await runtime.spawn(worker, id=f"first{number}")).ask(number)
        handles = [await runtime.spawn(worker, id=f"s{number}") for number in range(90)]
        await asyncio.gather(*(handle.ask(number, timeout_s=5000) for number, handle in enumerate(handles)))

    world.life(worker, main, breaker=BreakerSpec(minimum=5, window=10, open_s=120, half_open_calls=2))
    most = max(sum(1 for at in world.done if begin <= at < begin + 0.1) for begin in world.done)
    assert len(world.done) == 90
    assert most < 30, "in a tenth of a second"
