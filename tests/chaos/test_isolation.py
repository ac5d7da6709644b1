"""Sessions that misbehave in every way they can, beside others that must not notice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Intensity, Runtime, Session, agent
from holdfast.errors import AskCycle, StepError
from holdfast.stores.memory.store import MemoryStore
from holdfast.testing import Simulation, for_each_seed, simulate

GOOD = 20


async def look(number: int) -> int:
    await asyncio.sleep(0.01)
    return number


@agent(version=1)
async def good(session: Session[list[int]], number: int) -> int:
    """Does its work, and counts its messages."""
    result = await session.step(look, number)
    session.state = [*(session.state or []), result]
    return len(session.state)


@agent(version=1, intensity=Intensity(3, 60.0))
async def raises(session: Session[None], text: str) -> None:
    await session.step(look, 1)
    raise RuntimeError("for ever")


@agent(version=1)
async def swallows(session: Session[None], text: str) -> None:
    for _ in range(1_000):  # seconds: longer than anybody waits for it
        try:
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            pass  # on purpose: it cannot be cancelled


@agent(version=1, mailbox=50)
async def floods(session: Session[None], text: str) -> None:
    for _ in range(3):
        await session.tell(session.id, text)


@agent(version=1, intensity=Intensity(3, 60.0))
async def recurses(session: Session[None], text: str) -> None:
    async def deeper() -> None:
        await deeper()

    await session.step(look, 2)
    await deeper()


@agent(version=1, intensity=Intensity(3, 60.0))
async def asks_itself(session: Session[None], text: str) -> str:
    try:
        await session.ask(session.id, text)
    except AskCycle as error:
        return error.type
    raise AssertionError("it got an answer from itself")


@agent(version=1, intensity=Intensity(3, 60.0))
async def ask_each_other(session: Session[None], text: str) -> Any:
    other = "left" if session.id == "right" else "right"
    try:
        return {"heard": await session.ask(other, text, timeout_s=30.0)}
    except StepError as error:
        return error.type


BAD = [raises, swallows, floods, recurses, asks_itself, ask_each_other]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_session_that_misbehaves_stops_no_other(bad: Any) -> None:
    """Twenty others get every answer, in order and on time, while it does its worst; and the runtime still stops."""

    async def main(simulation: Simulation) -> None:
        runtime = Runtime(MemoryStore(), [good, *BAD], clock=simulation.clock, random=simulation.random, drain_s=5.0)
        async with runtime:
            names = ["left", "right"] if bad is ask_each_other else ["bad"]
            for name in names:
                await runtime.spawn(bad, id=name)
            for name in names:
                await runtime.session(name).tell("go")
            handles = [await runtime.spawn(good, id=f"good-{i}") for i in range(GOOD)]
            for turn in range(1, 11):
                began = simulation.loop.time()
                answers = await asyncio.gather(*(handle.ask(turn, timeout_s=30.0) for handle in handles))
                assert answers == [turn] * GOOD
                assert simulation.loop.time() - began < 0.1
            if bad is swallows:
                assert await runtime.session("bad").kill("it does not listen")
                assert await handles[0].ask(11) == 11

    simulate(main, seed=1, max_points=300_000)


def test_asking_oneself_is_refused_at_once() -> None:
    """The wait could never end: the handler is told, and goes on."""

    async def main(simulation: Simulation) -> None:
        async with Runtime(MemoryStore(), [asks_itself], clock=simulation.clock, random=simulation.random) as runtime:
            assert await (await runtime.spawn(asks_itself, id="me")).ask("hello", timeout_s=5.0) == "AskCycle"

    simulate(main, max_points=50_000)


def test_two_sessions_that_ask_each_other_both_get_an_answer() -> None:
    """One of them is refused at once, since the wait would be a circle; it goes on, and answers the other."""

    async def main(simulation: Simulation) -> None:
        async with Runtime(MemoryStore(), [ask_each_other], clock=simulation.clock, random=simulation.random) as runtime:
            left, right = [await runtime.spawn(ask_each_other, id=name) for name in ("left", "right")]
            answers = await asyncio.gather(left.ask("hello", timeout_s=100.0), right.ask("hello", timeout_s=100.0))
            assert sorted(answers, key=str) == ["AskCycle", {"heard": "AskCycle"}]
            assert simulation.loop.time() == 0.0

    for_each_seed(lambda seed: simulate(main, seed=seed, max_points=50_000), range(5))


def test_one_that_recurses_or_raises_becomes_a_dead_letter() -> None:
    """After its own intensity is spent; the text says what it died of."""

    async def main(simulation: Simulation) -> None:
        store = MemoryStore()
        async with Runtime(store, BAD, clock=simulation.clock, random=simulation.random) as runtime:
            for bad in (raises, recurses):
                handle = await runtime.spawn(bad, id=bad.name)
                with pytest.raises(Exception, match="could not handle"):
                    await handle.ask("go", timeout_s=60.0)
                assert (await handle.row()).status == "failed"
            letters = {letter.session: letter.cause for letter in await store.dead_letters()}
            assert "RuntimeError: for ever" in letters["raises"]
            assert "RecursionError" in letters["recurses"]

    simulate(main, max_points=50_000)


@agent(version=1)
async def swallows_until_told(session: Session[None], text: str) -> None:
    """As `swallows`, but in real time something has to end it."""
    while not _told.is_set():
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass  # on purpose: it cannot be cancelled


_told = asyncio.Event()


@pytest.mark.parametrize("bad", [raises, swallows_until_told, floods, recurses, asks_itself, ask_each_other], ids=lambda bad: bad.name)
async def test_a_session_that_misbehaves_stops_no_other_on_postgres(bad: Any, postgres_url: str) -> None:
    """The same in real time on a real server: every answer, in order, and the runtime still stops."""
    _told.clear()
    async with Runtime(postgres_url, [good, *BAD, swallows_until_told], drain_s=0.5) as runtime:
        names = ["left", "right"] if bad is ask_each_other else ["bad"]
        for name in names:
            await runtime.spawn(bad, id=name)
        for name in names:
            await runtime.session(name).tell("go")
        handles = [await runtime.spawn(good, id=f"good-{i}") for i in range(GOOD)]
        for turn in range(1, 6):
            answers = await asyncio.gather(*(handle.ask(turn, timeout_s=10.0) for handle in handles))
            assert answers == [turn] * GOOD
        if bad is swallows_until_told:
            assert await runtime.session("bad").kill("it does not listen")
            assert await handles[0].ask(6, timeout_s=10.0) == 6
    _told.set()
