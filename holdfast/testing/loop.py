"""A deterministic asyncio event loop in which time is a number.

The clock stands still while a task is ready, and jumps to the next timer when none is: a week of sleep takes microseconds. With a seed, the
tasks that are ready in the same iteration run in an order drawn from it. There is no selector, thread or socket.

A simulated loop can be killed: none of its code runs afterwards, no `finally`, no `except`, no callback, as after `kill -9`. Python
finalises a suspended coroutine by running its `finally` blocks, so the coroutines of a killed loop are never freed. That costs about 4 KB
for each task alive at the kill, as long as the process lives.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import ctypes
import heapq
import math
import random
import threading
from asyncio import events
from collections.abc import Callable, Coroutine, Generator
from operator import attrgetter
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from anyio._backends._asyncio import _task_states

from holdfast.errors import HoldfastError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_POINTS = 1_000_000
_PRUNE_AT = 64


class Deadlock(HoldfastError):
    """The simulation cannot end: no task is ready and no timer is left, or it ran for `max_points` and is not done.

    Attributes:
        pending: the tasks that wait, each with the line it waits at.
    """

    def __init__(self, text: str, pending: tuple[str, ...]) -> None:
        super().__init__("\n  ".join((f"{text}; pending:", *(pending or ("(no task: the future awaited has no owner)",)))))
        self.pending = pending


class NotSimulated(HoldfastError, NotImplementedError):
    """The code asked the simulated loop for a real resource: a socket, a thread, a signal, a subprocess. Use a fake instead."""


class SimulatedTask(asyncio.Task[Any]):
    """A task that hashes by its place in the order of creation, so that iterating a set of tasks is the same in each run."""

    def __init__(self, coro: Any, *, serial: int, **options: Any) -> None:
        self.serial = serial
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.serial


class SimulatedLoop(asyncio.BaseEventLoop):
    """A deterministic event loop with virtual time.

    Args:
        seed: draws the order of tasks that are ready together; None runs them first in, first out. Where the order comes from a
            set of objects (anyio's nested cancel scopes), only a seed makes it the same in each run.
        crash_at: kill the loop when this many handles were run.
        max_points: raise `Deadlock` when this many handles were run.
        start_s: the first value of `time()`.

    Attributes:
        points: how many handles (task steps and callbacks) were run: the points at which a crash differs from one at another point.
        trace: one line a point: the virtual time and the handle that ran.
        killed: whether the loop was killed.
    """

    # Attributes of BaseEventLoop (the same from 3.11 to 3.13) that typeshed lacks.
    _ready: collections.deque[Any]
    _scheduled: list[Any]
    _stopping: bool
    _closed: bool
    _thread_id: int | None
    _timer_cancelled_count: int
    _asyncgens: Any

    def __init__(self, *, seed: int | None = None, crash_at: int | None = None, max_points: int = MAX_POINTS, start_s: float = 0.0) -> None:
        super().__init__()
        self.points = 0
        self.trace: list[str] = []
        self.killed = False
        self._factory: Any = None
        self._now = start_s
        self._order = None if seed is None else random.Random(seed)
        self._crash_at, self._max_points = crash_at, max_points
        self._serial = 0
        self._threads_before = frozenset(threading.enumerate())
        self._alive: set[asyncio.Task[Any]] = set()
        self._prune_at = _PRUNE_AT

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._now

    def pending(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done, in the order of their creation."""
        return sorted((task for task in self._alive if not task.done()), key=_serial)

    def kill(self) -> None:
        """Kill the loop as soon as the running task suspends (at once, if none runs). `Simulation.crash` kills it at an await."""
        self.killed = True
        if not self.is_running():
            self._bury()

    def abandon(self) -> None:
        """Stop the loop in its present state, for ever: for a loop that cannot end. None of its code runs afterwards."""
        self.killed = True
        self._bury()

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """As in asyncio, with a name that is the same in each run; the loop keeps the task alive until it is done."""
        self._refuse_if_closed()
        made: asyncio.Task[T] = self.get_task_factory()(self, coro, name=name, context=context, **options)
        return made

    def get_task_factory(self) -> Any:
        """The task factory: the one that was set, else the loop itself."""
        return self._factory or self._make_task

    def set_task_factory(self, factory: Any) -> None:
        """As in asyncio."""
        self._factory = factory

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, *, name: object = None, **options: Any) -> asyncio.Task[Any]:
        self._serial += 1
        if name is None:
            name = f"{getattr(coro, '__qualname__', 'task').rpartition('.<locals>.')[2]}-{self._serial}"
        task = SimulatedTask(coro, serial=self._serial, loop=self, name=str(name), **options)
        self._alive.add(task)
        if len(self._alive) >= self._prune_at:
            self._alive = {task for task in self._alive if not task.done()}
            self._prune_at = max(_PRUNE_AT, 2 * len(self._alive))
        return task

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None) -> asyncio.Handle:
        """As in asyncio; a killed loop ignores it, as a killed process would."""
        handle = asyncio.Handle(callback, args, self, context)
        if self.killed and self._closed:
            handle.cancel()
            return handle
        self._refuse_if_closed()
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As `call_soon`, from the loop's own thread only."""
        if self._thread_id is not None and self._thread_id != threading.get_ident():
            raise NotSimulated(
                f"call_soon_threadsafe({callback!r}) came from another thread, and a simulation has one: "
                "use asyncio.to_thread, which a simulated loop runs in place"
            )
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run the function in place, at a point of its own, and without a running loop, as in a thread."""
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(self._run_in_place, future, func, args)
        return future

    def _run_in_place(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if future.cancelled():
            return
        events._set_running_loop(None)
        try:
            result = func(*args)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            events._set_running_loop(self)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the signature is asyncio's
        """Does nothing: there is no executor. It does not wait, so a cancellation cannot interrupt it."""

    def __del__(self) -> None:
        """Holds no resource of the machine, so there is no warning if it was not closed."""

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise RuntimeError("Event loop is closed")

    def _run_once(self) -> None:
        """One iteration; replaces the base class's, which waits on a selector."""
        self._drop_cancelled_timers()
        ready, scheduled = self._ready, self._scheduled
        # Checked before time moves: a killed loop does not reach its next timer.
        self.killed = self.killed or self.points == self._crash_at
        if not ready and not self._stopping and not self.killed:
            # A timer at infinity (anyio.sleep_forever) never fires.
            if not scheduled or scheduled[0]._when == math.inf:
                raise Deadlock(f"deadlock: nothing is ready and no timer is left{self._threads_hint()}", self._where())
            self._now = max(self._now, scheduled[0]._when)
        while not self.killed and scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        if self._order is not None and len(ready) > 1:
            self._permute(self._order)
        for _ in range(len(ready)):
            if self.points == self._crash_at:
                self.killed = True
            if self.killed:
                break
            handle = ready.popleft()
            if not handle._cancelled:
                self._run_handle(handle)
        if self.killed:
            self._stopping = True
            self._bury()

    def _run_handle(self, handle: Any) -> None:
        if self.points >= self._max_points:
            text = f"not done after {self.points} points, at {self._now:g} s of virtual time"
            raise Deadlock(f"{text} (a Runtime needs clock=simulation.clock to sleep in it)", self._where())
        self.points += 1
        self.trace.append(f"{self._now!r} {_label(handle._callback)}")
        handle._run()

    def _threads_hint(self) -> str:
        """A thread that was started in the simulation, such as that of a SQLite database, is no part of it."""
        names = [thread.name for thread in threading.enumerate() if thread not in self._threads_before]
        if not names:
            return ""
        return f" (threads cannot wake a simulated loop: {', '.join(names)}; use MemoryStore, or a fake, in place of what started them)"

    def _drop_cancelled_timers(self) -> None:
        scheduled = self._scheduled
        if self._timer_cancelled_count > 100 and 2 * self._timer_cancelled_count > len(scheduled):
            for handle in scheduled:
                handle._scheduled = not handle._cancelled
            scheduled[:] = [handle for handle in scheduled if not handle._cancelled]
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False

    def _permute(self, order: random.Random) -> None:
        """Permute the ready tasks. Plain callbacks keep their places: call_soon promises its order."""
        handles = list(self._ready)
        slots = [i for i, handle in enumerate(handles) if _stepped(handle._callback) is not None]
        if len(slots) < 2:
            return
        # Sorted first, so that the draw does not depend on the order in which a set woke them.
        steps = sorted((handles[i] for i in slots), key=lambda handle: _serial(_stepped(handle._callback)))
        order.shuffle(steps)
        for i, handle in zip(slots, steps, strict=True):
            handles[i] = handle
        self._ready.clear()
        self._ready.extend(handles)

    def _where(self) -> tuple[str, ...]:
        return tuple(f"{task.get_name()} at {_innermost(task.get_coro())}" for task in self.pending())

    def _bury(self) -> None:
        if self._closed:
            return
        # all_tasks also has the tasks that were created without create_task.
        tasks = self._alive | asyncio.all_tasks(self)
        _GRAVEYARD.append((self._ready, self._scheduled, tasks, set(self._asyncgens), self))
        self._ready, self._scheduled = collections.deque(), []
        self.set_exception_handler(_ignore)
        for task in tasks:
            # Otherwise every later all_tasks() of this process would iterate over the killed tasks.
            asyncio.tasks._unregister_task(task)
            # anyio keeps its data of a task in a dict by task, and simulated tasks have small hashes: look-ups would compare killed tasks.
            _task_states.pop(task, None)
        self._closed = True

    def _process_events(self, event_list: Any) -> None:
        """There are no events; the base class needs the method."""

    def _write_to_self(self) -> None:
        """There is no selector to wake; the base class needs the method."""


# ---------------------------------------------------------------- the dead

_GRAVEYARD: list[tuple[Any, ...]] = []
# Module globals are dropped at exit, and the finally blocks of killed tasks would run then: this reference is never released.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_GRAVEYARD))


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The exception handler of a killed loop: its tasks report no errors."""


# ---------------------------------------------------------------- handles and tasks

_serial_of = attrgetter("serial")


def _serial(task: Any) -> int:
    return _serial_of(task) if isinstance(task, SimulatedTask) else 0


def _stepped(callback: Any) -> SimulatedTask | None:
    """The task that a handle starts or wakes; None for any other callback (a task's `cancel` is one of those)."""
    owner = getattr(callback, "__self__", None)
    if not isinstance(owner, SimulatedTask):
        return None
    if getattr(callback, "__name__", "task_step") in ("task_step", "task_wakeup", "__step", "__wakeup"):
        return owner
    return None


def _label(callback: Any) -> str:
    task = _stepped(callback)
    if task is not None:
        return task.get_name()
    callback = getattr(callback, "func", callback)
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))


def _innermost(coro: Any) -> str:
    """The line at which the innermost coroutine of a suspended task waits."""
    while isinstance(inner := getattr(coro, "cr_await", None), Coroutine):
        coro = inner
    frame = getattr(coro, "cr_frame", None)
    if frame is None:
        return repr(coro)
    return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"


# ---------------------------------------------------------------- what is not simulated


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: SimulatedLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotSimulated(f"{name}() needs the real world, and a simulated loop has none: use a fake in its place")

    refuse.__name__ = name
    refuse.__doc__ = "Raises NotSimulated: a simulated loop has no sockets, threads, signals or subprocesses."
    return refuse


_REAL = """
    add_reader remove_reader add_writer remove_writer add_signal_handler remove_signal_handler
    sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto sock_connect sock_accept sock_sendfile
    getaddrinfo getnameinfo create_connection create_server create_unix_connection create_unix_server create_datagram_endpoint
    connect_accepted_socket connect_read_pipe connect_write_pipe start_tls sendfile
    subprocess_exec subprocess_shell set_default_executor
"""
for _name in _REAL.split():
    setattr(SimulatedLoop, _name, _refusal(_name))
