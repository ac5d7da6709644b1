"""A transient failure that says nothing about the health of a dependency: its turn runs again a few times, and is a dead letter then."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import NO_RETRY, AskTimeout, Retry, Runtime, Session, StepError, TurnFailed, agent, tool
from holdfast.calls import EmptyReply
from holdfast.events import SessionParked
from holdfast.runtime.sessions.aftermath import TRIES
from tests.unit.runtime.support import World


@agent
async def slow(session: Session[Any], text: str) -> str:
    await session.sleep(10_000)
    return "answer"


@pytest.mark.parametrize("park_after_s", [1.0, 1_000.0])
def test_an_ask_without_an_answer_is_asked_again_a_few_times(park_after_s: float) -> None:
    """Each time for the answer to the same message; parked or in memory. A retry by a person has all tries again."""
    world = World()

    @agent(park_after_s=park_after_s)
    async def asks(session: Session[Any], text: str) -> Any:
        world.done.append("run")
        return await session.ask("slow", "question", timeout_s=60)

    async def main(runtime: Runtime) -> None:
        await runtime.spawn(slow, id="slow")
        handle = await runtime.spawn(asks, id="from")
        with pytest.raises(TurnFailed, match="AskTimeout"):
            await handle.ask("go", id="m", timeout_s=5_000)
        assert {event.reason for event in world.seen(SessionParked) if event.session == "from"} <= {"retry", "wait"}
        assert len(await runtime.store.messages("slow")) == 1
        failed_s, runs = world.now_s(), len(world.done)
        await handle.retry()
        with pytest.raises(TurnFailed, match="AskTimeout"):
            await handle.ask("go", id="m", timeout_s=5_000)
        assert len(world.done) == 2 * runs
        assert TRIES * 60 < failed_s < 1_000

    world.life([slow, asks], main)


def test_an_answer_that_comes_between_two_tries_is_taken() -> None:
    """The target handles one message."""
    world = World()

    @agent
    async def later(session: Session[Any], text: str) -> str:
        await session.sleep(100)
        return "answer"

    @agent
    async def asks(session: Session[Any], text: str) -> Any:
        return await session.ask("later", "question", timeout_s=60)

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(later, id="later")
        answer = await (await runtime.spawn(asks, id="from")).ask("go", timeout_s=5_000)
        return answer, len(await runtime.store.messages("later"))

    assert world.life([later, asks], main) == ("answer", 1)


class Conflict(Exception):
    status_code = 409


@pytest.mark.parametrize(("error", "calls"), [(EmptyReply("nothing"), 1), (Conflict("busy"), TRIES)], ids=["empty reply", "status 409"])
def test_what_is_not_the_dependencys_is_not_bought_without_end(error: Exception, calls: int) -> None:
    """The provider answered: no breaker opens for it. An empty answer goes to the handler; after a conflict the turn runs again."""
    world = World()

    @tool(retry=NO_RETRY, dependency="provider")
    async def buys() -> int:
        world.done.append("bought")
        raise error

    @agent
    async def worker(session: Session[Any], text: str) -> int:
        return await session.step(buys)

    async def main(runtime: Runtime) -> Any:
        with pytest.raises(TurnFailed, match=type(error).__name__):
            await (await runtime.spawn(worker, id="s")).ask("go", timeout_s=50_000)
        return runtime.breakers()

    world.life(worker, main)
    assert len(world.done) == calls


def test_a_provider_that_is_down_between_does_not_use_up_the_tries() -> None:
    """Each kind of failure is counted for itself, and both counts begin anew with the next turn."""
    world = World()

    @tool(retry=Retry(attempts=1))
    async def odd() -> int:
        world.done.append("call")
        if len(world.done) % 4 == 0:
            return len(world.done)
        raise ConnectionError("down") if len(world.done) % 2 else Conflict("busy")

    @agent
    async def worker(session: Session[Any], text: str) -> int:
        return await session.step(odd)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        return [await handle.ask("go", timeout_s=5_000) for _ in range(TRIES + 1)]

    assert world.life(worker, main) == [4 * (n + 1) for n in range(TRIES + 1)]


def test_the_error_of_a_step_says_whether_a_dependency_is_down() -> None:
    """Live and on replay; that of an ask has the id of its message."""
    world = World()

    @tool(retry=NO_RETRY)
    async def down() -> None:
        raise ConnectionError("down")

    async def note(text: str) -> str:
        return text

    @agent
    async def worker(session: Session[Any], text: str) -> Any:
        found: list[Any] = []
        try:
            await session.step(down)
        except StepError as error:
            found.append(error.dependency)
        try:
            await session.ask("slow", "x", timeout_s=10)
        except AskTimeout as error:
            found += [error.dependency, error.category, error.message_id]
        await session.step(note, str(found))
        if world.lives == 1:
            world.done.append(found)
            await world.crash()
        return found

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(slow, id="slow")
        found = await (await runtime.spawn(worker, id="s")).ask("go", id="m", timeout_s=100)
        assert found[-1] == (await runtime.store.messages("slow"))[0].id
        return found

    world.life([slow, worker], main)
    assert [world.life([slow, worker], main)] == world.done
    assert world.done[0][:3] == [True, False, "transient"]
