"""Children: a part of the budget, an end together with their parent, a result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from holdfast import Agent, Budget, Intensity, Runtime, Session, StepError, TurnFailed, agent
from holdfast.events import SessionEndedEvent, Spawned
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.ops import CreateSession, Op, Result, WriteStep
from holdfast.testing import Crashed
from tests.unit.runtime.support import World, rest


async def free(number: int) -> int:
    return number


@agent(name="child")
async def child(session: Session[Any], text: str) -> str:
    if text == "wait":
        await session.sleep(100_000)
    for number in range(3):
        await session.step(free, number)
    session.finish(f"result of {text}")
    return f"reply to {text}"


def parent_of(count: int, *, part: Budget | None = None, detached: bool = False, budget: Budget | None = None) -> Agent:
    @agent(name="parent", budget=budget, intensity=Intensity(0, 60.0))
    async def parent(session: Session[Any], text: str) -> str:
        for number in range(count):
            made = await session.spawn(child, id=f"c{number}", budget=part, detached=detached)
            if text == "ask":
                await made.ask("work")
            else:
                await made.tell("wait")
        if text.endswith("bug"):
            raise ValueError("a bug")
        return str(session.budget.left.steps)

    return parent


async def left_of(runtime: Runtime, id: str) -> int:
    row = await runtime.session(id).row()
    assert row.budget.steps is not None
    return row.budget.steps - row.usage.steps


@pytest.mark.parametrize("part", [Budget(steps=10), None], ids=["part", "no part"])
def test_what_a_child_did_not_spend_comes_back(part: Budget | None) -> None:
    """In the end the parent is short of its own steps and of what the child used, and of nothing else."""
    parent = parent_of(1, part=part, budget=Budget(steps=50))

    async def main(runtime: Runtime) -> int:
        handle = await runtime.spawn(parent, id="p")
        await handle.ask("ask")
        await asyncio.sleep(1)
        return await left_of(runtime, "p")

    # spawn and ask of the parent, three steps of the child
    assert World().life([parent, child], main) == 50 - 2 - 3


def test_a_childs_part_is_reserved_while_it_lives() -> None:
    """Parent and child cannot spend the same step."""
    parent = parent_of(2, part=Budget(steps=10), budget=Budget(steps=50))

    async def main(runtime: Runtime) -> list[Any]:
        reply = await (await runtime.spawn(parent, id="p")).ask("go")
        await asyncio.sleep(1)
        return [reply, (await runtime.session("c0").row()).budget.steps]

    assert World().life([parent, child], main) == [str(50 - 2 - 20), 10]


def test_cancelling_the_parent_ends_its_children_in_reverse_and_takes_their_rest_back() -> None:
    """The last one first, each answered; their unspent budget is the parent's."""
    world = World()
    parent = parent_of(3, part=Budget(steps=10), budget=Budget(steps=50))

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(parent, id="p")
        await handle.ask("go")
        await asyncio.sleep(1)
        await handle.cancel("over")
        rows = [await runtime.session(f"c{number}").row() for number in range(3)]
        return [*(row.status for row in rows), await left_of(runtime, "p")]

    # three spawns, and the sleep of each child
    assert world.life([parent, child], main) == ["cancelled"] * 3 + [50 - 3 - 3]
    assert [event.session for event in world.seen(SessionEndedEvent) if event.session != "p"] == ["c2", "c1", "c0"]


def test_a_detached_child_lives_on() -> None:
    """It neither ends with its parent nor uses its budget."""
    parent = parent_of(1, detached=True, budget=Budget(steps=50))

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(parent, id="p")
        await handle.ask("go")
        await asyncio.sleep(1)
        await handle.cancel()
        await asyncio.sleep(1)
        return [(await runtime.session("c0").row()).status, await left_of(runtime, "p")]

    assert World().life([parent, child], main) == ["parked", 49]


def test_the_children_of_a_turn_that_is_given_up_end() -> None:
    """While its dead letter can still be retried they live, for the turn would find them; once it is dropped nobody knows them."""
    parent = parent_of(2)

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(parent, id="p")
        with pytest.raises(TurnFailed):
            await handle.ask("made, then a bug")
        await asyncio.sleep(1)
        before = [(await runtime.session(f"c{number}").row()).status for number in range(2)]
        await handle.drop()
        await asyncio.sleep(1)
        return [before, [(await runtime.session(f"c{number}").row()).status for number in range(2)]]

    assert World().life([parent, child], main) == [["idle", "idle"], ["cancelled", "cancelled"]]


def test_a_crash_at_any_moment_of_a_drop_leaves_no_child_and_no_budget_behind() -> None:
    """The process is killed at every point of it; the next one ends the children of a turn that was dropped, or drops it then."""
    parent, points = parent_of(2, part=Budget(steps=30), budget=Budget(steps=100)), list[int]()

    async def first(runtime: Runtime) -> None:
        loop: Any = asyncio.get_running_loop()
        handle = await runtime.spawn(parent, id="p")
        with pytest.raises(TurnFailed):
            await handle.ask("made, then a bug")
        await asyncio.sleep(1)
        points.append(loop.points)
        await handle.drop()
        for number in range(2):
            await rest(runtime.session(f"c{number}"))
        points.append(loop.points)

    async def second(runtime: Runtime) -> Any:
        handle = runtime.session("p")
        if (await handle.row()).status == "failed":
            await handle.drop()
        await asyncio.sleep(1)
        return [(await runtime.session(f"c{number}").row()).status for number in range(2)], await left_of(runtime, "p")

    World().life([parent, child], first)
    begun, over = points
    for crash_at in range(begun, over):
        world = World()
        assert isinstance(world.life([parent, child], first, crash_at=crash_at), Crashed)
        # Two spawns cost a step each; the children got no message, since the turn that sent it was not committed.
        assert world.life([parent, child], second) == (["cancelled", "cancelled"], 98), crash_at
    assert over - begun > 20


def test_the_children_of_a_failed_parent_live_over_a_restart() -> None:
    """A retry in the next process finds them as they were."""
    world, parent = World(), parent_of(1)

    async def first(runtime: Runtime) -> None:
        with pytest.raises(TurnFailed):
            await (await runtime.spawn(parent, id="p")).ask("made, then a bug")
        await world.crash()

    async def second(runtime: Runtime) -> str:
        await asyncio.sleep(5)
        return (await runtime.session("c0").row()).status

    world.life([parent, child], first)
    assert world.life([parent, child], second) == "idle"


def test_a_crash_between_the_ends_of_parent_and_child_is_made_good_at_the_next_start() -> None:
    """Children of an ended parent do not stay behind."""
    world = World()
    parent = parent_of(2)

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(parent, id="p")
        await handle.ask("go")
        await asyncio.sleep(1)

        def observe(event: object) -> None:
            if isinstance(event, SessionEndedEvent) and event.session == "p":
                asyncio.get_running_loop().kill()  # type: ignore[attr-defined]

        runtime.observe(observe)
        await handle.cancel()

    async def second(runtime: Runtime) -> list[str]:
        await asyncio.sleep(5)
        return [(await runtime.session(f"c{number}").row()).status for number in range(2)]

    world.life([parent, child], first)
    assert world.life([parent, child], second) == ["cancelled", "cancelled"]


def test_a_child_is_made_once_over_crashes() -> None:
    """Its id derives from its spawn step, so that a turn that runs again finds it."""
    world = World()

    @agent(name="parent")
    async def parent(session: Session[Any], text: str) -> list[str]:
        made = [(await session.spawn(child)).id for _ in range(2)]
        if world.lives < 3:
            await world.crash()
        return made

    async def main(runtime: Runtime) -> list[Any]:
        reply = await (await runtime.spawn(parent, id="p")).ask("go", id="m")
        return [reply, [row.id for row in await runtime.store.children("p")]]

    world.life([parent, child], main)
    world.life([parent, child], main)
    reply, children = world.life([parent, child], main)
    assert reply == children
    assert len(set(reply)) == 2
    assert len([event for event in world.seen(Spawned) if event.agent == "child"]) == 2


def test_a_parent_told_what_its_child_finished_with() -> None:
    """tell, then result: what was told leaves before the wait, or the two would wait for each other."""

    @agent(name="parent")
    async def parent(session: Session[Any], text: str) -> Any:
        made = await session.spawn(child)
        await made.tell("work")
        return await made.result()

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(parent, id="p")).ask("go")

    assert World().life([parent, child], main) == "result of work"


def test_the_result_of_a_cancelled_child_is_an_error() -> None:
    """The parent that waits is told; it goes on in its own turn."""

    @agent(name="parent")
    async def parent(session: Session[Any], text: str) -> str:
        made = await session.spawn(child, id="c")
        await made.ask("wait", timeout_s=1) if text == "never" else None
        try:
            return str(await made.result())
        except StepError as error:
            return error.type

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(parent, id="p")
        await handle.tell("go", id="m")
        await rest(handle)
        await runtime.session("c").cancel("no more")
        return await handle.ask("go", id="m")

    assert World().life([parent, child], main) == "cancelled"


@pytest.mark.parametrize("taken", ["tenant", "agent", "not a child"])
def test_a_child_cannot_take_over_a_session_that_is_there(taken: str) -> None:
    """The id of somebody else's session is refused as it is outside, and nothing is charged for it."""

    @agent(name="other")
    async def other(session: Session[Any], text: str) -> str:
        return text

    @agent(name="parent", budget=Budget(steps=50))
    async def parent(session: Session[Any], text: str) -> str:
        try:
            await session.spawn(child, id="x", budget=Budget(steps=20))
        except StepError as error:
            return f"{error.type} {session.budget.left.steps}"
        return "taken over"

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(other if taken == "agent" else child, id="x", tenant="globex" if taken == "tenant" else "acme")
        return await (await runtime.spawn(parent, id="p", tenant="acme")).ask("go")

    assert World().life([parent, child, other], main) == "SessionConflict 49"


class Rival(MemoryStore):
    """Another makes session "x" just before a spawn is written; after that the process dies."""

    rival: CreateSession | None = None
    dies: Callable[[], object] | None = None

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        made = [sent for op in ops if isinstance(op, WriteStep) for sent in op.outbox if isinstance(sent, CreateSession)]
        if not made or self.rival is None:
            return await super().apply(ops)
        rival, self.rival = self.rival, None
        results = (await super().apply((rival, *ops)))[1:]
        if self.dies is not None:
            self.dies()
        return results


@pytest.mark.parametrize("dies", [False, True], ids=["live", "over a crash"])
def test_nothing_stays_charged_for_a_child_whose_id_was_taken_meanwhile(dies: bool) -> None:
    """Also where the process dies before it has found out: the spawn fails, and its part comes back."""
    world = World()
    store = world.store = Rival()
    store.rival = CreateSession("x", "child", "", "", 1, b"\xc0", Budget(), b"", 0.0)

    @agent(name="parent", budget=Budget(steps=50))
    async def parent(session: Session[Any], text: str) -> list[Any]:
        found: list[Any] = []
        try:
            await session.spawn(child, id="x", budget=Budget(steps=20))
        except StepError as error:
            found = [error.type, session.budget.left.steps]
        await session.sleep(1)
        return found

    async def first(runtime: Runtime) -> Any:
        if dies:
            store.dies = asyncio.get_running_loop().kill  # type: ignore[attr-defined]
        return await (await runtime.spawn(parent, id="p")).ask("go", id="m")

    async def second(runtime: Runtime) -> Any:
        return [await runtime.session("p").ask("go", id="m"), (await runtime.session("p").row()).usage.steps]

    found = world.life([parent, child], first)
    assert isinstance(found, Crashed) == dies
    store.dies = None
    assert world.life([parent, child], second) == [["SessionConflict", 49], 2]
