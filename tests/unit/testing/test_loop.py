"""The simulated loop: virtual time, deadlocks, one thread, anyio on top of it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import math
import socket
import threading
import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from holdfast import Runtime, Session, agent
from holdfast.clock import Clock
from holdfast.testing import Crashed, Deadlock, NotSimulated, SimulatedClock, SimulatedLoop, Simulation, simulate

WEEK_S = 7 * 24 * 3600.0


def test_a_week_of_sleep_is_instant() -> None:
    """Time jumps to the next timer; the machine's clock hardly moves."""

    async def main(simulation: Simulation) -> tuple[float, float]:
        await asyncio.sleep(WEEK_S)
        return simulation.clock.monotonic(), simulation.clock.time()

    started = time.monotonic()
    assert simulate(main) == (WEEK_S, 1_800_000_000.0 + WEEK_S)
    assert time.monotonic() - started < 1.0


def test_time_stands_still_while_something_is_ready() -> None:
    """Only waiting takes time, however much is computed."""

    async def main(simulation: Simulation) -> float:
        for _ in range(100):
            await asyncio.sleep(0)
        return simulation.loop.time()

    assert simulate(main, start_s=3.5) == 3.5


def test_timers_fire_in_order_of_their_time() -> None:
    """call_later and call_at share one order, and a cancelled timer does not fire."""

    async def main(simulation: Simulation) -> list[str]:
        loop, fired = simulation.loop, list[str]()
        loop.call_later(2.0, fired.append, "later")
        loop.call_at(1.0, fired.append, "at")
        loop.call_at(1.5, fired.append, "cancelled").cancel()
        await asyncio.sleep(3.0)
        return fired

    assert simulate(main) == ["at", "later"]


def test_cancelled_timers_are_dropped() -> None:
    """Many deadlines set and taken back do not pile up until their time comes."""

    async def main(simulation: Simulation) -> int:
        kept = asyncio.Event()
        simulation.loop.call_later(WEEK_S, kept.set)
        for _ in range(1_000):
            simulation.loop.call_later(2 * WEEK_S, kept.set).cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        left = len(simulation.loop._scheduled)
        await kept.wait()
        return left

    assert simulate(main) == 1


def test_deadlock_names_who_waits_and_where() -> None:
    """A program that can never go on is an error that says which task waits at which line."""

    async def waits_for_nobody() -> None:
        await asyncio.get_running_loop().create_future()

    async def main(simulation: Simulation) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits_for_nobody(), name="forgotten")

    with pytest.raises(Deadlock, match=r"forgotten at .*waits_for_nobody \(.*test_loop\.py:\d+\)") as caught:
        simulate(main)
    assert [line.partition(" ")[0] for line in caught.value.pending] == ["life-1", "forgotten"]


def test_deadlock_is_raised_by_run_until_complete_too() -> None:
    """The loop is useful by itself."""
    loop = SimulatedLoop()
    with pytest.raises(Deadlock, match="no owner"):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_a_deadlock_names_the_threads_that_were_started_in_it() -> None:
    """A store that works in a thread cannot run in a simulation: the message names what to use in its place."""
    end = threading.Event()

    async def main(simulation: Simulation) -> None:
        threading.Thread(target=end.wait, name="the database").start()
        await asyncio.get_running_loop().create_future()

    try:
        with pytest.raises(Deadlock, match="threads cannot wake a simulated loop: the database; use MemoryStore"):
            simulate(main)
    finally:
        end.set()


def test_a_runtime_with_another_clock_gets_a_hint() -> None:
    """Its sleep looks at a clock that stands still while virtual time passes."""

    @agent
    async def sleeper(session: Session[None], text: str) -> None:
        await session.sleep(3600)

    async def main(simulation: Simulation) -> None:
        async with Runtime("memory:", [sleeper], telemetry=False) as runtime:
            await (await runtime.spawn(sleeper, id="s")).ask("go", timeout_s=1e9)

    with pytest.raises(Deadlock, match=r"a Runtime needs clock=simulation\.clock"):
        simulate(main, max_points=20_000)


def test_sleeping_for_ever_is_a_deadlock() -> None:
    """A timer at infinity is no reason to wait."""

    async def main(simulation: Simulation) -> None:
        await anyio.sleep_forever()

    with pytest.raises(Deadlock):
        simulate(main)


def test_running_in_circles_is_an_error_after_max_points() -> None:
    """A periodic task that nobody stops does not hang the test."""

    async def main(simulation: Simulation) -> None:
        for delay_s in itertools.repeat(1.0):
            await asyncio.sleep(delay_s)

    with pytest.raises(Deadlock, match="not done after 50 points"):
        simulate(main, max_points=50)


def test_asyncio_timeouts_and_contexts_work() -> None:
    """asyncio.timeout, create_task(context=) and futures behave as on any loop."""
    variable = contextvars.ContextVar("variable", default="outer")

    async def main(simulation: Simulation) -> tuple[float, str, str]:
        context = contextvars.copy_context()
        context.run(variable.set, "inner")

        async def read() -> str:
            await asyncio.sleep(0)
            return variable.get()

        inner = await simulation.loop.create_task(read(), context=context)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30.0):
                await simulation.loop.create_future()
        return simulation.loop.time(), inner, variable.get()

    assert simulate(main) == (30.0, "inner", "outer")


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_anyio_works(seed: int | None) -> None:
    """anyio finds asyncio under it: task groups, events, cancel scopes, locks, streams and sleeps."""

    async def main(simulation: Simulation) -> list[float]:
        done, times = anyio.Event(), list[float]()
        send, receive = anyio.create_memory_object_stream[int](1)

        async def produce() -> None:
            async with send:
                for i in range(3):
                    await anyio.sleep(1.0)
                    await send.send(i)
            await done.wait()
            times.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            async with receive:
                assert [item async for item in receive] == [0, 1, 2]
            with anyio.move_on_after(10.0) as scope:
                await anyio.sleep(math.inf)
            assert scope.cancelled_caught
            done.set()
            await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(anyio.sleep_forever)
            await anyio.sleep(1.0)
            group.cancel_scope.cancel()
        return [*times, anyio.current_time()]

    assert simulate(main, seed=seed) == [13.0, 14.0]


def test_to_thread_runs_in_place() -> None:
    """asyncio.to_thread is deterministic: the function runs in this thread, with no loop running, and its error comes back."""

    def work() -> tuple[int, bool]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return threading.get_ident(), True

    def broken() -> None:
        raise LookupError("broken")

    async def main(simulation: Simulation) -> Any:
        with pytest.raises(LookupError, match="broken"):
            await asyncio.to_thread(broken)
        return await asyncio.to_thread(work)

    assert simulate(main) == (threading.get_ident(), True)


def test_another_thread_is_refused() -> None:
    """call_soon_threadsafe is fine from the loop's thread, and an error that names the way out from any other."""
    refused = list[BaseException]()

    async def main(simulation: Simulation) -> bool:
        called = asyncio.Event()

        def from_outside() -> None:
            try:
                simulation.loop.call_soon_threadsafe(called.set)
            except NotSimulated as error:
                refused.append(error)

        thread = threading.Thread(target=from_outside)
        thread.start()
        thread.join()
        assert not called.is_set()
        simulation.loop.call_soon_threadsafe(called.set)
        return await called.wait()

    assert simulate(main) is True
    assert "asyncio.to_thread" in str(refused[0])


def test_the_real_world_is_refused() -> None:
    """No socket, name, subprocess or signal handler: the error says what was asked for."""

    async def main(simulation: Simulation) -> None:
        with pytest.raises(NotSimulated, match="create_connection"):
            await asyncio.open_connection("localhost", 1)
        with pytest.raises(NotSimulated, match="subprocess_exec"):
            await asyncio.create_subprocess_exec("true")
        with pytest.raises(NotSimulated, match="getaddrinfo"):
            await simulation.loop.getaddrinfo("localhost", 1)
        with pytest.raises(NotImplementedError, match="add_signal_handler"):
            simulation.loop.add_signal_handler(15, print)
        with socket.socket() as sock, pytest.raises(NotSimulated, match="add_reader"):
            simulation.loop.add_reader(sock, print)

    simulate(main)


def test_an_orphan_task_is_kept_alive() -> None:
    """A task that nobody refers to is not collected while it waits, so that garbage collection decides nothing."""

    async def main(simulation: Simulation) -> int:
        for _ in range(200):
            asyncio.create_task(asyncio.sleep(WEEK_S))  # noqa: RUF006 - an orphan is what this is about
        await asyncio.sleep(0)
        waiting = len(simulation.loop.pending())
        await asyncio.sleep(2 * WEEK_S)
        return waiting - len(simulation.loop.pending())

    assert simulate(main) == 200


def test_a_set_of_tasks_is_iterated_in_the_same_order_in_each_run() -> None:
    """asyncio.wait and cancelled task groups walk through sets; the order must not depend on addresses."""

    async def main(simulation: Simulation) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = {group.create_task(asyncio.sleep(1.0)) for _ in range(20)}
            return [task.get_name() for task in tasks]

    assert len({tuple(_lived(simulate(main))) for _ in range(5)}) == 1


def test_plain_callbacks_keep_their_order_under_every_seed() -> None:
    """call_soon promises first in, first out; only tasks change places."""

    async def main(simulation: Simulation) -> list[int]:
        ran = list[int]()
        for i in range(20):
            simulation.loop.call_soon(functools.partial(ran.append, i))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return ran

    assert all(simulate(main, seed=seed) == list(range(20)) for seed in range(20))


def test_the_clock_is_the_loops() -> None:
    """A SimulatedClock shows the loop's time, from the epoch it was given."""
    loop = SimulatedLoop(start_s=5.0)
    clock: Clock = SimulatedClock(loop, epoch=100.0)
    assert (clock.monotonic(), clock.time()) == (5.0, 105.0)
    loop.close()


def _lived(result: list[str] | Crashed) -> list[str]:
    assert not isinstance(result, Crashed)
    return result
