"""Run an async program in simulated time, kill it at any point, and try it under many seeds.

```python
import asyncio

from holdfast.testing import Crashed, OutsideLedger, for_each_seed, simulate


async def transfer(bank: OutsideLedger) -> None:
    if not bank.count("transfer-1"):
        bank.run("transfer-1")
    await asyncio.sleep(3600)  # no time passes outside


def case(seed: int) -> None:
    bank = OutsideLedger()  # outside of the simulation: it survives the crash
    life = simulate(lambda simulation: transfer(bank), seed=seed, crash_at=seed)
    if isinstance(life, Crashed):
        simulate(lambda simulation: transfer(bank), seed=seed, start_s=life.time_s)
    assert bank.applied_twice() == []


for_each_seed(case, range(100))
```

Inputs from outside the simulation can still differ from run to run: wall clocks, global `random`, ids of objects, and across processes the
order of sets of strings (set PYTHONHASHSEED).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from holdfast.testing.loop import MAX_POINTS, Deadlock, NotSimulated, SimulatedLoop

__all__ = [
    "Crashed",
    "Deadlock",
    "NotSimulated",
    "SeedFailed",
    "SimulatedClock",
    "SimulatedLoop",
    "Simulation",
    "explore",
    "for_each_seed",
    "simulate",
]

T = TypeVar("T")
R = TypeVar("R")

EPOCH_S = 1_800_000_000.0
SEED_VARIABLE = "HOLDFAST_SEED"


class SeedFailed(AssertionError):
    """A case failed under one seed; the error is its cause, and the message has the command to run it again.

    Attributes:
        seed: the seed to run it again with.
    """

    def __init__(self, seed: int, error: BaseException) -> None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        again = f"{SEED_VARIABLE}={seed} pytest {test!r}" if test else f"set {SEED_VARIABLE}={seed} in the environment"
        super().__init__(f"seed {seed} failed: {type(error).__name__}: {error}\nrun this seed alone: {again}")
        self.seed = seed


@dataclass(frozen=True)
class Crashed:
    """The simulation was killed.

    Attributes:
        points: how many handles had run.
        time_s: the loop's time when it died; pass it to the next life as `start_s`, so that stored times do not go back.
    """

    points: int
    time_s: float


class SimulatedClock:
    """The clock of a simulated loop: a `holdfast.clock.Clock`.

    Args:
        loop: the loop whose virtual time it has.
        epoch: the wall clock, in seconds since the epoch, when the loop's time is 0.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, epoch: float = EPOCH_S) -> None:
        self.monotonic = loop.time
        self._epoch, self._suspended_s = epoch, 0.0

    def time(self) -> float:
        """Seconds since the epoch (UTC)."""
        return self._epoch + self.elapsed()

    def elapsed(self) -> float:
        """As `monotonic`, but the time for which the machine was suspended counts."""
        return self.monotonic() + self._suspended_s

    def jump(self, by_s: float) -> None:
        """Set the wall clock ahead by so many seconds; back where that is negative. The monotonic time, and each timer, stays as it is."""
        self._epoch += by_s

    def suspend(self, for_s: float) -> None:
        """The machine was suspended for so many seconds: they have passed, and the monotonic time and each timer did not notice."""
        self._suspended_s += for_s


class Simulation:
    """One life of a simulated process.

    Args:
        seed: draws the order of tasks and seeds `random`; None runs tasks first in, first out.
        crash_at: kill it when this many handles were run; None lets it live.
        start_s: the loop's time at the start.
        max_points: give up with `Deadlock` when this many handles were run.

    Attributes:
        loop: the event loop; its time is virtual.
        clock: its clock, for the code under test.
        random: a seeded generator, for the code under test.
    """

    def __init__(self, *, seed: int | None = None, crash_at: int | None = None, start_s: float = 0.0, max_points: int = MAX_POINTS) -> None:
        self.seed = seed
        self.loop = SimulatedLoop(seed=seed, crash_at=crash_at, max_points=max_points, start_s=start_s)
        self.clock = SimulatedClock(self.loop)
        self.random = random.Random(f"simulation {seed}")

    @property
    def points(self) -> int:
        """How many handles were run: a `crash_at` below it kills an equal run."""
        return self.loop.points

    @property
    def trace(self) -> list[str]:
        """The handles that ran, in order, with the virtual time."""
        return self.loop.trace

    def digest(self) -> str:
        """A short digest of the trace: equal for equal runs."""
        return hashlib.blake2b("\n".join(self.loop.trace).encode(), digest_size=8).hexdigest()

    async def crash(self) -> NoReturn:
        """Kill the simulation here and now. This never returns, and no code of the simulation runs afterwards.

        If cancelled, there is no difference: the killed task never runs again, so it sees no cancellation.
        """
        self.loop.kill()
        await self.loop.create_future()
        raise AssertionError("a killed simulation continued")

    def run(self, main: Callable[[Simulation], Awaitable[T]]) -> T | Crashed:
        """Run `main` to its end, then cancel the tasks that still run, as `asyncio.run` does. Call it once for each simulation.

        Raises:
            RuntimeError: called from a coroutine.
            Deadlock: it cannot end. Its tasks are abandoned in their present state.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("a simulation is an event loop of its own: run it from a plain function, not from a coroutine")
        loop, results, errors = self.loop, list[T](), list[Exception]()

        async def life() -> None:
            try:
                results.append(await main(self))
            except Exception as error:  # raised below, once the tasks that still run were cancelled
                errors.append(error)

        try:
            loop.run_until_complete(life())
            if loop.pending() or loop._asyncgens:
                loop.run_until_complete(_wind_down(loop))
        except BaseException as error:
            # run_until_complete raises RuntimeError if its loop stops before it is done, as a killed loop does.
            if not (loop.killed and isinstance(error, RuntimeError)):
                loop.abandon()
                raise
        if loop.killed:
            return Crashed(loop.points, loop.time())
        loop.close()
        if errors:
            raise errors.pop()
        return results[0]


async def _wind_down(loop: SimulatedLoop) -> None:
    left = [task for task in loop.pending() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    for task, error in zip(left, await asyncio.gather(*left, return_exceptions=True), strict=True):
        if isinstance(error, Exception):
            loop.call_exception_handler({"message": "a task failed while the simulation ended", "exception": error, "task": task})
    await loop.shutdown_asyncgens()


def simulate(
    main: Callable[[Simulation], Awaitable[T]],
    *,
    seed: int | None = None,
    crash_at: int | None = None,
    start_s: float = 0.0,
    max_points: int = MAX_POINTS,
) -> T | Crashed:
    """Run `main` in a fresh simulation. Returns its result, or `Crashed` if it was killed.

    Args:
        main: gets the simulation; it and all tasks that it starts run in virtual time.
        seed: draws the order of tasks that are ready together; None is first in, first out.
        crash_at: kill it when this many handles were run. Count up from 0 until the result is no `Crashed`: that is a crash at every point.
        start_s: the loop's time at the start; `Crashed.time_s` of the life before.
        max_points: how many handles may run.

    Raises:
        Deadlock: it cannot end.
    """
    return Simulation(seed=seed, crash_at=crash_at, start_s=start_s, max_points=max_points).run(main)


def for_each_seed(case: Callable[[int], R], seeds: Iterable[int]) -> list[R]:
    """Call `case` with each seed; HOLDFAST_SEED in the environment picks one seed instead.

    Raises:
        SeedFailed: the first failure, with the seed and the command to run it again.
    """
    chosen = os.environ.get(SEED_VARIABLE)
    results = []
    for seed in seeds if chosen is None else [int(chosen)]:
        try:
            results.append(case(seed))
        except Exception as error:
            raise SeedFailed(seed, error) from error
    return results


def explore(main: Callable[[Simulation], Awaitable[T]], seeds: Iterable[int] = range(100)) -> list[T | Crashed]:
    """Simulate `main` under each seed; the results in order of the seeds.

    Raises:
        SeedFailed: the first failure, with the seed and the command to run it again.
    """
    return for_each_seed(lambda seed: simulate(main, seed=seed), seeds)
