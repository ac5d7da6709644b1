"""A provider that is down is no bug: the session waits and asks again, for as long as it takes."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import NO_RETRY, Budget, Retry, Runtime, Session, StepError, Usage, agent, tool
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


def test_retries_are_limited_over_a_park() -> None:
    """A wait between two attempts that parks the session does not start their count again."""
    world = World()

    class TooMany(Exception):
        status_code = 429

        class response:
            status_code, headers = 429, {"retry-after": "10"}

    @tool(effect="idempotent", retry=Retry(attempts=3))
    async def provider() -> int:
        world.done.append("asked")
        raise TooMany("slow down")

    @agent(tools=[provider], park_after_s=5.0)
    async def worker(session: Session[Any], text: str) -> str:
        try:
            return str(await session.step(provider))
        except StepError as error:
            return error.type

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=1000)

    assert world.life(worker, main) == "TooMany"
    assert world.done == ["asked"] * 3
    assert len(world.seen(SessionParked)) == 2


@pytest.mark.parametrize(("error", "tokens"), [("ConnectError", 0), ("RateLimit", 0), ("Cut", 100)])
def test_a_call_that_was_refused_or_never_reached_costs_a_step(error: str, tokens: int) -> None:
    """Of any other failure nobody knows what it cost: it is charged in full."""

    class ConnectError(Exception): ...

    class RateLimit(Exception):
        status_code = 429

    class Cut(Exception): ...

    @tool(retry=NO_RETRY, cost=Usage(tokens=100))
    async def provider() -> int:
        raise {"ConnectError": ConnectError, "RateLimit": RateLimit, "Cut": Cut}[error]("no")

    @agent(budget=Budget(tokens=1000))
    async def worker(session: Session[Any], text: str) -> str:
        try:
            return str(await session.step(provider))
        except StepError as failed:
            return failed.type

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        return [await handle.ask("go"), (await handle.row()).usage.steps, (await handle.row()).usage.tokens]

    assert World().life(worker, main) == [error, 1, tokens]
