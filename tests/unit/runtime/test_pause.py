"""A person pauses a session: nothing is cut off, nothing is lost, and it goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast import NO_RETRY, Backoff, Intensity, Runtime, Session, SessionError, agent, tool
from holdfast.events import SessionEndedEvent, SessionParked, StepReplayed
from holdfast.stores.ops import DropSteps, Op, UpdateSession
from tests.unit.runtime.support import World, rest


def working(world: World) -> Any:
    @tool(effect="once")
    async def work(number: int) -> int:
        world.done.append(f"begins {number}")
        await asyncio.sleep(5)
        world.done.append(f"ends {number}")
        return number

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        for number in range(3):
            await session.step(work, number)
        return text

    return worker


def test_a_pause_lets_the_step_in_flight_end_and_a_resume_goes_on_after_it() -> None:
    """An effect is never cut off half-way by a person who wants to look; what was done is not done again."""
    world = World()
    worker = working(world)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(7)
        await handle.pause("let me look")
        park, half = (await handle.row()).park, list(world.done)
        assert park is not None
        await asyncio.sleep(1000)
        quiet = list(world.done) == half
        await handle.resume()
        return park.reason, park.text, half, quiet, await handle.ask("go", id="m")

    half = ["begins 0", "ends 0", "begins 1", "ends 1"]
    assert world.life(worker, main) == ("paused", "let me look", half, True, "go")
    assert world.done == [*half, "begins 2", "ends 2"]
    assert len(world.seen(StepReplayed)) == 2


def test_a_session_that_rests_is_paused_and_keeps_what_arrives() -> None:
    """Messages wait in the mailbox, over a restart of the process too."""
    world = World()

    @agent
    async def echo(session: Session[Any], text: str) -> str:
        return text

    async def first(runtime: Runtime) -> Any:
        handle = await runtime.spawn(echo, id="s")
        await handle.pause()
        await handle.tell("hello", id="m")
        await asyncio.sleep(100)
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        await asyncio.sleep(100)
        handle = runtime.session("s")
        row = await handle.row()
        await handle.resume()
        return row.status, row.pending, await handle.ask("hello", id="m")

    world.life(echo, first)
    assert world.life(echo, second) == ("parked", 1, "hello")


def test_a_session_between_two_restarts_is_paused_at_once() -> None:
    """The wait before a restart is cut short, not sat out."""
    world = World()

    @agent
    async def broken(session: Session[Any], text: str) -> str:
        world.done.append(text)
        raise ValueError("a bug")

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(broken, id="s")
        await handle.tell("go")
        await asyncio.sleep(0.01)
        await handle.pause()
        return (await handle.row()).park.reason, len(world.done)  # type: ignore[union-attr]

    assert world.life(broken, main) == ("paused", 1)


def test_a_wait_that_was_parked_is_paused_and_looked_at_afresh_on_resume() -> None:
    """The timer does not wake a paused session; after the resume it waits for what is left."""
    world = World()

    @agent
    async def sleeper(session: Session[Any], text: str) -> str:
        await session.sleep(1000)
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(sleeper, id="s")
        await handle.tell("go", id="m")
        parked = (await rest(handle)).park.reason
        await handle.pause()
        await asyncio.sleep(2000)
        paused = (await handle.row()).park.reason  # type: ignore[union-attr]
        await handle.resume()
        return parked, paused, await handle.ask("go", id="m")

    assert world.life(sleeper, main) == ("wait", "paused", "go")


def test_what_has_failed_or_ended_cannot_be_paused() -> None:
    """One line that says why."""
    world = World()

    @agent
    async def finisher(session: Session[Any], text: str) -> None:
        session.finish()

    async def main(runtime: Runtime) -> None:
        handle = await runtime.spawn(finisher, id="s")
        await handle.ask("go")
        with pytest.raises(SessionError, match="is finished, so it cannot be paused"):
            await handle.pause()

    world.life(finisher, main)


class Slow:
    """A store whose parks take a second."""

    async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
        if any(isinstance(op, UpdateSession) for op in ops):
            await asyncio.sleep(1)

    async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
        pass


@pytest.mark.parametrize("how", ["pause", "drain"])
def test_a_wait_that_ends_beside_a_step_in_flight_does_not_hold_up_the_leaving(how: str) -> None:
    """The sleep of the one branch is over while the other's step still runs: it is left when that step ends."""
    world = World()

    @tool(effect="once")
    async def work() -> int:
        await asyncio.sleep(2)
        world.done.append("worked")
        return 1

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        await session.gather(session.step(work), session.sleep(1))
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(0.5)
        began = world.now_s()
        left = await (handle.pause() if how == "pause" else runtime.drain(100.0))
        return left, round(world.now_s() - began, 1)

    assert world.life(worker, main) == (None if how == "pause" else True, 1.5)
    assert world.done == ["worked"]


def test_a_handler_that_had_finished_is_committed_before_the_session_is_paused() -> None:
    """Its reply is not thrown away to be made again."""
    world = World()

    @tool(effect="once")
    async def work() -> int:
        await asyncio.sleep(2)
        return 1

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        world.done.append("runs")
        await session.step(work)
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(0.5)
        await handle.pause()
        row = await handle.row()
        return row.turn, row.status, await handle.ask("go", id="m")

    assert world.life(worker, main) == (1, "parked", "go")
    assert world.done == ["runs"]


def test_an_answer_that_comes_while_the_pause_is_written_does_not_undo_it() -> None:
    """Only what it was parked for wakes it."""
    world = World()

    @agent
    async def other(session: Session[Any], text: str) -> str:
        await session.sleep(4)
        return "answer"

    @agent
    async def asker(session: Session[Any], text: str) -> str:
        return str(await session.ask("other", text))

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(other, id="other")
        handle = await runtime.spawn(asker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(3.9)
        world.store.faults = Slow()
        await handle.pause()
        await asyncio.sleep(100)
        paused = (await handle.row()).park
        await handle.resume()
        return paused and paused.reason, await handle.ask("go", id="m")

    assert world.life([asker, other], main) == ("paused", "answer")


def test_a_pause_while_the_session_parks_by_itself_is_not_forgotten() -> None:
    """The timer that it parked for does not wake it."""
    world = World()

    @agent
    async def sleeper(session: Session[Any], text: str) -> str:
        await session.sleep(1000)
        return text

    async def main(runtime: Runtime) -> Any:
        world.store.faults = Slow()
        handle = await runtime.spawn(sleeper, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(0.5)
        await handle.pause()
        await asyncio.sleep(2000)
        row = await handle.row()
        return row.park and row.park.reason

    assert world.life(sleeper, main) == "paused"


def test_a_crash_while_a_pause_is_under_way_is_not_followed_by_its_backoff() -> None:
    """There is nothing to wait for: the session rests."""
    world = World()

    @tool
    async def work() -> int:
        await asyncio.sleep(2)
        return 1

    @agent(intensity=Intensity(1, 60.0), backoff=Backoff(base_s=40, max_s=80))
    async def broken(session: Session[Any], text: str) -> str:
        await session.step(work)
        raise ValueError("a bug")

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(broken, id="s")
        await handle.tell("go")
        await asyncio.sleep(0.5)
        await handle.pause()
        return round(world.now_s(), 1)

    assert world.life(broken, main) == 2.0


def test_a_resolved_doubt_does_not_lift_a_persons_pause() -> None:
    """Two different questions: what happened, and whether it may go on."""
    world = World()

    @tool(effect="once")
    async def pay() -> str:
        raise ConnectionError("cut")

    @agent
    async def payer(session: Session[Any], text: str) -> str:
        return await session.step(pay)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(payer, id="s")
        await handle.tell("go", id="m")
        await rest(handle)
        await handle.pause("not until I say so")
        settled = await handle.resolve("done", result="paid")
        await asyncio.sleep(10)
        row = await handle.row()
        await handle.resume()
        return settled, row.park and row.park.reason, await handle.ask("go", id="m")

    assert world.life(payer, main) == (1, "paused", "paid")


def test_a_session_killed_while_it_parks_stays_killed() -> None:
    """What is acknowledged is applied in order: no alarm wakes it later."""
    world = World()

    @agent
    async def sleeper(session: Session[Any], text: str) -> str:
        await session.sleep(1000)
        return text

    async def main(runtime: Runtime) -> Any:
        world.store.faults = Slow()
        handle = await runtime.spawn(sleeper, id="s")
        await handle.tell("go")
        await asyncio.sleep(0.01)
        await handle.kill()
        told = [type(event) for event in world.events if isinstance(event, (SessionParked, SessionEndedEvent))]
        epoch = (await handle.row()).epoch
        await asyncio.sleep(2000)
        return told[-1], (await handle.row()).status, (await handle.row()).epoch - epoch

    assert world.life(sleeper, main) == (SessionEndedEvent, "killed", 0)


class SlowDrops:
    """A store that takes a second to drop steps."""

    async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
        if any(isinstance(op, DropSteps) for op in ops):
            await asyncio.sleep(1)

    async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
        pass


@pytest.mark.parametrize("how", ["pause", "drain"])
def test_a_turn_that_prepares_to_run_again_is_left_before_its_handler_runs(how: str) -> None:
    """Between a crash and the next run it settles doubts and drops failures: what comes then is not overheard."""
    world = World()

    @tool(effect="idempotent", retry=NO_RETRY)
    async def flaky() -> int:
        world.done.append("flaky")
        if len(world.done) == 1:
            raise ValueError("permanent")
        return 1

    @tool(effect="idempotent", timeout_s=100)
    async def long() -> int:
        world.done.append("long")
        await asyncio.sleep(50)
        return 1

    @agent(backoff=Backoff(base_s=0.1, max_s=0.1))
    async def worker(session: Session[Any], text: str) -> str:
        await session.step(flaky)
        await session.step(long)
        return text

    async def main(runtime: Runtime) -> Any:
        world.store.faults = SlowDrops()
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await asyncio.sleep(0.6)
        await (handle.pause() if how == "pause" else runtime.drain(500.0))
        return world.now_s() < 5.0

    assert world.life(worker, main) is True
    assert world.done == ["flaky"]


def test_a_drop_does_not_lift_a_pause() -> None:
    """A person paused the session, then gave its turn up: what waits behind it waits until a person resumes the session."""
    world = World()

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        world.done.append(text)
        if text == "first":
            await session.sleep(1_000)
        return text

    async def main(runtime: Runtime) -> str:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("first")
        await asyncio.sleep(1)
        await handle.pause("looking into it")
        await handle.tell("second", id="m")
        await handle.drop("wrong order")
        await asyncio.sleep(100)
        row = await rest(handle)
        assert (row.status, row.park.reason, row.park.text) == ("parked", "paused", "looking into it")
        assert world.done == ["first"]
        await handle.resume()
        return str(await handle.ask("second", id="m", timeout_s=5_000))

    assert world.life(worker, main) == "second"
    assert world.done == ["first", "second"]
