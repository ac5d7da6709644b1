"""Handlers that strangers wrote, paused, drained, cancelled and killed at random instants: what they had in flight ends with their turn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from holdfast import Handle, Runtime, SessionEnded
from holdfast.errors import SessionError
from holdfast.stores.records import StepState
from holdfast.testing import Simulation, for_each_seed, simulate
from tests.chaos.demands import ONCE, base
from tests.chaos.scripts import SHAPED
from tests.chaos.test_cancellation import alive
from tests.chaos.world import Delivery, World, at_once, label_of

LONG_S = 200.0
SEEDS = [range(4), pytest.param(range(100), marks=pytest.mark.slow)]


def instant(seed: int, shape: str) -> tuple[float, int]:
    """Some time after the begin, in seconds, and so many turns of the loop later: where a script is at work."""
    draw = random.Random(f"{shape} {seed}")
    return draw.choice([0.0, 0.5, 1.0, 3.0, 5.0, draw.uniform(0.0, 20.0)]), draw.randrange(60)


async def until(at: tuple[float, int]) -> None:
    """Wait for an instant."""
    seconds, turns = at
    await asyncio.sleep(seconds)
    for _ in range(turns):
        await asyncio.sleep(0)


def finish(world: World, sent: list[Delivery], seed: int, start_s: float) -> None:
    """The last life; then everything is as it has to be."""
    assert simulate(lambda s: world.serve(s, sent), seed=seed, start_s=start_s, max_points=60_000) is True
    world.disk.crash()
    at_once(world.check(sent))


@pytest.mark.parametrize("seeds", SEEDS, ids=len)
@pytest.mark.parametrize("shape", SHAPED)
def test_what_a_drain_meets_goes_on_in_the_next_life(shape: str, seeds: range) -> None:
    """A drain lets each step in flight end, whichever task it is in, and begins none after it."""
    sent = [Delivery("worker", "long", SHAPED[shape])]

    def case(seed: int) -> None:
        world, simulation = World(), Simulation(seed=seed, max_points=60_000)
        seconds, turns = instant(seed, shape)
        simulation.run(lambda s: world.serve(s, sent, drain_at_s=seconds + turns * 0.01))
        world.disk.crash()
        finish(world, sent, seed, simulation.loop.time())

    for_each_seed(case, seeds)


@pytest.mark.parametrize("seeds", SEEDS, ids=len)
@pytest.mark.parametrize("shape", SHAPED)
def test_a_paused_session_does_nothing_until_it_is_resumed(shape: str, seeds: range) -> None:
    """Once `pause` has returned nothing of the session is in flight, for however long; then it does the rest, each effect once."""
    sent = [Delivery("worker", "long", SHAPED[shape])]

    def case(seed: int) -> None:
        world = World()

        async def paused(simulation: Simulation) -> None:
            async with Runtime(world.store, [world.worker], clock=simulation.clock, random=simulation.random, drain_s=5.0) as runtime:
                handle = await runtime.spawn(world.worker, id="worker")
                await handle.tell(SHAPED[shape], id="long")
                await until(instant(seed, shape))
                try:
                    await handle.pause()
                except SessionError:
                    return  # it had its answer before, or is parked for a person
                world.at_rest("worker")
                before = len(world.begun)
                await asyncio.sleep(LONG_S)
                world.at_rest("worker")
                # Its children are sessions of their own, which no one paused.
                later = [effect for session, effect in world.begun[before:] if session == "worker"]
                assert later == [], f"{later} began while it was paused"
                await handle.resume()

        simulation = Simulation(seed=seed, max_points=60_000)
        world.begin()
        simulation.run(paused)
        world.disk.crash()
        finish(world, sent, seed, simulation.loop.time())

    for_each_seed(case, seeds)


@pytest.mark.parametrize("verb", [Handle.kill, Handle.cancel])
@pytest.mark.parametrize("seeds", SEEDS, ids=len)
@pytest.mark.parametrize("shape", SHAPED)
def test_an_ended_session_begins_nothing_and_forgets_nothing(shape: str, verb: Callable[[Handle], object], seeds: range) -> None:
    """After `kill` or `cancel` no effect begins, no task is left, and of each `once` effect that happened there is a record that says so,
    or that nobody knows."""

    def case(seed: int) -> None:
        world = World()

        async def ended(simulation: Simulation) -> None:
            before = alive(simulation.loop)
            async with Runtime(world.store, [world.worker], clock=simulation.clock, random=simulation.random, drain_s=5.0) as runtime:
                handle = await runtime.spawn(world.worker, id="worker")
                asked = asyncio.ensure_future(handle.ask(SHAPED[shape], id="long", timeout_s=1e6))
                await until(instant(seed, shape))
                await verb(handle)  # type: ignore[misc]
                done = len(world.ledger.entries)
                await asyncio.wait([asked])
                await asyncio.sleep(LONG_S)
                assert [entry.key for entry in world.ledger.entries[done:]] == []
                assert world.under_way == []
                if asked.exception() is not None:
                    assert isinstance(asked.exception(), SessionEnded)
                await forgets_nothing(world)
            assert alive(simulation.loop) == before

        world.begin()
        simulate(ended, seed=seed, max_points=60_000)
        assert world.broken == []

    for_each_seed(case, seeds)


async def forgets_nothing(world: World) -> None:
    """Each `once` effect that happened is recorded as done or as in doubt."""
    known = set()
    for row in await world.store.sessions():
        for turn in range(1, row.turn + 2):
            for step in await world.store.steps(row.id, turn):
                if step.record.effect == "once" and step.state in (StepState.CLOSED, StepState.OPEN, StepState.DOUBT):
                    known.add((base(step.record.name), label_of(step.record)))
    happened = {entry.key for entry in world.ledger.entries if isinstance(entry.key, tuple) and entry.key[0] in ONCE}
    assert happened - known == set()
