"""A step that its own caller let go of, in the run after a crash."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Runtime, Session, StepError, agent, tool
from tests.unit.runtime.support import World


@pytest.mark.parametrize("patient", [False, True])
def test_a_cut_step_waits_again_on_replay_until_its_caller_lets_go(patient: bool) -> None:
    """The handler takes the same way as before the crash; one that does not let go this time gets the error."""
    world = World()

    @tool(effect="idempotent", timeout_s=50.0)
    async def slow() -> str:
        world.done.append("slow")
        await asyncio.sleep(40)
        return "slow"

    @agent(tools=[slow])
    async def worker(session: Session[Any], text: str) -> str:
        try:
            async with asyncio.timeout(None if patient and world.lives == 2 else 2):
                return await session.step(slow)
        except TimeoutError:
            chosen = await session.decide(["fallback"], "fallback")
        except StepError as error:
            return error.type
        if world.lives == 1:
            await world.crash()
        return chosen

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m", timeout_s=1000)

    world.life(worker, main)
    assert world.life(worker, main) == ("CancelledError" if patient else "fallback")
    assert world.done == ["slow"]
