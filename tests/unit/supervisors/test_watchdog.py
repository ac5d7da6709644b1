"""A blocked loop is named: real threads, no sleeping; what blocks waits for the watchdog's own report."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holdfast.supervisors.watchdog import Blocked, Watchdog, stack

FAST_S = 0.02
LONG_S = 20.0


class Culprit:
    """Code that does not await: it holds its thread until it is let go."""

    def __init__(self) -> None:
        self.reports: queue.Queue[Blocked] = queue.Queue()

    def crunch_numbers(self) -> Blocked:
        return self.reports.get(timeout=LONG_S)


@contextmanager
def watched(loop: asyncio.AbstractEventLoop, on_blocked: Callable[[Blocked], None], **options: object) -> Iterator[Watchdog]:
    watchdog = Watchdog(loop.call_soon_threadsafe, on_blocked, blocked_s=FAST_S, **options)  # type: ignore[arg-type]
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.stop()


def test_what_blocks_the_loop_is_named_with_its_callers() -> None:
    """The innermost frame is first; whoever called it follows, with file and line."""
    culprit = Culprit()

    async def handler() -> Blocked:
        return culprit.crunch_numbers()

    async def main() -> Blocked:
        with watched(asyncio.get_running_loop(), culprit.reports.put):
            return await handler()

    report = asyncio.run(main())
    ours = [frame for frame in report.frames if frame.file == __file__]
    assert report.seconds >= FAST_S
    assert ours[0].function == "Culprit.crunch_numbers"
    assert ours[1].function.endswith("handler")
    assert ours[0].line == Culprit.crunch_numbers.__code__.co_firstlineno + 1


def test_each_time_is_reported_once_with_its_end() -> None:
    """Two blocks, two reports; the loop says when it runs again, and for how long it did not."""
    culprit = Culprit()

    async def main() -> list[float]:
        loop, ends = asyncio.get_running_loop(), list[float]()
        free = asyncio.Event()

        def on_free(seconds: float) -> None:
            ends.append(seconds)
            free.set()

        with watched(loop, culprit.reports.put, on_free=on_free):
            for _ in range(2):
                free.clear()
                culprit.crunch_numbers()
                await free.wait()
        return ends

    ends = asyncio.run(main())
    assert len(ends) == 2
    assert min(ends) >= FAST_S
    assert culprit.reports.empty()


def test_a_block_without_end_is_reported_as_one_too() -> None:
    """Past its limit there is a second call, which may end the process; it names the same code."""
    stuck: queue.Queue[Blocked] = queue.Queue()
    blocked: queue.Queue[Blocked] = queue.Queue()

    async def main() -> Blocked:
        with watched(asyncio.get_running_loop(), blocked.put, on_stuck=stuck.put, stuck_s=3 * FAST_S):
            return stuck.get(timeout=LONG_S)

    report = asyncio.run(main())
    assert report.seconds >= 3 * FAST_S > blocked.get_nowait().seconds
    assert (blocked.empty(), stuck.empty()) == (True, True)


def test_a_loop_that_runs_is_not_reported() -> None:
    """As many signs of life as are asked for, and no report."""
    reports: list[Blocked] = []

    async def main() -> None:
        loop, beats = asyncio.get_running_loop(), asyncio.Semaphore(0)

        def post(beat: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(beat)
            loop.call_soon_threadsafe(beats.release)

        watchdog = Watchdog(post, reports.append, blocked_s=4.0)
        watchdog.start()
        await beats.acquire()
        watchdog.stop()
        watchdog.stop()

    asyncio.run(main())
    assert reports == []


def test_a_loop_that_is_closed_ends_the_watch() -> None:
    """A program that forgets to stop it is not held up, and is told nothing wrong."""
    reports: list[Blocked] = []
    closed = threading.Event()

    def post(beat: Callable[[], None]) -> None:
        closed.set()
        raise RuntimeError("Event loop is closed")

    watchdog = Watchdog(post, reports.append, blocked_s=FAST_S)
    watchdog.start()
    assert closed.wait(LONG_S)
    watchdog.stop()
    assert reports == []


def test_a_process_that_was_stopped_as_a_whole_blocks_nothing() -> None:
    """A debugger or a SIGSTOP halts the watchdog too: an hour that passed in one tick counts as two ticks."""
    culprit = Culprit()
    hours = itertools.count(0.0, 3600.0)

    async def main() -> Blocked:
        with watched(asyncio.get_running_loop(), culprit.reports.put, clock=hours.__next__):
            return culprit.crunch_numbers()

    assert asyncio.run(main()).seconds <= 2 * FAST_S


def test_a_thread_that_is_gone_has_no_stack() -> None:
    """Nothing is raised for it."""
    assert stack(-1) == ()
