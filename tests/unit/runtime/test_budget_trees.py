"""Trees of sessions: whatever ends first, and wherever the process dies meanwhile, what was not spent comes back to who lives."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from holdfast import Budget, OutcomeUnknown, Runtime, Session, SessionEnded, StoreError, agent
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.ops import EndSession, Op, Result
from holdfast.testing import Crashed, Simulation
from tests.unit.runtime.support import World, rest

PARTS = {"p": 60, "c": 30, "d": 12}
LINE = "gpcd"
"""g has 100 steps; each gives the next one its part, and spends a step on that; each below g spends two more."""


async def free(number: int) -> int:
    return number


@agent(name="member", budget=Budget(steps=100))
async def member(session: Session[Any], text: str) -> int | None:
    match text.split():
        case ["spawn", id]:
            await session.spawn(member, id=id, budget=Budget(steps=PARTS[id]))
        case ["work", count]:
            for number in range(int(count)):
                await session.step(free, number)
        case ["finish"]:
            session.finish("done")
    return session.budget.left.steps


async def grow(runtime: Runtime, line: str) -> None:
    await runtime.spawn(member, id="g")
    for above, below in itertools.pairwise(line):
        await runtime.session(above).ask(f"spawn {below}")
        await runtime.session(below).ask("work 2")


async def left(runtime: Runtime, line: str) -> tuple[Any, int]:
    """What g has left, in memory and in its row, once all the others have ended."""
    for id in line[1:]:
        await rest(runtime.session(id))
    row = await runtime.session("g").row()
    return await runtime.session("g").ask("left"), 100 - row.usage.steps


def spent(line: str) -> int:
    return (len(line) - 1) + 2 * (len(line) - 1)


async def cancel(runtime: Runtime, id: str) -> None:
    await runtime.session(id).cancel()


async def kill(runtime: Runtime, id: str) -> None:
    await runtime.session(id).kill()


async def finish(runtime: Runtime, id: str) -> None:
    with suppress(SessionEnded):
        await runtime.session(id).ask("finish")


Way = Callable[[Runtime, str], Awaitable[None]]


@pytest.mark.parametrize("way", [cancel, kill, finish])
@pytest.mark.parametrize("order", [*itertools.permutations("pc"), *itertools.permutations("pcd")], ids="".join)
def test_what_a_tree_did_not_spend_is_the_roots_again_in_whatever_order_it_ends(order: tuple[str, ...], way: Way) -> None:
    """Also where the middle ends before its children, which is the normal order of a cancel."""
    line = LINE[: len(order) + 1]

    async def main(runtime: Runtime) -> tuple[Any, int]:
        await grow(runtime, line)
        for id in order:
            await way(runtime, id)
        return await left(runtime, line)

    assert World().life(member, main) == (100 - spent(line), 100 - spent(line))


@pytest.mark.parametrize("ways", [(cancel, cancel), (cancel, finish), (finish, cancel), (finish, kill)])
@pytest.mark.parametrize("order", list(itertools.permutations("pcd")), ids="".join)
@pytest.mark.parametrize("seed", range(3))
def test_members_that_end_at_the_same_moment_lose_nothing(order: tuple[str, ...], ways: tuple[Way, Way], seed: int) -> None:
    """What comes back while the end of a parent is being written counts, and counts once."""
    first, others = ways

    async def main(runtime: Runtime) -> tuple[Any, int]:
        await grow(runtime, LINE)
        ends = [(first if number == 0 else others)(runtime, id) for number, id in enumerate(order)]
        await asyncio.gather(*ends, return_exceptions=True)
        await cancel(runtime, "p")
        return await left(runtime, LINE)

    assert World(seed=seed).life(member, main) == (100 - spent(LINE), 100 - spent(LINE))


@pytest.mark.parametrize(("way", "first"), [(cancel, "p"), (kill, "c"), (finish, "p"), (finish, "d")])
def test_a_crash_at_any_moment_of_the_ends_loses_nothing(way: Way, first: str) -> None:
    """The process is killed at every point between the first end and the last; the next one ends what is left."""
    points: list[int] = []

    def live(store: MemoryStore, main: Callable[[Runtime], Awaitable[Any]], start_s: float, crash_at: int | None) -> tuple[Any, float]:
        async def run(simulation: Simulation) -> Any:
            async with Runtime(store, [member], clock=simulation.clock, random=simulation.random) as runtime:
                return await main(runtime)

        life = Simulation(seed=1, start_s=start_s, crash_at=crash_at, max_points=100_000)
        return life.run(run), life.loop.time()

    async def ends(runtime: Runtime) -> None:
        loop: Any = asyncio.get_running_loop()
        await grow(runtime, LINE)
        points.append(loop.points)
        await way(runtime, first)
        await left(runtime, LINE[LINE.index(first) - 1 :])
        points.append(loop.points)

    async def ends_the_rest(runtime: Runtime) -> tuple[Any, int]:
        await cancel(runtime, "p")
        return await left(runtime, LINE)

    live(MemoryStore(), ends, 0.0, None)
    begun, over = points
    for crash_at in range(begun, over):
        store = MemoryStore()
        found, time_s = live(store, ends, 0.0, crash_at)
        assert isinstance(found, Crashed)
        store.crash()
        assert live(store, ends_the_rest, time_s, None)[0] == (100 - spent(LINE), 100 - spent(LINE)), crash_at
    assert over - begun > 20


@pytest.mark.parametrize("used", [10, 40, 77], ids=["within its part", "beyond it for a while", "beyond it"])
def test_what_a_person_added_to_a_parent_that_has_ended_is_not_passed_on(used: int) -> None:
    """p has 60 of g, and 50 of a person. It gives 30 to c, which spends two."""

    async def main(runtime: Runtime) -> tuple[Any, int]:
        await grow(runtime, "gpc")
        await runtime.session("p").raise_budget(Budget(steps=50))
        await runtime.session("p").ask(f"work {used}", timeout_s=600)
        await cancel(runtime, "p")
        return await left(runtime, "gpc")

    mine = 100 - 1 - min(60, 2 + 1 + 2 + used)
    assert World().life(member, main) == (mine, mine)


def test_nothing_passes_on_from_a_detached_parent() -> None:
    """Its budget is its own: nobody above it gave anything."""

    @agent(name="top", budget=Budget(steps=100))
    async def top(session: Session[Any], text: str) -> int | None:
        if text == "spawn":
            await session.spawn(member, id="p", detached=True)
        return session.budget.left.steps

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(top, id="g")
        await handle.ask("spawn")
        await runtime.session("p").ask("spawn c")
        await cancel(runtime, "p")
        await rest(runtime.session("c"))
        row = await runtime.session("p").row()
        return [await handle.ask("left"), row.usage.steps]

    assert World().life([member, top], main) == [99, 1]


class Forgetful(MemoryStore):
    """Writes the end of one session, and says that it does not know whether it did."""

    ending = ""

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        results = await super().apply(ops)
        if any(isinstance(op, EndSession) and op.session == self.ending for op in ops):
            self.ending = ""
            raise OutcomeUnknown("the answer was lost")
        return results


@pytest.mark.parametrize("unknown", "pcd")
def test_what_came_back_unseen_is_read_again(unknown: str) -> None:
    """Where it is unknown whether an end was written, also those above it know in the end what they have."""
    world = World()
    store = world.store = Forgetful()

    async def main(runtime: Runtime) -> tuple[Any, int]:
        await grow(runtime, LINE)
        store.ending = unknown
        with suppress(StoreError):
            await cancel(runtime, "p")
        await asyncio.sleep(5)
        return await left(runtime, LINE)

    assert world.life(member, main) == (100 - spent(LINE), 100 - spent(LINE))
