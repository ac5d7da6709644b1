"""What ends an attempt, and what an attempt that has ended leaves behind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from holdfast import Budget, Handle, NotDone, Runtime, Session, agent, tool
from holdfast.policies.retry import Retry
from tests.unit.runtime.support import World, rest


async def ask(runtime: Runtime, agent: Any, message: str = "go") -> Any:
    return await (await runtime.spawn(agent, id="s")).ask(message, id="m", timeout_s=5_000)


@pytest.mark.parametrize("leave", ["crash", "park"])
async def test_a_thread_that_its_turn_left_is_waited_for_before_anything_is_asked(leave: str) -> None:
    """However the turn is left: the effect is neither made again nor asked about while its thread may still make it."""
    done: list[str] = []
    asked: list[int] = []
    left = asyncio.Event()
    loop = asyncio.get_running_loop()
    begun, may_end = asyncio.Event(), threading.Event()

    async def was_paid() -> str:
        asked.append(len(done))
        if done:
            return "paid"
        raise NotDone("not paid")

    @tool(effect="once", reconcile=was_paid)
    def pay() -> str:
        loop.call_soon_threadsafe(begun.set)
        may_end.wait(20)
        done.append("paid")
        return "paid"

    @agent(tools=[pay], park_after_s=0.0)
    async def shop(session: Session[None], text: str) -> str:
        if leave == "crash":
            task = asyncio.ensure_future(session.step(pay))
            if not left.is_set():
                await begun.wait()
                left.set()
                raise ValueError("a bug beside it")
            return await task
        try:
            async with asyncio.timeout(0.1):
                await session.step(pay)
        except TimeoutError:
            left.set()
        await session.sleep(0.05)
        return await session.step(pay)

    async with Runtime("memory:", [shop]) as runtime:
        asking = asyncio.create_task(ask(runtime, shop))
        await left.wait()
        for _ in range(200):
            await asyncio.sleep(0)
        assert (done, asked) == ([], [])
        may_end.set()
        answer = await asking
    assert (done, answer) == (["paid"], "paid")


def test_an_attempt_that_swallows_its_deadline_is_cancelled_again_and_shown_as_stuck() -> None:
    """Its cancellation comes again each second; past the quarantine it counts as stuck, and stays visible."""
    world, caught = World(), []

    @tool(timeout_s=2, retry=Retry(attempts=1))
    async def stubborn() -> str:
        for _ in range(60):
            try:
                await asyncio.sleep(100_000)
            except asyncio.CancelledError:
                caught.append(world.now_s())
        return "at last"

    @agent(tools=[stubborn])
    async def shop(session: Session[None], text: str) -> str:
        return await session.step(stubborn)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(shop, id="s")
        asking = asyncio.create_task(handle.ask("go", id="m", timeout_s=5_000))
        await asyncio.sleep(45)
        live, stuck = await handle.live(), runtime.statistics()["stuck"]
        answer = await asking
        return [step.name for step in live.steps] if live else None, stuck, answer, runtime.statistics()["stuck"]

    assert world.life(shop, main) == (["stubborn"], 1, "at last", 0)
    assert len(caught) == 60
    assert caught[1] - caught[0] == pytest.approx(1.0, abs=0.2)


def test_a_deadline_counts_as_one_in_a_task_that_is_being_cancelled() -> None:
    """Clean-up code of a cancelled task: its step times out as any other, and is not taken for let go of."""
    world, raised = World(), []

    @tool(timeout_s=2, retry=Retry(attempts=1))
    async def slow() -> None:
        await asyncio.sleep(100)

    @agent(tools=[slow])
    async def shop(session: Session[None], text: str) -> str:
        async def work() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                try:
                    await session.step(slow)
                except Exception as error:
                    raised.append(str(error))

        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait((task,))
        return "cleaned up"

    assert world.life(shop, lambda runtime: ask(runtime, shop)) == "cleaned up"
    assert raised == ["step 'slow' failed: TimeoutError: no answer within 2 s"]


def test_what_an_attempt_asked_for_answers_the_next_one() -> None:
    """The deadline of a step cuts an effect inside it: that was done, so the retry gets it at once, and does not let go again."""
    world = World()

    async def was_paid() -> str:
        return "paid"

    @tool(effect="once", timeout_s=100, reconcile=was_paid)
    async def pay() -> str:
        world.done.append("pay")
        await asyncio.sleep(50)
        return "paid"

    @agent(tools=[pay])
    async def shop(session: Session[None], text: str) -> str:
        @tool(timeout_s=10, retry=Retry(attempts=3))
        async def outer() -> str:
            return await session.step(pay)

        return await session.step(outer)

    assert world.life(shop, lambda runtime: ask(runtime, shop)) == "paid"
    assert world.done == ["pay"]
    assert world.now_s() < 20


def test_what_a_retried_step_asked_for_deeper_inside_counts_as_asked_for() -> None:
    """A retry gets the answer of a step that had steps of its own: none of those is missing at the commit."""
    world, tries = World(), []

    @tool(effect="once")
    async def pay() -> str:
        world.done.append("pay")
        return "paid"

    @agent(tools=[pay])
    async def shop(session: Session[None], text: str) -> str:
        async def middle() -> str:
            return await session.step(pay)

        @tool(retry=Retry(attempts=3))
        async def outer() -> str:
            paid = await session.step(middle)
            tries.append(paid)
            if len(tries) == 1:
                raise ConnectionError("down")
            return paid

        return await session.step(outer)

    assert world.life(shop, lambda runtime: ask(runtime, shop)) == "paid"
    assert (world.done, len(tries)) == (["pay"], 2)
    assert world.now_s() < 5


def test_settles_s_is_waited_once_after_a_timeout() -> None:
    """`reconcile` is asked when the attempt can no longer take effect: its own time, and `settles_s` after it."""
    world = World()

    async def was_paid() -> str:
        world.done.append(world.now_s())
        return "paid"

    @tool(effect="once", timeout_s=10, settles_s=20, reconcile=was_paid)
    async def pay() -> str:
        await asyncio.sleep(100)
        return "too late"

    @agent(tools=[pay])
    async def shop(session: Session[None], text: str) -> str:
        return await session.step(pay)

    assert world.life(shop, lambda runtime: ask(runtime, shop)) == "paid"
    assert world.done == [pytest.approx(30.0, abs=0.5)]


def test_the_seconds_of_attempts_that_were_let_go_of_count() -> None:
    """A loop of timeouts of its own does not get around Budget.seconds."""
    world = World()

    async def slow() -> None:
        await asyncio.sleep(100)

    @agent(budget=Budget(seconds=30.0))
    async def shop(session: Session[None], text: str) -> str:
        for _ in range(50):
            try:
                async with asyncio.timeout(9):
                    await session.step(slow)
            except TimeoutError:
                pass
        return "never"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(shop, id="s")
        await handle.tell("go")
        return (await rest(handle)).park.reason

    assert world.life(shop, main) == "budget"
    assert world.now_s() < 60


async def test_what_a_thread_comes_to_after_its_session_was_killed_needs_no_person() -> None:
    """The doubt of the ended session is gone once the thread has brought the outcome."""
    loop = asyncio.get_running_loop()
    begun, may_end = asyncio.Event(), threading.Event()

    @tool(effect="once")
    def pay() -> str:
        loop.call_soon_threadsafe(begun.set)
        may_end.wait(20)
        return "paid"

    @agent(tools=[pay])
    async def shop(session: Session[None], text: str) -> str:
        return await session.step(pay)

    async with Runtime("memory:", [shop]) as runtime:
        handle = await runtime.spawn(shop, id="s")
        await handle.tell("go")
        await begun.wait()
        await handle.kill()
        assert await _doubt(handle, True)
        may_end.set()
        assert not await _doubt(handle, False)


async def _doubt(handle: Handle, wanted: bool) -> bool:
    """Whether a person is wanted for the session, once that is as wanted; what it is after many looks else."""
    for _ in range(10_000):
        if ((await handle.row()).unresolved is not None) is wanted:
            break
        await asyncio.sleep(0)
    return (await handle.row()).unresolved is not None


@pytest.mark.parametrize("later", range(8))
def test_an_effect_that_is_let_go_of_at_any_moment_of_its_close_is_not_made_again(later: int) -> None:
    """The caller lets go so many rounds of the loop after the effect returned, and asks again."""
    world = World()
    returned = asyncio.Event()

    @tool(effect="once")
    async def pay() -> str:
        world.done.append("paid")
        returned.set()
        return "paid"

    @agent
    async def shop(session: Session[None], text: str) -> str:
        task = asyncio.create_task(session.step(pay))
        await returned.wait()
        for _ in range(later):
            await asyncio.sleep(0)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return await session.step(pay)

    async def main(runtime: Runtime) -> str:
        return str(await ask(runtime, shop))

    assert world.life(shop, main) == "paid"
    assert world.done == ["paid"]
