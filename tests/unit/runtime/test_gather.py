"""gather: numbered branches, their results in order, no effect cut off half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from holdfast import NO_RETRY, Budget, BudgetExhausted, Runtime, Session, StepError, agent, tool
from holdfast.events import StepReplayed
from holdfast.testing import Crashed
from tests.unit.runtime.support import World, rest


def test_results_come_in_order_of_position() -> None:
    """Not in order of completion; and the branches ran at once."""

    async def wait(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @agent
    async def worker(session: Session[Any], text: str) -> list[float]:
        return await session.gather(*(session.step(wait, seconds) for seconds in (3.0, 1.0, 2.0)))

    world = World()

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker)).ask("go")

    assert world.life(worker, main) == [3.0, 1.0, 2.0]
    assert world.time_s < 3.5


def test_all_run_to_their_end_before_the_first_failure_is_raised() -> None:
    """The first by position, whichever failed first in time."""
    world = World()

    @tool(retry=NO_RETRY)
    async def work(number: int) -> int:
        await asyncio.sleep(10 - number)
        world.done.append(number)
        if number in (1, 3):
            raise ValueError(f"number {number}")
        return number

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        try:
            await session.gather(*(session.step(work, number) for number in range(5)))
        except StepError as error:
            return error.message
        return "no failure"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker)).ask("go")

    assert world.life(worker, main) == "number 1"
    assert sorted(world.done) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(10))
def test_branches_of_the_same_calls_find_their_own_records(seed: int) -> None:
    """The same function with the same arguments in each branch, in any order: each record goes back to its branch."""
    world = World(seed=seed)

    async def draw(what: str) -> int:
        await asyncio.sleep(len(world.done) % 3)
        world.done.append(what)
        return len(world.done)

    async def branch(session: Session[Any]) -> list[int]:
        return [await session.step(draw, "x"), await session.step(draw, "x")]

    @agent
    async def worker(session: Session[Any], text: str) -> list[list[int]]:
        found = await session.gather(branch(session), branch(session), branch(session))
        world.done.append(found)
        if world.lives == 1:
            await world.crash()
        return found

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    world.life(worker, main)
    before = world.done[-1]
    assert world.life(worker, main) == before
    assert len(world.seen(StepReplayed)) == 6
    assert world.done.count("x") == 6


def test_gathers_inside_gathers_keep_their_branches() -> None:
    """A branch numbers its own gathers."""
    world = World()

    async def draw() -> int:
        world.done.append("x")
        return len(world.done)

    async def inner(session: Session[Any]) -> list[int]:
        return await session.gather(session.step(draw), session.step(draw))

    @agent
    async def worker(session: Session[Any], text: str) -> list[list[int]]:
        found = await session.gather(inner(session), inner(session))
        if world.lives == 1:
            await world.crash()
        return found

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    world.life(worker, main)
    found = world.life(worker, main)
    assert sorted(found[0] + found[1]) == [1, 2, 3, 4]
    assert len(world.done) == 4


def test_gathering_nothing_gives_nothing() -> None:
    """An empty list, at once."""

    @agent
    async def worker(session: Session[Any], text: str) -> list[Any]:
        return await session.gather()

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker)).ask("go")

    assert World().life(worker, main) == []


@pytest.mark.parametrize("together", ["session.gather", "asyncio.gather"])
def test_a_branch_that_waits_for_a_child_does_not_hold_up_the_one_that_ends_it(together: str) -> None:
    """Longer than the session would hold a wait in memory: it parks only when every branch waits."""
    world = World()

    async def tick(number: int) -> None:
        await asyncio.sleep(1)
        world.done.append(number)

    @agent
    async def child(session: Session[Any], text: str) -> None:
        session.finish("the end")

    @agent(park_after_s=2.0)
    async def parent(session: Session[Any], text: str) -> Any:
        made = await session.spawn(child)

        async def ends() -> None:
            for number in range(10):
                await session.step(tick, number)
            await made.ask("finish")

        gather = session.gather if together == "session.gather" else asyncio.gather
        return (await gather(made.result(), ends()))[0]

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(parent, id="p")).ask("go", timeout_s=1000)

    assert world.life([parent, child], main) == "the end"
    assert world.done == list(range(10))
    assert world.time_s < 60


Together = Callable[[Session[Any], list[Coroutine[Any, Any, Any]]], Coroutine[Any, Any, list[Any]]]


async def told(work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` gives, or the name of the error that it raises."""
    try:
        return await work
    except BudgetExhausted as error:
        return type(error).__name__


async def in_branches(session: Session[Any], work: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await session.gather(*map(told, work))


async def with_exceptions(session: Session[Any], work: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    found = await asyncio.gather(*work, return_exceptions=True)
    return [type(each).__name__ if isinstance(each, BudgetExhausted) else each for each in found]


async def in_a_group(session: Session[Any], work: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(told(each)) for each in work]
    return [task.result() for task in tasks]


@pytest.mark.parametrize("goes_on", [False, True], ids=["stops", "goes on"])
@pytest.mark.parametrize("together", [in_branches, with_exceptions, in_a_group])
def test_each_of_several_that_come_to_the_limit_is_told(together: Together, goes_on: bool) -> None:
    """Also long after the first of them, of which it cannot know. The code that awaits them knows: it is not told again, but parks."""
    world = World()

    async def note(number: int) -> int:
        return number

    @agent(budget=Budget(steps=1))
    async def worker(session: Session[Any], text: str) -> Any:
        async def later(number: int) -> int:
            await asyncio.sleep(number)
            return await session.step(note, number)

        found = await together(session, [later(number) for number in range(4)])
        world.done.append(found)
        if world.lives == 1 and not goes_on:
            await world.crash()
        # Tasks that are made after it know, too.
        return found + (await together(session, [later(9), later(10)]) if goes_on else [])

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        row = await rest(handle) if goes_on else None
        if row is None:
            return await handle.ask("go", id="m", timeout_s=1000)
        await handle.raise_budget(Budget(steps=5))
        return row.park.reason, await handle.ask("go", id="m", timeout_s=1000)

    limit = [0, *["BudgetExhausted"] * 3]
    if not goes_on:
        assert isinstance(world.life(worker, main), Crashed)
        assert world.life(worker, main) == limit
        assert world.done == [limit, limit]
    else:
        assert world.life(worker, main) == ("budget", [0, 1, 2, 3, 9, 10])
        assert world.done == [limit, [0, 1, 2, 3]]  # the raise leaves room for all: they are asked again
