"""A session with a value that no codec, store, log or terminal can take, in each place where one can go, beside twenty healthy sessions:
it harms only itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.stores.memory.store import MemoryStore
from holdfast.testing import Simulation, simulate
from tests.chaos.hostile.inside import INSIDE
from tests.chaos.hostile.outside import OUTSIDE
from tests.chaos.hostile.values import SMALL
from tests.chaos.hostile.world import Values, campaign

PLACES = [*INSIDE, *OUTSIDE]


def cases(*values: Values) -> dict[str, Values]:
    """Every value in every place."""
    together = {name: make for some in values for name, make in some.items()}
    return dict.fromkeys(PLACES, together)


def test_there_are_enough_places() -> None:
    assert len(PLACES) >= 50


def test_odd_values_in_memory() -> None:
    """In virtual time: all odd values in all places."""
    store = MemoryStore()

    async def main(simulation: Simulation) -> list[str]:
        return await campaign(lambda: store, cases(SMALL), clock=simulation.clock, chance=simulation.random)

    assert simulate(main, seed=1, max_points=100_000_000) == []


async def test_odd_values_on_sqlite(tmp_path: Path) -> None:
    assert await campaign(lambda: f"sqlite:///{tmp_path}/hostile.db", cases(SMALL)) == []


@pytest.mark.slow
async def test_odd_values_on_postgres(postgres_url: str) -> None:
    assert await campaign(lambda: postgres_url, cases(SMALL)) == []
