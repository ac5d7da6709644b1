"""How long a turn took, as `show` prints it: from its first run to its commit, and how much of that its steps were active and waited."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from holdfast import Budget, Runtime, Session, agent
from holdfast.console.cli import render
from holdfast.console.reading import inspect, timeline
from holdfast.console.reading.views import Detail
from holdfast.testing.simulation import EPOCH_S
from tests.unit.runtime.support import BAD, World


async def work(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def shown(runtime: Runtime) -> Detail:
    detail = await inspect.detail(runtime.store, "s")
    listed = [entry for entry in (await timeline.read(runtime.store, "s")).entries if entry.what == "turn"]
    assert [entry.duration_s for entry in listed] == [turn.duration_s for turn in detail.turns if not turn.open], "the timeline agrees"
    return detail


def printed(detail: Detail, capsys: pytest.CaptureFixture[str]) -> str:
    render.show(detail)
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("turn 1"))


def test_a_turn_over_a_crash_took_from_its_first_run_to_its_commit(capsys: pytest.CaptureFixture[str]) -> None:
    """A process that was killed after 2 s of work and 5 s later began again: its last run alone took no time."""
    world = World()

    @agent
    async def support(session: Session[Any], text: str) -> str:
        await session.step(work, 2.0)
        if world.lives == 1:
            await asyncio.sleep(3.0)
            await world.crash()
        return "done"

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(support, id="s")
        await handle.ask("go", id="m")

    async def second(runtime: Runtime) -> Detail:
        await runtime.session("s").ask("go", id="m")
        return await shown(runtime)

    world.life(support, first)
    world.time_s += 5.0
    detail = world.life(support, second)
    (turn,) = detail.turns
    assert turn.duration_s == pytest.approx(10.0, abs=0.01)
    assert (turn.active_s, turn.waiting_s) == (pytest.approx(2.0, abs=0.01), pytest.approx(0.0, abs=0.01))
    assert printed(detail, capsys) == "turn 1 (done, took 10 s, 2 s active, 1 st)"


def test_sleeps_and_parks_are_waiting_time_and_steps_at_once_count_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps of 2 s at once, then a sleep that parks the session for 100 s."""
    world = World()

    @agent(park_after_s=5.0)
    async def support(session: Session[Any], text: str) -> str:
        await session.gather(session.step(work, 2.0), session.step(work, 2.0))
        await session.sleep(100)
        return "done"

    async def main(runtime: Runtime) -> Detail:
        handle = await runtime.spawn(support, id="s")
        await handle.ask("go", timeout_s=1000)
        return await shown(runtime)

    detail = world.life(support, main)
    (turn,) = detail.turns
    assert turn.duration_s == pytest.approx(102.0, abs=0.1)
    assert (turn.active_s, turn.waiting_s) == (pytest.approx(2.0, abs=0.1), pytest.approx(100.0, abs=0.1))
    assert printed(detail, capsys) == "turn 1 (done, took 102 s, 2 s active, 100 s waiting, 3 st)"


@pytest.mark.parametrize("ends", [True, False])
def test_a_record_that_does_not_decode_has_no_time(ends: bool) -> None:
    """Its turn did not begin in 1970; the timeline lists the step where its turn begins."""
    world = World()

    @agent(park_after_s=5.0)
    async def support(session: Session[Any], text: str) -> None:
        await session.step(work, 2.0)
        await session.step(work, 3.0)
        if not ends:
            await session.sleep(1000)

    async def main(runtime: Runtime) -> tuple[Detail, list[float]]:
        await (await runtime.spawn(support, id="s")).tell("go")
        await asyncio.sleep(300)
        tables = runtime.store._tables  # type: ignore[attr-defined]
        records = tables.steps["s", 1]
        first = next(iter(records))
        records[first] = msgspec.structs.replace(records[first], body=BAD)
        return await shown(runtime), [entry.at for entry in (await timeline.read(runtime.store, "s")).entries]

    detail, times = world.life(support, main)
    assert min(times) >= EPOCH_S
    assert detail.turns[-1].duration_s == (pytest.approx(5.0, abs=0.1) if ends else None)


def test_used_counts_what_children_have_reserved() -> None:
    """A child's part of the budget is used while the child lives, and what it did not spend comes back at its end."""
    world = World()

    @agent(name="child")
    async def child(session: Session[Any], text: str) -> None: ...

    @agent(name="parent", budget=Budget(steps=100))
    async def parent(session: Session[Any], text: str) -> str:
        return (await session.spawn(child, budget=Budget(steps=10))).id

    async def main(runtime: Runtime) -> list[int | None]:
        handle = await runtime.spawn(parent, id="s")
        id = await handle.ask("go")
        used = [(await shown(runtime)).line.used.steps]
        await runtime.session(str(id)).cancel()
        await asyncio.sleep(1)
        return [*used, (await shown(runtime)).line.used.steps]

    assert world.life([parent, child], main) == [11, 1]


@pytest.mark.parametrize("gives_up", [False, True])
def test_a_turn_without_a_commit_is_open_or_failed(gives_up: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no duration yet; its active time so far is printed."""
    world = World()

    @agent(park_after_s=5.0)
    async def support(session: Session[Any], text: str) -> None:
        await session.step(work, 2.0)
        if gives_up:
            raise ValueError("a bug")
        await session.sleep(1000)

    async def main(runtime: Runtime) -> Detail:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("go")
        await asyncio.sleep(300)
        return await shown(runtime)

    detail = world.life(support, main)
    assert printed(detail, capsys) == f"turn 1 ({'failed, 2 s active, 1 st' if gives_up else 'open, 2 s active, 2 st'})"
