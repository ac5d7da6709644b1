"""Budgets: refused before it is spent, told once, and raised by a person."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast import Budget, BudgetExhausted, Runtime, Session, Usage, agent, tool
from holdfast.stores.ops import Op, UpdateSession
from tests.unit.runtime.support import World, rest


async def free(number: int) -> int:
    return number


def test_the_handler_is_told_once_and_hands_over_what_it_has() -> None:
    """At the limit BudgetExhausted is raised; the turn commits and the session is unfinished."""

    @agent(budget=Budget(steps=2))
    async def worker(session: Session[Any], text: str) -> str:
        made = 0
        try:
            for number in range(10):
                await session.step(free, number)
                made += 1
        except BudgetExhausted as error:
            return f"{made} made; {error.message}"
        return "never told"

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        return [await handle.ask("go"), (await handle.row()).status, (await handle.row()).usage.steps]

    assert World().life(worker, main) == ["2 made; steps: 2 of 2 used", "unfinished", 2]


def test_one_who_goes_on_after_being_told_parks_and_goes_on_when_raised() -> None:
    """The second refusal parks the session; raising the budget resumes the turn with nothing done twice."""
    world = World()

    async def note(number: int) -> int:
        world.done.append(number)
        return number

    @agent(budget=Budget(steps=2))
    async def worker(session: Session[Any], text: str) -> str:
        made = []
        for number in range(5):
            try:
                made.append(await session.step(note, number))
            except BudgetExhausted:
                made.append(-1)
        return str(made)

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        parked = await rest(handle)
        await handle.raise_budget(Budget(steps=10))
        return [parked.park.reason, await handle.ask("go", id="m")]

    assert world.life(worker, main) == ["budget", "[0, 1, 2, 3, 4]"]
    assert world.done == [0, 1, 2, 3, 4]


def test_one_who_does_not_catch_it_parks() -> None:
    """An exhausted budget is no crash: no restart, no dead letter."""

    @agent(budget=Budget(steps=1))
    async def worker(session: Session[Any], text: str) -> int:
        return await session.step(free, 1) + await session.step(free, 2)

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        parked = await rest(handle)
        await handle.raise_budget(Budget(steps=1))
        return [parked.status, parked.park.reason, await handle.ask("go", id="m"), await runtime.store.dead_letters("s")]

    assert World().life(worker, main) == ["parked", "budget", 3, []]


def test_being_told_is_remembered_over_a_crash() -> None:
    """A turn that was refused is unfinished also if it commits in another process."""
    world = World()

    @tool
    async def look(number: int) -> int:
        return number

    @agent(tools=[look], budget=Budget(tool_calls=1))
    async def worker(session: Session[Any], text: str) -> str:
        await session.call_tool("look", {"number": 1})
        try:
            await session.call_tool("look", {"number": 2})
        except BudgetExhausted:
            await session.step(free, 1)
            if world.lives == 1:
                await world.crash()
        return "part"

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        return [await handle.ask("go", id="m"), (await handle.row()).status]

    world.life(worker, main)
    assert world.life(worker, main) == ["part", "unfinished"]


def test_steps_at_once_do_not_overshoot_together() -> None:
    """Each is reserved before it runs: of ten at once only as many run as are paid for, and the code that awaits them learns of it."""
    world = World()

    @tool(cost=Usage(microusd=100_000))
    async def buy(number: int) -> int:
        world.done.append(number)
        await asyncio.sleep(1)
        return number

    @agent(budget=Budget(usd=0.35))
    async def worker(session: Session[Any], text: str) -> str:
        try:
            await session.gather(*(session.step(buy, number) for number in range(10)))
        except BudgetExhausted:
            return "exhausted"
        return "done"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        return await handle.ask("go"), (await handle.row()).usage.microusd

    assert world.life(worker, main) == ("exhausted", 300_000)
    assert len(world.done) == 3


def test_an_open_step_that_was_never_closed_is_charged_in_full() -> None:
    """A crash inside a paid call: the first attempt is charged beside the second."""
    world = World()

    @tool(cost=Usage(microusd=100))
    async def buy(number: int) -> int:
        if world.lives == 1:
            await world.crash()
        return number

    @agent
    async def worker(session: Session[Any], text: str) -> int:
        return await session.step(buy, 1)

    async def main(runtime: Runtime) -> int:
        handle = await runtime.spawn(worker, id="s")
        await handle.ask("go", id="m")
        return (await handle.row()).usage.microusd

    world.life(worker, main)
    assert world.life(worker, main) == 200


def test_active_seconds_leave_waits_out() -> None:
    """A sleep of an hour costs nothing of `seconds`; a step's own time does."""

    async def work() -> int:
        await asyncio.sleep(2)
        return 1

    @agent(budget=Budget(seconds=3))
    async def worker(session: Session[Any], text: str) -> float:
        await session.step(work)
        await session.sleep(3600)
        return round(session.budget.left.seconds or 0.0, 3)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=10_000)

    assert World().life(worker, main) == 1.0


def test_a_budget_raised_while_the_session_parks_for_it_wakes_it() -> None:
    """The park is written for the old limit; it does not stay for ever."""
    world = World()

    class Slow:
        async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
            if any(isinstance(op, UpdateSession) for op in ops):
                await asyncio.sleep(1)

        async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
            pass

    async def work(number: int) -> int:
        return number

    @agent(budget=Budget(steps=1))
    async def spender(session: Session[Any], text: str) -> str:
        for number in range(3):
            await session.step(work, number)
        return text

    async def main(runtime: Runtime) -> Any:
        world.store.faults = Slow()
        handle = await runtime.spawn(spender, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(0.5)
        await handle.raise_budget(Budget(steps=100))
        return await handle.ask("go", id="m")

    assert world.life(spender, main) == "go"


def test_a_budget_raised_just_before_the_session_parks_for_it_lets_it_run_on() -> None:
    """A turn that waits for a person settles for a moment before it parks: a raise in that moment is not lost."""
    world = World()

    async def work(number: int) -> int:
        return number

    @agent(budget=Budget(steps=1))
    async def spender(session: Session[Any], text: str) -> str:
        for number in range(4):
            try:
                await session.step(work, number)
            except BudgetExhausted:
                pass
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(spender, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(0.01)
        await handle.raise_budget(Budget(steps=100))
        return await handle.ask("go", id="m")

    assert world.life(spender, main) == "go"


class SlowParks:
    """The write of a park takes a second."""

    async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
        if any(isinstance(op, UpdateSession) and op.park is not None for op in ops):
            await asyncio.sleep(1)

    async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
        pass


def test_a_raise_during_the_write_of_the_park_is_not_lost_in_a_crash() -> None:
    """Once the raise is acknowledged, the next process resumes the session: the row does not say that it waits for budget."""
    world = World()

    @agent(budget=Budget(steps=1))
    async def spender(session: Session[Any], text: str) -> str:
        for number in range(3):
            await session.step(free, number)
        return text

    async def first(runtime: Runtime) -> None:
        world.store.faults = SlowParks()
        handle = await runtime.spawn(spender, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(0.5)
        await handle.raise_budget(Budget(steps=100))
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("go", id="m")

    world.life(spender, first)
    world.store.faults = None
    assert world.life(spender, second) == "go"


@pytest.mark.parametrize("after_s", [0.5, 1.5, 2.5])
def test_a_raise_between_the_refusal_and_the_park_is_not_lost(after_s: float) -> None:
    """The handler takes its time after it was told: while it still runs, while its turn ends, or before its park is written."""
    world = World()

    @agent(budget=Budget(steps=1))
    async def spender(session: Session[Any], text: str) -> str:
        await session.step(free, 1)
        try:
            await session.step(free, 2)
        finally:
            await asyncio.sleep(1)
            world.done.append("cleaned up")
        return text

    async def main(runtime: Runtime) -> Any:
        world.store.faults = SlowParks()
        handle = await runtime.spawn(spender, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(after_s)
        await handle.raise_budget(Budget(steps=100))
        return await handle.ask("go", id="m")

    assert world.life(spender, main) == "go"


def test_a_raise_while_another_branch_still_works_lets_the_refused_one_go_on() -> None:
    """One branch waits for a person beside a long call: raised, it does not wait for the end of that call."""
    world = World()

    async def long(number: int) -> int:
        await asyncio.sleep(50)
        world.done.append("long")
        return number

    @tool(cost=Usage(tokens=1))
    async def look(number: int) -> int:
        world.done.append(number)
        return number

    @agent(budget=Budget(tokens=1))
    async def worker(session: Session[Any], text: str) -> str:
        async def looks() -> None:
            for number in range(3):
                try:
                    await session.step(look, number)
                except BudgetExhausted:
                    world.done.append("told")

        await asyncio.gather(session.step(long, 1), looks())
        return "done"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(10)
        await handle.raise_budget(Budget(tokens=10))
        return await handle.ask("go", id="m", timeout_s=10_000)

    assert world.life(worker, main) == "done"
    assert world.done == [0, "told", 2, "long"]


def test_a_raise_wakes_a_session_that_also_waits_for_something_else() -> None:
    """One branch waits for the end of a child, the other one for budget: parked for both, it is woken by the raise."""
    world = World()

    @agent(name="silent")
    async def silent(session: Session[Any], text: str) -> None: ...

    @agent(budget=Budget(tokens=0))
    async def worker(session: Session[Any], text: str) -> None:
        @tool(cost=Usage(tokens=1))
        async def look(number: int) -> int:
            world.done.append(number)
            return number

        async def looks() -> None:
            for number in range(2):
                try:
                    await session.step(look, number)
                except BudgetExhausted:
                    pass

        child = await session.spawn(silent)
        await session.gather(child.result(), looks())

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        parked = (await rest(handle)).park
        await handle.raise_budget(Budget(tokens=5))
        await asyncio.sleep(10)
        return [parked.reason, world.done, (await rest(handle)).park.reason]

    assert world.life([worker, silent], main) == ["budget", [0, 1], "wait"]


def test_a_raise_while_the_session_looks_for_its_children_is_not_lost() -> None:
    """Before it parks for a person it reads whether a child can return something: a raise during that read wakes it, too."""
    world = World()
    read = world.store.children

    async def slow(session: str) -> list[Any]:
        await asyncio.sleep(1)
        return await read(session)

    @agent(budget=Budget(steps=1))
    async def worker(session: Session[Any], text: str) -> str:
        for number in range(3):
            try:
                await session.step(free, number)
            except BudgetExhausted:
                world.done.append("told")
        return text

    async def main(runtime: Runtime) -> Any:
        runtime.store.living_children = slow  # type: ignore[method-assign, assignment]
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(1.5)
        await handle.raise_budget(Budget(steps=10))
        return await handle.ask("go", id="m", timeout_s=30)

    assert world.life(worker, main) == "go"
    assert world.done == ["told"]
