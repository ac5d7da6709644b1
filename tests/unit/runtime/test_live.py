"""What a session is doing right now, as its actor tells it."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast import Budget, Runtime, Session, agent, tool
from tests.unit.runtime.support import World


def test_live_facts_name_the_running_step_its_age_and_what_is_left() -> None:
    """A free read has no record before it ends: only the actor knows it."""
    world = World()

    @tool(timeout_s=30.0)
    async def look(number: int) -> int:
        await asyncio.sleep(10)
        return number

    @agent(tools=[look], budget=Budget(steps=10))
    async def worker(session: Session[Any], text: str) -> str:
        await session.call_tool("look", {"number": 1})
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        before = await handle.live()
        await handle.tell("one")
        await handle.tell("two")
        await asyncio.sleep(4)
        facts = await handle.live()
        assert facts is not None
        assert runtime.live() == {"s": facts}
        (step,) = facts.steps
        return before, facts, step

    before, facts, step = world.life(worker, main)
    assert before is None
    assert (facts.working, facts.turn, facts.queued, facts.left.steps, facts.breaker) == (True, 1, 2, 9, "closed")
    assert (step.kind, step.name, step.attempt, round(step.age_s), round(step.left_s)) == ("tool", "look", 1, 4, 26)


def test_live_facts_name_what_a_turn_waits_for() -> None:
    """A wait that is held in memory is no step in flight."""
    world = World()

    @agent
    async def sleeper(session: Session[Any], text: str) -> str:
        await session.sleep(3)
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(sleeper, id="s")
        await handle.tell("go")
        await asyncio.sleep(1)
        return await handle.live()

    facts = world.life(sleeper, main)
    assert facts.steps == []
    assert [(wait.reason, wait.text) for wait in facts.waits] == [("wait", "sleeps")]
