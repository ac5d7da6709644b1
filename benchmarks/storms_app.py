"""The sessions in the storms, and their callers: turns of a free read, a paid read, a note and two `once` effects, without end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from benchmarks.storms_world import World
from holdfast import Handle, NotDone, ReplyTimeout, Runtime, Session, StepContext, StoreError, Usage, agent, tool
from holdfast.clock import Clock
from holdfast.events import Event, StoreFailed
from holdfast.stores.protocol import Store
from holdfast.stores.records import Session as Row
from holdfast.stores.records import in_doubt

T = TypeVar("T")

PATIENCE_S = 120.0
"""After a storm, all must be answered within so many seconds."""

world, chance = World(), random.Random()
"""The world of the present storm, and what draws its times."""


class Work(msgspec.Struct):
    """The arguments of each step."""

    session: str
    message: str


async def _run(name: str, work: Work, key: str = "") -> str:
    """One run of a tool: 20 to 200 ms, its effect in the middle. `key`: it is made once for each key."""
    runs = world.runs[work.session, work.message, name]
    runs.begun += 1
    await asyncio.sleep(chance.uniform(0.01, 0.1))
    runs.made += not key or key not in world.keys
    world.keys.update({key} if key else ())
    await asyncio.sleep(chance.uniform(0.01, 0.1))
    runs.returned += 1
    return name


@tool
async def look(work: Work) -> str:
    return await _run("look", work)


@tool(cost=Usage(microusd=10))
async def answer(work: Work) -> str:
    return await _run("answer", work)


@tool(effect="idempotent")
async def note(work: Work, context: StepContext) -> str:
    return await _run("note", work, context.key)


async def _paid(work: Work) -> str:
    """Did this payment happen?"""
    world.reconciled += 1
    if world.runs[work.session, work.message, "pay"].made == 0:
        raise NotDone
    return "pay"


@tool(effect="once", reconcile=_paid, timeout_s=2.0)
async def pay(work: Work) -> str:
    return await _run("pay", work)


@tool(effect="once")
async def charge(work: Work) -> str:
    return await _run("charge", work)


@tool
async def confirm(work: Work) -> str:
    return await _run("confirm", work)


@agent(tools=[look, answer, note, pay, charge, confirm])
async def worker(session: Session[list[str]], message: str) -> str:
    """One turn in three has its steps in a row, one has them at once, and one has them in tasks of its own."""
    work = Work(session.id, message)
    await session.step(look, work)
    steps = [session.step(step, work) for step in (answer, note, pay, charge)]
    match int(message[1:]) % 3:
        case 0:
            for step in steps:
                await step
        case 1:
            await session.gather(*steps)
        case _:
            await asyncio.gather(*steps)
    await session.step(confirm, work)
    return f"done {message}"


# ---------------------------------------------------------------- the callers


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    """Make the call until the store takes it, and the reply is there: each has an id, so a second one changes nothing."""
    while True:
        try:
            return await call()
        except StoreError:
            world.refused += 1
        except ReplyTimeout:
            pass
        await asyncio.sleep(chance.uniform(0.05, 0.2))


async def _feed(handle: Handle, over: asyncio.Event) -> None:
    """Send one message after the other until the storm is over."""
    number = 0
    while not over.is_set():
        message = f"m{number}"
        await _insist(lambda: handle.tell(message, id=message))  # noqa: B023 — called at once
        world.accepted[handle.id].add(message)
        world.answers[handle.id][message] = await _insist(lambda: handle.ask(message, id=message, timeout_s=30))  # noqa: B023
        number += 1


def _needs_a_person(row: Row) -> bool:
    park = row.park
    return row.status == "failed" or (row.status == "parked" and (park is None or (park.until is None and not park.waits_on)))


async def _ask_people(runtime: Runtime, handles: list[Handle]) -> None:
    """Note the sessions that need a person, with the reason, and resolve their doubts as a person would who can see the world."""
    for handle in handles:
        row = await _insist(handle.row)
        if not _needs_a_person(row):
            continue
        doubts = [step for step in await runtime.store.steps(handle.id, row.turn + 1) if in_doubt(step)]
        # Each session has one message at a time.
        runs = {step.key: world.runs[handle.id, f"m{len(world.answers[handle.id])}", step.record.name] for step in doubts}
        why = row.status if row.park is None else row.park.text
        (world.known if all(run.known for run in runs.values()) else world.unknown)[handle.id] = why
        for step in doubts:
            await handle.resolve("done" if runs[step.key].made else "retry", step=step.key.hex(), result=step.record.name)


def _note(event: Event) -> None:
    world.unsure += isinstance(event, StoreFailed)


async def _watch(runtime: Runtime) -> None:
    """Sum up the time in which the store takes no write."""
    now = asyncio.get_running_loop().time
    while True:
        began = now()
        await asyncio.sleep(0.02)
        world.down_s += 0.0 if runtime.statistics()["ready"] else now() - began


async def _settled(handles: list[Handle], feeds: list[asyncio.Task[None]]) -> tuple[set[asyncio.Task[None]], float]:
    """Wait until each caller has its answer, or its session needs a person; the callers left, and when the last got its answer."""
    now, waiting = asyncio.get_running_loop().time, set(feeds)
    last, until = now(), now() + PATIENCE_S
    while waiting and now() < until:
        done, waiting = await asyncio.wait(waiting, timeout=1.0)
        last = now() if done else last
        left = [handle for handle, feed in zip(handles, feeds, strict=True) if feed in waiting]
        if not done and all([_needs_a_person(await _insist(handle.row)) for handle in left]):
            break
    return waiting, last


async def run(
    store: str | Store, sessions: int, storm: Callable[[], Awaitable[object]], clock: Clock | None = None, seed: int | None = None
) -> tuple[World, float]:
    """Run sessions in a storm, until each accepted message is answered; with a person at the end, for those that need one.

    Args:
        clock, seed: for a simulation, which is the same each time.

    Returns:
        The world, and the seconds from the end of the storm until all was answered that needed no person.
    """
    global world, chance
    world, chance = World(), random.Random(seed)
    over = asyncio.Event()
    async with Runtime(store, [worker], telemetry=False, clock=clock, random=random.Random(seed)) as runtime:
        runtime.observe(_note)
        watch = asyncio.ensure_future(_watch(runtime))
        handles = [await runtime.spawn(worker, id=f"s-{n}", state=[]) for n in range(sessions)]
        feeds = [asyncio.ensure_future(_feed(handle, over)) for handle in handles]
        await asyncio.sleep(1.0)
        await storm()
        over.set()
        began = asyncio.get_running_loop().time()
        waiting, last = await _settled(handles, feeds)
        if waiting:
            await _ask_people(runtime, handles)
            _, waiting = await asyncio.wait(waiting, timeout=PATIENCE_S)
        for task in (watch, *feeds):
            task.cancel()
        await asyncio.gather(watch, *feeds, return_exceptions=True)
    return world, last - began
