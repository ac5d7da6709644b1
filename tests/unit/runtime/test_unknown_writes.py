"""Writes of unknown outcome: what a step knows is written again, and no effect under way is cut for another one's write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import msgspec
import pytest

from holdfast import Agent, Handle, NotDone, OutcomeUnknown, Runtime, Session, Usage, agent, tool
from holdfast.errors import SessionError, WriteRefused
from holdfast.events import DoubtRaised, Event, MaybePaid, StoreFailed
from holdfast.stores.ops import CommitTurn, Enqueue, Op, WriteStep
from holdfast.stores.records import StepRecord, StepState
from holdfast.testing import Crashed
from tests.unit.runtime.support import World, rest, steps

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


def effect(world: World, name: str = "act", kind: Any = "once", *, takes_s: float = 0.0, **options: Any) -> Any:
    """An effect that takes so long, notes its name, and gives it back."""

    async def work() -> str:
        if takes_s:
            await asyncio.sleep(takes_s)
        world.done.append(name)
        return name

    return tool(name=name, effect=kind, **options)(work)


def acting(world: World, **options: Any) -> Agent:
    """An agent that performs one effect, `act`."""
    act = effect(world, **options)

    @agent(tools=[act])
    async def worker(session: Session[Any], text: str) -> str:
        return await session.step(act)

    return worker


def asked(world: World, agents: Agent) -> Any:
    """The reply to one message."""

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(agents, id="s")).ask("go", timeout_s=1000)

    return world.life(agents, main)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("written", [True, False], ids=["written", "lost"])
@pytest.mark.parametrize("state", [OPEN, CLOSED])
@pytest.mark.parametrize("kind", ["once", "idempotent", "read"])
def test_an_effect_runs_once_whatever_became_of_its_records(kind: Any, state: StepState, written: bool, times: int) -> None:
    """Not begun: it runs. Done: its outcome is written again. No person is asked, and a paid answer is not bought twice."""
    world = World()
    world.store.faults = Unsure("act", state, written=written, times=times)
    assert asked(world, acting(world, kind=kind, cost=Usage(microusd=10))) == "act"
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
    quick, slow = effect(world, "quick", "idempotent", takes_s=1), effect(world, "slow", takes_s=10)

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
    quick, other = effect(world, "quick"), effect(world, "other", "read", takes_s=10)

    @agent(tools=[quick, other])
    async def worker(session: Session[Any], text: str) -> Any:
        return list(await one_inside(session, quick, other))

    assert asked(world, worker) == ["quick", "other"]
    assert world.done.count("quick") == 1


def test_a_step_whose_group_fails_while_it_is_unsure_is_not_cut() -> None:
    """The next run may fail no more, and then no code cancels the step: it does not wait for that."""
    world = World()
    world.store.faults = Unsure("quick", CLOSED, written=False)
    quick, other = effect(world, "quick", timeout_s=10_000), effect(world, "other", "read", takes_s=20)

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
    assert (world.done.count("quick"), world.done.count("stumbled")) == (1, 1)
    assert world.now_s() < 100


@pytest.mark.parametrize("written", [True, False], ids=["written", "lost"])
def test_an_effect_whose_caller_lets_go_while_its_outcome_is_written_keeps_it(written: bool) -> None:
    """The write comes to nothing after the caller's timeout: the outcome is known all the same, and the caller sees its timeout again."""
    world = World()
    world.store.faults = Unsure("act", CLOSED, written=written, times=2, after_s=5.0)
    act = effect(world)

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
    act = effect(world)

    @agent(tools=[act])
    async def worker(session: Session[Any], text: str) -> str:
        world.done.append("run")
        task = asyncio.ensure_future(session.step(act))
        await asyncio.wait((task,), timeout=5)
        return await task if task.done() else "not yet"

    assert asked(world, worker) == "act"
    assert world.done == ["run", "run", "act"]


@pytest.mark.parametrize("written", [True, False], ids=["written", "lost"])
@pytest.mark.parametrize("state", [OPEN, CLOSED])
def test_a_process_that_stops_writes_first_what_it_knows(state: StepState, written: bool) -> None:
    """It is stopped before the session could be read again: the next process asks no person, and does nothing twice."""
    world = World()
    world.store.faults = Unsure("act", state, written=written)
    worker = acting(world)

    async def stops(runtime: Runtime) -> None:
        failed = asyncio.Event()
        runtime.observe(lambda event: failed.set() if isinstance(event, StoreFailed) else None)
        await (await runtime.spawn(worker, id="s")).tell("go", id="m")
        await failed.wait()

    world.life(worker, stops)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m", timeout_s=1000)

    assert world.life(worker, main) == "act"
    assert world.done == ["act"]
    assert world.seen(DoubtRaised) == []


def test_at_a_stop_a_session_that_cannot_be_loaded_keeps_no_other_from_being_written() -> None:
    """What is known of that one alone is lost with the process: its effect is in doubt at the next start."""
    world, restore = World(), list[Callable[[], None]]()
    world.store.faults = Unsure("act", CLOSED, written=False)
    worker = acting(world, takes_s=1)

    async def stops(runtime: Runtime) -> None:
        failed = asyncio.Event()

        def fails(event: Event) -> None:
            if isinstance(event, StoreFailed) and not restore:
                restore.append(world.lose("b"))
                failed.set()

        runtime.observe(fails)
        for id in ("a", "b", "c"):
            await (await runtime.spawn(worker, id=id)).tell("go", id="m")
        await failed.wait()

    async def main(runtime: Runtime) -> Any:
        lost = await rest(runtime.session("b"))
        return [await runtime.session(id).ask("go", id="m", timeout_s=1000) for id in ("a", "c")], lost.park.reason

    assert not isinstance(world.life(worker, stops), Crashed)
    assert {event.session for event in world.seen(StoreFailed)} == {"a", "b", "c"}
    restore[0]()
    assert world.life(worker, main) == (["act", "act"], "doubt")
    assert world.done == ["act"] * 3


@pytest.mark.parametrize("rounds", range(24))
def test_a_turn_that_is_given_up_after_a_lost_write_tells_what_was_done(rounds: int) -> None:
    """Whenever a person drops it: what the process knows is in the dead letter, and the next turn can read it."""
    world = World()
    world.store.faults = Unsure("act", CLOSED, written=False)
    act = effect(world)

    @agent(tools=[act])
    async def worker(session: Session[Any], text: str) -> Any:
        if text == "next":
            return list(session.dropped_effects)
        await session.step(act)
        await session.sleep(1000)

    async def main(runtime: Runtime) -> Any:
        handle = await in_the_middle(runtime, worker, rounds)
        while True:
            try:
                await handle.drop()
                return await handle.ask("next", timeout_s=1000)
            except SessionError:  # it is just being read again
                await asyncio.sleep(0)

    assert world.life(worker, main) == ["act"]
    assert world.done == ["act"]


@pytest.mark.parametrize("verb", [Handle.kill, Handle.cancel])
@pytest.mark.parametrize("rounds", range(24))
def test_a_session_that_ends_after_a_lost_write_needs_no_person(rounds: int, verb: Callable[[Handle], Awaitable[bool]]) -> None:
    """Whenever it is ended: the outcome that the process knows is written."""
    world = World()
    world.store.faults = Unsure("act", CLOSED, written=False)
    worker = acting(world)

    async def main(runtime: Runtime) -> Any:
        handle = await in_the_middle(runtime, worker, rounds)
        await verb(handle)
        await asyncio.sleep(10)
        row = await handle.row()
        return row.unresolved, [step.state for step in await steps(runtime, handle)]

    assert world.life(worker, main) == (None, [CLOSED])
    assert world.done == ["act"]


@pytest.mark.parametrize("rounds", range(24))
def test_a_session_that_is_paused_after_a_lost_write_is_in_no_doubt(rounds: int) -> None:
    """Whenever a person pauses it: the outcome that the process knows is written before, so that there is nothing to resolve."""
    world = World()
    world.store.faults = Unsure("act", CLOSED, written=False)
    worker = acting(world)

    async def main(runtime: Runtime) -> Any:
        handle, paused = await in_the_middle(runtime, worker, rounds), False
        while not paused:
            try:
                await handle.pause()
                paused = True
            except SessionError:  # it is just being read again
                await asyncio.sleep(0)
        states = [step.state for step in await steps(runtime, handle)]
        resolved = await handle.resolve("retry")
        await handle.resume()
        return states, resolved, await handle.ask("go", id="m", timeout_s=1000)

    assert world.life(worker, main) == ([CLOSED], 0, "act")
    assert world.done == ["act"]


async def in_the_middle(runtime: Runtime, worker: Agent, rounds: int) -> Handle:
    """A session, so many rounds of the loop after it heard that a write of it may be lost."""
    failed = asyncio.Event()
    runtime.observe(lambda event: failed.set() if isinstance(event, StoreFailed) else None)
    handle = await runtime.spawn(worker, id="s")
    await handle.tell("go", id="m")
    await failed.wait()
    for _ in range(rounds):
        await asyncio.sleep(0)
    return handle


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


def test_a_session_whose_write_is_refused_while_another_is_unsure_is_read_again() -> None:
    """A message that may be in the store, and that memory does not have, is not left there: asked for again, it is answered."""
    world = World()

    class Weather:
        """The write of the second message has an unknown outcome; the first commit after that is refused."""

        lost = refused = False

        async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
            if self.lost and not self.refused and any(isinstance(op, CommitTurn) for op in ops):
                self.refused = True
                raise WriteRefused("a fault of this write")

        async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
            if not self.lost and any(isinstance(op, Enqueue) and op.id == "second" for op in ops):
                self.lost = True
                raise OutcomeUnknown("the connection was lost in the commit")

    weather = world.store.faults = Weather()
    look, returned = effect(world, "look", "read"), list[str]()

    @agent(tools=[look])
    async def worker(session: Session[Any], text: str) -> str:
        async def ends_late() -> None:
            await session.step(look)
            for _ in range(4):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.2)

        if not returned:
            late = asyncio.create_task(ends_late())
            await asyncio.wait((late,), timeout=0.1)
            returned.append(text)
        return text

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("first", id="first")
        await asyncio.sleep(0.15)
        assert returned == ["first"]
        with pytest.raises(OutcomeUnknown):
            await handle.tell("second", id="second")
        return [await handle.ask(text, id=text, timeout_s=1000) for text in ("first", "second")]

    assert world.life(worker, main) == ["first", "second"]
    assert weather.refused
