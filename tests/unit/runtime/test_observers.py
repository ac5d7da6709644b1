"""Observers: told of everything, and unable to stop anything."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from holdfast import NO_RETRY, Runtime, Session, StepError, agent, tool
from holdfast.events import Event, StepEnded, StepLeft, StepReplayed, StepStarted, TurnCommitted, TurnLeft, TurnStarted
from tests.unit.runtime.support import World, rest


async def work(number: int) -> int:
    return number


@agent
async def worker(session: Session[Any], text: str) -> int:
    return await session.step(work, 1)


def test_an_observer_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the turn commits, and the other observers are told."""
    world = World()

    def broken(event: Event) -> None:
        raise RuntimeError("the collector is down")

    async def main(runtime: Runtime) -> Any:
        runtime.observe(broken)
        return await (await runtime.spawn(worker, id="s")).ask("go")

    with caplog.at_level(logging.ERROR, logger="holdfast"):
        assert world.life(worker, main) == 1
    assert "the collector is down" in caplog.text
    assert [event.name for event in world.seen(StepEnded)] == ["work"]
    assert len(world.seen(TurnCommitted)) == 1


def test_a_step_that_runs_is_told_of_at_its_begin_and_at_its_end_under_one_key() -> None:
    """Telemetry opens a span at the one and closes it at the other; a replayed step is told of as that alone."""
    world = World()

    @agent
    async def crashing(session: Session[Any], text: str) -> str:
        await session.step(work, 1)
        if not world.done:
            world.done.append("crashed")
            raise ValueError("a bug")
        await session.sleep(1)
        return text

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(crashing, id="s", user="u")).ask("go", id="m")

    assert world.life(crashing, main) == "go"
    started, ended = world.seen(StepStarted), world.seen(StepEnded)
    assert [(event.kind, event.name) for event in started] == [("step", "work"), ("sleep", "sleep")]
    assert [event.key for event in started] == [event.key for event in ended]
    assert ended[1].duration_s == pytest.approx(1.0, abs=0.1)
    assert len(world.seen(StepReplayed)) == 1
    assert {(event.agent, event.user, event.began) for event in world.seen(TurnStarted)} == {("crashing", "u", started[0].opened)}


def test_a_failed_step_tells_its_error_and_a_parked_one_is_left() -> None:
    """What is not over is not told of as ended."""
    world = World()

    @tool(retry=NO_RETRY)
    async def broken() -> None:
        raise ConnectionError("down")

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        try:
            await session.step(broken)
        except StepError:
            await session.sleep(1000)
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go")
        return (await rest(handle)).park.reason

    assert world.life(worker, main) == "wait"
    (ended,) = world.seen(StepEnded)
    assert (ended.ok, ended.error, ended.cause) == (False, "ConnectionError", "down")
    assert [event.name for event in world.seen(StepLeft)] == ["sleep"]
    assert [event.why for event in world.seen(TurnLeft)] == ["park"]
