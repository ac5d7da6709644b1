"""DynamicSupervisor: children that come and go, each with an intensity of its own."""

from __future__ import annotations

import time
from functools import partial

import anyio
import pytest
from anyio.abc import TaskStatus

from holdfast.errors import ConfigError, HoldfastError, RuntimeStopped
from holdfast.supervisors import Backoff, ChildSpec, DynamicSupervisor, Intensity, Restart, Supervisor
from tests.unit.supervisors.support import Crash, LoopClock, Recorder, Switch, deaf, forever, other_tasks, running


async def crash_at_once() -> None:
    raise Crash("boom")


async def test_a_child_that_spent_its_intensity_is_dropped_and_its_siblings_live_on() -> None:
    """One child's failing never takes another, nor the supervisor."""
    switch, seen = Switch(), Recorder()
    supervisor = DynamicSupervisor("d", intensity_each=Intensity(2, 5), on_event=seen)
    async with running(supervisor) as outcome:
        await supervisor.start_child(ChildSpec("good", switch.child("good")))
        await supervisor.start_child(ChildSpec("bad", crash_at_once))
        await seen.until("Dropped bad")
        await anyio.sleep(1)
        assert not outcome.over
        assert switch.alive == ["good"]
        assert supervisor.count == 1
        await supervisor.start_child(ChildSpec("bad", switch.child("bad")))
        assert supervisor.count == 2
    assert seen.seen.count("Crashed bad") == 3
    assert seen.only("Stopped") == ["Stopped bad", "Stopped good"]


async def test_each_child_has_an_intensity_of_its_own() -> None:
    """Ten children that crash as often as they may all live on."""
    switch, seen = Switch(), Recorder()
    supervisor = DynamicSupervisor("d", intensity_each=Intensity(1, 5), on_event=seen)
    async with running(supervisor):
        for n in range(10):
            await supervisor.start_child(ChildSpec(str(n), switch.child(str(n))))
        for n in range(10):
            switch.crash(str(n))
            await seen.until(f"Restarted {n}")
        assert supervisor.count == len(switch.alive) == 10


@pytest.mark.parametrize(
    ("restart", "crashed", "restarted"),
    [("permanent", False, True), ("transient", True, True), ("transient", False, False), ("temporary", True, False)],
)
async def test_the_restart_type_decides_whether_a_dynamic_child_comes_back(restart: Restart, crashed: bool, restarted: bool) -> None:
    """A child that ended for good is forgotten, and its id is free."""
    switch = Switch()
    supervisor = DynamicSupervisor("d")
    async with running(supervisor):
        await supervisor.start_child(ChildSpec("a", switch.child("a"), restart))
        switch.end("a", Crash() if crashed else None)
        await anyio.sleep(1)
        assert supervisor.count == len(switch.alive) == restarted


async def test_a_restart_waits_for_its_backoff_and_a_stop_does_not() -> None:
    """A child that waits for its restart is shown as restarting, and can be stopped."""
    switch, seen = Switch(), Recorder()
    rare = Intensity(1, 10)
    supervisor = DynamicSupervisor(
        "d", intensity_each=rare, backoff=Backoff(base_s=10.0), clock=LoopClock(), on_event=seen, uniform=lambda low, high: high
    )
    async with running(supervisor):
        await supervisor.start_child(ChildSpec("a", switch.child("a")))
        await supervisor.start_child(ChildSpec("b", switch.child("b")))
        switch.crash("a")
        switch.crash("b")
        await anyio.sleep(9)
        assert [child.state for child in supervisor.tree().children] == ["restarting", "restarting"]
        await supervisor.stop_child("b")
        await anyio.sleep(2)
        assert switch.alive == ["a"]
        assert switch.lives == 3


async def test_a_stop_cancels_all_at_once_the_latest_first() -> None:
    """Children of a dynamic supervisor do not depend on each other: none waits for another one's cleanup."""
    order: list[int] = []

    async def slow(n: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            order.append(n)
            with anyio.move_on_after(5, shield=True):
                await anyio.sleep(4)

    seen = Recorder()
    supervisor = DynamicSupervisor("d", on_event=seen)
    async with running(supervisor):
        for n in range(300):
            await supervisor.start_child(ChildSpec(str(n), partial(slow, n)))
        before = anyio.current_time()
    assert order == list(range(299, -1, -1))
    assert anyio.current_time() - before == pytest.approx(4, abs=0.1)
    assert seen.only("Stuck") == []


async def test_all_children_have_one_deadline_however_many_are_stuck() -> None:
    """Each has its `stop_s` from the moment at which the supervisor stops, so that the whole stop takes no longer than the longest."""
    supervisor, before = DynamicSupervisor("d", on_event=(seen := Recorder())), other_tasks()
    async with running(supervisor):
        for n in range(300):
            await supervisor.start_child(ChildSpec(str(n), deaf, stop_s=1.0 + n % 3))
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(3, abs=0.1)
    assert len(seen.only("Stuck")) == 300
    assert [int(text.split()[1]) % 3 for text in seen.only("Stuck")] == [0] * 100 + [1] * 100 + [2] * 100
    assert other_tasks() == before


async def test_a_stuck_child_holds_up_neither_its_stop_nor_that_of_the_supervisor() -> None:
    """It is killed and reported."""
    seen = Recorder()
    supervisor = DynamicSupervisor("d", on_event=seen)
    before = other_tasks()
    async with running(supervisor):
        for id in ("a", "b", "c"):
            await supervisor.start_child(ChildSpec(id, deaf, stop_s=1.0))
        await supervisor.stop_child("b")
        assert seen.only("Stuck") == ["Stuck b"]
        assert supervisor.count == 2
    assert sorted(seen.only("Stuck")) == ["Stuck a", "Stuck b", "Stuck c"]
    assert other_tasks() == before


async def test_starting_a_child_that_fails_to_get_ready_raises_and_keeps_nothing() -> None:
    """Its own error, or a timeout past `start_s`."""

    async def broken(*, task_status: TaskStatus[None]) -> None:
        raise Crash("no")

    async def late(*, task_status: TaskStatus[None]) -> None:
        await anyio.sleep_forever()

    supervisor = DynamicSupervisor("d")
    async with running(supervisor):
        with pytest.raises(Crash):
            await supervisor.start_child(ChildSpec("a", broken))
        with pytest.raises(TimeoutError, match="not ready within 2 s"):
            await supervisor.start_child(ChildSpec("a", late, start_s=2.0))
        with anyio.move_on_after(1):
            await supervisor.start_child(ChildSpec("a", late))
        await anyio.sleep(1)
        assert supervisor.count == 0


async def test_a_restarted_child_that_is_not_ready_in_time_has_crashed_again() -> None:
    """Nobody waits for a restart, so its readiness is watched."""
    seen = Recorder()
    lives = 0

    async def moody(*, task_status: TaskStatus[None]) -> None:
        nonlocal lives
        lives += 1
        if lives != 2:
            task_status.started()
            await anyio.sleep(1)
            raise Crash
        await anyio.sleep_forever()

    supervisor = DynamicSupervisor("d", intensity_each=Intensity(2, 60), clock=LoopClock(), on_event=seen)
    async with running(supervisor):
        await supervisor.start_child(ChildSpec("a", moody, start_s=2.0))
        await seen.until("Dropped a")
    assert seen.only("Started", "Crashed", "Restarted") == ["Started a", "Crashed a", "Crashed a", "Restarted a", "Crashed a"]


async def test_what_cannot_be_started_or_stopped_says_why() -> None:
    """A taken id, too many children, an unknown id, a significant child, a supervisor that does not run."""
    supervisor = DynamicSupervisor("d", max_children=1)
    with pytest.raises(RuntimeStopped):
        await supervisor.start_child(ChildSpec("a", forever))
    async with running(supervisor):
        await supervisor.start_child(ChildSpec("a", forever))
        with pytest.raises(ConfigError, match="used more than once"):
            await supervisor.start_child(ChildSpec("a", forever))
        with pytest.raises(ConfigError, match="auto_shutdown"):
            await supervisor.start_child(ChildSpec("s", forever, "temporary", significant=True))
        with pytest.raises(HoldfastError, match="has 1 children"):
            await supervisor.start_child(ChildSpec("b", forever))
        with pytest.raises(LookupError):
            await supervisor.stop_child("b")
        await supervisor.stop_child("a")
        await supervisor.start_child(ChildSpec("b", forever))
    with pytest.raises(RuntimeStopped):
        await supervisor.stop_child("b")


async def test_it_nests_in_a_tree() -> None:
    """A dynamic supervisor is a child like any other, and shown with its own children."""
    dynamic = DynamicSupervisor("sessions")
    tree = Supervisor("root", [ChildSpec("sessions", dynamic), ChildSpec("last", forever)])
    async with running(tree):
        await dynamic.start_child(ChildSpec("one", forever))
        await dynamic.start_child(ChildSpec("two", forever))
        view = tree.tree().children[0].supervisor
        assert view is not None
        assert (view.strategy, view.count, [child.id for child in view.children]) == ("dynamic", 2, ["one", "two"])
        assert len(dynamic.tree(limit=1).children) == 1


async def test_a_child_that_crashes_while_the_supervisor_stops_is_not_restarted() -> None:
    """Nothing is started once the stop has begun."""
    switch = Switch()

    async def spiteful() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            switch.crash("a")
            with anyio.move_on_after(2, shield=True):
                await anyio.sleep(1)

    supervisor = DynamicSupervisor("d")
    async with running(supervisor):
        await supervisor.start_child(ChildSpec("a", switch.child("a")))
        await supervisor.start_child(ChildSpec("b", spiteful))
    assert switch.lives == 1
    assert supervisor.count == 0


async def test_ten_thousand_children_start_and_stop_in_seconds() -> None:
    """About 0.1 ms and 10 KB a child; the bounds leave room for a slow machine."""
    supervisor = DynamicSupervisor("d")
    began = time.perf_counter()
    async with running(supervisor):
        for n in range(10_000):
            await supervisor.start_child(ChildSpec(str(n), forever))
        assert supervisor.count == 10_000
    assert time.perf_counter() - began < 20
    assert supervisor.count == 0
