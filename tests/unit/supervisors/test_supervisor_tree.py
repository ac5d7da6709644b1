"""Supervisor: strategies, restart types, intensity, nesting, shutdown, requests."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus

from holdfast.errors import ConfigError, RuntimeStopped, SupervisorGaveUp
from holdfast.supervisors import (
    AutoShutdown,
    Backoff,
    ChildCrashed,
    ChildSpec,
    DynamicSupervisor,
    Intensity,
    Restart,
    Strategy,
    SupervisionEvent,
    Supervisor,
)
from tests.unit.supervisors.support import (
    Crash,
    LoopClock,
    Recorder,
    Switch,
    VirtualLoop,
    deaf,
    forever,
    other_tasks,
    running,
    stubborn,
)

MANY = Intensity(restarts=1_000_000, within_s=1.0)


def abcd(switch: Switch, restart: Restart = "permanent") -> list[ChildSpec]:
    return [ChildSpec(id, switch.child(id), restart) for id in "abcd"]


# ---------------------------------------------------------------- strategies


@pytest.mark.parametrize(
    ("strategy", "events"),
    [
        ("one_for_one", ["Crashed b", "Restarted b"]),
        ("rest_for_one", ["Crashed b", "Stopped d", "Stopped c", "Restarted b", "Restarted c", "Restarted d"]),
        (
            "one_for_all",
            ["Crashed b", "Stopped d", "Stopped c", "Stopped a", "Restarted a", "Restarted b", "Restarted c", "Restarted d"],
        ),
    ],
)
async def test_a_crash_concerns_whom_the_strategy_says(strategy: Strategy, events: list[str]) -> None:
    """Siblings are stopped in reverse and started again in order, and nobody else is touched."""
    switch, seen = Switch(), Recorder()
    async with running(Supervisor("s", abcd(switch), strategy=strategy, on_event=seen)):
        switch.crash("b")
        await seen.until(events[-1])
        assert seen.only("Crashed", "Stopped", "Restarted") == events
        assert sorted(switch.alive) == ["a", "b", "c", "d"]


async def test_children_start_in_order_and_stop_in_reverse() -> None:
    """What a child depends on is started before it and outlives it."""
    switch, seen = Switch(), Recorder()
    async with running(Supervisor("s", abcd(switch), on_event=seen)):
        pass
    assert seen.seen == [
        *(f"Started {id}" for id in "abcd"),
        "SupervisorStarted",
        *(f"Stopped {id}" for id in "dcba"),
        "SupervisorStopped",
    ]


async def test_a_child_that_crashes_while_its_siblings_are_stopped_is_counted_once() -> None:
    """Two crashes, one of them during the restart that the other caused, are one restart."""
    seen = Recorder()
    switch = Switch()

    async def frail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            switch.crash("a")

    children = [ChildSpec("a", switch.child("a")), ChildSpec("b", switch.child("b")), ChildSpec("c", frail)]
    supervisor = Supervisor("s", children, strategy="one_for_all", intensity=Intensity(restarts=1), on_event=seen)
    async with running(supervisor) as outcome:
        switch.crash("b")
        await seen.until("Restarted c")
        await anyio.sleep(1)
        assert not outcome.over
        assert seen.only("Crashed", "Restarted") == ["Crashed b", "Crashed a", "Restarted a", "Restarted b", "Restarted c"]


async def test_a_temporary_sibling_is_stopped_by_a_strategy_and_never_comes_back() -> None:
    """Temporary means never restarted, whoever crashed."""
    switch, seen = Switch(), Recorder()
    children = [ChildSpec("a", switch.child("a")), ChildSpec("t", switch.child("t"), "temporary")]
    supervisor = Supervisor("s", children, strategy="one_for_all", on_event=seen)
    async with running(supervisor):
        switch.crash("a")
        await seen.until("Restarted a")
        assert switch.alive == ["a"]
        assert [child.id for child in supervisor.tree().children] == ["a"]


# ---------------------------------------------------------------- restart types


@pytest.mark.parametrize(
    ("restart", "crashed", "restarted"),
    [
        ("permanent", True, True),
        ("permanent", False, True),
        ("transient", True, True),
        ("transient", False, False),
        ("temporary", True, False),
        ("temporary", False, False),
    ],
)
async def test_the_restart_type_decides_whether_a_child_comes_back(restart: Restart, crashed: bool, restarted: bool) -> None:
    """Permanent: always. Transient: after a crash. Temporary: never; and then it is forgotten."""
    switch, seen = Switch(), Recorder()
    supervisor = Supervisor("s", [ChildSpec("a", switch.child("a"), restart)], on_event=seen)
    async with running(supervisor):
        if crashed:
            switch.crash("a")
        else:
            switch.end("a")
        await anyio.sleep(1)
        assert seen.only("Restarted") == ["Restarted a"] * restarted
        states = [child.state for child in supervisor.tree().children]
        assert states == (["running"] if restarted else ["stopped"] if restart == "transient" else [])


# ---------------------------------------------------------------- intensity and escalation


async def crash_at_once() -> None:
    raise Crash("boom")


async def test_more_restarts_than_the_intensity_end_the_supervisor_with_the_last_error() -> None:
    """It stops the others first, and names the child and its error."""
    seen = Recorder()
    children = [ChildSpec("good", forever), ChildSpec("bad", crash_at_once)]
    async with running(Supervisor("s", children, intensity=Intensity(restarts=2, within_s=5), on_event=seen)) as outcome:
        await seen.until("SupervisorStopped")
        await anyio.sleep(0.1)
    assert isinstance(outcome.error, SupervisorGaveUp)
    assert (outcome.error.supervisor, outcome.error.child) == ("s", "bad")
    assert isinstance(outcome.error.__cause__, Crash)
    assert "child 'bad' was restarted too often; its last failure: Crash" in str(outcome.error)
    assert seen.only("Crashed", "Restarted", "Stopped") == [*["Crashed bad", "Restarted bad"] * 2, "Crashed bad", "Stopped good"]


async def test_the_last_failure_is_one_line_without_secrets() -> None:
    """The message is logged and printed; a child that returned has no failure, and the message names that."""

    async def leaks() -> None:
        raise Crash("refused\nBearer abcdefgh12345678")

    async def returns() -> None:
        pass

    for child, last in ((leaks, "its last failure: Crash: refused [redacted]"), (returns, "it returned")):
        async with running(Supervisor("s", [ChildSpec("a", child)], intensity=Intensity(0, 5.0))) as outcome:
            await anyio.sleep(1)
        assert isinstance(outcome.error, SupervisorGaveUp)
        assert str(outcome.error) == f"supervisor 's' gave up: child 'a' was restarted too often; {last}"


async def test_restarts_spread_over_more_than_the_period_go_on_for_ever() -> None:
    """The period slides: what is older than it does not count."""
    seen = Recorder()

    async def weekly() -> None:
        await anyio.sleep(3)
        raise Crash

    supervisor = Supervisor("s", [ChildSpec("a", weekly)], intensity=Intensity(2, 5.0), clock=LoopClock(), on_event=seen)
    async with running(supervisor) as outcome:
        await anyio.sleep(100)
        assert not outcome.over
        assert supervisor.tree().children[0].restarts == 33


async def test_a_nested_supervisor_that_gave_up_is_a_crash_for_its_parent() -> None:
    """Escalation: the parent restarts the whole branch, and gives up in its turn."""
    seen = Recorder()
    inner = Supervisor("inner", [ChildSpec("bad", crash_at_once)], intensity=Intensity(1, 5), on_event=seen)
    outer = Supervisor("outer", [ChildSpec("branch", inner)], intensity=Intensity(1, 5), on_event=seen)
    async with running(outer) as outcome:
        await anyio.sleep(1)
    assert isinstance(outcome.error, SupervisorGaveUp)
    assert outcome.error.supervisor == "outer"
    assert isinstance(outcome.error.__cause__, SupervisorGaveUp)
    assert "child 'branch'" in str(outcome.error)
    assert "child 'bad' was restarted too often; its last failure: Crash" in str(outcome.error)
    assert seen.seen.count("Crashed bad") == 4
    assert seen.seen.count("Crashed branch") == 2


async def test_a_nested_tree_stops_depth_first_in_reverse() -> None:
    """A supervisor is over when all below it are, and only then the child before it is stopped."""
    seen = Recorder()
    inner = Supervisor("inner", [ChildSpec("x", forever), ChildSpec("y", forever)], on_event=seen)
    outer = Supervisor("outer", [ChildSpec("a", forever), ChildSpec("i", inner), ChildSpec("z", forever)], on_event=seen)
    async with running(outer):
        tree = outer.tree().children[1].supervisor
        assert tree is not None
        assert [child.state for child in tree.children] == ["running", "running"]
    assert seen.only("Stopped") == ["Stopped z", "Stopped y", "Stopped x", "Stopped i", "Stopped a"]


async def test_a_backoff_delays_the_restart_and_grows_until_the_child_is_healthy() -> None:
    """While one child waits, the others are served; after a healthy life the first wait counts again."""
    switch, seen = Switch(), Recorder()
    waits: list[float] = []

    def full(low: float, high: float) -> float:
        waits.append(high)
        return high

    children = [ChildSpec("a", switch.child("a")), ChildSpec("b", switch.child("b"))]
    backoff = Backoff(base_s=1.0, healthy_s=60.0)
    often = Intensity(restarts=3, within_s=7.0)
    supervisor = Supervisor("s", children, intensity=often, backoff=backoff, clock=LoopClock(), on_event=seen, uniform=full)
    async with running(supervisor):
        switch.crash("a")
        await seen.until("Restarting a")
        assert supervisor.tree().children[0].state == "restarting"
        switch.crash("b")
        await seen.until("Restarted a")
        switch.crash("a")
        await seen.until("Restarted a", 2)
        await anyio.sleep(61)
        switch.crash("a")
        await seen.until("Restarted a", 3)
    assert waits == [1.0, 1.0, 2.0, 1.0]


# ---------------------------------------------------------------- start


async def test_the_next_child_starts_when_the_one_before_is_ready() -> None:
    """A child that takes `task_status` holds the start of those after it until it calls `started()`."""
    order: list[str] = []

    async def database(*, task_status: TaskStatus[None]) -> None:
        await anyio.sleep(3)
        order.append("database ready")
        task_status.started()
        await anyio.sleep_forever()

    async def user() -> None:
        order.append("user runs")
        await anyio.sleep_forever()

    async with running(Supervisor("s", [ChildSpec("db", database), ChildSpec("user", user)])):
        pass
    assert order == ["database ready", "user runs"]


async def never_ready(*, task_status: TaskStatus[None]) -> None:
    await anyio.sleep_forever()


async def broken_start(*, task_status: TaskStatus[None]) -> None:
    raise Crash("no database")


@pytest.mark.parametrize(("start", "cause"), [(never_ready, TimeoutError), (broken_start, Crash)])
async def test_a_child_that_fails_to_start_at_first_fails_the_supervisor(
    start: Callable[..., Awaitable[None]], cause: type[Exception]
) -> None:
    """As in OTP the first start is not tried again: those already started are stopped in reverse."""
    seen = Recorder()
    children = [ChildSpec("a", forever), ChildSpec("b", forever), ChildSpec("c", start)]
    async with running(Supervisor("s", children, on_event=seen)) as outcome:
        pass
    assert isinstance(outcome.error, SupervisorGaveUp)
    assert isinstance(outcome.error.__cause__, cause)
    assert f"child 'c' did not start: {cause.__name__}" in str(outcome.error)
    assert seen.only("Stopped")[-2:] == ["Stopped b", "Stopped a"]
    assert "SupervisorStarted" not in seen.seen


async def test_a_start_that_fails_during_a_restart_of_all_is_tried_again_and_counts() -> None:
    """Those that were started by the failed attempt are stopped, and every attempt is one restart."""
    switch, seen = Switch(), Recorder()
    fails = iter([False, True, True, False])

    async def moody(*, task_status: TaskStatus[None]) -> None:
        if next(fails):
            raise Crash("not yet")
        task_status.started()
        await anyio.sleep_forever()

    children = [ChildSpec("a", switch.child("a")), ChildSpec("m", moody), ChildSpec("z", switch.child("z"))]
    supervisor = Supervisor("s", children, strategy="one_for_all", intensity=Intensity(3, 5), on_event=seen)
    async with running(supervisor):
        switch.crash("a")
        await seen.until("Restarted z")
        assert seen.only("Crashed", "Stopped", "Restarted") == [
            *["Crashed a", "Stopped z", "Stopped m"],
            *["Restarted a", "Crashed m", "Stopped a"],
            *["Restarted a", "Crashed m", "Stopped a"],
            *["Restarted a", "Restarted m", "Restarted z"],
        ]


# ---------------------------------------------------------------- stop


@pytest.mark.parametrize("start", [deaf, stubborn])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_child_that_ignores_its_cancellation_is_killed_at_its_deadline(start: Callable[[], Awaitable[None]]) -> None:
    """It is reported as stuck, the stop goes on with the child before it, and no task is left behind."""
    seen, at = Recorder(), anyio.current_time()
    supervisor = Supervisor("s", [ChildSpec("a", forever), ChildSpec("b", start, stop_s=0.01)], on_event=seen)
    before = other_tasks()
    async with running(supervisor):
        pass
    assert seen.only("Stuck", "Stopped") == ["Stuck b", "Stopped a"]
    assert [child.state for child in supervisor.tree().children] == ["stopped", "stuck"]
    assert anyio.current_time() - at == pytest.approx(0.01, abs=0.005)
    assert other_tasks() == before


async def test_a_child_that_waits_for_a_task_which_swallows_cancellation_is_killed_too() -> None:
    """Cancelling a task only passes the request on to the task that it awaits; the kill does not wait for that one."""
    seen, release = Recorder(), asyncio.Event()

    async def swallow() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.get_running_loop().create_task(swallow())

    async def waits() -> None:
        await task

    async with running(Supervisor("s", [ChildSpec("a", waits, stop_s=0.01)], on_event=seen)):
        pass
    assert seen.only("Stuck", "Stopped") == ["Stuck a"]
    release.set()
    await task


@pytest.mark.parametrize("levels", [1, 2, 3])
async def test_killing_a_supervisor_kills_all_below_it(levels: int) -> None:
    """A branch that cannot stop within the time that its parent gives it leaves nothing behind."""
    seen = Recorder()
    before = other_tasks()
    dynamic = DynamicSupervisor("d")
    branch = Supervisor("s0", [ChildSpec("deaf", deaf, stop_s=1e9), ChildSpec("good", forever), ChildSpec("dynamic", dynamic)])
    for level in range(1, levels + 1):
        stop_s = 1.0 if level == levels else None
        branch = Supervisor(f"s{level}", [ChildSpec("branch", branch, stop_s=stop_s)], on_event=seen)
    async with running(branch):
        await dynamic.start_child(ChildSpec("deaf", deaf, stop_s=1e9))
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert seen.only("Stuck") == ["Stuck branch"]
    assert other_tasks() == before


async def test_a_child_may_clean_up_until_its_deadline() -> None:
    """A shielded cleanup that is shorter than `stop_s` is waited for."""
    seen = Recorder()

    async def tidy() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(4, shield=True):
                await anyio.sleep(3)
                seen.seen.append("tidied up")

    async with running(Supervisor("s", [ChildSpec("a", tidy)], on_event=seen)):
        pass
    assert seen.seen[-3:] == ["tidied up", "Stopped a", "SupervisorStopped"]


async def test_an_error_while_stopping_is_reported_and_restarts_nothing() -> None:
    """A child that raises when cancelled has stopped."""
    seen = Recorder()

    async def bitter() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise Crash("last words")

    async with running(Supervisor("s", [ChildSpec("a", bitter)], on_event=seen)) as outcome:
        pass
    assert outcome.error is None
    assert seen.seen[-3:] == ["Crashed a", "Stopped a", "SupervisorStopped"]


async def test_a_cancelled_run_is_cancelled_and_does_not_return() -> None:
    """After the ordered stop the cancellation goes on to the caller."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Supervisor("s", [ChildSpec("a", forever)]).run()
        pytest.fail("returned")  # pragma: no cover
    with anyio.move_on_after(1) as scope:
        await Supervisor("s", [ChildSpec("a", forever)]).run()
        pytest.fail("returned")  # pragma: no cover
    assert scope.cancelled_caught


async def test_a_native_cancellation_stops_in_order_too_even_when_it_comes_twice() -> None:
    """`Task.cancel()` passes every shield: the ordered stop starts at the first and survives the second."""
    seen = Recorder()

    async def slow() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(2, shield=True):
                await anyio.sleep(1)

    supervisor = Supervisor("s", [ChildSpec("a", slow), ChildSpec("b", slow)], on_event=seen)
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await seen.until("SupervisorStarted")
    task.cancel()
    await anyio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen.only("Stopped") == ["Stopped b", "Stopped a"]


# ---------------------------------------------------------------- isolation


async def test_a_stray_cancelled_error_is_a_crash() -> None:
    """Awaiting a cancelled future ends one child, which is restarted; siblings and supervisor live on."""
    switch, seen = Switch(), Recorder()
    first = True

    async def stray() -> None:
        nonlocal first
        if first:
            first = False
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        await anyio.sleep_forever()

    supervisor = Supervisor("s", [ChildSpec("a", switch.child("a")), ChildSpec("b", stray)], on_event=seen)
    async with running(supervisor) as outcome:
        await seen.until("Restarted b")
        assert switch.alive == ["a"]
        assert not outcome.over
        assert "no code cancelled" in (supervisor.tree().children[1].error or "")


async def test_a_stray_cancelled_error_before_readiness_does_not_cancel_the_caller() -> None:
    """`start_child` raises an ordinary error about it."""

    async def stray(*, task_status: TaskStatus[None]) -> None:
        raise asyncio.CancelledError

    supervisor = Supervisor("s", [])
    async with running(supervisor) as outcome:
        with pytest.raises(RuntimeError, match="failed to start"):
            await supervisor.start_child(ChildSpec("a", stray))
        assert not outcome.over


async def test_every_life_begins_with_a_fresh_context() -> None:
    """Neither the variables of whoever runs the supervisor nor those of the life before are seen."""
    variable = contextvars.ContextVar("variable", default="fresh")
    found: list[str] = []

    async def child() -> None:
        found.append(variable.get())
        variable.set("from an earlier life")
        if len(found) < 3:
            raise Crash
        await anyio.sleep_forever()

    variable.set("from the spawner")
    async with running(Supervisor("s", [ChildSpec("a", child)])):
        await anyio.sleep(1)
    assert found == ["fresh"] * 3


async def test_an_observer_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged."""

    def broken(event: SupervisionEvent) -> None:
        raise Crash("observer")

    async with running(Supervisor("s", [ChildSpec("a", forever)], on_event=broken)) as outcome:
        assert not outcome.over
    assert "on_event raised for ChildStarted" in caplog.text


async def test_errors_do_not_accumulate_over_many_restarts() -> None:
    """After 20,000 crashes the errors are gone, without the help of the cycle collector."""
    errors: list[weakref.ref[BaseException]] = []
    done = anyio.Event()

    def count(event: SupervisionEvent) -> None:
        if isinstance(event, ChildCrashed):
            errors.append(weakref.ref(event.exception))
            if len(errors) == 20_000:
                done.set()

    gc.collect()
    gc.disable()
    try:
        async with running(Supervisor("s", [ChildSpec("a", crash_at_once)], intensity=MANY, on_event=count)):
            await done.wait()
            assert sum(ref() is not None for ref in errors) <= 3
            assert len(other_tasks()) < 10
    finally:
        gc.enable()


# ---------------------------------------------------------------- cancellation everywhere


async def busy_life(cancel_after: int | None) -> int:
    """A supervisor in all kinds of trouble, cancelled at its nth turn of the loop. Returns the turns that it took."""
    switch = Switch()
    fails = iter([False, True, False, False])

    async def moody(*, task_status: TaskStatus[None]) -> None:
        await anyio.sleep(0.1)
        if next(fails, False):
            raise Crash
        task_status.started()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
        await anyio.sleep_forever()

    inner = Supervisor("inner", [ChildSpec("x", switch.child("x")), ChildSpec("m", moody, stop_s=1.0)], strategy="rest_for_one")
    outer = Supervisor(
        "outer",
        [ChildSpec("a", switch.child("a")), ChildSpec("i", inner), ChildSpec("z", switch.child("z"))],
        strategy="one_for_all",
        backoff=Backoff(base_s=0.1),
        uniform=lambda low, high: high,
    )

    async def trouble() -> None:
        await anyio.sleep(0.5)
        switch.crash("x")
        await anyio.sleep(5)
        await outer.start_child(ChildSpec("late", switch.child("late")))
        await outer.restart_child("a")
        switch.crash("z")
        await anyio.sleep(5)
        scope.cancel()

    loop = cast(VirtualLoop, asyncio.get_running_loop())
    before, begun = other_tasks(), loop.turns
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            if cancel_after is not None:
                loop.at_turn = begun + cancel_after, scope.cancel
            group.start_soon(trouble)
            group.start_soon(outer.run)
    loop.at_turn = None
    assert other_tasks() == before
    assert switch.alive == []
    assert all(child.state in ("stopped", "stuck") for child in outer.tree().children)
    return loop.turns - begun


async def test_cancelled_at_any_turn_of_the_loop_nothing_is_left_behind() -> None:
    """During a start, a restart, a backoff, a request or a stop: every child is over when `run` is, and no task leaks."""
    turns = await busy_life(None)
    assert turns > 60
    for turn in range(1, turns):
        await busy_life(turn)


# ---------------------------------------------------------------- automatic shutdown


@pytest.mark.parametrize(
    ("auto_shutdown", "ends", "over"),
    [
        ("any_significant", ["s1"], True),
        ("any_significant", ["other"], False),
        ("all_significant", ["s1"], False),
        ("all_significant", ["s1", "s2"], True),
    ],
)
async def test_the_exit_of_significant_children_shuts_the_supervisor_down(auto_shutdown: AutoShutdown, ends: list[str], over: bool) -> None:
    """Any of them or the last of them, as asked for; the rest is stopped in reverse, and `run` returns."""
    switch, seen = Switch(), Recorder()
    children = [
        ChildSpec("server", switch.child("server")),
        ChildSpec("s1", switch.child("s1"), "transient", significant=True),
        ChildSpec("s2", switch.child("s2"), "temporary", significant=True),
        ChildSpec("other", switch.child("other"), "temporary"),
    ]
    async with running(Supervisor("s", children, auto_shutdown=auto_shutdown, on_event=seen)) as outcome:
        for id in ends:
            switch.end(id)
            await seen.until(f"Exited {id}")
        await anyio.sleep(1)
        assert (outcome.over, outcome.error) == (over, None)


async def test_a_significant_child_that_is_stopped_by_its_supervisor_shuts_nothing_down() -> None:
    """Only exits of its own accord count, as in OTP: not a stop, not a sibling's restart, nor the crash of a transient child."""
    switch, seen = Switch(), Recorder()
    children = [
        ChildSpec("a", switch.child("a")),
        ChildSpec("s1", switch.child("s1"), "transient", significant=True),
        ChildSpec("s2", switch.child("s2"), "temporary", significant=True),
    ]
    supervisor = Supervisor("s", children, strategy="one_for_all", auto_shutdown="any_significant", on_event=seen)
    async with running(supervisor) as outcome:
        switch.crash("s1")
        await seen.until("Restarted s1")
        await supervisor.stop_child("s1")
        switch.crash("a")
        await seen.until("Restarted s1", 2)
        assert not outcome.over


# ---------------------------------------------------------------- requests


async def test_children_can_be_added_stopped_and_restarted_while_it_runs() -> None:
    """A stopped child keeps its spec and comes back when asked for; an added one is the last in the order."""
    switch, seen = Switch(), Recorder()
    supervisor = Supervisor("s", [ChildSpec("a", switch.child("a"))], intensity=Intensity(0), on_event=seen)
    async with running(supervisor) as outcome:
        await supervisor.start_child(ChildSpec("b", switch.child("b")))
        assert switch.alive == ["a", "b"]
        await supervisor.stop_child("a")
        assert switch.alive == ["b"]
        assert [child.state for child in supervisor.tree().children] == ["stopped", "running"]
        await supervisor.restart_child("a")
        await supervisor.restart_child("b")
        assert switch.alive == ["a", "b"]
        assert not outcome.over
    assert seen.only("Stopped")[-2:] == ["Stopped b", "Stopped a"]


async def test_requests_that_cannot_be_done_say_why() -> None:
    """An unknown id, a taken one, a child that fails to start, a supervisor that does not run."""
    supervisor = Supervisor("s", [ChildSpec("a", forever)])
    async with running(supervisor) as outcome:
        with pytest.raises(LookupError, match="has no child 'x'; it has: a"):
            await supervisor.stop_child("x")
        with pytest.raises(ConfigError, match="used more than once"):
            await supervisor.start_child(ChildSpec("a", forever))
        with pytest.raises(Crash):
            await supervisor.start_child(ChildSpec("b", broken_start))
        assert [child.id for child in supervisor.tree().children] == ["a"]
        with pytest.raises(RuntimeError, match="running already"):
            await supervisor.run()
        assert not outcome.over
    with pytest.raises(RuntimeStopped):
        await supervisor.stop_child("a")


async def test_a_request_that_the_end_of_the_supervisor_overtakes_is_answered() -> None:
    """Whoever waits for a supervisor that stops is told, and does not wait for ever."""
    supervisor = Supervisor("s", [ChildSpec("slow", deaf, stop_s=3.0)])
    answers: list[str] = []

    async def ask() -> None:
        try:
            await supervisor.restart_child("slow")
        except RuntimeStopped:
            answers.append("stopped")

    async with anyio.create_task_group() as group:
        async with running(supervisor):
            group.start_soon(ask)
            group.start_soon(ask)
            await anyio.sleep(1)
        assert supervisor.tree().children[0].state == "stuck"
    assert answers == ["stopped", "stopped"]


async def test_a_child_may_stop_itself_through_its_supervisor() -> None:
    """The request is served by the loop, so a child that waits for its own end does not deadlock."""
    seen = Recorder()

    async def leave() -> None:
        await supervisor.stop_child("a")

    supervisor = Supervisor("s", [ChildSpec("a", leave)], on_event=seen)
    async with running(supervisor):
        await seen.until("Stopped a")
        assert supervisor.tree().children[0].state == "stopped"


async def test_a_supervisor_can_run_again() -> None:
    """Every run begins with the children it was made with, and counts anew."""
    switch, seen = Switch(), Recorder()
    supervisor = Supervisor("s", [ChildSpec("a", switch.child("a"))], intensity=Intensity(1), on_event=seen)
    for _ in range(3):
        async with running(supervisor) as outcome:
            await supervisor.start_child(ChildSpec("b", switch.child("b")))
            switch.crash("a")
            await seen.until("Restarted a")
            assert not outcome.over
        assert switch.alive == []
        seen.seen.clear()


async def test_the_tree_shows_state_age_restarts_and_the_last_error() -> None:
    """What a person needs to see first."""
    switch, seen = Switch(), Recorder()
    supervisor = Supervisor("s", [ChildSpec("a", switch.child("a"))], clock=LoopClock(), on_event=seen)
    assert supervisor.tree().children[0].state == "stopped"
    async with running(supervisor):
        switch.crash("a")
        await seen.until("Restarted a")
        await anyio.sleep(7)
        view = supervisor.tree()
        child = view.children[0]
        assert (view.name, view.strategy, view.count) == ("s", "one_for_one", 1)
        assert (child.id, child.restart, child.state, child.restarts, child.error) == ("a", "permanent", "running", 1, "Crash: a")
        assert child.age_s == pytest.approx(7, abs=0.01)
