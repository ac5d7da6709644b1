"""A parked session takes no memory, in none of the observers."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from types import FunctionType, ModuleType
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from holdfast import Agent, Budget, Retry, Runtime, Session, agent, events, tool
from holdfast.clock import Clock
from holdfast.telemetry.frames import TurnFrame
from holdfast.telemetry.logs import EventLog
from holdfast.telemetry.plain import Plain
from holdfast.testing import Crashed
from holdfast.testing.simulation import SimulatedClock
from tests.unit.runtime.support import World, rest
from tests.unit.telemetry.support import Collected

COUNT = 50


async def one() -> int:
    return 1


@tool(effect="once", retry=Retry(attempts=1))
async def unsure() -> None:
    raise ConnectionError("cut")


@tool(effect="read", retry=Retry(attempts=1))
async def down() -> None:
    raise ConnectionError("down")


@tool(effect="once")
async def pay() -> int:
    return 1


@agent(budget=Budget(steps=1))
async def budget(session: Session[None], text: str) -> None:
    await session.step(one)
    await session.step(one)


@agent(park_after_s=0.0)
async def wait(session: Session[None], text: str) -> None:
    await session.step(one)
    await session.sleep(1e6)


@agent
async def doubt(session: Session[None], text: str) -> None:
    await session.step(unsure)


@agent
async def provider(session: Session[None], text: str) -> None:
    await session.step(down)


@agent
async def paused(session: Session[None], text: str) -> None:
    await session.gather(session.step(asyncio.sleep, 5.0), session.step(asyncio.sleep, 6.0))
    await session.step(one)


def kept(all: list[Any]) -> int:
    """The frames of turns that these observers hold; what running code has made current is not theirs."""
    frames, seen, look = 0, set[int](), list(all)
    while look:
        found = look.pop()
        if id(found) in seen or isinstance(found, type | ModuleType | FunctionType | logging.Logger | SimulatedClock):
            continue
        seen.add(id(found))
        frames += type(found) is TurnFrame
        look += gc.get_referents(found)
    return frames


@contextmanager
def observers(clock: Clock) -> Iterator[list[Any]]:
    """One of each kind."""
    sdk = TracerProvider()
    yield [Collected().recorder(clock), Plain(sdk, clock), EventLog(clock=clock)]
    sdk.shutdown()


def parked(world: World, one: Agent, reason: str, *, tell: bool = True) -> None:
    """Park sessions for that reason, and look what is left of them."""

    async def main(runtime: Runtime) -> None:
        with observers(SimulatedClock(asyncio.get_running_loop())) as all:
            for observer in all:
                runtime.observe(observer)
            handles = [await runtime.spawn(one, id=f"{reason}-{n}") for n in range(COUNT)]
            if tell:
                for handle in handles:
                    await handle.tell("go", id="m-1")
            if reason == "paused":
                await asyncio.sleep(1)
                assert kept(all) == COUNT * len(all)
                async with asyncio.TaskGroup() as group:
                    for handle in handles:
                        group.create_task(handle.pause("I said so"))
            for handle in handles:
                assert (await rest(handle)).park.reason == reason
            assert kept(all) == 0

    assert not isinstance(world.life(one, main), Crashed)


@pytest.mark.parametrize("one", [budget, wait, doubt, provider, paused], ids=lambda one: one.name)
def test_nothing_is_kept_of_sessions_that_park(one: Agent) -> None:
    """Whatever they park for, interrupted or after their handler raised."""
    parked(World(), one, one.name)


def test_nothing_is_kept_of_sessions_whose_record_nobody_asked_for() -> None:
    """They park when their handler has ended, without having been interrupted."""
    world = World()

    @agent(name="payer")
    async def before(session: Session[None], text: str) -> None:
        await session.step(pay)
        world.done.append(text)
        if len(world.done) == COUNT:
            await world.crash()
        await session.step(asyncio.sleep, 100.0)

    @agent(name="payer")
    async def after(session: Session[None], text: str) -> None:
        return

    async def main(runtime: Runtime) -> None:
        for n in range(COUNT):
            await (await runtime.spawn(before, id=f"unclaimed-{n}")).tell("go", id="m-1")
        await asyncio.sleep(100.0)

    world.life(before, main)
    parked(world, after, "unclaimed", tell=False)


@pytest.mark.parametrize("in_a_step", [False, True], ids=["at the commit", "in a step"])
def test_nothing_is_kept_of_a_session_that_another_process_took_over(in_a_step: bool) -> None:
    """A fence ends a run of a turn, too, wherever it is met."""

    class Frozen:
        def monotonic(self) -> float:
            return 1.0

        time = monotonic

    def tell(all: list[Any]) -> None:
        said: list[events.Event] = [events.TurnStarted("s", 1, "m-1", 0, "a", "t", "", "", 0.0)]
        failed, left = events.StoreFailed("s", "taken over"), events.TurnLeft("s", 1, "lost")
        if in_a_step:
            began = events.StepStarted("s", 1, b"key", "step", "one", "read", 0.5)
            said += [began, failed, events.StepLeft("s", 1, b"key", "step", "one"), left]
        else:
            said += [failed]
        for event in said:
            for observer in all:
                observer(event)

    with observers(Frozen()) as all:
        Context().run(tell, all)
        assert kept(all) == 0
