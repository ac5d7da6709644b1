"""Code that goes another way than its records: what it was answered meanwhile is not served to the right code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Agent, Runtime, Session, agent, tool
from tests.unit.runtime.support import World, rest


def version(world: World, *, wrong: bool, lost: bool) -> Agent:
    """An agent that charges 5 and looks at the balance; the wrong one looks first, and charges 6 or nothing."""

    @tool
    async def look(what: str) -> str:
        world.done.append(("look", what))
        return f"{what} {len(world.done)}"

    @tool(effect="once")
    async def charge(cents: int) -> str:
        world.done.append(("charge", cents))
        return f"charged {cents}"

    @tool
    async def crash_here(n: int) -> int:
        if world.lives == 1:
            await world.crash()
        return n

    @agent(name="shop", tools=[look, charge])
    async def shop(session: Session[Any], text: str) -> list[str]:
        if wrong:
            seen = await session.step(look, "balance")
            return [seen] if lost else [seen, await session.step(charge, 6)]
        paid = await session.step(charge, 5)
        await session.step(crash_here, 1)
        return [paid, await session.step(look, "balance")]

    return shop


@pytest.mark.parametrize("lost", [False, True])
def test_what_the_wrong_code_was_answered_is_not_served_to_the_right_code(lost: bool) -> None:
    """It looked before the charge, and parked; resumed with the right code, the balance is looked at again, and the charge is made once."""
    world = World()

    async def first(runtime: Runtime) -> None:
        await (await runtime.spawn(runtime.agents["shop"], id="s")).ask("go", id="m")

    async def wrong(runtime: Runtime) -> Any:
        row = await rest(runtime.session("s"))
        return row.park.reason

    async def right(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        await handle.resume()
        return await handle.ask("go", id="m")

    world.life(version(world, wrong=False, lost=lost), first)
    assert world.life(version(world, wrong=True, lost=lost), wrong) == ("unclaimed" if lost else "drift")
    assert world.done == [("charge", 5), ("look", "balance")]
    assert world.life(version(world, wrong=False, lost=lost), right) == ["charged 5", "balance 3"]
    assert world.done == [("charge", 5), ("look", "balance"), ("look", "balance")]


def test_tasks_of_the_handler_that_come_in_another_order_do_not_drift() -> None:
    """Which of two tasks asks first after a crash says nothing: no effect is taken for another one's."""
    world = World()

    @tool(effect="idempotent")
    async def note(text: str) -> str:
        world.done.append(text)
        return text

    @agent(tools=[note])
    async def clerk(session: Session[Any], text: str) -> list[str]:
        async def one(text: str, first_s: float, second_s: float) -> str:
            await asyncio.sleep(first_s if world.lives == 1 else second_s)
            said = await session.step(note, text)
            if world.lives == 1 and text == "a":
                await world.crash()
            return said

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one("a", 0.1, 0.5)), group.create_task(one("b", 0.3, 0.1))]
        return [task.result() for task in tasks]

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(clerk, id="s")).ask("go", id="m")

    world.life(clerk, main)
    assert world.life(clerk, main) == ["a", "b"]
    assert sorted(world.done) == ["a", "b"]
