"""The restarts of a session are those of a supervised child: the same intensity, the same backoff, the same health."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Backoff, Intensity, Runtime, Session, agent
from holdfast.events import TurnCrashed
from tests.unit.runtime.support import World


@pytest.mark.parametrize("seed", range(8))
def test_the_backoff_of_a_session_grows_with_crashes_in_a_row_and_begins_again_after_a_healthy_time(seed: int) -> None:
    """Not with every crash in the period of the intensity, which may be long."""
    world = World(seed=seed)
    crashes = {"one": 2, "two": 1}

    @agent(intensity=Intensity(5, 1e6), backoff=Backoff(base_s=0.1, factor=20.0, max_s=100.0, healthy_s=5.0))
    async def moody(session: Session[Any], text: str) -> str:
        if crashes[text]:
            crashes[text] -= 1
            raise ValueError("a bug")
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(moody, id="s")
        first = await handle.ask("one")
        await asyncio.sleep(10)
        return first, await handle.ask("two")

    assert world.life(moody, main) == ("one", "two")
    waits = [event.delay_s for event in world.seen(TurnCrashed)]
    bounds = [0.1, 2.0, 0.1]
    assert all(wait is not None and 0 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
