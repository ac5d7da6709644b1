"""A timeout of the handler's own around a wait that is long enough to park: it goes off, live and on replay."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from holdfast import Retry, Runtime, Session, agent, tool
from holdfast.events import SessionParked
from holdfast.stores.memory.store import MemoryStore
from tests.unit.runtime.support import World, rest

LIMIT_S, LONG_S = 100.0, 3_600.0
Wait = Callable[[], Awaitable[Any]]


@contextlib.asynccontextmanager
async def limited() -> AsyncIterator[None]:
    """What a library of the user's offers."""
    async with asyncio.timeout(LIMIT_S):
        yield


@contextlib.contextmanager
def limited_by_anyio() -> Iterator[None]:
    """The same, of a plain `with`."""
    with anyio.fail_after(LIMIT_S):
        yield


class Limited:
    """The same, as a class of its own."""

    async def __aenter__(self) -> None:
        self.timeout = asyncio.timeout(LIMIT_S)
        await self.timeout.__aenter__()

    async def __aexit__(self, *of: Any) -> None:
        await self.timeout.__aexit__(*of)


async def timeout(wait: Wait) -> None:
    async with asyncio.timeout(LIMIT_S):
        await wait()


async def timeout_around_a_task(wait: Wait) -> None:
    async with asyncio.timeout(LIMIT_S):
        await asyncio.ensure_future(wait())


async def wait_for(wait: Wait) -> None:
    await asyncio.wait_for(wait(), LIMIT_S)


async def gathered_wait_for(wait: Wait) -> None:
    await asyncio.gather(asyncio.wait_for(wait(), LIMIT_S), asyncio.sleep(0))


async def waiting_for_a_task(wait: Wait) -> None:
    task = asyncio.ensure_future(wait())
    done, _ = await asyncio.wait({task}, timeout=LIMIT_S)
    if not done:
        task.cancel()
        raise TimeoutError


async def as_completed(wait: Wait) -> None:
    for each in asyncio.as_completed([wait()], timeout=LIMIT_S):
        await each


async def group(wait: Wait) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(timeout, wait)


async def a_race_with_a_sleep(wait: Wait) -> None:
    task, clock = asyncio.ensure_future(wait()), asyncio.ensure_future(asyncio.sleep(LIMIT_S))
    await asyncio.wait({task, clock}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        raise TimeoutError


async def fail_after(wait: Wait) -> None:
    with anyio.fail_after(LIMIT_S):
        await wait()


async def generator(wait: Wait) -> None:
    async with limited():
        await wait()


async def plain_generator(wait: Wait) -> None:
    with limited_by_anyio():
        await wait()


async def own_class(wait: Wait) -> None:
    async with Limited():
        await wait()


async def exit_stack(wait: Wait) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(limited())
        await wait()


WAYS = [
    timeout, timeout_around_a_task, wait_for, gathered_wait_for, waiting_for_a_task, as_completed, group, a_race_with_a_sleep, fail_after,
    generator, plain_generator, own_class, exit_stack,
]  # fmt: skip


@pytest.mark.parametrize("crash", [False, True], ids=["", "crash after it"])
@pytest.mark.parametrize("waits_for", ["sleep", "ask", "retry"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_timeout_around_a_long_wait_goes_off(way: Callable[[Wait], Awaitable[None]], waits_for: str, crash: bool) -> None:
    """At its time; what follows is the same after a crash."""
    world = World()

    @tool(retry=Retry(attempts=3, base_s=LONG_S, max_s=LONG_S, total_s=10 * LONG_S))
    async def look() -> str:
        raise ConnectionError("the provider is down")

    @tool(effect="once")
    async def note(text: str) -> str:
        world.done.append(text)
        return text

    @tool
    async def last() -> str:
        if crash and world.lives == 1:
            await world.crash()
        return "last"

    @agent
    async def slow(session: Session[None], text: str) -> str:
        await session.sleep(LONG_S)
        return "the reply"

    @agent(park_after_s=1.0, tools=[note])
    async def worker(session: Session[None], text: str) -> str:
        waits: dict[str, Wait] = {
            "sleep": lambda: session.sleep(LONG_S),
            "ask": lambda: session.ask("slow", "go", timeout_s=2 * LONG_S),
            "retry": lambda: session.step(look),
        }
        try:
            await way(waits[waits_for])
        except (TimeoutError, ExceptionGroup):
            await session.step(note, "timeout")
        else:
            await session.step(note, "in time")
        await session.step(last)
        return "done"

    async def main(runtime: Runtime) -> tuple[str, float]:
        await runtime.spawn(slow, id="slow")
        began_s = world.now_s()
        reply = await (await runtime.spawn(worker, id="s")).ask("go", id="m", timeout_s=10 * LONG_S)
        return str(reply), world.now_s() - began_s

    result = world.life([worker, slow], main)
    if crash:
        result = world.life([worker, slow], main)
    assert result[0] == "done"
    assert world.done == ["timeout"]
    # What is on record takes no time; a sleep or an ask that was cut is waited for again.
    assert result[1] < LIMIT_S + 2.0 if crash else result[1] == pytest.approx(LIMIT_S, abs=2.0)


def test_a_person_is_waited_for_without_regard_to_timers() -> None:
    """A session that needs a person is listed as such at once, whatever timers its code has running."""
    world = World()
    parked_s: list[float] = []

    @tool(effect="once")
    async def refund() -> str:
        raise ConnectionError("cut off")

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        async with asyncio.timeout(LONG_S):
            return await session.step(refund)

    async def main(runtime: Runtime) -> str:
        runtime.observe(lambda event: parked_s.append(world.now_s()) if isinstance(event, SessionParked) else None)
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await rest(handle)
        await handle.resolve("done", result="by hand")
        return str(await handle.ask("go", id="m"))

    assert world.life(worker, main) == "by hand"
    assert parked_s[0] < 5.0


def test_a_timer_of_what_is_over_does_not_hold_the_park() -> None:
    """A scope that the code has left, and the heartbeat of a client that a tool has opened."""
    world = World()
    kept: list[asyncio.Task[None]] = []
    parked_s: list[float] = []

    async def heartbeat() -> None:
        for _ in range(1_000):
            await asyncio.sleep(30)

    @tool
    async def look() -> None:
        kept.append(asyncio.create_task(heartbeat()))

    @agent
    async def worker(session: Session[None], text: str) -> str:
        async with asyncio.timeout(LONG_S) as limit:
            await session.step(look)
        with anyio.move_on_after(LONG_S) as scope:
            await session.step(look)
        await session.sleep(10 * LONG_S)
        return f"{limit.expired()} {scope.cancelled_caught}"

    async def main(runtime: Runtime) -> str:
        runtime.observe(lambda event: parked_s.append(world.now_s()) if isinstance(event, SessionParked) else None)
        return str(await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=100 * LONG_S))

    assert world.life(worker, main) == "False False"
    assert parked_s[0] < 60.0


@pytest.mark.parametrize("own_task", [False, True])
@pytest.mark.parametrize("scope", ["asyncio", "anyio"])
def test_a_timeout_between_two_steps_is_met_again(scope: str, own_task: bool) -> None:
    """Two steps and plain work under one timeout, which passes in the plain work: on replay the steps take no time, and it passes there."""
    world = World()

    @tool
    async def look(number: int) -> int:
        await asyncio.sleep(1.0)
        return number

    @tool(effect="once")
    async def buy(name: str) -> str:
        world.done.append(name)
        return name

    @tool
    async def last() -> None:
        if world.lives == 1:
            await world.crash()

    @agent(tools=[look, buy])
    async def worker(session: Session[None], text: str) -> str:
        async def work() -> str:
            await session.step(look, 1)
            await session.step(look, 2)
            await asyncio.sleep(1.0)
            return "card"

        async def decide() -> str:
            try:
                if scope == "asyncio":
                    async with asyncio.timeout(2.5):
                        return await work()
                with anyio.fail_after(2.5):
                    return await work()
            except TimeoutError:
                return "voucher"

        bought = await session.step(buy, await (asyncio.create_task(decide()) if own_task else decide()))
        await session.step(last)
        return str(bought)

    async def main(runtime: Runtime) -> str:
        return str(await (await runtime.spawn(worker, id="s")).ask("go", id="m", timeout_s=10 * LONG_S))

    world.life(worker, main)
    assert world.life(worker, main) == "voucher"
    assert world.done == ["voucher"]


@pytest.mark.parametrize("scope", [asyncio.timeout, anyio.fail_after])
@pytest.mark.parametrize("concurrent", [False, True])
def test_a_timeout_does_not_go_off_on_replay_because_the_loop_is_busy(scope: Callable[[float], Any], concurrent: bool) -> None:
    """The answer came in time before; on replay, other sessions keep the loop busy for longer than the timeout."""
    store, hangs, decided, said = MemoryStore(), asyncio.Event(), asyncio.Event(), []

    @tool
    async def answer(number: int) -> int:
        await asyncio.sleep(0.02)
        return number

    @tool
    async def hang() -> None:
        hangs.set()
        await asyncio.sleep(0 if decided.is_set() else 60)

    @agent
    async def worker(session: Session[None], text: str) -> str:
        try:
            async with hold(scope):
                await (asyncio.gather(*(session.step(answer, n) for n in range(3))) if concurrent else session.step(answer, 1))
            said.append("in time")
        except TimeoutError:
            said.append("too late")
        if len(said) > 1:
            decided.set()
        await session.step(hang)
        return said[-1]

    async def keeps_the_loop() -> None:
        while not decided.is_set():
            time.sleep(0.017 if concurrent else 0.35)  # noqa: ASYNC251 - the mistake that this is about
            await asyncio.sleep(0)

    async def first() -> None:
        async with Runtime(store, [worker], drain_s=0.01) as runtime:
            await (await runtime.spawn(worker, id="s")).tell("go", id="m")
            await hangs.wait()

    async def second() -> str:
        async with Runtime(store, [worker]) as runtime:
            busy = asyncio.create_task(keeps_the_loop())
            answered = await (await runtime.spawn(worker, id="s")).ask("go", id="m")
            await busy
            return str(answered)

    asyncio.run(first())
    assert asyncio.run(second()) == "in time"
    assert said == ["in time", "in time"]


@contextlib.asynccontextmanager
async def hold(scope: Callable[[float], Any]) -> AsyncIterator[None]:
    """The scope of either library, for 0.25 s, so that a busy machine keeps it in the first life."""
    entered = scope(0.25)
    if isinstance(entered, asyncio.Timeout):
        async with entered:
            yield
    else:
        with entered:
            yield
