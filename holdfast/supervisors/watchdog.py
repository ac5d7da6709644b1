"""A thread that notices when an event loop is blocked, and names the code that blocks it.

Code that does not await cannot be cancelled and lets nothing else run: no deadline helps against it, and only another thread can say
where it is. The thread asks the loop for a sign of life at each tick. Where none comes, it takes the stack of the loop's thread.

A call into C that keeps the interpreter's lock stops this thread as well; against that helps only a watchdog outside of the process.
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
    """The loop has not run for at least `seconds`; `frames` are what its thread is in, the innermost first."""

    seconds: float
    frames: tuple[Frame, ...]


class Watchdog:
    """Watches the loop of one thread, from `start` to `stop`.

    Args:
        post: runs a function on the loop soon, such as `loop.call_soon_threadsafe`. It may raise RuntimeError once the loop is closed.
        on_blocked: called once for each time that the loop is blocked, on the watchdog's thread.
        blocked_s: how long it may give no sign of life, in seconds.
        on_free: called with the seconds that it was blocked for at least, once it runs again; on the loop.
        on_stuck: called once it has been blocked for `stuck_s`, on the watchdog's thread.
        stuck_s: None is never.
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
        """Watch no more. It may be called on the loop: the thread needs no answer from it to end."""
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
                return  # the loop is closed: there is nothing to watch any more
            self._await_beat()
            self._stop.wait(self._tick_s())

    def _await_beat(self) -> None:
        """Until the loop gives its sign of life; past the limits it is named."""
        self._silent_s, self._named = 0.0, False
        stuck = False
        while not self._beat.is_set():
            tick_s, before = self._tick_s(), self._clock()
            self._beat.wait(tick_s)
            # At most two ticks: where the whole process was stopped, nothing blocked the loop.
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
        """Read each time, since limits may change while it watches."""
        return min(self.blocked_s / 4, 1.0)

    def _blocked(self) -> Blocked:
        return Blocked(self._silent_s, stack(self._of))


def stack(thread: int) -> tuple[Frame, ...]:
    """What a thread is in right now, the innermost first; empty if there is no such thread."""
    # The frames are of a thread that goes on: a line may be off by what ran meanwhile, and no local variable is kept alive.
    frame: FrameType | None = sys._current_frames().get(thread)
    found = []
    while frame is not None:
        code = frame.f_code
        found.append(Frame(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname))
        frame = frame.f_back
    return tuple(found)
