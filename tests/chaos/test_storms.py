"""Stores that fail in many ways under working sessions: all resume by themselves, and no person is asked for an outcome that was known."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks import storms, storms_app
from benchmarks.storms_weather import STORMS, Skipped
from benchmarks.storms_world import broken, count
from holdfast.errors import NotWritten, OutcomeUnknown
from holdfast.stores.memory.store import MemoryStore
from holdfast.testing import Crashed, Simulation, for_each_seed, simulate

SESSIONS = 8
LASTS_S = {"none": 3.0, "restarts": 12.0, "terminations": 12.0, "timeouts": 12.0, "full": 10.0, "locked": 45.0}
"""How long each storm lasts, in seconds."""


class Weather:
    """What the batches of a store meet, by the time since the start: the storms of benchmarks/storms.py, without their causes.

    Args:
        storm: its name there.
        chance: draws what becomes of each batch.
    """

    def __init__(self, storm: str, chance: random.Random) -> None:
        self._blow, self._chance, self._lasts_s = getattr(self, f"_{storm}"), chance, LASTS_S[storm]
        self._cut_after = self._was_down = False
        self.until_s = 0.0

    async def before_apply(self, n: int, ops: Sequence[object]) -> None:
        self._cut_after = False
        left_s = self.until_s - asyncio.get_running_loop().time()
        if left_s > 0:
            await self._blow(self._lasts_s - left_s)

    async def after_apply(self, n: int, ops: Sequence[object]) -> None:
        if self._cut_after:
            raise OutcomeUnknown("the connection was lost in the commit")

    def _cut(self) -> None:
        """The connection is lost in the commit: before or after it took effect."""
        if self._chance.random() < 0.5:
            raise OutcomeUnknown("the connection was lost before the commit")
        self._cut_after = True

    async def _none(self, now_s: float) -> None:
        pass

    async def _restarts(self, now_s: float) -> None:
        """Down in the first of each five seconds; the batch under way then is cut."""
        down = now_s % 5.0 < 1.0
        before, self._was_down = self._was_down, down
        if down and before:
            raise NotWritten("the server does not accept connections")
        if down:
            self._cut()

    async def _terminations(self, now_s: float) -> None:
        if self._chance.random() < 0.1:
            self._cut()

    async def _timeouts(self, now_s: float) -> None:
        """Half of the time, most statements take too long, and are cancelled."""
        if now_s % 4.0 < 2.0 and self._chance.random() < 0.8:
            await asyncio.sleep(0.1)
            raise NotWritten("the statement was cancelled: timeout")

    async def _full(self, now_s: float) -> None:
        if now_s % 20.0 < 6.0:
            raise NotWritten("no space is left on the disk")

    async def _locked(self, now_s: float) -> None:
        """For 40 s, each batch waits 5 s for the lock in vain."""
        if now_s < 40.0:
            await asyncio.sleep(min(5.0, 40.0 - now_s))
            if now_s < 35.0:
                raise NotWritten("the database is locked")


@pytest.mark.parametrize("storm", list(LASTS_S))
def test_sessions_resume_by_themselves(storm: str) -> None:
    """Nothing is lost or done twice, and no person is needed: no effect is cut by a store that fails."""

    def case(seed: int) -> None:
        store, weather = MemoryStore(), Weather(storm, random.Random(seed))

        async def blow() -> None:
            weather.until_s = asyncio.get_running_loop().time() + LASTS_S[storm]
            await asyncio.sleep(LASTS_S[storm])

        async def main(simulation: Simulation) -> Any:
            store.faults = weather
            return await storms_app.run(store, SESSIONS, blow, clock=simulation.clock, seed=seed)

        played = simulate(main, seed=seed, max_points=20_000_000)
        assert not isinstance(played, Crashed)
        world, done_s = played
        result = count(world, done_s)
        assert broken(result, quiet=storm == "none") == [], {**world.known, **world.unknown}
        assert (result.cut, result.reconciled) == (0, 0)
        assert done_s < 20.0

    for_each_seed(case, range(3))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("storm", list(STORMS))
def test_a_real_storm_is_weathered(storm: str) -> None:
    """Servers that restart, connections that end, full disks and locked files; small numbers."""
    try:
        result, why = storms.play(storm, 20, 0.2)
    except Skipped as reason:
        pytest.skip(str(reason))
    assert broken(result, quiet=storm == "none") == [], why
