"""What becomes of an effect is found out when it can be known, is kept once it is known, and is told to people as it is."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from holdfast import ConfigError, Intensity, NotDone, Runtime, Session, SessionError, StepError, TurnFailed, agent, tool
from holdfast.calls.tools import places
from holdfast.stores.records import StepState
from tests.unit.runtime.support import World, rest, steps

NO_RESTART = Intensity(0, 60.0)


def test_reconcile_is_asked_once_the_earlier_attempt_can_no_longer_take_effect() -> None:
    """After a crash: when the attempt's deadline, which its record holds, and the tool's `settles_s` have passed."""
    world = World()
    asked: list[float] = []

    async def is_refunded() -> str:
        asked.append(world.now_s())
        return "paid"

    @tool(effect="once", reconcile=is_refunded, timeout_s=100.0, settles_s=20.0)
    async def refund() -> str:
        world.done.append("refund")
        await asyncio.sleep(5)
        await world.crash()
        return "never"

    @agent(tools=[refund])
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(refund)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m", timeout_s=500)

    world.life(worker, main)
    assert world.life(worker, main) == "paid"
    assert world.done == ["refund"]
    assert asked == [pytest.approx(120.0, abs=0.5)]


def test_an_effect_in_a_thread_is_awaited_past_its_deadline() -> None:
    """A thread cannot be ended: until it has, its effect may happen. Its result counts, and it is neither doubted nor run again."""
    runs: list[str] = []

    @tool(effect="once", timeout_s=0.2)
    def refund() -> str:
        runs.append("refund")
        time.sleep(0.6)
        return "paid"

    @agent(tools=[refund])
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(refund)

    async def main() -> Any:
        async with Runtime("memory:", [worker]) as runtime:
            return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=5)

    assert asyncio.run(main()) == "paid"
    assert runs == ["refund"]


def test_a_blocked_loop_puts_nothing_in_doubt_that_was_answered_in_time() -> None:
    """A neighbour blocks the event loop past the deadline of an effect whose answer is there by then."""
    answered = threading.Event()

    @tool(effect="once", timeout_s=0.6)
    async def refund() -> str:
        await asyncio.sleep(0.2)
        answered.set()
        return "paid"

    @agent(tools=[refund])
    async def worker(session: Session[Any], text: str) -> str:
        if text == "block":
            await asyncio.sleep(0.1)
            time.sleep(1.2)  # noqa: ASYNC251 - the mistake that this is about
            return "blocked"
        return await session.step(refund)

    async def main() -> Any:
        async with Runtime("memory:", [worker]) as runtime:
            one, other = await runtime.spawn(worker, id="s"), await runtime.spawn(worker, id="blocks")
            return await asyncio.gather(one.ask("go", timeout_s=5), other.ask("block", timeout_s=5))

    assert asyncio.run(main()) == ["paid", "blocked"]
    assert answered.is_set()


def test_an_effect_for_which_no_thread_was_free_is_not_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It did not begin before its deadline: the handler gets a failure, and no person is asked."""
    monkeypatch.setattr(places, "THREADS", 1)
    runs: list[str] = []

    @tool(effect="read")
    def look_up() -> None:
        time.sleep(0.8)

    @tool(effect="once", timeout_s=0.2)
    def refund() -> str:
        runs.append("refund")
        return "paid"

    @agent(tools=[look_up, refund])
    async def worker(session: Session[Any], text: str) -> str:
        try:
            await session.gather(session.step(look_up), session.step(refund))
        except StepError as error:
            return error.type
        return "paid"

    async def main() -> Any:
        async with Runtime("memory:", [worker]) as runtime:
            return await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=5)

    assert asyncio.run(main()) == "ThreadsBusy"
    assert runs == []


def test_the_same_once_effect_never_runs_twice_at_a_time() -> None:
    """Asked for in two branches: the second begins when the outcome of the first is known."""
    world = World()

    @tool(effect="once")
    async def refund(order: str) -> str:
        world.done.append("begins")
        await asyncio.sleep(5)
        world.done.append("ends")
        return order

    @agent(tools=[refund])
    async def worker(session: Session[Any], text: str) -> list[str]:
        return await session.gather(session.step(refund, "o1"), session.step(refund, "o1"))

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == ["o1", "o1"]
    assert world.done == ["begins", "ends"] * 2


def test_a_loop_around_a_timeout_asks_for_one_effect() -> None:
    """The handler's own timeout ends the first call; the doubt is resolved, and its record answers the second call."""
    world = World()

    async def is_refunded() -> str:
        if "paid" not in world.done:
            raise NotDone
        return "paid"

    @tool(effect="once", reconcile=is_refunded)
    async def refund() -> str:
        world.done.append("paid")
        await asyncio.sleep(50)
        return "paid"

    @agent(tools=[refund])
    async def worker(session: Session[Any], text: str) -> str:
        for _ in range(5):
            try:
                async with asyncio.timeout(1):
                    return await session.step(refund)
            except TimeoutError:
                world.done.append("timed out")
        return "gave up"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == "paid"
    assert world.done == ["paid", "timed out"]


def test_a_once_effect_whose_result_cannot_be_stored_was_done() -> None:
    """Its record is closed, the model reads that it was done, and a restart does not run it again."""
    world = World()

    @tool(effect="once")
    async def refund() -> Any:
        world.done.append("refund")
        return object()

    @agent(tools=[refund])
    async def worker(session: Session[Any], text: str) -> str:
        read = await session.call_tool("refund", {})
        assert not read.error
        if world.lives == 1:
            await world.crash()
        try:
            await session.step(refund)
        except StepError as error:
            world.done.append(error.type)
        return read.content

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        reply = json.loads(await handle.ask("go", id="m"))
        assert {step.state for step in await steps(runtime, handle)} == {StepState.CLOSED}
        return reply

    world.life(worker, main)
    reply = world.life(worker, main)
    assert reply["done"] is True
    assert "cannot be stored" in reply["note"]
    assert world.done == ["refund", "refund", "ResultNotKept"]  # the second is the second call, as a step of its own


def test_a_step_returns_what_its_record_reads_back_as() -> None:
    """The same live and on replay: a tuple comes back as a list in both."""
    world = World()

    async def pair() -> Any:
        return 1, 2

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        found = await session.step(pair)
        world.done.append(found)
        if world.lives == 1:
            await world.crash()
        return "done"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    world.life(worker, main)
    assert world.life(worker, main) == "done"
    assert world.done == [[1, 2], [1, 2]]


def test_an_effect_without_a_return_annotation_is_refused_where_it_is_defined() -> None:
    """What it returns could be a value that no record holds, and it cannot be made again."""
    with pytest.raises(ConfigError, match="needs a return annotation"):

        @tool(effect="once")
        async def refund():  # type: ignore[no-untyped-def]
            return 1


def test_a_dead_letter_names_effects_done_in_doubt_and_failed_apart() -> None:
    """It is kept while one is in doubt; once a person has resolved it, it lists it with the others, and can be dropped."""
    world = World()

    @tool(effect="once")
    async def charge() -> str:
        return "charged"

    @tool(effect="once")
    async def refund() -> str:
        await asyncio.sleep(50)
        return "paid"

    @tool(effect="once")
    async def ship() -> str:
        raise NotDone("out of stock")

    @agent(tools=[charge, refund, ship], intensity=NO_RESTART)
    async def worker(session: Session[Any], text: str) -> str:
        await session.step(charge)
        shipped = await session.call_tool("ship", {})
        assert shipped.error
        task = asyncio.create_task(session.step(refund))
        await asyncio.sleep(1)
        raise ValueError(f"a bug while {task} was under way")

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        with pytest.raises(TurnFailed) as failed:
            await handle.ask("go", id="m")
        world.done.append((failed.value.effects, failed.value.in_doubt, failed.value.failed))
        with pytest.raises(SessionError, match="the outcome of refund is unknown"):
            await handle.drop()
        await handle.resolve("done", result="paid")
        (letter,) = await runtime.store.dead_letters("s")
        world.done.append((letter.effects, letter.in_doubt, letter.failed))
        await handle.drop()
        return (await handle.row()).status

    assert world.life(worker, main) == "idle"
    assert world.done == [(("charge",), ("refund",), ("ship",)), (("charge", "refund"), (), ("ship",))]


@pytest.mark.parametrize("state", ["working", "parked"])
def test_any_open_turn_can_be_given_up(state: str) -> None:
    """The state is that of the last commit, the next turn reads which effects were done, and the message is not handled again."""
    world = World()

    @tool(effect="once")
    async def charge() -> str:
        return "charged"

    @agent(tools=[charge], park_after_s=1.0)
    async def worker(session: Session[Any], text: str) -> list[str]:
        if text == "go":
            await session.step(charge)
            await (session.sleep(500) if state == "parked" else asyncio.sleep(500))
        return list(session.dropped_effects)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await (rest(handle) if state == "parked" else asyncio.sleep(1))
        await handle.drop("of no use any more")
        return await handle.ask("next")

    assert world.life(worker, main) == ["charge"]


def test_an_interrupt_ends_the_attempt_as_its_timeout_would() -> None:
    """The session is not ended by it: the handler gets the failure of its step."""
    world = World()

    @tool(effect="read", timeout_s=1000.0)
    async def look_up() -> str:
        world.done.append("look_up")
        await asyncio.sleep(500)
        return "never"

    @agent(tools=[look_up])
    async def worker(session: Session[Any], text: str) -> str:
        try:
            return await session.step(look_up)
        except StepError as error:
            return error.type

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        while len(world.done) < 10:
            await asyncio.sleep(1)
            if not await handle.interrupt("look_up"):
                break
            await asyncio.sleep(30)
        return await handle.ask("go", id="m", timeout_s=5)

    assert world.life(worker, main) == "TimeoutError"
    assert 1 <= len(world.done) < 10


def test_a_session_whose_agent_is_missing_can_be_looked_at_and_ended() -> None:
    """It waits for its agent; what needs the agent is refused in a line that names it."""
    world = World()

    @agent(name="gone")
    async def worker(session: Session[Any], text: str) -> str:
        await world.crash()
        return "never"

    @agent
    async def another(session: Session[Any], text: str) -> None: ...

    async def first(runtime: Runtime) -> Any:
        await (await runtime.spawn(worker, id="s")).tell("go", id="m")
        await asyncio.sleep(10)

    async def without(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        assert (await handle.row()).pending == 1
        with pytest.raises(ConfigError, match="runs agent 'gone', which this Runtime does not have"):
            await handle.ask("go", id="m")
        assert await handle.kill("of no use any more")
        return (await handle.row()).status

    world.life(worker, first)
    assert world.life(another, without) == "killed"
