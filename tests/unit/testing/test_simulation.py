"""Simulations: killed as by `kill -9`, the same under the same seed, different under different ones."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest

from holdfast.testing import Crashed, SeedFailed, Simulation, explore, for_each_seed, simulate


class Program:
    """A small program that notes every piece of clean-up that it runs."""

    def __init__(self) -> None:
        self.cleaned: list[str] = []
        self.done: list[str] = []

    @asynccontextmanager
    async def resource(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self.cleaned.append("resource")

    @contextmanager
    def section(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.cleaned.append("section")

    async def numbers(self) -> AsyncIterator[int]:
        try:
            for i in range(3):
                await asyncio.sleep(1.0)
                yield i
        finally:
            self.cleaned.append("generator")

    async def worker(self, name: str) -> None:
        try:
            async with self.resource():
                async for i in self.numbers():
                    with self.section():
                        await asyncio.sleep(0.5)
                        self.done.append(f"{name}{i}")
        except BaseException as error:
            self.cleaned.append(type(error).__name__)
            raise

    async def main(self, simulation: Simulation) -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(self.worker, "a")
            group.start_soon(self.worker, "b")
            simulation.loop.call_later(1.2, self.done.append, "timer")
        return "done"


@pytest.mark.parametrize("seed", [None, 1])
def test_a_crash_at_any_point_runs_nothing_afterwards(seed: int | None) -> None:
    """Of what is suspended then no finally, except, callback or generator runs, not even when garbage is collected."""
    crash_at, lives = 0, list[Program]()
    while True:
        program = Program()
        result = simulate(program.main, seed=seed, crash_at=crash_at)
        if not isinstance(result, Crashed):
            break
        lives.append(program)
        assert result.points == crash_at
        # What had ended by itself before the crash was cleaned up; what comes later must not be.
        program.cleaned, program.done = [], []
        crash_at += 1
    gc.collect()
    assert result == "done"
    assert len(lives) == crash_at > 30
    assert all(life.cleaned == [] and life.done == [] for life in lives)


def test_crash_never_returns() -> None:
    """`await simulation.crash()` dies at that line, with everything else that runs."""
    program, after = Program(), list[str]()

    async def main(simulation: Simulation) -> None:
        other = asyncio.create_task(program.main(simulation))
        try:
            await asyncio.sleep(2.7)
            program.cleaned.clear()
            await simulation.crash()
        finally:
            after.append("main")
            other.cancel()

    died = simulate(main)
    assert isinstance(died, Crashed)
    assert died.time_s == 2.7
    gc.collect()
    assert (program.cleaned, after) == ([], [])


def test_the_dead_stay_dead_when_the_interpreter_exits() -> None:
    """Module globals are dropped at exit; the finally blocks of a killed simulation do not run then either."""
    script = """
        import asyncio
        from holdfast.testing import simulate

        async def main(simulation):
            async def child():
                try:
                    await asyncio.sleep(1.0)
                finally:
                    print("cleaned up after death")
            task = asyncio.create_task(child())
            never_awaited = child()
            await task

        print(simulate(main, crash_at=2))
    """
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert (ran.stdout, ran.stderr) == ("Crashed(points=2, time_s=0.0)\n", "")


def test_what_outlives_a_crash_may_call_into_the_dead_loop() -> None:
    """A fake of the world that still holds futures of a killed process can answer them: nobody hears it."""
    calls = list[asyncio.Future[str]]()

    async def main(simulation: Simulation) -> str:
        calls.append(simulation.loop.create_future())
        return await calls[-1]

    assert isinstance(simulate(main, crash_at=1), Crashed)
    calls[0].set_result("too late")


def test_the_dead_report_nothing_and_are_not_listed(caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody fetched before the crash is not logged after it, and all_tasks() does not walk past dead tasks."""
    program, failed = Program(), list[asyncio.Future[str]]()
    simulation = Simulation(crash_at=12)

    async def main(simulation: Simulation) -> str:
        failed.append(simulation.loop.create_future())
        failed[0].set_exception(LookupError("unheard"))
        return await program.main(simulation)

    assert isinstance(simulation.run(main), Crashed)
    failed.clear()
    gc.collect()
    assert caplog.records == []
    assert asyncio.all_tasks(simulation.loop) == set()


async def test_a_simulation_inside_a_running_loop_is_refused() -> None:
    """Loops do not nest; the error says where to call it from."""

    async def main(simulation: Simulation) -> None: ...

    with pytest.raises(RuntimeError, match="from a plain function"):
        simulate(main)


def test_the_next_life_goes_on_in_time() -> None:
    """Stored times do not go back over a crash if the next life starts when the last one ended."""

    async def main(simulation: Simulation) -> float:
        await asyncio.sleep(10.0)
        return simulation.clock.time()

    died = simulate(main, crash_at=2)
    assert died == Crashed(points=2, time_s=10.0)
    assert simulate(main, start_s=died.time_s) == 1_800_000_020.0


def test_a_crash_during_a_wait_does_not_see_the_next_timer() -> None:
    """It dies at the time of its last point; and a whole life has as many points as there are crashes to try."""
    whole = Simulation()

    async def main(simulation: Simulation) -> None:
        await asyncio.sleep(10.0)

    whole.run(main)
    assert simulate(main, crash_at=1) == Crashed(points=1, time_s=0.0)
    lives = [simulate(main, crash_at=n) for n in range(whole.points + 1)]
    assert [isinstance(life, Crashed) for life in lives] == [True] * whole.points + [False]


def test_tasks_left_behind_are_cancelled_at_the_end() -> None:
    """A simulation that is not killed ends as asyncio.run does: finally blocks run, generators are closed."""
    program = Program()

    async def main(simulation: Simulation) -> str:
        asyncio.create_task(program.worker("a"))  # noqa: RUF006 - left behind on purpose
        await asyncio.sleep(1.2)
        return "done"

    assert simulate(main) == "done"
    assert sorted(program.cleaned) == ["CancelledError", "generator", "resource", "section"]


def test_an_error_of_main_is_raised() -> None:
    """simulate raises what main raises."""

    async def main(simulation: Simulation) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        simulate(main)


def test_an_error_that_main_returns_is_a_result() -> None:
    """Only what is raised is raised."""

    async def main(simulation: Simulation) -> Exception:
        return LookupError("returned")

    assert isinstance(simulate(main), LookupError)


async def _race(simulation: Simulation) -> str:
    order = list[str]()

    async def runner(name: str) -> None:
        for _ in range(3):
            await anyio.sleep(simulation.random.choice([0.0, 1.0]))
            order.append(name)

    async with anyio.create_task_group() as group:
        for name in "abcd":
            group.start_soon(runner, name)
        with anyio.move_on_after(1.5):
            async with anyio.create_task_group() as inner:
                for _ in range(3):
                    inner.start_soon(anyio.sleep_forever)
    return "".join(order)


def test_the_same_seed_gives_the_same_trace() -> None:
    """Every handle, in order, with its time: a failing seed fails again."""
    for seed in range(20):
        first, again = Simulation(seed=seed), Simulation(seed=seed)
        assert first.run(_race) == again.run(_race)
        assert first.trace == again.trace
        assert first.digest() == again.digest()


def test_different_seeds_reach_different_interleavings() -> None:
    """Four tasks that are ready together run in all their 24 orders within a few hundred seeds."""

    async def main(simulation: Simulation) -> str:
        order = list[str]()

        async def runner(name: str) -> None:
            order.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "abcd":
                group.create_task(runner(name))
        return "".join(order)

    assert simulate(main) == "abcd"
    assert len(set(explore(main, range(300)))) == 24


async def _noting(opened: list[str]) -> None:
    opened.append("opened")


def test_explore_finds_a_race_and_says_how_to_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failing seed is in the message; in the environment it is the only one run."""
    monkeypatch.delenv("HOLDFAST_SEED", raising=False)
    seeds = list[int | None]()

    async def main(simulation: Simulation) -> None:
        seeds.append(simulation.seed)
        opened = list[str]()

        async def use() -> None:
            assert opened, "used before it was opened"

        async with asyncio.TaskGroup() as group:
            group.create_task(_noting(opened))
            group.create_task(use())

    simulate(main)
    with pytest.raises(SeedFailed, match=r"seed \d+ failed: ExceptionGroup: unhandled errors") as caught:
        explore(main, range(200))
    seed = caught.value.seed
    assert seeds[1:] == list(range(seed + 1))
    assert f"HOLDFAST_SEED={seed} pytest " in str(caught.value)
    assert isinstance(caught.value.__cause__, ExceptionGroup)

    seeds.clear()
    monkeypatch.setenv("HOLDFAST_SEED", str(seed))
    with pytest.raises(SeedFailed):
        explore(main, range(200))
    assert seeds == [seed]


def test_for_each_seed_takes_cases_of_several_lives() -> None:
    """A case that simulates, crashes and restarts gets the seed and returns what it likes."""
    assert for_each_seed(lambda seed: seed * 2, range(3)) == [0, 2, 4]
