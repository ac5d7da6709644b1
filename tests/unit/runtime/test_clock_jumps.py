"""The wall clock is set, while the process runs or between two: no wait becomes longer than it was, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import (
    Agent,
    Backoff,
    BreakerSpec,
    Budget,
    Handle,
    Intensity,
    ReplyTimeout,
    Retry,
    Runtime,
    Session,
    StepError,
    Usage,
    agent,
    tool,
)
from holdfast.clock import SteadyClock, SystemClock
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


class Refused(Exception):
    """What a provider answers that is busy, with the time on the wall from which it may be called again."""

    def __init__(self, until: float) -> None:
        super().__init__("busy")
        self.status_code = 429
        self.response = SimpleNamespace(status_code=429, headers={"retry-after": formatdate(until, usegmt=True)})


LENGTH_S = 600.0
WAITS = ["sleep", "ask", "retry", "retry after a date", "breaker", "breaker of a dependency", "provider", "deadline"]


def waiter(world: World, wait: str, park_after_s: float) -> list[Agent]:
    """An agent that waits for LENGTH_S in one of WAITS, and notes when that is over."""
    calls: list[float] = []

    def over(text: str) -> str:
        world.done.append(world.now_s())
        return text

    async def act() -> str:
        calls.append(world.now_s())
        if wait == "deadline":
            await asyncio.sleep(10 * HOUR_S)
        if len(calls) <= (6 if wait == "provider" else 1):
            raise Refused(world.wall_s() + LENGTH_S) if wait == "retry after a date" else ConnectionError("cut off")
        return over("called")

    pause_s = {"retry": LENGTH_S, "breaker": 0.001, "breaker of a dependency": 0.001}.get(wait, 1.0)
    attempts = 1 if wait in ("provider", "deadline") else 2
    call = tool(
        name="act",
        retry=Retry(attempts=attempts, base_s=pause_s, max_s=2 * LENGTH_S, total_s=10_000.0, retry_after_max_s=10_000.0),
        timeout_s=LENGTH_S,
        dependency="crm" if wait == "breaker of a dependency" else None,
    )(act)
    opens = BreakerSpec(minimum=1, failure_ratio=0.01, open_s=LENGTH_S)

    @agent(name="other")
    async def other(session: Session[Any], text: str) -> None:
        await session.sleep(1e7)

    @agent(
        name="a",
        tools=[call],
        park_after_s=park_after_s,
        breaker=opens if wait == "breaker" else BreakerSpec(),
        intensity=Intensity(3, 1e9),
        backoff=Backoff(base_s=LENGTH_S, max_s=LENGTH_S),
    )
    async def handler(session: Session[Any], text: str) -> str:
        try:
            if wait == "sleep":
                await session.sleep(LENGTH_S)
                return over("slept")
            return await (session.ask("other", "x", timeout_s=LENGTH_S) if wait == "ask" else session.step(call))
        except StepError as error:
            if wait == "provider":
                raise
            return over(error.type)

    return [handler, other]


def ends_s(wait: str, park_after_s: float, happens: Callable[[World], None]) -> float:
    """When the wait is over, where that happens after 30 s."""
    world = World()

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(runtime.agents["other"], id="other")
        await sleeps(runtime)
        await asyncio.sleep(30)
        assert world.done == []
        happens(world)
        await asyncio.sleep(4 * LENGTH_S)

    breaker = BreakerSpec(minimum=1, failure_ratio=0.01, open_s=LENGTH_S) if wait == "breaker of a dependency" else BreakerSpec()
    world.life(waiter(world, wait, park_after_s), main, breaker=breaker)
    return float(world.done[0])


@pytest.mark.parametrize("park_after_s", [0.1, 1e6], ids=["parked", "in memory"])
@pytest.mark.parametrize("by_s", [-HOUR_S, -10.0, 10.0, HOUR_S])
@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_has_its_own_length_when_the_clock_is_set(wait: str, by_s: float, park_after_s: float) -> None:
    """Time inside a process is monotonic: no wait is longer, and none ends early."""
    undisturbed_s = ends_s(wait, park_after_s, lambda world: None)
    assert undisturbed_s > 100
    assert ends_s(wait, park_after_s, lambda world: world.jump(by_s)) == pytest.approx(undisturbed_s, abs=0.2)


@pytest.mark.parametrize("park_after_s", [0.1, 1e6], ids=["parked", "in memory"])
@pytest.mark.parametrize("for_s", [200.0, HOUR_S, 7 * 24 * HOUR_S])
@pytest.mark.parametrize("wait", [wait for wait in WAITS if wait not in ("provider", "deadline")])
def test_a_suspension_delays_a_wait_by_a_minute_at_most(wait: str, for_s: float, park_after_s: float) -> None:
    """The timers stop while the machine is suspended, and time goes on: the clock is looked at each minute."""
    due_s = max(ends_s(wait, park_after_s, lambda world: None) - for_s, 30.0)
    ended_s = ends_s(wait, park_after_s, lambda world: world.suspend(for_s))
    assert due_s - 1 <= ended_s <= due_s + 60.2


def test_a_restart_and_a_caller_outside_notice_a_suspension_within_a_minute() -> None:
    """The pause before a turn is restarted after a bug, and the time limit of `Handle.ask`."""
    world = World()

    @agent(name="a", intensity=Intensity(3, 1e9), backoff=Backoff(base_s=2 * HOUR_S, max_s=2 * HOUR_S))
    async def handler(session: Session[Any], text: str) -> None:
        world.done.append(world.now_s())
        raise ValueError("a bug")

    async def main(runtime: Runtime) -> Any:
        handle = await sleeps(runtime)
        asyncio.get_running_loop().call_later(30, world.suspend, 3 * HOUR_S)
        with pytest.raises(ReplyTimeout):
            await handle.ask("go", id="m", timeout_s=2 * HOUR_S)
        told_s = world.now_s()
        await asyncio.sleep(60)
        return told_s

    assert 30 <= world.life(handler, main) <= 90
    assert world.done[0] < 1
    assert 30 <= world.done[1] <= 90


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_a_provider_names_a_time_by_the_clock_on_the_wall(by_s: float) -> None:
    """Also where that clock was set since the process began."""
    world = World()

    async def main(runtime: Runtime) -> Any:
        world.jump(by_s)
        await runtime.spawn(runtime.agents["other"], id="other")
        await sleeps(runtime)
        await asyncio.sleep(2 * LENGTH_S)

    world.life(waiter(world, "retry after a date", 0.1), main)
    assert world.done == [pytest.approx(LENGTH_S, abs=3)]


def test_the_active_time_of_a_budget_is_not_that_of_the_wall_clock() -> None:
    """Neither a clock that is set nor a suspension spends the seconds of a budget, or ends an attempt."""
    world = World()

    @tool(timeout_s=50)
    async def work() -> str:
        await asyncio.sleep(10)
        world.jump(HOUR_S)
        await asyncio.sleep(10)
        world.suspend(HOUR_S)
        await asyncio.sleep(10)
        world.jump(-2 * HOUR_S)
        await asyncio.sleep(10)
        return "done"

    @agent(name="a", tools=[work], budget=Budget(seconds=45.0))
    async def handler(session: Session[Any], text: str) -> str:
        return await session.step(work)

    async def main(runtime: Runtime) -> Any:
        handle = await sleeps(runtime)
        return await handle.ask("go", id="m"), (await handle.row()).usage.seconds

    assert world.life(handler, main) == ("done", pytest.approx(40.0, abs=0.5))


@pytest.mark.parametrize("park_after_s", [0.1, 1e6], ids=["parked", "in memory"])
def test_a_sleep_lasts_for_its_own_length_after_a_crash_and_a_clock_set_back(park_after_s: float) -> None:
    """The stored time is an hour away, and the sleep was one of a hundred seconds; it begins anew, once."""
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
    assert world.done[0] == pytest.approx(50 + 100, abs=3)


@pytest.mark.parametrize("by_s", [-HOUR_S, -100.0])
@pytest.mark.parametrize("wait", ["sleep", "ask", "retry", "retry after a date", "breaker"])
def test_a_parked_wait_begins_anew_once_after_a_crash_and_a_clock_set_back(wait: str, by_s: float) -> None:
    """Neither its alarm, its record nor its breaker begins once more after that, and it never ends early."""
    undisturbed_s, world = ends_s(wait, 0.1, lambda world: None), World()
    agents = waiter(world, wait, 0.1)

    async def first(runtime: Runtime) -> Any:
        await runtime.spawn(runtime.agents["other"], id="other")
        await sleeps(runtime)
        await asyncio.sleep(30)
        world.jump(by_s)
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        await asyncio.sleep(4 * LENGTH_S)

    assert isinstance(world.life(agents, first), Crashed)
    world.life(agents, second)
    assert undisturbed_s - 0.2 <= world.done[0] <= 30 + undisturbed_s + 3


def test_the_longer_of_two_waits_at_once_never_ends_early() -> None:
    """Two sleeps at once, a crash with the clock set back in each of them; the longer one may begin anew at the end of the shorter one."""
    world = World()

    @agent(name="a", park_after_s=0.1)
    async def handler(session: Session[Any], text: str) -> str:
        await session.gather(session.sleep(100), session.sleep(250))
        world.done.append(world.now_s())
        return "awake"

    async def first(runtime: Runtime) -> Any:
        await sleeps(runtime)
        await asyncio.sleep(50)
        world.jump(-HOUR_S)
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        await asyncio.sleep(120)
        world.jump(-HOUR_S)
        await world.crash()

    async def third(runtime: Runtime) -> Any:
        await asyncio.sleep(1000)

    assert isinstance(world.life(handler, first), Crashed)
    assert isinstance(world.life(handler, second), Crashed)
    world.life(handler, third)
    assert 250 <= world.done[0] <= 170 + 100 + 250 + 3


def test_what_an_effect_may_still_do_is_waited_for_once_more_after_a_crash() -> None:
    """The process died in the attempt, and the next one while the session was parked for its end."""
    world = World()

    async def was_made() -> str:
        world.done.append(world.now_s())
        return "found"

    @tool(effect="once", timeout_s=200, settles_s=100, reconcile=was_made)
    async def pay() -> str:
        await world.crash()
        return "paid"

    @agent(name="a", tools=[pay], park_after_s=0.1)
    async def handler(session: Session[Any], text: str) -> str:
        return await session.step(pay)

    async def second(runtime: Runtime) -> Any:
        await asyncio.sleep(50)
        assert (await runtime.session("s").row()).status == "parked"
        world.jump(-HOUR_S)
        await world.crash()

    assert isinstance(world.life(handler, sleeps_then_waits), Crashed)
    assert isinstance(world.life(handler, second), Crashed)
    assert world.life(handler, sleeps_then_waits) == "found"
    assert 300 <= world.done[0] <= 50 + 300 + 3


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
    assert world.done[1] <= 1 + 100 + 3


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
    """The other never answers; the one that asks is told after its own limit, which begins anew after a crash."""
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
    assert world.done[0] <= (50 + 100 + 3 if crash else 101)


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


def test_a_steady_clock_follows_no_wall_clock_and_counts_suspensions() -> None:
    """Once, however often it looks."""
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
    assert (clock.time(), clock.wall()) == (1060.5, 1460.5)
    wall.suspend(1000.0)
    loop_s[0] = 61.0
    assert (clock.time(), clock.wall()) == (2061.0, 2461.0)
    loop_s[0] = 62.0
    assert clock.time() == 2062.0


def test_the_clock_of_this_machine_counts_suspensions() -> None:
    """Both clocks pass alike while it runs."""
    clock = SystemClock()
    apart_s = clock.elapsed() - clock.monotonic()
    assert clock.elapsed() - clock.monotonic() == pytest.approx(apart_s, abs=0.2)
    assert SteadyClock(clock).time() == pytest.approx(clock.time(), abs=0.2)


def test_a_pause_of_the_process_between_two_looks_does_not_set_the_steady_clock_ahead() -> None:
    """The thread may stop for seconds between a look at the clock that counts suspensions and one at the monotonic clock."""

    class Machine:
        now, pause = 100.0, 0.0

        def _look(self) -> float:
            found, self.now, self.pause = self.now, self.now + self.pause, 0.0
            return found

        def monotonic(self) -> float:
            return self._look()

        elapsed = monotonic

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
