"""The wall clock is set, while the process runs or between two: no wait becomes longer than it was, and none is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Agent, Handle, ReplyTimeout, Retry, Runtime, Session, StepError, Usage, agent, tool
from holdfast.clock import SteadyClock
from holdfast.testing import Crashed, SimulatedClock
from tests.unit.runtime.support import World, rest

HOUR_S = 3600.0


def sleeper(world: World, seconds: float, park_after_s: float) -> Agent:
    @agent(name="a", park_after_s=park_after_s)
    async def handler(session: Session[Any], text: str) -> str:
        await session.sleep(seconds)
        world.done.append(world.now_s())
        return "awake"

    return handler


async def sleeps(runtime: Runtime) -> Any:
    handle = await runtime.spawn(runtime.agents["a"], id="s")
    await handle.tell("go", id="m")
    return handle


async def undisturbed(handle: Handle, seconds: float) -> Any:
    """The answer after that time; before it, the caller must not wake the session by looking at it."""
    await asyncio.sleep(seconds)
    return await handle.ask("go", id="m", timeout_s=0.1)


@pytest.mark.parametrize("park_after_s", [0.1, 1e6], ids=["parked", "in memory"])
@pytest.mark.parametrize("by_s", [-HOUR_S, -10.0])
def test_a_sleep_is_not_longer_when_the_clock_is_set_back(by_s: float, park_after_s: float) -> None:
    """Time inside a process is monotonic."""
    world = World()
    handler = sleeper(world, 0.6, park_after_s)

    async def main(runtime: Runtime) -> Any:
        handle = await sleeps(runtime)
        await asyncio.sleep(0.3)
        world.jump(by_s)
        return await undisturbed(handle, 2)

    assert world.life(handler, main) == "awake"
    assert world.done == [pytest.approx(0.6, abs=0.1)]


@pytest.mark.parametrize("park_after_s", [0.1, 1e6], ids=["parked", "in memory"])
def test_a_clock_that_is_set_ahead_ends_a_wait_within_a_minute(park_after_s: float) -> None:
    """The machine may have slept, and its timers with it: the wall clock is looked at each minute."""
    world = World()
    handler = sleeper(world, HOUR_S, park_after_s)

    async def main(runtime: Runtime) -> Any:
        handle = await sleeps(runtime)
        await asyncio.sleep(100)
        world.jump(2 * HOUR_S)
        return await undisturbed(handle, 500)

    assert world.life(handler, main) == "awake"
    assert 100 < world.done[0] <= 161


@pytest.mark.parametrize("park_after_s", [0.1, 1e6], ids=["parked", "in memory"])
def test_a_sleep_lasts_for_its_own_length_after_a_crash_and_a_clock_set_back(park_after_s: float) -> None:
    """The stored time is an hour away, and the sleep was one of a hundred seconds; parked twice, it is no longer either."""
    world = World()
    handler = sleeper(world, 100, park_after_s)

    async def first(runtime: Runtime) -> Any:
        await sleeps(runtime)
        await asyncio.sleep(50)
        world.jump(-HOUR_S)
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        return await undisturbed(runtime.session("s"), 1000)

    assert isinstance(world.life(handler, first), Crashed)
    assert world.life(handler, second) == "awake"
    assert world.done[0] <= 50 + 200 + 5


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("crash", [False, True])
def test_the_pause_before_a_retry_is_not_longer(crash: bool, when: str) -> None:
    """It is not the time of all attempts that is waited for, but the pause itself."""
    world = World()

    @tool(cost=Usage(microusd=1), retry=Retry(attempts=2, base_s=100.0, max_s=100.0, total_s=10_000.0), timeout_s=5)
    async def call() -> str:
        world.done.append(world.now_s())
        if len(world.done) == 1:
            raise ConnectionError("cut off")
        return "answered"

    @agent(name="a", tools=[call], park_after_s=5.0 if when == "before" else 1e6)
    async def handler(session: Session[Any], text: str) -> str:
        return await session.step(call)

    async def first(runtime: Runtime) -> Any:
        handle = await sleeps(runtime)
        await asyncio.sleep(1)
        world.jump(-HOUR_S)
        if crash:
            await world.crash()
        return await handle.ask("go", id="m", timeout_s=2 * HOUR_S)

    async def second(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("go", id="m", timeout_s=2 * HOUR_S)

    answer = world.life(handler, first)
    assert (world.life(handler, second) if crash else answer) == "answered"
    assert world.done[1] <= 1 + 2 * 100 + 5


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_the_deadline_of_an_effect_is_not_waited_for_longer_after_a_crash(by_s: float) -> None:
    """`reconcile` is asked once the attempt can no longer take effect by its own time limit."""
    world = World()

    async def was_made() -> str:
        world.done.append(world.now_s())
        return "found"

    @tool(effect="once", timeout_s=20, reconcile=was_made)
    async def pay() -> str:
        await world.crash()
        return "paid"

    @agent(name="a", tools=[pay])
    async def handler(session: Session[Any], text: str) -> str:
        return await session.step(pay)

    assert isinstance(world.life(handler, sleeps_then_waits), Crashed)
    world.jump(by_s)
    assert world.life(handler, sleeps_then_waits) == "found"
    assert world.done[0] <= (45 if by_s < 0 else 1)


async def sleeps_then_waits(runtime: Runtime) -> Any:
    handle = await sleeps(runtime)
    return await handle.ask("go", id="m", timeout_s=2 * HOUR_S)


@pytest.mark.parametrize("crash", [False, True])
def test_the_time_limit_of_an_ask_is_not_longer(crash: bool) -> None:
    """The other never answers; the one that asks is told after its own limit, twice that after a crash."""
    world = World()

    @agent(name="other")
    async def other(session: Session[Any], text: str) -> None:
        await session.sleep(1e7)

    @agent(name="a", park_after_s=5.0)
    async def handler(session: Session[Any], text: str) -> str:
        try:
            return str(await session.ask("other", "x", timeout_s=100))
        except StepError as error:
            world.done.append(world.now_s())
            return error.type

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(other, id="other")
        handle = await sleeps(runtime)
        if world.lives == 1:
            await asyncio.sleep(50)
            world.jump(-HOUR_S)
            if crash:
                await world.crash()
        return await handle.ask("go", id="m", timeout_s=2 * HOUR_S)

    answer = world.life([handler, other], main)
    assert (world.life([handler, other], main) if crash else answer) == "AskTimeout"
    assert world.done[0] <= (50 + 200 + 5 if crash else 101)


def test_a_session_whose_provider_is_down_is_asked_again_after_its_own_pause() -> None:
    """A park that no record stands for has its own length too."""
    world = World()

    async def call() -> str:
        world.done.append(world.now_s())
        if len(world.done) == 1:
            raise ConnectionError("down")
        return "up"

    down = tool(name="call", retry=Retry(attempts=1), timeout_s=5)(call)

    @agent(name="a", tools=[down])
    async def handler(session: Session[Any], text: str) -> str:
        return await session.step(down)

    async def first(runtime: Runtime) -> Any:
        row = await rest(await sleeps(runtime))
        assert row.park.reason == "provider"
        world.jump(-HOUR_S)
        await world.crash()

    assert isinstance(world.life(handler, first), Crashed)
    assert world.life(handler, sleeps_then_waits) == "up"
    assert world.done[1] < 20


def test_a_caller_outside_has_its_own_time_limit() -> None:
    """An ask from outside is timed by the loop alone."""
    world = World()
    handler = sleeper(world, 1e6, 1.0)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(handler, id="s")
        asyncio.get_running_loop().call_later(1, world.jump, -HOUR_S)
        with pytest.raises(ReplyTimeout):
            await handle.ask("go", timeout_s=10)
        return world.now_s()

    assert world.life(handler, main) == pytest.approx(10, abs=0.1)


def test_now_is_what_the_wall_clock_says() -> None:
    """A handler that asks for the time gets that of people, also when it was set back."""
    world = World()

    @agent(name="a")
    async def handler(session: Session[Any], text: str) -> float:
        before = await session.now()
        world.jump(-HOUR_S)
        return (await session.now()) - before

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(handler, id="s")).ask("go")

    assert world.life(handler, main) == pytest.approx(-HOUR_S, abs=1)


def test_a_steady_clock_does_not_go_back_and_follows_the_wall_clock_when_that_has_caught_up() -> None:
    """It counts on by the monotonic clock meanwhile."""
    loop_s = [0.0]

    class Loop:
        def time(self) -> float:
            return loop_s[0]

    wall = SimulatedClock(Loop(), epoch=1000.0)  # type: ignore[arg-type]
    clock = SteadyClock(wall)
    wall.jump(-100.0)
    assert clock.time() == 1000.0
    loop_s[0] = 60.0
    assert (clock.time(), clock.wall()) == (1060.0, 960.0)
    wall.jump(500.0)
    loop_s[0] = 60.5
    assert (clock.time(), clock.wall()) == (1460.5, 1460.5)
    loop_s[0] = 61.0
    assert clock.time() == 1461.0


def test_a_pause_of_the_process_between_two_looks_does_not_set_the_steady_clock_ahead() -> None:
    """The thread may stop for seconds between the look at the wall clock and the one at the monotonic clock."""

    class Machine:
        now, pause = 100.0, 0.0

        def _look(self) -> float:
            found, self.now, self.pause = self.now, self.now + self.pause, 0.0
            return found

        def monotonic(self) -> float:
            return self._look()

        def time(self) -> float:
            return self._look() + 1_000.0

    for pauses_after in range(3):
        machine = Machine()
        clock = SteadyClock(machine)
        for look in range(3):
            machine.now += 10.0
            machine.pause = 3.0 if look == pauses_after else 0.0
            clock.time()
        machine.now += 10.0
        assert clock.time() == pytest.approx(machine.time(), abs=0.01)
