"""A Runtime that is opened in one task and closed in another, in every shape in which programs do that."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from fastapi import FastAPI
from fastapi.testclient import TestClient

from holdfast import Runtime, Session, StoreLocked, StoreLost, agent
from holdfast.errors import ConfigError, RuntimeStopped, SupervisorGaveUp
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.ops import Op, Result
from holdfast.stores.records import Runnable
from holdfast.supervisors import ChildSpec
from holdfast.testing import Simulation, simulate


@agent
async def echo(session: Session[None], text: str) -> str:
    return text


async def nap() -> str:
    await asyncio.sleep(5.0)
    return "rested"


@agent
async def sleeper(session: Session[None], text: str) -> str:
    return await session.step(nap)


def embedded(store: Any = "memory:", **options: Any) -> Runtime:
    return Runtime(store, [echo, sleeper], telemetry=False, **options)


async def answers(runtime: Runtime) -> None:
    session = await runtime.spawn(echo, id="s")
    assert await session.ask("well?") == "well?"


async def is_closed(store: MemoryStore) -> None:
    """Its next owner gets it, and finds that the last one closed it cleanly."""
    await store.open()
    assert not store.unclean
    await store.close()


async def other_task(work: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.create_task(work)


class Lost(MemoryStore):
    """Another process's, from the moment on that it says so."""

    lost = False

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        if self.lost:
            raise StoreLost("another process has it")
        return await super().apply(ops)

    async def lose(self, runtime: Runtime) -> None:
        session = await runtime.spawn(echo, id="s")
        self.lost = True
        with pytest.raises(StoreLost):
            await session.tell("and now?")


# ---------------------------------------------------------------- shapes


async def test_one_task_starts_it_and_another_one_stops_it() -> None:
    """`start` and `stop` need not be called by the same task, and both those tasks may be gone while it runs."""
    store = MemoryStore()
    runtime = embedded(store)
    await other_task(runtime.start())
    await answers(runtime)
    await other_task(runtime.stop())
    await is_closed(store)


@asynccontextmanager
async def running(runtime: Runtime) -> AsyncIterator[Runtime]:
    async with runtime:
        yield runtime


@pytest.mark.parametrize("how", ["next", "aclose"])
async def test_a_fixture_is_finalised_in_another_task(how: str) -> None:
    """An async generator that is begun in one task and ended in another, as by pytest-asyncio."""

    async def fixture() -> AsyncIterator[Runtime]:
        async with embedded(store) as runtime:
            yield runtime

    async def finalise() -> None:
        if how == "aclose":
            await generator.aclose()  # type: ignore[attr-defined]
        else:
            assert await anext(generator, None) is None

    async def begin() -> Runtime:
        return await anext(generator)

    store, generator = MemoryStore(), fixture()
    runtime = await other_task(begin())
    await other_task(answers(runtime))
    await other_task(finalise())
    await is_closed(store)


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    async with embedded() as runtime:
        yield runtime


async def test_a_fixture_of_anyio_s_plugin_gives_one(runtime: Runtime) -> None:
    """The plugin's own way to begin and end a fixture around a test."""
    await answers(runtime)


def test_cells_of_a_notebook_share_one(tmp_path: Path) -> None:
    """The loop stands still between the cells, and each of them is a task of its own."""
    loop = asyncio.new_event_loop()
    runtime = embedded(f"sqlite:///{tmp_path}/sessions.db")
    for cell in (runtime.start(), answers(runtime), answers(runtime), runtime.stop()):
        loop.run_until_complete(cell)
    loop.close()


def test_the_lifespan_of_a_fastapi_app_holds_one() -> None:
    """Startup opens it, requests ask it, shutdown closes it."""
    store = MemoryStore()
    runtime = embedded(store)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with runtime:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/ask/{text}")
    async def ask(text: str) -> str:
        session = await runtime.spawn(echo, id="s")
        return str(await session.ask(text))

    with TestClient(app) as client:
        assert client.get("/ask/hello").json() == "hello"
    asyncio.run(is_closed(store))


async def test_an_exit_stack_is_closed_in_another_task() -> None:
    """What was entered on a stack in one task is left where the stack is closed."""
    store, stack = MemoryStore(), AsyncExitStack()
    runtime = await other_task(stack.enter_async_context(embedded(store)))
    await answers(runtime)
    await other_task(stack.aclose())
    await is_closed(store)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="new in Python 3.12")
@pytest.mark.parametrize("make", [None, asyncio.Task])
def test_a_loop_with_an_eager_task_factory_holds_one(make: Any) -> None:
    """It answers and closes, and anyio's groups work in its handlers: with tasks that begin as they are made they would fail."""

    @agent
    async def grouped(session: Session[None], text: str) -> list[str]:
        found: list[str] = []

        async def look_up(text: str) -> str:
            with anyio.move_on_after(5):
                await anyio.sleep(0.01)
            return text

        async def one(text: str) -> None:
            with anyio.move_on_after(5):
                found.append(await session.step(look_up, text))

        async with anyio.create_task_group() as group:
            for each in ("a", "b"):
                group.start_soon(one, text + each)
        return sorted(found)

    async def main() -> None:
        loop, eager = asyncio.get_running_loop(), vars(asyncio)["eager_task_factory"]
        factory = eager if make is None else vars(asyncio)["create_eager_task_factory"](make)
        loop.set_task_factory(factory)
        async with Runtime("memory:", [grouped], telemetry=False) as runtime:
            assert await (await runtime.spawn(grouped, id="s")).ask("x") == ["xa", "xb"]
        assert loop.get_task_factory() is factory

    asyncio.run(main())


async def test_two_are_closed_in_the_order_in_which_they_were_opened() -> None:
    """No scope of one is inside a scope of the other."""
    first, second = MemoryStore(), MemoryStore()
    one, two = embedded(first), embedded(second)
    await one.start()
    await two.start()
    await one.stop()
    await is_closed(first)
    await answers(two)
    await two.stop()
    await is_closed(second)


async def test_cancelling_the_scope_it_was_started_in_does_not_reach_it() -> None:
    """A deadline around the start is one of the start alone; and the scope can be left before it is stopped."""
    runtime = embedded()
    with anyio.fail_after(5.0) as scope:
        await runtime.start()
        scope.cancel()
    await answers(runtime)
    await runtime.stop()


# ---------------------------------------------------------------- order


async def test_it_is_started_once() -> None:
    """A second start is refused and harms nothing; after a stop it starts again."""
    runtime = embedded()
    await runtime.start()
    for start in (runtime.start, runtime.__aenter__):
        with pytest.raises(RuntimeStopped, match="open already"):
            await start()
    with pytest.raises(RuntimeStopped, match="before it is opened"):
        runtime.supervise(ChildSpec("late", anyio.sleep_forever))
    await answers(runtime)
    await runtime.stop()
    async with runtime:
        await answers(runtime)


async def test_it_may_be_stopped_twice() -> None:
    """At once, one after the other, before it was started, and inside its own block."""
    runtime = embedded()
    await runtime.stop()
    await runtime.wait_closed()
    async with runtime:
        waiting = asyncio.create_task(runtime.wait_closed())
        await asyncio.gather(runtime.stop(), runtime.stop())
        await runtime.stop()
        await waiting
        with pytest.raises(RuntimeStopped, match="not running"):
            await runtime.spawn(echo)
    await runtime.stop()


def test_it_drains_when_it_is_stopped() -> None:
    """A step in flight ends; its turn is answered in the next life, from the record of the step."""
    store = MemoryStore()

    async def main(simulation: Simulation) -> float:
        runtime = embedded(store, clock=simulation.clock)
        await runtime.start()
        session = await runtime.spawn(sleeper, id="z")
        await session.tell("go", id="m")
        await asyncio.sleep(1.0)
        await runtime.stop()
        ended_s = simulation.loop.time()
        async with runtime:
            assert await runtime.session("z").ask("go", id="m") == "rested"
        assert simulation.loop.time() == ended_s, "the step did not run again"
        return ended_s

    assert simulate(main) == 5.0


async def test_it_is_stopped_on_the_loop_it_was_started_on() -> None:
    """Elsewhere the wait would never end: it is refused, and the runtime stays open."""
    runtime = embedded()
    await runtime.start()
    with pytest.raises(RuntimeStopped, match="another event loop"):
        await asyncio.to_thread(asyncio.run, runtime.stop())
    await answers(runtime)
    await runtime.stop()


@pytest.mark.parametrize(
    "call",
    [
        lambda runtime: runtime.spawn(echo, id="t"),
        lambda runtime: runtime.session("s").ask("well?", timeout_s=1),
        lambda runtime: runtime.session("s").tell("well?"),
        lambda runtime: runtime.session("s").result(timeout_s=1),
        lambda runtime: runtime.session("s").cancel(),
        lambda runtime: runtime.session("s").pause(),
        lambda runtime: runtime.session("s").row(),
        lambda runtime: runtime.drain(1.0),
    ],
)
async def test_it_is_called_on_the_loop_it_was_started_on(call: Callable[[Runtime], Coroutine[Any, Any, Any]]) -> None:
    """A thread with a loop of its own, or a fixture of one, is told so at once; nothing was done, and the runtime answers as before."""
    async with embedded() as runtime:
        await answers(runtime)
        with pytest.raises(ConfigError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, asyncio.wait_for(call(runtime), 5.0))
        await answers(runtime)


def test_what_it_runs_itself_cannot_keep_it_from_stopping() -> None:
    """A handler or a service that waits for the end of its own runtime is cut off: after `quarantine_s`, or `stop_s`."""
    ended: list[float] = []

    @agent
    async def ending(session: Session[None], text: str) -> None:
        await runtimes[0].stop()

    async def service() -> None:
        await runtimes[0].stop()

    runtimes: list[Runtime] = []

    async def main(simulation: Simulation) -> None:
        for by in ("handler", "service"):
            store, began = MemoryStore(), simulation.loop.time()
            runtimes[:] = [Runtime(store, [ending], telemetry=False, clock=simulation.clock, drain_s=7.0, quarantine_s=1.0)]
            if by == "service":
                runtimes[0].supervise(ChildSpec("service", service, stop_s=3.0))
            await runtimes[0].start()
            if by == "handler":
                await (await runtimes[0].spawn(ending)).tell("go")
            await runtimes[0].wait_closed()
            await is_closed(store)
            ended.append(simulation.loop.time() - began)

    simulate(main)
    assert ended == [1.0, 3.0]


# ---------------------------------------------------------------- failures


async def test_an_error_while_opening_comes_out_of_the_start() -> None:
    """The opener gets the error itself, and the store is closed again."""

    async def broken(*, task_status: TaskStatus[None]) -> None:
        raise ValueError("no port")

    for start in (Runtime.start, Runtime.__aenter__):
        store = MemoryStore()
        runtime = embedded(store)
        runtime.supervise(ChildSpec("broken", broken))
        with pytest.raises(SupervisorGaveUp, match="'services'"):
            await start(runtime)
        await runtime.stop()
        await is_closed(store)


async def test_a_store_that_is_in_use_stays_so() -> None:
    """Who comes second is refused, and does not close the store under its owner."""
    store = MemoryStore()
    async with embedded(store) as first:
        with pytest.raises(StoreLocked):
            await embedded(store).start()
        await answers(first)


async def test_the_task_inside_the_block_is_cancelled_when_the_tree_gives_up() -> None:
    """The reason comes out of the block, and the cancellation is taken back: what follows runs."""
    store = Lost()
    seen: list[BaseException] = []

    async def use() -> None:
        async with embedded(store) as runtime:
            await store.lose(runtime)
            try:
                await asyncio.sleep(60.0)
            except asyncio.CancelledError as error:
                seen.append(error)
                raise

    with pytest.raises(ExceptionGroup) as failed:
        await use()
    (gave_up,) = failed.value.exceptions
    assert isinstance(gave_up, SupervisorGaveUp)
    assert isinstance(gave_up.__cause__, StoreLost)
    assert seen
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    await is_closed(store)


@pytest.mark.parametrize("library", ["anyio", "asyncio"])
async def test_a_group_inside_the_block_ends_with_it(library: str) -> None:
    """A task group in the block is cancelled, children first, and passes the cancellation on."""
    store, ended = Lost(), asyncio.Event()

    async def child() -> None:
        try:
            await asyncio.sleep(60.0)
        finally:
            ended.set()

    async def use() -> None:
        async with embedded(store) as runtime:
            if library == "anyio":
                async with anyio.create_task_group() as group:
                    group.start_soon(child)
                    await store.lose(runtime)
            else:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(child())
                    await store.lose(runtime)

    with pytest.raises(ExceptionGroup) as failed:
        await use()
    assert [type(error) for error in failed.value.exceptions] == [SupervisorGaveUp]
    assert ended.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_whoever_waits_for_its_end_learns_why_the_tree_gave_up(caplog: pytest.LogCaptureFixture) -> None:
    """Without a block to cancel, it closes by itself, logs it, and says it to all who wait, ask or stop; then it can be started again."""
    store = Lost()
    runtime = embedded(store)
    await runtime.start()
    await store.lose(runtime)
    with pytest.raises(SupervisorGaveUp) as failed:
        await runtime.wait_closed()
    assert isinstance(failed.value.__cause__, StoreLost)
    await is_closed(store)
    assert [r.message for r in caplog.records if r.levelno == logging.CRITICAL and "runtime has ended" in r.message]
    with pytest.raises(RuntimeStopped, match="has ended: supervisor 'holdfast' gave up"):
        await runtime.spawn(echo)
    with pytest.raises(SupervisorGaveUp):
        await runtime.stop()
    await runtime.stop()
    store.lost = False
    async with runtime:
        await answers(runtime)


# ---------------------------------------------------------------- cancellation


class Slow(MemoryStore):
    """Each call that opens or closes it takes some turns of the loop."""

    async def open(self) -> None:
        await asyncio.sleep(0)
        await super().open()

    async def runnable(self) -> list[Runnable]:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await super().runnable()

    async def close(self) -> None:
        await asyncio.sleep(0)
        await super().close()


Cancel = Callable[[Awaitable[None], int], Awaitable[bool]]


async def natively(work: Any, turns: int) -> bool:
    """Run `work`, cancelled as a task after so many turns of the loop; whether it was."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    return task.cancelled()


async def by_a_scope(work: Any, turns: int) -> bool:
    """The same by a cancel scope, which cancels at every await from then on."""
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            scope.cancel()

        task = asyncio.create_task(cancel())
        await work
        if not task.done():
            task.cancel()
    await asyncio.wait((task,))
    return scope.cancelled_caught


@pytest.mark.parametrize("how", [natively, by_a_scope])
async def test_a_start_that_is_cancelled_leaves_nothing_open(how: Cancel) -> None:
    """At whichever turn of the loop: either it is open, or its store is closed and it can be started again."""
    cancelled, turns = 0, 0
    while True:
        store = Slow()
        runtime = embedded(store)
        if not await how(runtime.start(), turns):
            await runtime.stop()
            break
        cancelled, turns = cancelled + 1, turns + 1
        await runtime.start()
        await answers(runtime)
        await runtime.stop()
    assert cancelled > 5


@pytest.mark.parametrize("how", [natively, by_a_scope])
async def test_a_stop_that_is_cancelled_closes_to_the_end(how: Cancel) -> None:
    """At whichever turn of the loop: when it returns, the store is closed."""
    turns = 0
    while True:
        store = Slow()
        runtime = embedded(store)
        await runtime.start()
        await answers(runtime)
        cancelled = await how(runtime.stop(), turns)
        if turns == 0:
            await runtime.stop()  # a task that is cancelled before its first step does not run at all
        await is_closed(store)
        turns += 1
        if not cancelled and turns > 5:
            break


def test_a_stop_that_is_cancelled_while_it_drains_waits_for_the_step() -> None:
    """However often it is cancelled: the step in flight ends, the store is closed, and then the cancellation is raised."""
    store = MemoryStore()

    async def main(simulation: Simulation) -> None:
        runtime = embedded(store, clock=simulation.clock)
        await runtime.start()
        await (await runtime.spawn(sleeper, id="z")).tell("go", id="m")
        await asyncio.sleep(1.0)
        stopping = asyncio.create_task(runtime.stop())
        for _ in range(3):
            await asyncio.sleep(0.5)
            stopping.cancel()
        await asyncio.wait((stopping,))
        assert stopping.cancelled()
        assert simulation.loop.time() == 5.0
        await is_closed(store)

    simulate(main)


def end(before: list[threading.Thread]) -> None:
    """Every thread that was not there before ends: that of a closed file may take a moment."""
    for thread in set(threading.enumerate()).difference(before):
        thread.join(5.0)
        assert not thread.is_alive()


def test_a_program_that_forgets_to_stop_it_leaves_no_lock(tmp_path: Path) -> None:
    """The end of the loop closes it: no thread and no lock stays, and the next one opens the file."""

    async def forgetful() -> None:
        runtime = embedded(f"sqlite:///{tmp_path}/sessions.db")
        await runtime.start()
        await answers(runtime)

    before = threading.enumerate()
    for _ in range(2):
        asyncio.run(forgetful())
        end(before)


@pytest.mark.parametrize("after_s", [0.0, 0.0005, 0.002, 0.01])
def test_a_cancelled_start_frees_the_file(tmp_path: Path, after_s: float) -> None:
    """With a real file, whose thread and lock are given back wherever the cancellation strikes."""

    async def main() -> None:
        runtime = embedded(f"sqlite:///{tmp_path}/sessions.db")
        starting = asyncio.create_task(runtime.start())
        await asyncio.sleep(after_s)
        starting.cancel()
        await asyncio.wait((starting,))
        if not starting.cancelled():
            await runtime.stop()
        async with embedded(f"sqlite:///{tmp_path}/sessions.db") as second:
            await answers(second)

    before = threading.enumerate()
    asyncio.run(main())
    end(before)
