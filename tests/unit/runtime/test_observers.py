"""Observers: told of everything, and unable to stop anything."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from holdfast import Runtime, Session, agent
from holdfast.events import Event, StepEnded, TurnCommitted
from tests.unit.runtime.support import World


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
