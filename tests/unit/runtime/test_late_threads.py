"""Threads that end while their session is paused or ended: what they bring is written, and no person is asked about it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from holdfast import Handle, Runtime, Session, agent, tool
from holdfast.events import Event, Resumed
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.ops import Op, UpdateSession, WriteStep
from holdfast.stores.records import StepState
from tests.unit.runtime.support import steps

THREAD_ENDS = threading.Event()


@tool(effect="once")
def pay() -> str:
    THREAD_ENDS.wait(20)
    return "paid"


@agent(tools=[pay])
async def worker(session: Session[Any], text: str) -> str:
    try:
        async with asyncio.timeout(0.05):
            await session.step(pay)
    except TimeoutError:
        await session.sleep(1000)
    return "done"


class Applied:
    """Tells when a batch with such an op was applied."""

    def __init__(self, means: Callable[[Op], bool]) -> None:
        self.means, self.done = means, asyncio.Event()

    async def before_apply(self, n: int, ops: Sequence[Op]) -> None: ...

    async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
        if any(self.means(op) for op in ops):
            self.done.set()


async def paused(runtime: Runtime, store: MemoryStore) -> Handle:
    """A session that is paused while the thread of an effect that its handler let go of still runs."""
    THREAD_ENDS.clear()
    let_go = store.faults = Applied(lambda op: isinstance(op, WriteStep) and op.state is StepState.DOUBT)
    handle = await runtime.spawn(worker, id="s")
    await handle.tell("go", id="m")
    await let_go.done.wait()
    await handle.pause()
    assert [step.state for step in await steps(runtime, handle) if step.record.name == "pay"] == [StepState.DOUBT]
    return handle


async def thread_ends(store: MemoryStore, means: Callable[[Op], bool]) -> None:
    """The thread ends; returns once the write that follows was applied."""
    follows = store.faults = Applied(means)
    THREAD_ENDS.set()
    await asyncio.wait_for(follows.done.wait(), 10)


async def test_a_person_does_not_decide_what_a_thread_has_brought_meanwhile() -> None:
    """The session was loaded again before the thread ended: its write was fenced, and is made again before a verdict counts."""
    store, loaded = MemoryStore(), asyncio.Event()

    def observe(event: Event) -> None:
        if isinstance(event, Resumed):
            loaded.set()

    async with Runtime(store, [worker]) as runtime:
        handle = await paused(runtime, store)
        runtime.observe(observe)
        await handle.tell("next", id="n")
        await loaded.wait()
        await thread_ends(store, lambda op: isinstance(op, WriteStep) and op.state is StepState.CLOSED)
        assert await handle.resolve("fail") == 0
        [step] = [step for step in await steps(runtime, handle) if step.record.name == "pay"]
        assert (step.state, step.record.note) == (StepState.CLOSED, "")


async def test_a_dead_letter_tells_what_a_thread_has_brought_meanwhile() -> None:
    """Its turn was given up while the thread ran: the verdict comes too late, and the letter lists the effect as done."""
    store = MemoryStore()
    async with Runtime(store, [worker]) as runtime:
        handle = await paused(runtime, store)
        await handle.drop(keep_letter=True)
        [letter] = await store.dead_letters()
        assert (letter.effects, letter.in_doubt) == ((), ("pay",))
        await thread_ends(store, lambda op: isinstance(op, WriteStep) and op.state is StepState.CLOSED)
        assert await handle.resolve("fail") == 0
        [letter] = await store.dead_letters()
        assert (letter.effects, letter.in_doubt) == (("pay",), ())
        await handle.drop()


@pytest.mark.parametrize("verb", [Handle.kill, Handle.cancel])
async def test_a_paused_session_that_is_ended_needs_no_person_once_its_thread_has_ended(verb: Callable[[Handle], Awaitable[bool]]) -> None:
    """Until then the outcome is unknown; then it is written, and the session leaves the list of those that need a person."""
    store = MemoryStore()
    async with Runtime(store, [worker]) as runtime:
        handle = await paused(runtime, store)
        await verb(handle)
        assert (await handle.row()).unresolved is not None
        await thread_ends(store, lambda op: isinstance(op, UpdateSession))
        assert (await handle.row()).unresolved is None
