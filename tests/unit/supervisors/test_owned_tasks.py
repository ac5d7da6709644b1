"""The asyncio tasks that a child started end with it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from holdfast import Runtime, Session, agent
from holdfast.stores.memory.store import MemoryStore
from holdfast.supervisors import ChildSpec, ChildTasksLeft, DynamicSupervisor, SupervisionEvent, Supervisor
from tests.unit.supervisors.support import Crash, Recorder, Switch, VirtualLoop, forever, other_tasks, running, stubborn

Start = Callable[[Coroutine[Any, Any, None]], None]
KEPT: set[asyncio.Future[Any]] = set()


def by_create_task(work: Coroutine[Any, Any, None]) -> None:
    KEPT.add(asyncio.create_task(work))


def by_ensure_future(work: Coroutine[Any, Any, None]) -> None:
    KEPT.add(asyncio.ensure_future(work))


def by_gather(work: Coroutine[Any, Any, None]) -> None:
    KEPT.add(asyncio.gather(work, asyncio.sleep(0)))


def by_another_task(work: Coroutine[Any, Any, None]) -> None:
    async def other() -> None:
        KEPT.add(asyncio.create_task(work))

    KEPT.add(asyncio.create_task(other()))


def by_a_callback(work: Coroutine[Any, Any, None]) -> None:
    asyncio.get_running_loop().call_later(0.1, by_create_task, work)


def by_a_thread(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    loop.call_soon_threadsafe(lambda: by_create_task(work), context=context)


async def returns() -> None:
    return


async def crashes() -> None:
    raise Crash


@pytest.fixture(autouse=True)
def none_kept() -> None:
    KEPT.clear()


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
@pytest.mark.parametrize("end", [returns, crashes, forever])
@pytest.mark.parametrize("start", [by_create_task, by_ensure_future, by_gather, by_another_task, by_a_callback, by_a_thread])
async def test_a_task_ends_with_the_child_that_started_it(
    start: Start, end: Callable[[], Awaitable[None]], kind: type[Supervisor | DynamicSupervisor]
) -> None:
    """Whatever code made it, and whether the child returns, crashes or is stopped: it has ended before the child is reported as over."""
    alive, seen = [0], Recorder()

    async def work() -> None:
        alive[0] += 1
        try:
            await anyio.sleep_forever()
        finally:
            await asyncio.sleep(0.5)
            alive[0] -= 1
            seen.seen.append("task over")

    async def child() -> None:
        start(work())
        await asyncio.sleep(1)
        assert alive == [1]
        await end()

    before = other_tasks()
    supervisor = Supervisor("s", [], on_event=seen) if kind is Supervisor else DynamicSupervisor("d", on_event=seen)
    async with running(supervisor):
        await supervisor.start_child(ChildSpec("a", child, "temporary"))
        await anyio.sleep(1.1)
        if end is forever:
            await supervisor.stop_child("a")
        await anyio.sleep(1)
        assert alive == [0]
        assert seen.seen[-2] == "task over"
        assert seen.seen[-1] == {returns: "Exited a", crashes: "Crashed a", forever: "Stopped a"}[end]  # type: ignore[index]
        assert supervisor.count_children().specs == 0
    assert other_tasks() == before


async def test_a_restarted_child_never_runs_next_to_a_task_of_its_life_before() -> None:
    """It is started again when the last task has cleaned up."""
    polling = most = 0

    async def poll() -> None:
        nonlocal polling, most
        polling += 1
        most = max(most, polling)
        try:
            await anyio.sleep_forever()
        finally:
            await asyncio.sleep(2)
            polling -= 1

    async def child() -> None:
        by_create_task(poll())
        await asyncio.sleep(1)
        raise Crash

    seen = Recorder()
    async with running(Supervisor("s", [ChildSpec("a", child)], on_event=seen)):
        await seen.until("Restarted a", 3)
        await anyio.sleep(0.1)
    assert (polling, most) == (0, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_task_that_swallows_its_cancellation_is_reported_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """No coroutine can be killed that another task drives: the child ends, an event and a log line name what was left."""
    seen: list[SupervisionEvent] = []
    left: list[asyncio.Task[None]] = []

    async def deaf_until_released() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def child() -> None:
        left.append(asyncio.create_task(deaf_until_released(), name="poller"))
        by_create_task(forever())
        await anyio.sleep_forever()

    release = asyncio.Event()
    async with running(Supervisor("s", [ChildSpec("a", child, stop_s=2.0), ChildSpec("b", forever)], on_event=seen.append)):
        await anyio.sleep(1)
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(2, abs=0.01)
    assert [event.tasks for event in seen if isinstance(event, ChildTasksLeft)] == [("poller",)]
    assert "child s/a ended, and tasks that it started do not end: poller" in caplog.text
    assert [type(event).__name__ for event in seen][-3:] == ["ChildTasksLeft", "ChildStopped", "SupervisorStopped"]
    release.set()
    await left[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_tasks_of_a_stuck_child_are_cancelled_too() -> None:
    """A child that is killed at its deadline leaves no task."""
    before = other_tasks()

    async def child() -> None:
        by_create_task(forever())
        await stubborn()

    seen = Recorder()
    async with running(Supervisor("s", [ChildSpec("a", child, stop_s=0.01)], on_event=seen)):
        await anyio.sleep(0.001)
    assert seen.only("Stuck", "TasksLeft") == ["Stuck a"]
    assert other_tasks() == before


async def test_tasks_of_a_child_below_a_killed_branch_are_cancelled() -> None:
    """Killing a nested supervisor ends what its children started."""
    before = other_tasks()

    async def child() -> None:
        by_create_task(forever())
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()

    inner = Supervisor("inner", [ChildSpec("deaf", child, stop_s=1e9)])
    seen = Recorder()
    async with running(Supervisor("outer", [ChildSpec("branch", inner, stop_s=1.0)], on_event=seen)):
        await anyio.sleep(1)
    await anyio.sleep(0.1)
    assert seen.only("Stuck") == ["Stuck branch"]
    assert other_tasks() == before


async def test_a_task_with_a_fresh_context_belongs_to_no_child() -> None:
    """The way out, for what a child starts for others."""
    switch = Switch()

    async def child() -> None:
        KEPT.add(asyncio.create_task(switch.child("shared")(), context=contextvars.Context()))

    async with running(Supervisor("s", [ChildSpec("a", child, "temporary")])):
        await anyio.sleep(1)
        assert switch.alive == ["shared"]
        switch.end("shared")


async def test_a_child_that_a_child_starts_is_its_supervisors_and_lives_on() -> None:
    """The task of a child belongs to its supervisor, whatever code asked for it; so does the task that stops one."""
    switch, seen = Switch(), Recorder()
    dynamic = DynamicSupervisor("d", on_event=seen)

    async def spawner() -> None:
        await dynamic.start_child(ChildSpec("kept", switch.child("kept")))
        await dynamic.start_child(ChildSpec("gone", switch.child("gone")))
        with anyio.move_on_after(0):
            await dynamic.stop_child("gone")

    async with running(Supervisor("s", [ChildSpec("d", dynamic), ChildSpec("spawner", spawner, "temporary")])):
        await seen.until("Stopped gone")
        await anyio.sleep(1)
        assert switch.alive == ["kept"]


async def test_a_childs_own_task_group_is_left_in_peace() -> None:
    """Tasks that the child awaits itself end as its code says; none is cancelled while the child runs."""
    order: list[str] = []

    async def part(n: int) -> None:
        await asyncio.sleep(n)
        order.append(str(n))

    async def child(*, task_status: TaskStatus[None]) -> None:
        task_status.started()
        async with asyncio.TaskGroup() as group:
            group.create_task(part(1))
            group.create_task(part(2))
        order.append("over")

    async with running(Supervisor("s", [ChildSpec("a", child, "temporary")])):
        await anyio.sleep(5)
    assert order == ["1", "2", "over"]


async def in_a_gather() -> None:
    await asyncio.gather(leave(), asyncio.sleep(0))


async def in_a_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leave())


async def in_an_anyio_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(leave)


async def after_a_cancellation() -> None:
    async def bitter() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    task = asyncio.create_task(bitter())
    await asyncio.sleep(1)
    task.cancel()
    await task


async def leave() -> None:
    await asyncio.sleep(0.5)
    sys.exit(3)


@pytest.mark.parametrize("child", [in_a_gather, in_a_task_group, in_an_anyio_group, after_a_cancellation])
async def test_an_exit_in_a_task_of_a_child_is_the_childs_crash(child: Callable[[], Awaitable[None]]) -> None:
    """asyncio would let it out of the loop, and end the process."""
    seen, switch = Recorder(), Switch()
    async with running(Supervisor("s", [ChildSpec("a", child, "temporary"), ChildSpec("b", switch.child("b"))], on_event=seen)):
        await seen.until("Crashed a")
        await anyio.sleep(1)
        assert switch.alive == ["b"]


async def test_a_task_that_is_cancelled_before_its_first_step_warns_of_nothing() -> None:
    """Its coroutine is closed, as without a supervisor; its name and its stack are those of the child's code."""
    names: list[str] = []

    async def child() -> None:
        task = asyncio.create_task(leave())
        names.append(task.get_coro().__qualname__)  # type: ignore[union-attr]
        task.cancel()
        waiting = asyncio.create_task(forever())
        await asyncio.sleep(0.1)
        names.extend(frame.f_code.co_name for frame in waiting.get_stack())

    async with running(Supervisor("s", [ChildSpec("a", child, "temporary")])):
        await anyio.sleep(1)
    gc.collect()
    assert names == ["leave", "forever"]


async def test_the_loop_has_its_own_task_factory_again_after_the_last_supervisor() -> None:
    """Also where supervisors overlap, and one that the program had set still makes the tasks."""
    loop, made = asyncio.get_running_loop(), []

    def factory(loop: Any, coro: Any, **given: Any) -> asyncio.Task[Any]:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **given)

    loop.set_task_factory(factory)
    first, second = Supervisor("1", [ChildSpec("a", forever)]), Supervisor("2", [ChildSpec("a", forever)])
    tasks = [asyncio.create_task(first.run())]
    await anyio.sleep(1)
    tasks.append(asyncio.create_task(second.run()))
    await anyio.sleep(1)
    for task in tasks:
        task.cancel()
        await asyncio.wait([task])
    assert loop.get_task_factory() is factory
    assert len(made) > 4
    loop.set_task_factory(None)


def test_the_tasks_of_a_turn_are_numbered_once_whatever_else_runs_on_the_loop() -> None:
    """The factory of sessions and that of supervisors stand on top of each other, each once; the names that turns count are the same."""

    @agent
    async def fan(session: Session[Any], text: str) -> list[str]:
        async def named() -> str:
            return str(session.uuid())

        return await asyncio.gather(*[asyncio.create_task(named()) for _ in range(2)])

    async def answer(others: int) -> Any:
        async with anyio.create_task_group() as group:
            group.start_soon(Supervisor("s", [ChildSpec("a", forever)]).run)
            opened = [Runtime(MemoryStore(), [fan], random=Random(7)) for _ in range(others + 1)]
            for runtime in opened:
                await runtime.start()
            answer = await (await opened[-1].spawn(fan, id="s")).ask("go")
            for runtime in opened:
                await runtime.stop()
            group.cancel_scope.cancel()
        return answer

    answers = []
    for others in (0, 1, 2):
        loop = VirtualLoop()
        try:
            answers.append(loop.run_until_complete(answer(others)))
            assert loop.get_task_factory() is None
        finally:
            loop.close()
    assert len(set(answers[0])) == 2
    assert answers[1:] == [answers[0]] * 2
