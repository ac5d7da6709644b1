"""A provider that is down is no bug: the session waits and asks again, for as long as it takes."""

from __future__ import annotations

from typing import Any

from holdfast import NO_RETRY, Retry, Runtime, Session, StepError, agent, tool
from holdfast.events import SessionParked, StepRetried, TurnCrashed
from tests.unit.runtime.support import World


def test_a_session_whose_provider_is_down_parks_and_goes_on_when_it_is_back() -> None:
    """No restart is counted, no dead letter is made; what was recorded before is not asked again."""
    world = World()

    async def before() -> int:
        world.done.append("before")
        return 1

    @tool(retry=NO_RETRY)
    async def provider() -> int:
        world.done.append("asked")
        if world.now_s() < 500:
            raise ConnectionError("down")
        return 2

    @agent
    async def worker(session: Session[Any], text: str) -> int:
        return await session.step(before) + await session.step(provider)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=5000)

    assert world.life(worker, main) == 3
    assert {event.reason for event in world.seen(SessionParked)} == {"provider"}
    assert world.seen(TurnCrashed) == []
    assert world.done.count("before") == 1
    assert 3 < world.done.count("asked") < 20


def test_an_attempt_that_fails_is_made_again() -> None:
    """As often as the tool's `retry` says; the handler notices nothing."""
    world = World()

    @tool(retry=Retry(attempts=4, base_s=1.0))
    async def provider() -> int:
        world.done.append("asked")
        if len(world.done) < 4:
            raise ConnectionError("down")
        return len(world.done)

    @agent
    async def worker(session: Session[Any], text: str) -> int:
        return await session.step(provider)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == 4
    assert len(world.seen(StepRetried)) == 3


def test_a_handler_that_catches_the_failure_decides_itself() -> None:
    """The failure is an error like any other; it is the same on replay if something follows it."""
    world = World()

    @tool(retry=NO_RETRY)
    async def provider() -> int:
        world.done.append("asked")
        raise ConnectionError("down")

    async def note(text: str) -> str:
        return text

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        try:
            await session.step(provider)
        except StepError as error:
            found = await session.step(note, f"{error.category} {error.type} {error.message}")
            if world.lives == 1:
                await world.crash()
            return found
        return "no failure"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    world.life(worker, main)
    assert world.life(worker, main) == "transient ConnectionError down"
    assert world.done == ["asked"]
