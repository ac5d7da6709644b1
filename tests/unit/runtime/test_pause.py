"""A person pauses a session: nothing is cut off, nothing is lost, and it goes on where it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Runtime, Session, SessionError, agent, tool
from holdfast.events import StepReplayed
from tests.unit.runtime.support import World, rest


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
        return text

    return worker


def test_a_pause_lets_the_step_in_flight_end_and_a_resume_goes_on_after_it() -> None:
    """An effect is never cut off half-way by a person who wants to look; what was done is not done again."""
    world = World()
    worker = working(world)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(7)
        await handle.pause("let me look")
        park, half = (await handle.row()).park, list(world.done)
        assert park is not None
        await asyncio.sleep(1000)
        quiet = list(world.done) == half
        await handle.resume()
        return park.reason, park.text, half, quiet, await handle.ask("go", id="m")

    half = ["begins 0", "ends 0", "begins 1", "ends 1"]
    assert world.life(worker, main) == ("paused", "let me look", half, True, "go")
    assert world.done == [*half, "begins 2", "ends 2"]
    assert len(world.seen(StepReplayed)) == 2


def test_a_session_that_rests_is_paused_and_keeps_what_arrives() -> None:
    """Messages wait in the mailbox, over a restart of the process too."""
    world = World()

    @agent
    async def echo(session: Session[Any], text: str) -> str:
        return text

    async def first(runtime: Runtime) -> Any:
        handle = await runtime.spawn(echo, id="s")
        await handle.pause()
        await handle.tell("hello", id="m")
        await asyncio.sleep(100)
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        await asyncio.sleep(100)
        handle = runtime.session("s")
        row = await handle.row()
        await handle.resume()
        return row.status, row.pending, await handle.ask("hello", id="m")

    world.life(echo, first)
    assert world.life(echo, second) == ("parked", 1, "hello")


def test_a_session_between_two_restarts_is_paused_at_once() -> None:
    """The wait before a restart is cut short, not sat out."""
    world = World()

    @agent
    async def broken(session: Session[Any], text: str) -> str:
        world.done.append(text)
        raise ValueError("a bug")

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(broken, id="s")
        await handle.tell("go")
        await asyncio.sleep(0.01)
        await handle.pause()
        return (await handle.row()).park.reason, len(world.done)  # type: ignore[union-attr]

    assert world.life(broken, main) == ("paused", 1)


def test_a_wait_that_was_parked_is_paused_and_looked_at_afresh_on_resume() -> None:
    """The timer does not wake a paused session; after the resume it waits for what is left."""
    world = World()

    @agent
    async def sleeper(session: Session[Any], text: str) -> str:
        await session.sleep(1000)
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(sleeper, id="s")
        await handle.tell("go", id="m")
        parked = (await rest(handle)).park.reason
        await handle.pause()
        await asyncio.sleep(2000)
        paused = (await handle.row()).park.reason  # type: ignore[union-attr]
        await handle.resume()
        return parked, paused, await handle.ask("go", id="m")

    assert world.life(sleeper, main) == ("wait", "paused", "go")


def test_what_has_failed_or_ended_cannot_be_paused() -> None:
    """One line that says why."""
    world = World()

    @agent
    async def finisher(session: Session[Any], text: str) -> None:
        session.finish()

    async def main(runtime: Runtime) -> None:
        handle = await runtime.spawn(finisher, id="s")
        await handle.ask("go")
        with pytest.raises(SessionError, match="is finished: there is nothing to pause"):
            await handle.pause()

    world.life(finisher, main)
