"""The queue of a supervisor's loop: lives that ended by themselves, and requests of callers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from holdfast.errors import RuntimeStopped
from holdfast.supervisors.child import Child, Life


class Exit:
    """A life that ended by itself."""

    __slots__ = ("child", "error", "life")

    def __init__(self, child: Child, life: Life, error: BaseException | None) -> None:
        self.child, self.life, self.error = child, life, error

    @property
    def is_current(self) -> bool:
        """Whether the child was not stopped or started again since."""
        return self.child.life is self.life


class Request:
    """An action that a caller asks the loop to take. Until the loop has taken it, its answer is `error`."""

    __slots__ = ("done", "error", "verb")

    def __init__(self, verb: Callable[[], Awaitable[None]], error: Exception) -> None:
        self.verb = verb
        self.error: Exception | None = error
        self.done = anyio.Event()

    async def serve(self) -> None:
        """Take the action in the loop's task, and answer. An error goes to the caller, and the loop continues."""
        try:
            await self.verb()
            self.error = None
        except Exception as error:
            self.error = error
        finally:
            self.done.set()


class Inbox:
    """A queue with one reader. Closed until `open`, it takes no requests."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._items: deque[Exit | Request] = deque()
        self._wake = anyio.Event()
        self._is_open = False

    def open(self) -> None:
        """From here on the inbox takes requests."""
        self._is_open = True

    def put_exit(self, child: Child, life: Life, error: BaseException | None) -> None:
        """Report the end of a life; ignored once the inbox is closed."""
        if not self._is_open:
            return
        self._items.append(Exit(child, life, error))
        self._wake.set()

    async def request(self, verb: Callable[[], Awaitable[None]]) -> None:
        """Run `verb` in the loop, and wait for it. If cancelled, it runs all the same.

        Raises:
            RuntimeStopped: the loop is not running, or ended before `verb` ran.
            Exception: `verb` raised it.
        """
        stopped = RuntimeStopped(f"supervisor {self._owner!r} is not running")
        if not self._is_open:
            raise stopped
        request = Request(verb, stopped)
        self._items.append(request)
        self._wake.set()
        await request.done.wait()
        if request.error is not None:
            raise request.error

    async def next(self, until: float = math.inf) -> Exit | Request | None:
        """The next item, or None if there is none at the time `until` (of the loop's clock)."""
        while not self._items:
            if until <= anyio.current_time():
                return None
            self._wake = anyio.Event()
            with anyio.CancelScope(deadline=until):
                await self._wake.wait()
        return self._items.popleft()

    def close(self) -> None:
        """The reader has ended: fail the requests that wait, and refuse new ones."""
        self._is_open = False
        for item in self._items:
            if isinstance(item, Request):
                item.done.set()
        self._items.clear()
