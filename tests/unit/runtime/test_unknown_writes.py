"""Writes of unknown outcome: what a step knows is written again, and no effect under way is cut for another one's write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
import pytest

from holdfast import Agent, NotDone, OutcomeUnknown, Runtime, Session, Usage, agent, tool
from holdfast.events import DoubtRaised, MaybePaid, StoreFailed
from holdfast.stores.ops import Op, WriteStep
from holdfast.stores.records import StepRecord, StepState
from tests.unit.runtime.support import World, steps

OPEN, CLOSED, FAILED, *_ = StepState


class Unsure:
    """Batches with a record of this step in this state have an unknown outcome, so many times; they are written, or not."""

    def __init__(self, name: str, state: StepState, *, written: bool, times: int = 1, after_s: float = 0.0) -> None:
        self.name, self.state, self.written, self.times, self.after_s = name, state, written, times, after_s
        self.meant = False

    async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
        self.meant = self.times > 0 and any(isinstance(op, WriteStep) and self._means(op) for op in ops)
        self.times -= self.meant
        if self.meant and not self.written:
            await self._fail()

    async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
        if self.meant:
            await self._fail()

    def _means(self, op: WriteStep) -> bool:
        return op.state is self.state and msgspec.msgpack.decode(op.body, type=StepRecord).name == self.name

    async def _fail(self) -> None:
        await asyncio.sleep(self.after_s)
        raise OutcomeUnknown("the connection was lost in the commit")


def asked(world: World, agents: Agent) -> Any:
    """The reply to one message."""

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(agents, id="s")).ask("go", timeout_s=1000)

    return world.life(agents, main)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("written", [True, False], ids=["written", "lost"])
@pytest.mark.parametrize("state", [OPEN, CLOSED])
@pytest.mark.parametrize("effect", ["once", "idempotent", "read"])
def test_an_effect_runs_once_whatever_became_of_its_records(effect: Any, state: StepState, written: bool, times: int) -> None:
    """Not begun: it runs. Done: its outcome is written again. No person is asked, and a paid answer is not bought twice."""
    world = World()
    world.store.faults = Unsure("act", state, written=written, times=times)

    @tool(effect=effect, cost=Usage(microusd=10))
    async def act() -> str:
        world.done.append("act")
        return "done"

    @agent(tools=[act])
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(act)

    assert asked(world, worker) == "done"
    assert world.done == ["act"]
    assert world.seen(DoubtRaised) == []
    assert state is OPEN or world.seen(MaybePaid) == []


@pytest.mark.parametrize("written", [True, False], ids=["written", "lost"])
def test_an_effect_that_did_not_happen_is_in_no_doubt(written: bool) -> None:
    """NotDone is an outcome like any other: the turn runs again, and asks for it again."""
    world = World()
    world.store.faults = Unsure("act", FAILED, written=written)

    @tool(effect="once")
    async def act() -> str:
        world.done.append("act")
        if len(world.done) == 1:
            raise NotDone("busy")
        return "done"

    @agent(tools=[act])
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(act)

    assert asked(world, worker) == "done"
    assert world.done == ["act", "act"]
    assert world.seen(DoubtRaised) == []


Together = Callable[[Session[Any], Any, Any], Any]


async def in_branches(session: Session[Any], one: Any, two: Any) -> Any:
    return await session.gather(session.step(one), session.step(two))


async def in_tasks(session: Session[Any], one: Any, two: Any) -> Any:
    return await asyncio.gather(session.step(one), session.step(two))


async def one_inside(session: Session[Any], one: Any, two: Any) -> Any:
    async def outer() -> str:
        return await session.step(one)

    return await session.gather(session.step(outer), session.step(two))


@pytest.mark.parametrize("state", [OPEN, CLOSED])
@pytest.mark.parametrize("written", [True, False], ids=["written", "lost"])
@pytest.mark.parametrize("together", [in_branches, in_tasks])
def test_an_effect_under_way_ends_though_the_write_of_another_is_unknown(together: Together, written: bool, state: StepState) -> None:
    """It is not cut, which would leave its outcome to a person; then the session is read again."""
    world = World()
    world.store.faults = Unsure("quick", state, written=written)

    @tool(effect="idempotent")
    async def quick() -> str:
        await asyncio.sleep(1)
        world.done.append("quick")
        return "quick"

    @tool(effect="once")
    async def slow() -> str:
        await asyncio.sleep(10)
        world.done.append("slow")
        return "slow"

    @agent(tools=[quick, slow])
    async def worker(session: Session[Any], text: str) -> Any:
        return list(await together(session, quick, slow))

    assert asked(world, worker) == ["quick", "slow"]
    assert sorted(world.done) == ["quick", "slow"]
    assert world.seen(DoubtRaised) == []


@pytest.mark.parametrize("written", [True, False], ids=["written", "lost"])
def test_a_step_whose_inner_step_is_unsure_does_not_wait_for_it(written: bool) -> None:
    """The outer step could never end: the turn is left at once, and both come to their end in the next run."""
    world = World()
    world.store.faults = Unsure("quick", CLOSED, written=written)

    @tool(effect="once")
    async def quick() -> str:
        world.done.append("quick")
        return "quick"

    @tool
    async def other() -> str:
        await asyncio.sleep(10)
        return "other"

    @agent(tools=[quick, other])
    async def worker(session: Session[Any], text: str) -> Any:
        return list(await one_inside(session, quick, other))

    assert asked(world, worker) == ["quick", "other"]
    assert world.done == ["quick"]


def test_a_step_whose_group_fails_while_it_is_unsure_is_not_cut() -> None:
    """The next run may fail no more, and then no code cancels the step: it does not wait for that."""
    world = World()
    world.store.faults = Unsure("quick", CLOSED, written=False)

    @tool(effect="once", timeout_s=10_000)
    async def quick() -> str:
        world.done.append("quick")
        return "quick"

    @tool
    async def other() -> str:
        await asyncio.sleep(20)
        return "other"

    async def stumbles() -> None:
        await asyncio.sleep(5)
        if "stumbled" not in world.done:
            world.done.append("stumbled")
            raise ValueError("a bug")

    @agent(tools=[quick, other])
    async def worker(session: Session[Any], text: str) -> Any:
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(session.step(each)) for each in (quick, other)]
            group.create_task(stumbles())
        return [task.result() for task in made]

    assert asked(world, worker) == ["quick", "other"]
    assert world.done == ["quick", "stumbled"]
    assert world.now_s() < 100


@pytest.mark.parametrize("written", [True, False], ids=["written", "lost"])
def test_an_effect_whose_caller_lets_go_while_its_outcome_is_written_keeps_it(written: bool) -> None:
    """The write comes to nothing after the caller's timeout: the outcome is known all the same, and the caller sees its timeout again."""
    world = World()
    world.store.faults = Unsure("act", CLOSED, written=written, times=2, after_s=5.0)

    @tool(effect="once")
    async def act() -> str:
        world.done.append("act")
        return "done"

    @agent(tools=[act])
    async def worker(session: Session[Any], text: str) -> str:
        with anyio.move_on_after(3):
            await session.step(act)
            return "in time"
        return "late"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        return await handle.ask("go", timeout_s=1000), [step.state for step in await steps(runtime, handle)]

    assert world.life(worker, main) == ("late", [CLOSED])
    assert world.done == ["act"]
    assert world.seen(DoubtRaised) == []


def test_a_handler_that_returns_while_a_write_is_unsure_is_run_again() -> None:
    """Its turn does not commit over records that may be other ones than those in memory."""
    world = World()
    world.store.faults = Unsure("act", OPEN, written=True)

    @tool(effect="once")
    async def act() -> str:
        world.done.append("act")
        return "done"

    @agent(tools=[act])
    async def worker(session: Session[Any], text: str) -> str:
        world.done.append("run")
        task = asyncio.ensure_future(session.step(act))
        await asyncio.wait((task,), timeout=5)
        return await task if task.done() else "not yet"

    assert asked(world, worker) == "done"
    assert world.done == ["run", "run", "act"]


@pytest.mark.parametrize("written", [True, False], ids=["written", "lost"])
@pytest.mark.parametrize("state", [OPEN, CLOSED])
def test_a_process_that_stops_writes_first_what_it_knows(state: StepState, written: bool) -> None:
    """It is stopped before the session could be read again: the next process asks no person, and does nothing twice."""
    world = World()
    world.store.faults = Unsure("act", state, written=written)

    @tool(effect="once")
    async def act() -> str:
        world.done.append("act")
        return "done"

    @agent(tools=[act])
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(act)

    async def stops(runtime: Runtime) -> None:
        failed = asyncio.Event()
        runtime.observe(lambda event: failed.set() if isinstance(event, StoreFailed) else None)
        await (await runtime.spawn(worker, id="s")).tell("go", id="m")
        await failed.wait()

    world.life(worker, stops)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m", timeout_s=1000)

    assert world.life(worker, main) == "done"
    assert world.done == ["act"]
    assert world.seen(DoubtRaised) == []


@pytest.mark.parametrize("rounds", range(8))
def test_a_child_whose_spawn_is_let_go_of_in_a_lost_write_is_made(rounds: int) -> None:
    """Its record, written again for the caller that let go, leaves with the child again: no record names a child that is not there."""
    world, lost = World(), asyncio.Event()

    class Lost(Unsure):
        async def _fail(self) -> None:
            lost.set()
            for _ in range(rounds):
                await asyncio.sleep(0)
            await super()._fail()

    world.store.faults = Lost("kid", CLOSED, written=False)

    @agent
    async def kid(session: Session[Any], text: str) -> str:
        return text

    async def fails() -> None:
        await lost.wait()
        raise ValueError("a bug")

    @agent
    async def parent(session: Session[Any], text: str) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(session.spawn(kid, id="kid"))
                group.create_task(fails())
        except* ValueError:
            pass
        await session.sleep(1)
        return "done"

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(parent, id="s")
        assert await handle.ask("go", timeout_s=1000) == "done"
        made = [step.state for step in await steps(runtime, handle) if step.record.kind == "spawn"]
        return made != [CLOSED] or await runtime.store.session("kid") is not None

    assert world.life([parent, kid], main)
