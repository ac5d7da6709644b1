"""Budget that is only reserved: it is waited for, in order, and never by a person."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Budget, BudgetExhausted, Runtime, Session, StepError, Usage, agent, tool
from holdfast.events import SessionParked
from tests.unit.runtime.support import World


def paying(world: World, most: Usage, *, takes_s: float = 1.0) -> Any:
    """A tool that notes when it begins and ends; `most` is what it costs."""

    @tool(cost=most)
    async def pay(number: int) -> int:
        world.done.append(("begins", number))
        await asyncio.sleep(takes_s)
        world.done.append(("ends", number))
        return number

    return pay


def most_at_once(world: World) -> int:
    under_way = most = 0
    for what, _ in world.done:
        under_way += 1 if what == "begins" else -1
        most = max(most, under_way)
    return most


class Refused(Exception):
    """The other side refused the call: it costs a step, and nothing else."""

    status_code = 400


@pytest.mark.parametrize("together", ["gather", "asyncio", "tasks"])
def test_calls_that_fit_one_after_another_wait_for_one_another(together: str) -> None:
    """Each may cost half of the budget and costs nothing: two at a time are under way, in the order in which they were asked for."""
    world = World()

    @tool(cost=Usage(tokens=500), effect="read")
    async def look(number: int) -> int:
        world.done.append(("begins", number))
        await asyncio.sleep(1)
        world.done.append(("ends", number))
        raise Refused

    @agent(budget=Budget(tokens=1_000))
    async def worker(session: Session[Any], text: str) -> int:
        async def one(number: int) -> int:
            try:
                return int(await session.step(look, number))
            except BudgetExhausted:
                return -100
            except StepError:
                return number

        if together == "gather":
            return sum(await session.gather(*(one(number) for number in range(9))))
        if together == "asyncio":
            return sum(await asyncio.gather(*(one(number) for number in range(9))))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(9)]
        return sum(task.result() for task in tasks)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == sum(range(9))
    assert most_at_once(world) == 2
    assert [number for what, number in world.done if what == "begins"] == list(range(9))
    assert world.seen(SessionParked) == []


def test_what_is_spent_while_it_is_waited_for_is_refused() -> None:
    """The third waits for the two before it; they cost all that they reserved, so it is told."""
    world = World()
    pay = paying(world, Usage(microusd=400))

    @agent(budget=Budget(usd=0.001))
    async def worker(session: Session[Any], text: str) -> str:
        try:
            await session.gather(*(session.step(pay, number) for number in range(3)))
        except BudgetExhausted as error:
            return error.message
        return "all"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == "usd: 0.0008 of 0.001 used, up to 0.0004 needed"
    assert len(world.done) == 4


def test_a_large_call_is_not_overtaken_by_small_ones() -> None:
    """What arrives later and would fit waits behind what needs the same limit; what needs another limit does not."""
    world = World()

    def costs(name: str, tokens: int) -> Any:
        @tool(name=name, cost=Usage(tokens=tokens), effect="read")
        async def call(number: int) -> int:
            world.done.append((name, number))
            await asyncio.sleep(1)
            raise Refused

        return call

    large, small, free = costs("large", 100), costs("small", 30), costs("free", 0)

    @agent(budget=Budget(tokens=100, tool_calls=50))
    async def worker(session: Session[Any], text: str) -> str:
        async def one(after_s: float, what: Any, number: int) -> None:
            await asyncio.sleep(after_s)
            try:
                await session.step(what, number)
            except StepError:
                pass

        await asyncio.gather(one(0, small, 0), one(0.1, large, 1), one(0.2, small, 2), one(0.3, free, 3))
        return "done"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == "done"
    assert world.done == [("small", 0), ("free", 3), ("large", 1), ("small", 2)]


def test_one_that_waits_and_is_cancelled_holds_up_no_other() -> None:
    """The first in line is cancelled: the next one is asked."""
    world = World()
    pay = paying(world, Usage(tokens=10), takes_s=5.0)

    @agent(budget=Budget(tokens=45))
    async def worker(session: Session[Any], text: str) -> str:
        @tool(cost=Usage(tokens=40), effect="read")
        async def large(number: int) -> int:
            return number

        async def impatient() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await session.step(large, 1)

        first, second = asyncio.create_task(session.step(pay, 1)), asyncio.create_task(impatient())
        await asyncio.sleep(0.5)
        third = asyncio.create_task(session.step(pay, 2))
        await second
        return str(await first + await third)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == "3"
    assert most_at_once(world) == 2


def test_a_step_inside_a_call_is_not_held_up_by_what_waits_for_that_call() -> None:
    """The outer call ends only after the step inside it, which fits; the call that waits for the outer one comes after both."""
    world = World()

    @tool(cost=Usage(tokens=60), effect="read")
    async def other(number: int) -> str:
        world.done.append("other")
        return "other"

    @tool(cost=Usage(tokens=20), effect="read")
    async def inner(number: int) -> str:
        world.done.append("inner")
        raise Refused

    @agent(budget=Budget(tokens=100))
    async def worker(session: Session[Any], text: str) -> list[Any]:
        @tool(cost=Usage(tokens=50), effect="read")
        async def outer(number: int) -> str:
            await asyncio.sleep(1)
            with pytest.raises(StepError):
                await session.step(inner, 1)
            raise Refused

        async def around() -> str:
            with pytest.raises(StepError):
                await session.step(outer, 1)
            return "outer"

        async def beside() -> str:
            await asyncio.sleep(0.5)
            return str(await session.step(other, 1))

        return list(await asyncio.gather(around(), beside()))

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == ["outer", "other"]
    assert world.done == ["inner", "other"]


def test_calls_that_wait_for_one_another_in_a_circle_are_refused() -> None:
    """Two calls hold the whole budget and each asks for more inside: one is told that it is exhausted, and nothing hangs."""
    world = World()

    @tool(cost=Usage(tokens=30), effect="read")
    async def inner(number: int) -> int:
        world.done.append(number)
        return number

    @agent(budget=Budget(tokens=100))
    async def worker(session: Session[Any], text: str) -> str:
        @tool(cost=Usage(tokens=50), effect="read")
        async def outer(number: int) -> int:
            await asyncio.sleep(1)
            return int(await session.step(inner, number))

        try:
            await asyncio.gather(session.step(outer, 1), session.step(outer, 2))
        except BudgetExhausted as error:
            return error.message
        return "all"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=30)

    assert world.life(worker, main) == "tokens: 0 of 100 used, 100 reserved, up to 30 needed"


def test_raising_the_budget_lets_those_that_wait_go() -> None:
    """A call that waits for the reservation of a long one runs beside it once there is room for both."""
    world = World()
    pay = paying(world, Usage(tokens=60), takes_s=50.0)

    @agent(budget=Budget(tokens=100))
    async def worker(session: Session[Any], text: str) -> int:
        return sum(await session.gather(session.step(pay, 1), session.step(pay, 2)))

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(1)
        await handle.raise_budget(Budget(tokens=100))
        return await handle.ask("go", id="m")

    assert world.life(worker, main) == 3
    assert most_at_once(world) == 2


def test_a_wait_costs_a_step_only_once_another_has_given_it_back() -> None:
    """A sleep beside a call that has reserved the last step waits for it, and is refused where that step is spent."""

    async def work(number: int) -> int:
        await asyncio.sleep(1)
        return number

    @agent(budget=Budget(steps=1))
    async def worker(session: Session[Any], text: str) -> str:
        call = asyncio.create_task(session.step(work, 1))
        await asyncio.sleep(0.1)
        try:
            await session.sleep(1)
        except BudgetExhausted as error:
            return f"{error.message}; {await call}"
        return "slept"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert World().life(worker, main) == "steps: 1 of 1 used; 1"


# ---------------------------------------------------------------- children


@agent(name="child")
async def brief(session: Session[Any], seconds: float) -> str:
    await asyncio.sleep(seconds)
    session.finish("done")
    return "done"


@pytest.mark.parametrize("crashes", [False, True])
def test_what_a_running_child_has_reserved_is_waited_for(crashes: bool) -> None:
    """The child has all of its parent's steps but two; the parent goes on with those that it returns, also after a crash."""
    world = World()

    async def work(number: int) -> int:
        world.done.append(number)
        return number

    @agent(name="parent", budget=Budget(steps=10))
    async def parent(session: Session[Any], text: str) -> int:
        child = await session.spawn(brief, id="c", budget=Budget(steps=8))
        if text == "go":
            asking = asyncio.create_task(session.ask("c", 500.0, timeout_s=1000))
            await asyncio.sleep(1)
            assert child.id == "c"
            done = await session.step(work, 1)
            await asking
        return done

    async def first(runtime: Runtime) -> Any:
        handle = await runtime.spawn(parent, id="p")
        await handle.tell("go", id="m")
        await asyncio.sleep(200)
        if crashes:
            await world.crash()
        return await second(runtime)

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("p").ask("go", id="m", timeout_s=5000)

    got = world.life([parent, brief], first)
    if crashes:
        got = world.life([parent, brief], second)
    assert got == 1
    assert world.done == [1]
    assert "budget" not in [event.reason for event in world.seen(SessionParked)]


def test_what_an_idle_child_has_reserved_is_not_waited_for() -> None:
    """It returns nothing by itself: the parent is told."""

    @agent(name="parent", budget=Budget(steps=10))
    async def parent(session: Session[Any], text: str) -> str:
        await session.spawn(brief, id="c", budget=Budget(steps=9))
        try:
            await session.sleep(1)
        except BudgetExhausted as error:
            return error.message
        return "slept"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(parent, id="p")).ask("go")

    assert World().life([parent, brief], main) == "steps: 10 of 10 used"


def test_a_child_that_waits_for_its_parent_is_not_waited_for() -> None:
    """It asks its parent, which can answer only after this turn."""

    @agent(name="child")
    async def asker(session: Session[Any], text: str) -> str:
        return str(await session.ask("p", "what now?", timeout_s=500))

    @agent(name="parent", budget=Budget(steps=10))
    async def parent(session: Session[Any], text: str) -> str:
        if text != "go":
            return "an answer"
        await session.spawn(asker, id="c", budget=Budget(steps=9))
        await asyncio.sleep(10)
        try:
            await session.sleep(1)
        except BudgetExhausted as error:
            return error.message
        return "slept"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(parent, id="p")
        asking = asyncio.ensure_future(handle.ask("go", timeout_s=100))
        await asyncio.sleep(1)
        await runtime.session("c").tell("go")
        return await asking

    assert World().life([parent, asker], main) == "steps: 10 of 10 used"


# ---------------------------------------------------------------- limits at spawn


def test_limits_given_at_spawn_replace_those_of_the_agent_one_by_one() -> None:
    """Of a session, of a child and of a detached child: a limit that is not given stays that of the agent."""

    @agent(name="child", budget=Budget(steps=20, tokens=300))
    async def child(session: Session[Any], text: str) -> None: ...

    @agent(name="parent", budget=Budget(steps=100, seconds=60))
    async def parent(session: Session[Any], text: str) -> None:
        await session.spawn(child, id="c", budget=Budget(tokens=50))
        await session.spawn(child, id="d", budget=Budget(steps=7), detached=True)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(parent, id="p", budget=Budget(tokens=1000, seconds=30))
        await handle.ask("go")
        return [(await runtime.session(id).row()).budget for id in ("p", "c", "d")]

    assert World().life([parent, child], main) == [
        Budget(steps=100, tokens=1000, seconds=30),
        Budget(steps=20, tokens=50, seconds=15.0),
        Budget(steps=7, tokens=300),
    ]
