"""What the table in docs/supervision.md promises against OTP, where no other test of this folder proves it."""

from __future__ import annotations

import asyncio
import math
import re
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from anyio.abc import TaskStatus
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Session, agent
from holdfast.errors import ConfigError, HoldfastError, SupervisorGaveUp
from holdfast.runtime.agents.limits import AgentLimits, apply
from holdfast.supervisors import (
    Backoff,
    ChildCounts,
    ChildSpec,
    DynamicSupervisor,
    Ignore,
    Intensity,
    Restart,
    Supervisor,
)
from holdfast.supervisors.intensity import Restarts
from tests.unit.supervisors.support import Crash, LoopClock, Recorder, Switch, forever, running

# ---------------------------------------------------------------- a supervisor that gave up


async def crash_at_once() -> None:
    raise Crash("boom")


def gives_up() -> Supervisor:
    return Supervisor("inner", [ChildSpec("bad", crash_at_once)], intensity=Intensity(0))


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
async def test_a_transient_supervisor_that_gave_up_is_not_restarted(kind: type[Supervisor | DynamicSupervisor]) -> None:
    """OTP's exit reason is `shutdown` then, which is no crash of a transient child; its siblings live on."""
    seen, switch = Recorder(), Switch()
    outer = Supervisor("s", [], on_event=seen) if kind is Supervisor else DynamicSupervisor("d", on_event=seen)
    async with running(outer) as outcome:
        await outer.start_child(ChildSpec("sibling", switch.child("sibling")))
        await outer.start_child(ChildSpec("branch", gives_up(), "transient"))
        await anyio.sleep(60)
        assert not outcome.over
        assert seen.only("Crashed", "Restarting", "Restarted", "Dropped") == ["Crashed branch"]
        states = {child.id: child.state for child in outer.tree().children}
        assert states == {"sibling": "running"} | ({"branch": "stopped"} if kind is Supervisor else {})


@pytest.mark.parametrize(("restart", "lives"), [("permanent", 3), ("temporary", 1)])
async def test_a_permanent_supervisor_that_gave_up_is_restarted_and_a_temporary_one_is_not(restart: Restart, lives: int) -> None:
    """As for every end of such a child."""
    seen = Recorder()
    async with running(Supervisor("s", [ChildSpec("branch", gives_up(), restart)], intensity=Intensity(2), on_event=seen)):
        await anyio.sleep(60)
    assert seen.seen.count("Crashed branch") == lives


async def test_the_give_up_of_a_significant_transient_supervisor_shuts_its_parent_down() -> None:
    """It has ended in order, and only such an end of a transient child is significant."""
    children = [ChildSpec("a", forever), ChildSpec("branch", gives_up(), "transient", significant=True)]
    async with running(Supervisor("s", children, auto_shutdown="any_significant")) as outcome:
        await anyio.sleep(1)
        assert (outcome.over, outcome.error) == (True, None)


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
async def test_a_restart_that_fails_is_tried_again_whatever_the_error(kind: type[Supervisor | DynamicSupervisor]) -> None:
    """A transient branch that crashed and whose first start gives up then is no end in order: each attempt counts, until one succeeds."""
    seen, switch, lives = Recorder(), Switch(), 0

    class Branch:
        name = "branch"
        inner = Supervisor("inner", [])

        async def run(self, *, task_status: TaskStatus[None]) -> None:
            nonlocal lives
            lives += 1
            if lives in (2, 3):
                raise SupervisorGaveUp("branch", "bad")
            task_status.started()
            await switch.child("branch")()

        def tree(self) -> Any:
            return self.inner.tree()

    outer = Supervisor("s", [], on_event=seen) if kind is Supervisor else DynamicSupervisor("d", on_event=seen)
    async with running(outer):
        await outer.start_child(ChildSpec("branch", Branch(), "transient"))
        switch.crash("branch")
        await seen.until("Restarted branch")
        assert switch.alive == ["branch"]
    assert seen.seen.count("Crashed branch") == 3


# ---------------------------------------------------------------- exits


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
@pytest.mark.parametrize("error", [SystemExit(3), SystemExit(), KeyboardInterrupt(), GeneratorExit(), BaseException("odd")])
async def test_whatever_a_child_raises_is_its_crash_alone(error: BaseException, kind: type[Supervisor | DynamicSupervisor]) -> None:
    """`sys.exit()` in a child ends that child, which is restarted; neither its siblings, nor the loop, nor the process."""
    seen, switch = Recorder(), Switch()
    supervisor = Supervisor("s", [], on_event=seen) if kind is Supervisor else DynamicSupervisor("d", on_event=seen)
    async with running(supervisor) as outcome:
        await supervisor.start_child(ChildSpec("a", switch.child("a"), "transient"))
        await supervisor.start_child(ChildSpec("b", switch.child("b")))
        switch.end("a", error)
        await seen.until("Restarted a")
        assert sorted(switch.alive) == ["a", "b"]
        assert not outcome.over
        assert (supervisor.tree().children[0].error or "").startswith(type(error).__name__)
    assert seen.only("Crashed") == ["Crashed a"]


async def leaves(*, task_status: TaskStatus[None]) -> None:
    sys.exit("no licence")


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
async def test_an_exit_before_readiness_is_an_error_for_the_caller_and_does_not_end_it(kind: type[Supervisor | DynamicSupervisor]) -> None:
    """A SystemExit there would look like one of the caller's own."""
    supervisor = Supervisor("s", []) if kind is Supervisor else DynamicSupervisor("d")
    async with running(supervisor) as outcome:
        with pytest.raises(RuntimeError, match="failed to start: SystemExit: no licence"):
            await supervisor.start_child(ChildSpec("a", leaves))
        assert not outcome.over


async def test_an_exit_climbs_the_tree_as_a_crash() -> None:
    """A supervisor gives up over it as over any other error, with the exit as the cause."""
    switch = Switch()
    inner = Supervisor("inner", [ChildSpec("a", switch.child("a"))], intensity=Intensity(0))
    async with running(Supervisor("outer", [ChildSpec("i", inner)], intensity=Intensity(0))) as outcome:
        switch.end("a", SystemExit(5))
        await anyio.sleep(1)
    assert isinstance(outcome.error, SupervisorGaveUp)
    assert isinstance(outcome.error.__cause__, SupervisorGaveUp)
    assert isinstance(outcome.error.__cause__.__cause__, SystemExit)


async def test_an_exit_while_a_child_is_stopped_does_not_disturb_the_stop() -> None:
    """The children before it are stopped in their order."""

    async def bitter() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            sys.exit(1)

    seen = Recorder()
    async with running(Supervisor("s", [ChildSpec("a", forever), ChildSpec("b", bitter)], on_event=seen)) as outcome:
        pass
    assert outcome.error is None
    assert seen.seen[-4:] == ["Crashed b", "Stopped b", "Stopped a", "SupervisorStopped"]


# ---------------------------------------------------------------- delete_child, count_children


async def test_a_stopped_child_can_be_deleted_and_a_running_one_cannot() -> None:
    """Its id is free then, and no strategy starts it again."""
    switch, seen = Switch(), Recorder()
    children = [ChildSpec(id, switch.child(id)) for id in "ab"]
    supervisor = Supervisor("s", children, strategy="one_for_all", on_event=seen)
    async with running(supervisor):
        with pytest.raises(HoldfastError, match=r"child 'a' is running: call stop_child\('a'\) first"):
            await supervisor.delete_child("a")
        with pytest.raises(LookupError):
            await supervisor.delete_child("x")
        await supervisor.stop_child("a")
        await supervisor.delete_child("a")
        with pytest.raises(LookupError):
            await supervisor.restart_child("a")
        switch.crash("b")
        await seen.until("Restarted b")
        assert switch.alive == ["b"]
        assert [child.id for child in supervisor.tree().children] == ["b"]
        await supervisor.start_child(ChildSpec("a", switch.child("a")))
        assert switch.alive == ["b", "a"]


async def test_a_child_that_waits_for_its_restart_cannot_be_deleted() -> None:
    """As OTP's error `restarting`."""
    switch, seen = Switch(), Recorder()
    backoff, often = Backoff(base_s=10.0), Intensity(1, 60)
    supervisor = Supervisor(
        "s", [ChildSpec("a", switch.child("a"))], intensity=often, backoff=backoff, on_event=seen, uniform=lambda low, high: high
    )
    async with running(supervisor):
        switch.crash("a")
        await seen.until("Restarting a")
        with pytest.raises(HoldfastError, match="child 'a' is restarting"):
            await supervisor.delete_child("a")
        await supervisor.stop_child("a")
        await supervisor.delete_child("a")
        await anyio.sleep(20)
        assert supervisor.count_children() == ChildCounts(0, 0, 0, 0)
        assert switch.alive == []


async def test_a_child_that_has_crashed_this_moment_can_be_deleted() -> None:
    """The report of its end is in the queue behind the request: it is out of date then."""
    switch = Switch()
    supervisor = Supervisor("s", [ChildSpec("a", switch.child("a")), ChildSpec("b", forever)])
    async with running(supervisor) as outcome:
        async with anyio.create_task_group() as group:
            switch.crash("a")
            for _ in range(3):
                group.start_soon(_try, supervisor)
                await anyio.lowlevel.checkpoint()
        await anyio.sleep(1)
        assert not outcome.over


async def _try(supervisor: Supervisor) -> None:
    try:
        await supervisor.delete_child("a")
    except (HoldfastError, LookupError):
        return


async def test_children_are_counted_by_kind() -> None:
    """All, those that run, supervisors and others: OTP's four numbers."""
    dynamic = DynamicSupervisor("d")
    children = [ChildSpec("d", dynamic), ChildSpec("a", forever), ChildSpec("b", forever), ChildSpec("i", Supervisor("i", []))]
    supervisor = Supervisor("s", children)
    assert supervisor.count_children() == ChildCounts(specs=4, active=0, supervisors=2, workers=2)
    async with running(supervisor):
        await supervisor.stop_child("b")
        assert supervisor.count_children() == ChildCounts(specs=4, active=3, supervisors=2, workers=2)
        await dynamic.start_child(ChildSpec("x", forever))
        await dynamic.start_child(ChildSpec("y", Supervisor("y", [])))
        assert dynamic.count_children() == ChildCounts(specs=2, active=2, supervisors=1, workers=1)


# ---------------------------------------------------------------- ignore


class Choice:
    """A child that ignores its start as long as `ignores`."""

    def __init__(self, ignores: bool = True) -> None:
        self.ignores, self.lives = ignores, 0

    async def __call__(self, *, task_status: TaskStatus[None]) -> None:
        if self.ignores:
            raise Ignore("not configured")
        self.lives += 1
        task_status.started()
        await anyio.sleep_forever()


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_a_child_that_ignores_its_start_is_kept_stopped_and_is_no_crash(restart: Restart) -> None:
    """The next child starts; a temporary one is forgotten, as in OTP. `restart_child` starts it later."""
    seen, choice = Recorder(), Choice()
    supervisor = Supervisor("s", [ChildSpec("a", choice, restart), ChildSpec("b", forever)], intensity=Intensity(0), on_event=seen)
    async with running(supervisor) as outcome:
        assert seen.seen == ["Ignored a", "Started b", "SupervisorStarted"]
        states = {child.id: (child.state, child.error) for child in supervisor.tree().children}
        assert states == {"b": ("running", None)} | ({} if restart == "temporary" else {"a": ("stopped", None)})
        if restart != "temporary":
            assert await supervisor.restart_child("a") is False
            choice.ignores = False
            assert await supervisor.restart_child("a") is True
            assert choice.lives == 1
        assert not outcome.over


async def test_a_child_that_is_added_and_ignores_its_start_is_reported_to_the_caller() -> None:
    """The supervisor keeps its spec; a dynamic one does not, as with simple_one_for_one."""
    supervisor, dynamic = Supervisor("s", []), DynamicSupervisor("d")
    async with running(supervisor), running(dynamic):
        assert await supervisor.start_child(ChildSpec("a", Choice())) is False
        assert await dynamic.start_child(ChildSpec("a", Choice())) is False
        assert await dynamic.start_child(ChildSpec("a", Choice(ignores=False))) is True
        assert (supervisor.count_children().specs, supervisor.count_children().active) == (1, 0)
        await supervisor.delete_child("a")
        assert await supervisor.start_child(ChildSpec("a", Choice(ignores=False))) is True


async def test_a_start_that_is_ignored_in_a_restart_ends_the_restarts() -> None:
    """In a restart of all, the others start."""
    seen, switch, choice = Recorder(), Switch(), Choice(ignores=False)
    children = [ChildSpec("a", choice), ChildSpec("b", switch.child("b"))]
    async with running(Supervisor("s", children, strategy="one_for_all", intensity=Intensity(1), on_event=seen)) as outcome:
        choice.ignores = True
        switch.crash("b")
        await seen.until("Restarted b")
        await anyio.sleep(1)
        assert seen.only("Ignored", "Restarted") == ["Ignored a", "Restarted b"]
        assert not outcome.over


async def test_a_dynamic_child_that_ignores_its_restart_is_forgotten() -> None:
    """No code waits for that restart."""
    seen, lives = Recorder(), 0

    async def once(*, task_status: TaskStatus[None]) -> None:
        nonlocal lives
        lives += 1
        if lives > 1:
            raise Ignore
        task_status.started()
        raise Crash

    supervisor = DynamicSupervisor("d", on_event=seen)
    async with running(supervisor):
        await supervisor.start_child(ChildSpec("a", once))
        await seen.until("Ignored a")
        assert supervisor.count == 0
    assert seen.only("Crashed", "Dropped") == ["Crashed a"]


async def test_ignore_after_readiness_is_a_crash_and_a_child_without_readiness_may_ignore() -> None:
    """`Ignore` is an answer to a start, and to nothing else."""

    async def late(*, task_status: TaskStatus[None]) -> None:
        task_status.started()
        await asyncio.sleep(1)
        raise Ignore

    async def plain() -> None:
        await asyncio.sleep(0.5)
        raise Ignore("nothing to do")

    seen = Recorder()
    async with running(Supervisor("s", [ChildSpec("late", late), ChildSpec("plain", plain)], on_event=seen)):
        await seen.until("Restarted late")
    assert seen.only("Ignored", "Crashed", "Restarted") == ["Ignored plain", "Crashed late", "Restarted late"]


async def test_a_significant_child_that_ignores_its_start_shuts_nothing_down() -> None:
    """It has not ended: it never ran."""
    children = [ChildSpec("a", forever), ChildSpec("s", Choice(), "transient", significant=True)]
    async with running(Supervisor("s", children, auto_shutdown="any_significant")) as outcome:
        await anyio.sleep(1)
        assert not outcome.over


# ---------------------------------------------------------------- strategies and stops


async def test_a_strategy_starts_children_that_were_stopped_or_had_returned() -> None:
    """As in OTP a restart of all starts every spec there is."""
    seen, switch = Recorder(), Switch()
    children = [ChildSpec("a", switch.child("a")), ChildSpec("b", switch.child("b"), "transient"), ChildSpec("c", switch.child("c"))]
    supervisor = Supervisor("s", children, strategy="one_for_all", on_event=seen)
    async with running(supervisor):
        await supervisor.stop_child("a")
        switch.end("b")
        await seen.until("Exited b")
        assert switch.alive == ["c"]
        switch.crash("c")
        await seen.until("Restarted c")
        assert switch.alive == ["a", "b", "c"]


async def test_stop_s_zero_gives_a_child_no_time() -> None:
    """OTP's brutal_kill; a child that ends at its cancellation has still stopped in order."""

    async def slow() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

    seen = Recorder()
    async with running(Supervisor("s", [ChildSpec("quick", forever, stop_s=0), ChildSpec("slow", slow, stop_s=0)], on_event=seen)):
        began = anyio.current_time()
    assert anyio.current_time() - began < 0.1
    assert seen.only("Stuck", "Stopped") == ["Stuck slow", "Stopped quick"]


# ---------------------------------------------------------------- intensity against backoff


def worst(intensity: Intensity, backoff: Backoff, crashes: int) -> bool:
    """Whether a child that crashes at each start is given up within so many crashes, if each wait is the longest."""
    restarts, now = Restarts(intensity), 0.0
    for _ in range(crashes):
        wait_s = restarts.after_crash(backoff, now, lambda low, high: high, ran_s=0.0)
        if wait_s is None:
            return True
        now += wait_s
    return False


@given(
    st.integers(0, 30),
    st.floats(0.1, 100),
    st.floats(0, 50, allow_subnormal=False),
    st.floats(0, 50, allow_subnormal=False),
    st.floats(1, 5),
)
def test_an_intensity_is_accepted_if_a_child_that_always_crashes_spends_it(
    restarts: int, within_s: float, base_s: float, max_s: float, factor: float
) -> None:
    """Whatever the jitter: neither for ever in restarts nor given up by chance. One that is refused could be restarted for ever."""
    intensity, backoff = Intensity(restarts, within_s), Backoff(base_s, max_s, factor)
    try:
        DynamicSupervisor("d", intensity_each=intensity, backoff=backoff)
    except ConfigError:
        assert not worst(Intensity(restarts, within_s * (1 - 1e-9)), backoff, 3 * restarts + 40)
    else:
        assert worst(Intensity(restarts, within_s * (1 + 1e-6)), backoff, restarts + 1)


@pytest.mark.parametrize(
    ("intensity", "backoff", "text"),
    [
        (
            Intensity(),
            Backoff(10.0),
            "waits up to 60 s together, so it may never be spent: set intensity.within_s to at least 60, or lower",
        ),
        (Intensity(1, 1), Backoff(1.5, factor=1), " 1 restart within 1 s.* to at least 2, or lower"),
        (Intensity(10**9, 60.0), Backoff(0.005, 0.01), "within_s to at least 10000000, or lower"),
        (Intensity(5000, 60.0), Backoff(1.0, math.inf), "waits up to inf s together, so it may never be spent: lower backoff.base_s"),
    ],
)
def test_an_intensity_that_its_backoff_makes_unreachable_is_refused_where_it_is_given(
    intensity: Intensity, backoff: Backoff, text: str
) -> None:
    """In one line that tells what to set: for both supervisors, for an agent, and for limits that override an agent's."""
    with pytest.raises(ConfigError, match=f"^supervisor 's': intensity allows.*{text}"):
        Supervisor("s", [], intensity=intensity, backoff=backoff)
    with pytest.raises(ConfigError, match=f"^supervisor 'd': intensity allows.*{text}"):
        DynamicSupervisor("d", intensity_each=intensity, backoff=backoff)
    with pytest.raises(ConfigError, match=f"^agent 'a': intensity allows.*{text}") as caught:
        agent(name="a", intensity=intensity, backoff=backoff)(handler)
    assert "\n" not in str(caught.value)
    limits = AgentLimits(intensity=msgspec.structs.asdict(intensity), backoff=msgspec.structs.asdict(backoff))
    if not math.isinf(backoff.max_s) and intensity.restarts < 10**9:
        with pytest.raises(ConfigError, match=f"^limits of agent 'a': intensity allows.*{text}"):
            apply(agent(name="a")(handler), limits)


async def handler(session: Session[Any], text: str) -> str:
    return text


def test_a_wrong_intensity_or_backoff_of_an_agent_is_refused_with_it() -> None:
    """One of the two is checked against the default of the other."""
    with pytest.raises(ConfigError, match=r"^agent 'a': intensity.restarts is -1: use a whole number from 0; backoff.base_s is nan"):
        agent(name="a", intensity=Intensity(-1), backoff=Backoff(math.nan))(handler)
    with pytest.raises(ConfigError, match=r"^agent 'a': .* waits up to 15 s together"):
        agent(name="a", intensity=Intensity(3, 1.0), backoff=Backoff(5.0, 5.0))(handler)
    with pytest.raises(ConfigError, match=r"^agent 'a': .* to at least 90"):
        agent(name="a", backoff=Backoff(30.0, 30.0))(handler)


@pytest.mark.parametrize(
    ("backoff", "accepted"),
    [
        (Backoff(1e-308, 30.0), True),
        (Backoff(0.01, 30.0, factor=1 + 2**-52), True),
        (Backoff(1.0, math.inf, factor=math.inf), False),
        (Backoff(0.1, 1.0, factor=math.inf), False),
        (Backoff(math.inf, math.inf), False),
        (Backoff(1.0, 1.0), True),
        (Backoff(5e-324, 5e-324), True),
    ],
)
def test_odd_numbers_of_a_backoff_are_judged_too(backoff: Backoff, accepted: bool) -> None:
    """No overflow, and no error but the ConfigError."""
    try:
        Supervisor("s", [], intensity=Intensity(3, 5.0), backoff=backoff)
    except ConfigError:
        assert not accepted
    else:
        assert accepted


def test_restarts_without_a_limit_are_an_infinite_period() -> None:
    """The way to say: never give up."""
    Supervisor("s", [], intensity=Intensity(10**9, math.inf), backoff=Backoff(10.0))


async def test_a_child_that_crashes_at_each_start_is_given_up_through_its_backoff() -> None:
    """The last configuration that is accepted: the waits add up to the period."""
    clock = LoopClock()
    supervisor = Supervisor(
        "s",
        [ChildSpec("a", crash_at_once)],
        intensity=Intensity(3, 7.001),
        backoff=Backoff(1.0),
        clock=clock,
        uniform=lambda low, high: high,
    )
    async with running(supervisor) as outcome:
        await anyio.sleep(8)
        assert isinstance(outcome.error, SupervisorGaveUp)


# ---------------------------------------------------------------- the page


def test_the_defaults_are_those_of_the_page() -> None:
    """Where they differ from OTP's, they are Elixir's."""
    assert Intensity() == Intensity(restarts=3, within_s=5.0)
    assert Backoff().base_s == 0
    assert ChildSpec("a", forever).restart == "permanent"


def test_functions_that_are_left_out_are_not_there() -> None:
    """What the page calls left out is not half there."""
    for name in ("get_childspec", "check_childspecs", "which_children", "terminate_child", "init", "code_change"):
        assert not hasattr(Supervisor, name)
        assert not hasattr(DynamicSupervisor, name)
    assert not hasattr(DynamicSupervisor, "restart_child")
    assert not hasattr(DynamicSupervisor, "delete_child")
    assert set(ChildSpec.__struct_fields__) == {"id", "start", "restart", "significant", "stop_s", "start_s"}


def test_every_row_of_the_page_has_a_verdict_and_a_test_that_exists() -> None:
    """The table against OTP is no claim without a proof."""
    folder = Path(__file__).parent
    known = set(re.findall(r"^(?:async )?def (test_\w+)", "\n".join(path.read_text() for path in folder.glob("test_*.py")), re.MULTILINE))
    page = (folder.parents[2] / "docs" / "supervision.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")][2:]
    rows = [row for row in rows if any(row[1:])]
    assert len(rows) > 50
    for point, otp, here, tests in rows:
        assert otp, point
        assert here.startswith(("same", "different: ", "left out: ")), point
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, point
        assert set(named) <= known, (point, set(named) - known)
    assert set(re.findall(r"test_\w+", page)) <= known
