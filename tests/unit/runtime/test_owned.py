"""A turn owns the steps that its handler starts, in whatever task or thread; nothing of it is open when it commits."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from holdfast import Budget, BudgetExhausted, Intensity, Runtime, Session, TurnFailed, agent, tool
from holdfast.events import SessionParked, SessionStuck, TurnCrashed
from holdfast.stores.records import StepState
from holdfast.testing import Crashed
from tests.unit.runtime.support import World, idle, rest, steps

NO_RESTART = Intensity(0, 60.0)
Start = Callable[[Awaitable[Any]], Awaitable[Any]]


async def _fails() -> None:
    await asyncio.sleep(1)
    raise ValueError("the sibling failed")


async def _gather(work: Awaitable[Any]) -> None:
    with suppress(ValueError):
        await asyncio.gather(work, _fails())


async def _task_group(work: Any) -> None:
    with suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(work)
            group.create_task(_fails())


async def _create_task(work: Any) -> None:
    _create_task.task = asyncio.create_task(work)  # type: ignore[attr-defined] # asyncio keeps no reference
    await asyncio.sleep(1)


@pytest.mark.parametrize("start", [_gather, _task_group, _create_task])
def test_steps_of_any_task_end_before_the_turn_does(start: Start) -> None:
    """The handler returns while a read is under way in a task of its own: the step ends, then the turn commits."""
    world = World()

    async def slow() -> None:
        world.done.append("begins")
        try:
            await asyncio.sleep(50)
        finally:
            world.done.append("ends")

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        await start(session.step(slow))
        world.done.append("returns")
        return "done"

    async def main(runtime: Runtime) -> Any:
        reply = await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=20)
        world.done.append(reply)

    world.life(worker, main)
    assert sorted(world.done[:-1]) == ["begins", "ends", "returns"]
    assert world.done[-1] == "done"


@pytest.mark.parametrize("start", [_gather, _create_task])
def test_a_turn_does_not_commit_over_an_effect_whose_outcome_is_unknown(start: Start) -> None:
    """A `once` effect that its task left is resolved first: here by a person, then the turn commits."""
    world = World()

    @tool(effect="once")
    async def refund() -> str:
        world.done.append("refund")
        await asyncio.sleep(50)
        return "paid"

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        await start(session.step(refund))
        return "done"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        parked = await rest(handle)
        assert (parked.park.reason, parked.turn) == ("doubt", 0)
        await handle.resolve("done", result="paid")
        return await handle.ask("go", id="m", timeout_s=200)

    assert world.life(worker, main) == "done"
    assert world.done == ["refund"]


def test_a_step_that_a_thread_asks_for_belongs_to_the_turn() -> None:
    """A library calls back in a thread of its own: the step has a record, and the turn gets its result."""
    done: list[str] = []

    async def look_up(name: str) -> str:
        done.append(name)
        return name.upper()

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def call_back() -> None:
            found = asyncio.run_coroutine_threadsafe(session.step(look_up, text), loop).result(5)
            loop.call_soon_threadsafe(answer.set_result, found)

        thread = threading.Thread(target=call_back)
        thread.start()
        reply = await answer
        thread.join()
        return reply

    async def main() -> None:
        async with Runtime("memory:", [worker]) as runtime:
            handle = await runtime.spawn(worker, id="s")
            assert await handle.ask("a") == "A"
            assert [step.record.name for step in await steps(runtime, handle)] == ["look_up"]

    asyncio.run(main())
    assert done == ["a"]


def test_no_record_is_open_once_a_turn_has_committed() -> None:
    """After a crash the code does not ask for the step again that was under way: the commit closes its record."""
    world = World()

    @tool(effect="idempotent")
    async def register() -> str:
        await world.crash()
        return "never"

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        if world.lives == 1:
            await session.step(register)
        return "done"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.ask("go", id="m")
        return [(step.record.name, step.state) for step in await steps(runtime, handle)]

    world.life(worker, main)
    assert world.life(worker, main) == [("register", StepState.FAILED)]


def test_a_handler_that_swallows_its_cancellation_is_cancelled_again() -> None:
    """It holds up its own session only, and not for ever."""
    world = World()

    @agent
    async def stubborn(session: Session[Any], text: str) -> str:
        while len(world.done) < 3:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                world.done.append("swallowed")
        return "too late"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(stubborn, id="s")
        await handle.tell("go")
        await asyncio.sleep(1)
        await handle.cancel()
        await asyncio.sleep(5)
        return runtime.statistics()["stuck"]

    assert world.life(stubborn, main) == 0
    assert world.done == ["swallowed"] * 3


def test_a_handler_that_asks_for_steps_without_end_takes_no_processor() -> None:
    """It catches every error in a loop around a step, and its session is killed: its task stays, and rarely runs."""
    world = World()
    done: list[str] = []

    async def look_up() -> str:
        await asyncio.sleep(1000)
        return "never"

    @agent
    async def stubborn(session: Session[Any], text: str) -> str:
        while not done:
            try:
                return await session.step(look_up)
            except BaseException:
                world.done.append("swallowed")
        return "too late"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(stubborn, id="s")
        await handle.tell("go")
        await asyncio.sleep(1)
        await handle.kill()
        await asyncio.sleep(10)
        before = len(world.done)
        await asyncio.sleep(100)
        done.append("enough")
        return len(world.done) - before

    assert world.life(stubborn, main) <= 100


def test_an_attempt_that_ignores_its_cancellation_holds_up_its_own_turn_alone() -> None:
    """Its turn commits when it has ended; until then it counts as stuck, and other sessions run."""
    world = World()

    async def stubborn() -> None:
        while world.now_s() < 20.0:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1)

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        if text == "other":
            return text
        await _create_task(session.step(stubborn))
        return text

    async def main(runtime: Runtime) -> list[Any]:
        one, other = await runtime.spawn(worker, id="s"), await runtime.spawn(worker, id="o")
        await one.tell("go", id="m")
        await asyncio.sleep(10)
        found = [await other.ask("other", timeout_s=1), runtime.statistics()["stuck"], (await one.row()).turn]
        await one.ask("go", id="m", timeout_s=100)
        return [*found, runtime.statistics()["stuck"]]

    assert world.life(worker, main) == ["other", 1, 0, 0]
    assert [event.session for event in world.seen(SessionStuck)] == ["s"]
    assert world.time_s >= 20.0


def test_a_step_that_is_never_awaited_fails_the_turn() -> None:
    """What it was to do is not done; passed over in silence, the reply would be wrong."""
    world = World()

    async def note(text: str) -> None:
        world.done.append(text)

    @agent(intensity=NO_RESTART)
    async def forgetful(session: Session[Any], text: str) -> str:
        session.step(note, text)  # type: ignore[unused-coroutine] # the mistake that this is about
        return "noted"

    async def main(runtime: Runtime) -> str:
        handle = await runtime.spawn(forgetful, id="s")
        with pytest.raises(TurnFailed) as failed:
            await handle.ask("go")
        return failed.value.cause

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cause = world.life(forgetful, main)
    assert cause == "NotAwaited: never awaited: session.step(note): put an await before each"
    assert world.done == []


@pytest.mark.parametrize("parks", [False, True])
def test_tasks_that_wait_for_work_end_with_the_turn(parks: bool) -> None:
    """Workers on a queue, which the handler leaves behind when it returns, and when its session parks."""
    world = World()

    async def note(number: int) -> None:
        world.done.append(number)

    @agent
    async def boss(session: Session[Any], text: str) -> str:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def works() -> None:
            while True:
                await session.step(note, await queue.get())
                queue.task_done()

        workers = [asyncio.create_task(works(), name=f"worker {number}") for number in range(3)]
        for number in range(6):
            queue.put_nowait(number)
        await queue.join()
        if parks:
            await session.sleep(1_000)
        return f"{len(workers)} left"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(boss, id="s")
        await handle.tell("go")
        await (rest(handle) if parks else idle(handle))
        await asyncio.sleep(1)
        return [task for task in asyncio.all_tasks() if task.get_name().startswith("worker")]

    assert world.life(boss, main) == []
    assert sorted(world.done) == list(range(6))


# ---------------------------------------------------------------- when a turn parks


@pytest.mark.parametrize(
    ("own", "computes_s", "order"),
    [(False, 300.0, ["noted", "parked"]), (True, 30.0, ["noted", "parked"]), (True, 90.0, ["parked", "noted"])],
    ids=["session.gather", "asyncio.gather", "asyncio.gather, too long"],
)
def test_a_task_between_two_steps_is_running_not_waiting(own: bool, computes_s: float, order: list[str]) -> None:
    """One branch sleeps for long, another one computes before its next step: the session parks after that step, or after a minute without
    one in a task of the handler's own that has no timer running."""
    world = World()
    computed = asyncio.Event()

    async def note() -> None:
        world.done.append("noted")

    @agent(park_after_s=1.0)
    async def worker(session: Session[Any], text: str) -> str:
        async def computes() -> None:
            await computed.wait()
            await session.step(note)

        await (asyncio.gather if own else session.gather)(session.sleep(1000), computes())
        return "done"

    async def main(runtime: Runtime) -> Any:
        runtime.observe(lambda event: world.done.append("parked") if isinstance(event, SessionParked) else None)
        asyncio.get_running_loop().call_later(computes_s, computed.set)
        return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=5000)

    assert world.life(worker, main) == "done"
    assert world.done == order


@pytest.mark.parametrize(("waits_for", "after_s"), [("a time", 60.0), ("a person", 5.0)])
def test_a_task_that_only_waits_for_another_one_parks_with_it_after_a_while(waits_for: str, after_s: float) -> None:
    """Of a task of the handler's own only its steps are known: without one for so long, it counts as waiting."""
    world = World()
    parked: list[float] = []

    @tool(effect="once")
    async def refund() -> str:
        raise ConnectionError("cut off")

    @agent(park_after_s=1.0)
    async def worker(session: Session[Any], text: str) -> str:
        await asyncio.create_task(session.sleep(1000) if waits_for == "a time" else session.step(refund))
        return "done"

    async def main(runtime: Runtime) -> None:
        runtime.observe(lambda event: parked.append(world.now_s()) if isinstance(event, SessionParked) else None)
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go")
        await rest(handle)

    world.life(worker, main)
    assert parked[0] == pytest.approx(after_s, abs=1.0)


# ---------------------------------------------------------------- steps inside steps


def test_steps_inside_a_step_have_numbers_uuids_and_randoms_of_their_own() -> None:
    """After the outer step has a record its inside does not run, and the handler's own uuids and randoms stay the same."""
    world = World()

    async def note(text: str) -> str:
        world.done.append(text)
        return text

    @agent
    async def worker(session: Session[Any], text: str) -> list[str]:
        async def outer() -> str:
            await session.step(note, "same")
            return str(session.uuid()) + str(session.random().random())

        found = [await session.step(outer), str(session.uuid()), str(session.random().random())]
        await session.step(note, "same")
        if world.lives == 1:
            world.done.append(found)
            await world.crash()
        return found

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    world.life(worker, main)
    found = world.life(worker, main)
    assert world.done == ["same", "same", found]
    assert len({found[1], found[0][:36]}) == 2


def test_what_is_inside_a_step_counts_as_asked_for_with_it() -> None:
    """After a crash the outer step is answered from its record: the `once` effect inside is neither done again nor missed."""
    world = World()

    @tool(effect="once")
    async def refund() -> str:
        world.done.append("refund")
        return "paid"

    @agent(tools=[refund])
    async def worker(session: Session[Any], text: str) -> str:
        async def outer() -> str:
            return await session.step(refund)

        paid = await session.step(outer)
        if world.lives == 1:
            await world.crash()
        return paid

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    world.life(worker, main)
    assert world.life(worker, main) == "paid"
    assert world.done == ["refund"]


def test_another_attempt_of_an_outer_step_does_not_do_its_effects_again() -> None:
    """The runtime retries the outer step; the `once` effect inside is answered from its record."""
    world = World()

    @tool(effect="once")
    async def refund() -> str:
        world.done.append("refund")
        return "paid"

    @agent(tools=[refund])
    async def worker(session: Session[Any], text: str) -> str:
        async def outer() -> str:
            world.done.append("attempt")
            paid = await session.step(refund)
            if world.done.count("attempt") == 1:
                raise ConnectionError("cut off")
            return paid

        return await session.step(outer)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    assert world.life(worker, main) == "paid"
    assert world.done == ["attempt", "refund", "attempt"]


Make = Callable[[int], Any]
"""Makes the coroutine of a step."""


async def _one_by_one(session: Session[Any], make: Make) -> None:
    await make(0)
    await make(1)


async def _asyncio_gather(session: Session[Any], make: Make) -> None:
    await asyncio.gather(make(0), make(1))


async def _session_gather(session: Session[Any], make: Make) -> None:
    await session.gather(make(0), make(1))


@pytest.mark.parametrize("goes_on", [False, True], ids=["stops", "goes on"])
@pytest.mark.parametrize("two", [_one_by_one, _asyncio_gather, _session_gather])
def test_a_budget_that_runs_out_inside_a_step_reaches_the_handler(
    two: Callable[[Session[Any], Make], Awaitable[None]], goes_on: bool
) -> None:
    """As BudgetExhausted, in the same run and on replay, also out of a gather inside; code that runs more steps after it parks."""
    world = World()

    async def note(number: int) -> int:
        return number

    @agent(budget=Budget(steps=5))
    async def worker(session: Session[Any], text: str) -> str:
        async def outer() -> None:
            for number in range(10):
                await two(session, lambda nth, first=2 * number: session.step(note, first + nth))  # type: ignore[misc]

        try:
            await session.step(outer)
        except BudgetExhausted:
            world.done.append("exhausted")
        if goes_on:
            await session.step(note, 100)
        elif world.lives == 1:
            await world.crash()
        return "what there is"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        if not goes_on:
            return await handle.ask("go", id="m", timeout_s=100)
        row = await rest(handle)
        await handle.raise_budget(Budget(steps=20))
        return row.park.reason, await handle.ask("go", id="m", timeout_s=100)

    if goes_on:
        assert world.life(worker, main) == ("budget", "what there is")
        assert world.done == ["exhausted"]  # what the raise leaves room for is asked again
    else:
        assert isinstance(world.life(worker, main), Crashed)
        assert world.life(worker, main) == "what there is"
        assert world.done == ["exhausted"] * 2
    assert world.seen(TurnCrashed) == []
