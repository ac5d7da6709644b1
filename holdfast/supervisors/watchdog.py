"""A thread that notices when an event loop is blocked, and names the code that blocks it.

Code that does not await cannot be cancelled and blocks all other tasks. No deadline stops it, and only another thread can report where it
is. This thread asks the loop for a heartbeat at each tick. If none comes, it takes the stack of the loop's thread.

A call into C that keeps the interpreter's lock stops this thread as well; only a watchdog outside the process notices that.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import msgspec


class Frame(msgspec.Struct, frozen=True):
    """One call on a stack."""

    file: str
    line: int
    function: str


class Blocked(msgspec.Struct, frozen=True):
    """The loop has not run for at least `seconds`; `frames` is the stack of its thread, the innermost frame first."""

    seconds: float
    frames: tuple[Frame, ...]


class Watchdog:
    """Watches the loop of one thread, from `start` to `stop`.

    Args:
        post: runs a function on the loop soon, such as `loop.call_soon_threadsafe`. It may raise RuntimeError once the loop is closed.
        on_blocked: called once for each time the loop is blocked, on the watchdog's thread.
        blocked_s: how long the loop may give no heartbeat, in seconds.
        on_free: called on the loop once it runs again, with the seconds for which it was blocked at least.
        on_stuck: called on the watchdog's thread, once the loop has been blocked for `stuck_s`.
        stuck_s: how long, in seconds; None is never.
        thread: of the loop; default the thread that makes the Watchdog.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        post: Callable[[Callable[[], None]], object],
        on_blocked: Callable[[Blocked], None],
        *,
        blocked_s: float = 1.0,
        on_free: Callable[[float], None] | None = None,
        on_stuck: Callable[[Blocked], None] | None = None,
        stuck_s: float | None = None,
        thread: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.blocked_s, self.stuck_s = blocked_s, stuck_s
        self._post, self._on_blocked, self._on_free, self._on_stuck = post, on_blocked, on_free, on_stuck
        self._clock = clock
        self._of = threading.get_ident() if thread is None else thread
        self._beat, self._stop = threading.Event(), threading.Event()
        self._silent_s = 0.0
        self._named = False
        self._thread = threading.Thread(target=self._watch, name="holdfast watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. It may be called on the loop: the thread ends without an answer from it."""
        self._stop.set()
        self._beat.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._beat.clear()
            try:
                self._post(self._alive)
            except RuntimeError:
                return  # the loop is closed: nothing is left to watch
            self._await_beat()
            self._stop.wait(self._tick_s())

    def _await_beat(self) -> None:
        """Wait for the heartbeat of the loop; past the limits, report that the loop is blocked."""
        self._silent_s, self._named = 0.0, False
        stuck = False
        while not self._beat.is_set():
            tick_s, before = self._tick_s(), self._clock()
            self._beat.wait(tick_s)
            # At most two ticks: if the whole process was stopped, no code blocked the loop.
            self._silent_s += min(self._clock() - before, 2 * tick_s)
            if self._beat.is_set():
                return
            if self._silent_s >= self.blocked_s and not self._named:
                self._named = True
                self._on_blocked(self._blocked())
            if self.stuck_s is not None and self._silent_s >= self.stuck_s and not stuck and self._on_stuck is not None:
                stuck = True
                self._on_stuck(self._blocked())

    def _alive(self) -> None:
        """On the loop."""
        if self._named and self._on_free is not None:
            self._on_free(self._silent_s)
        self._beat.set()

    def _tick_s(self) -> float:
        """Computed each time, since limits may change while it watches."""
        return min(self.blocked_s / 4, 1.0)

    def _blocked(self) -> Blocked:
        return Blocked(self._silent_s, stack(self._of))


def stack(thread: int) -> tuple[Frame, ...]:
    """The present stack of a thread, the innermost frame first; empty if there is no such thread."""
    # The thread keeps running: a line number may be slightly off. The result keeps no local variable alive.
    frame: FrameType | None = sys._current_frames().get(thread)
    found = []
    while frame is not None:
        code = frame.f_code
        found.append(Frame(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname))
        frame = frame.f_back
    return tuple(found)
