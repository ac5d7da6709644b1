"""Breakers of a session and of a dependency: open, park, test the dependency, close, or end the session."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import NO_RETRY, BreakerSpec, Runtime, Session, agent, tool
from holdfast.events import SessionParked
from tests.unit.runtime.support import World, rest

SPEC = BreakerSpec(minimum=3, window=10, open_s=60.0, half_open_calls=1)
PATIENT = BreakerSpec(minimum=1000, window=1000)


def test_a_session_that_keeps_failing_parks_and_resumes_with_a_half_open_call() -> None:
    """It opens at the third failure, parks until the breaker lets a half-open call through, and closes when that call succeeds."""
    world = World()

    @tool(retry=NO_RETRY)
    async def work(number: int) -> int:
        world.done.append(round(world.now_s()))
        if world.now_s() < 50:
            raise ConnectionError("down")
        return number

    @agent(tools=[work], breaker=SPEC)
    async def worker(session: Session[Any], text: str) -> int:
        for number in range(5):
            await session.call_tool("work", {"number": number})
        return 5

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=5000)

    assert world.life(worker, main) == 5
    assert world.done[:4] == [0, 0, 0, 60]
    assert [event.reason for event in world.seen(SessionParked)] == ["breaker"]


def test_an_open_breaker_is_remembered_over_a_crash() -> None:
    """The next process waits as long as the last one would have."""
    world = World()

    @tool(retry=NO_RETRY)
    async def work(number: int) -> int:
        world.done.append(round(world.now_s()))
        if world.now_s() < 50:
            raise ConnectionError("down")
        return number

    @agent(tools=[work], breaker=SPEC)
    async def worker(session: Session[Any], text: str) -> int:
        for number in range(5):
            await session.call_tool("work", {"number": number})
        return 5

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await rest(handle)
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("go", id="m", timeout_s=5000)

    world.life(worker, first)
    assert world.life(worker, second) == 5
    assert [at for at in world.done if 0 < at < 60] == []


def test_after_enough_openings_the_session_is_killed() -> None:
    """One that never gets better does not come back for ever."""

    @tool(retry=NO_RETRY)
    async def work(number: int) -> int:
        raise ConnectionError("down")

    @agent(tools=[work], breaker=BreakerSpec(minimum=2, window=4, open_s=10.0, half_open_calls=1, kill_after=3))
    async def worker(session: Session[Any], text: str) -> int:
        for number in range(100):
            await session.call_tool("work", {"number": number})
        return 1

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(1000)
        return (await handle.row()).status

    assert World().life(worker, main) == "killed"


def test_a_dependencys_breaker_holds_all_sessions_back() -> None:
    """What one session found out is spared the others; who does not use it is not held back."""
    world = World()

    @tool(retry=NO_RETRY, dependency="shop")
    async def order(number: int) -> int:
        world.done.append(("order", round(world.now_s())))
        if world.now_s() < 50:
            raise ConnectionError("down")
        return number

    @agent(tools=[order], breaker=PATIENT)
    async def worker(session: Session[Any], text: str) -> str:
        if text == "other":
            return "done"
        return (await session.call_tool("order", {"number": 1})).content

    async def main(runtime: Runtime) -> list[Any]:
        for number in range(3):
            await (await runtime.spawn(worker, id=f"first{number}")).ask("order")
        late = await runtime.spawn(worker, id="late")
        waiting = asyncio.ensure_future(late.ask("order", timeout_s=500))
        await asyncio.sleep(10)
        free = await (await runtime.spawn(worker, id="free")).ask("other")
        return [(await late.row()).status, free, await waiting]

    assert world.life(worker, main, breaker=SPEC) == ["parked", "done", "1"]
    assert world.done[3:] == [("order", 60)]


def test_the_callers_own_errors_do_not_open_it() -> None:
    """A bad argument says nothing about the health of anything."""
    world = World()

    @tool(retry=NO_RETRY)
    async def work(number: int) -> int:
        raise ValueError("the caller's mistake")

    @agent(tools=[work], breaker=SPEC)
    async def worker(session: Session[Any], text: str) -> int:
        for number in range(20):
            await session.call_tool("work", {"number": number})
        return 1

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == 1
    assert world.seen(SessionParked) == []


@pytest.mark.parametrize("crashes", [False, True])
def test_failures_are_remembered_over_turns_parks_and_restarts(crashes: bool) -> None:
    """One failure a turn, each followed by a commit: the third opens the breaker, whether or not the process lives on."""
    world = World()

    @tool(retry=NO_RETRY)
    async def work(number: int) -> int:
        raise ConnectionError("down")

    @agent(tools=[work], breaker=SPEC)
    async def worker(session: Session[Any], number: int) -> str:
        return (await session.call_tool("work", {"number": number})).content

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.ask(world.lives)
        await asyncio.sleep(1)
        if crashes:
            await world.crash()

    async def last(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell(world.lives)
        await asyncio.sleep(1)
        return (await handle.row()).park

    for _ in range(3):
        world.life(worker, main, idle_s=0.1)
    park = world.life(worker, last)
    assert park is not None
    assert park.reason == "breaker"
    assert "3 of 3 calls failed" in park.text


def test_a_session_behind_an_open_breaker_of_its_dependency_is_killed_by_its_own() -> None:
    """It makes few calls, each as one of the half-open calls that all share; all of them fail."""
    world = World()

    @tool(dependency="shop", retry=NO_RETRY)
    async def order(number: int) -> int:
        world.done.append(number)
        raise ConnectionError("down")

    @agent(breaker=BreakerSpec(minimum=4, window=10, open_s=30.0, half_open_calls=1, kill_after=2))
    async def worker(session: Session[Any], number: int) -> int:
        return int(await session.step(order, number))

    async def main(runtime: Runtime) -> Any:
        handles = [await runtime.spawn(worker, id=f"s{number}") for number in range(3)]
        for number, handle in enumerate(handles):
            await handle.tell(number)
        await asyncio.sleep(86_400)
        return [(await handle.row()).status for handle in handles]

    assert world.life(worker, main, breaker=SPEC) == ["killed"] * 3
    assert len(world.done) < 60


def test_people_see_what_the_dependency_said_last() -> None:
    """The last error that counted, without secrets, and its HTTP status."""

    class Unavailable(Exception):
        status_code = 503

    @tool(dependency="shop", retry=NO_RETRY)
    async def order(number: int) -> int:
        raise Unavailable("try later; api_key=sk-abcdefghijklmnopqrstuvwx0123456789") if number else ValueError("the caller's mistake")

    @agent(tools=[order])
    async def worker(session: Session[Any], number: int) -> str:
        return (await session.call_tool("order", {"number": number})).content

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        for number in (1, 0):
            await handle.ask(number)
        return runtime.breakers()["shop"]

    view = World().life(worker, main)
    assert (view.state, view.status) == ("closed", 503)
    assert view.error.startswith("Unavailable: try later; ")
    assert "sk-abc" not in view.error


def test_a_once_effect_that_its_caller_cancels_counts_against_no_breaker() -> None:
    """Also where the effect turns its cancellation into an error of the connection."""

    @tool(dependency="shop", effect="once")
    async def order(number: int) -> int:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise ConnectionError("the connection was closed") from None
        return number

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        for number in range(3):
            try:
                async with asyncio.timeout(1):
                    await session.step(order, number)
            except TimeoutError:
                pass
        return "done"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go")
        await rest(handle)
        return runtime.breakers()["shop"]

    view = World().life(worker, main, breaker=SPEC)
    assert (view.state, view.error) == ("closed", "")
