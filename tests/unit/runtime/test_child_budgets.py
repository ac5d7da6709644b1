"""The part of its budget that a parent gives to a child: how much, and what comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Budget, Runtime, Session, agent
from tests.unit.runtime.support import World


@pytest.mark.parametrize(
    ("own", "asked", "got"),
    [
        (Budget(steps=20), None, 20),
        (Budget(steps=20), Budget(steps=10), 10),
        (Budget(steps=200), None, 99),
        (None, Budget(steps=200), 99),
        (None, None, 49),
    ],
    ids=["its agent's", "the part asked for", "no more than is left", "nor if asked for", "half where there is no limit"],
)
def test_a_childs_limits_are_its_part_or_its_agents_and_at_most_what_is_left(own: Budget | None, asked: Budget | None, got: int) -> None:
    """The parent has 100 steps, of which the spawn itself is one."""

    @agent(name="child", budget=own)
    async def child(session: Session[Any], text: str) -> None: ...

    @agent(name="parent", budget=Budget(steps=100))
    async def parent(session: Session[Any], text: str) -> int | None:
        await session.spawn(child, id="c", budget=asked)
        return session.budget.left.steps

    async def main(runtime: Runtime) -> list[Any]:
        left = await (await runtime.spawn(parent, id="p")).ask("go")
        return [(await runtime.session("c").row()).budget.steps, left]

    assert World().life([parent, child], main) == [got, 99 - got]


@agent(name="child")
async def brief(session: Session[Any], text: str) -> str:
    await asyncio.sleep(1)
    session.finish("done")
    return text


@agent(name="parent", budget=Budget(steps=100))
async def parent(session: Session[Any], text: str) -> int | None:
    if text == "spawn":
        await session.spawn(brief, id="c", budget=Budget(steps=50))
    elif text == "work":
        await asyncio.sleep(1)
    return session.budget.left.steps


def test_what_comes_back_during_a_turn_of_the_parent_is_not_lost() -> None:
    """Parent and child commit at the same moment: row and memory know the same of it."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(parent, id="p")
        await handle.ask("spawn")
        await asyncio.gather(runtime.session("c").ask("go"), handle.ask("work"))
        await asyncio.sleep(1)
        return [(await handle.row()).usage.steps, await handle.ask("what is left")]

    assert World().life([parent, brief], main) == [1, 99]


def test_what_a_person_added_to_a_childs_budget_does_not_go_to_its_parent() -> None:
    """The parent gets back what it gave."""

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(parent, id="p")
        await handle.ask("spawn")
        await runtime.session("c").raise_budget(Budget(steps=1000))
        await runtime.session("c").ask("go")
        await asyncio.sleep(1)
        return [(await handle.row()).usage.steps, await handle.ask("what is left")]

    assert World().life([parent, brief], main) == [1, 99]
