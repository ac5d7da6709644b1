"""What a Handle refuses before anything is sent: the same for every way that it reaches a session."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Budget, ConfigError, Runtime, RuntimeStopped, Session, SessionEnded, SessionNotFound, agent
from tests.unit.runtime.support import World


@agent
async def echo(session: Session[Any], text: str) -> str:
    return text


def test_arguments_that_make_no_sense_are_refused_in_one_line() -> None:
    """A NaN among the loop's timers would stop others of them."""
    world = World()

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(echo, id="s")
        for wrong in (float("nan"), -1.0, "soon"):
            with pytest.raises(ConfigError, match="timeout_s"):
                await handle.ask("x", timeout_s=wrong)  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="timeout_s"):
                await handle.result(timeout_s=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="reason"):
            await handle.kill("x" * 3000)
        with pytest.raises(ConfigError, match="what is to be added"):
            await handle.raise_budget(Budget())
        await asyncio.sleep(1)
        return await handle.ask("still here")

    assert world.life(echo, main) == "still here"


def test_a_reason_that_is_no_utf8_is_stored_all_the_same() -> None:
    """What a person typed must not keep a session from being ended."""
    world = World()

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(echo, id="s")
        await handle.pause("p\ud800q")
        park = (await handle.row()).park
        await handle.kill("c\ud800d")
        return park and park.text, (await handle.row()).status

    assert world.life(echo, main) == ("p\\ud800q", "killed")


def test_what_is_not_there_or_has_ended_says_so() -> None:
    """No verb pretends to have done something."""
    world = World()

    async def main(runtime: Runtime) -> None:
        with pytest.raises(SessionNotFound):
            await runtime.session("nobody").live()
        handle = await runtime.spawn(echo, id="s")
        await handle.cancel()
        with pytest.raises(SessionEnded):
            await handle.raise_budget(Budget(steps=1))

    world.life(echo, main)


def test_whoever_still_waits_when_the_runtime_stops_is_told_at_once() -> None:
    """In a task outside its block, too: not after the whole time limit."""
    world = World()
    told: list[Any] = []

    @agent
    async def slow(session: Session[Any], text: str) -> None:
        await session.sleep(1000)

    async def wait_for(runtime: Runtime) -> None:
        try:
            await runtime.session("s").ask("x", timeout_s=10_000)
        except RuntimeStopped as error:
            told.append(str(error))

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(slow, id="s")
        told.append(asyncio.get_running_loop().create_task(wait_for(runtime)))
        await asyncio.sleep(1)

    world.life(slow, main)
    assert "has stopped" in told[1]


def test_a_budget_that_no_store_could_hold_is_refused_and_nothing_is_changed() -> None:
    """Neither at once nor by a sum."""
    world = World()

    @agent(budget=Budget(steps=10))
    async def worker(session: Session[Any], text: str) -> str:
        return text

    async def main(runtime: Runtime) -> Any:
        with pytest.raises(ConfigError, match="steps is over"):
            Budget(steps=2**63)
        handle = await runtime.spawn(worker, id="s")
        await handle.raise_budget(Budget(steps=10**15 - 10))
        with pytest.raises(ConfigError, match="steps is over"):
            await handle.raise_budget(Budget(steps=1))
        return await handle.ask("works"), (await handle.row()).budget.steps

    assert world.life(worker, main) == ("works", 10**15)
