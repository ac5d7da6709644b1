"""Many independent children: started and stopped at any time, each with its own restart intensity.

There is no loop: the end of a child concerns no sibling, so it is handled at once where it happens. Tens of thousands of children take a
task each and nothing else. A child that crashes repeatedly spends only its own intensity.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigError, HoldfastError, RuntimeStopped
from holdfast.supervisors.child import Child, Life, count
from holdfast.supervisors.events import ChildDropped, ChildRestarting, OnEvent, SupervisorStarted, SupervisorStopped, emitter
from holdfast.supervisors.intensity import AT_ONCE, OFTEN, Backoff, Intensity, Restarts, Uniform, faults_of
from holdfast.supervisors.shielded import run_shielded
from holdfast.supervisors.spec import ChildSpec, check_children, check_name, refuse
from holdfast.supervisors.view import ChildCounts, SupervisorView

_SYSTEM_CLOCK = SystemClock()


class DynamicSupervisor:
    """Supervises children that come and go, each with an intensity of its own.

    A child that returned and is not restarted, or was stopped, is forgotten. A child that spent its intensity is dropped and reported as
    `ChildDropped`; unlike in OTP, that never ends the supervisor.

    Args:
        name: its name in the tree.
        intensity_each: how many restarts of one child within which period are too many.
        backoff: how long a child waits before its restart; by default not at all.
        max_children: how many children it takes; None means no limit.
        clock: for the restart periods and for ages.
        on_event: called with each event (see `events`); must not block.
        uniform: draws the jitter of the backoff.

    Raises:
        ConfigError: the definition is wrong; the message names every fault.
    """

    def __init__(
        self,
        name: str,
        *,
        intensity_each: Intensity = OFTEN,
        backoff: Backoff = AT_ONCE,
        max_children: int | None = None,
        clock: Clock = _SYSTEM_CLOCK,
        on_event: OnEvent | None = None,
        uniform: Uniform = random.uniform,
    ) -> None:
        faults = check_name(name)
        if max_children is not None and max_children < 1:
            faults.append(f"max_children is {max_children!r}: use a number from 1, or None")
        refuse(name, faults + faults_of(intensity_each, backoff))
        self.name = name
        self._intensity = intensity_each
        self._backoff = backoff
        self._max_children = max_children
        self._clock = clock
        self._emit = emitter(on_event)
        self._uniform = uniform
        self._running = False
        self._group: TaskGroup | None = None
        self._children: dict[str, Child] = {}
        self._restarts: dict[str, Restarts] = {}

    @property
    def count(self) -> int:
        """How many children it has."""
        return len(self._children)

    def tree(self, limit: int = 100) -> SupervisorView:
        """The present state of it and of its first `limit` children."""
        children = tuple(child.view() for child in islice(self._children.values(), limit))
        return SupervisorView(self.name, "dynamic", children, len(self._children))

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Accept and supervise children until cancelled; then stop them: all at once, each within its `stop_s` from then, as OTP does.

        Args:
            task_status: its `started()` is called when `start_child` may be called.
        """
        if self._running:
            raise RuntimeError(f"supervisor {self.name!r} is running already")

        async def serve(group: TaskGroup) -> None:
            self._group = group
            task_status.started()
            self._emit(SupervisorStarted(self.name))
            await anyio.sleep_forever()

        self._running = True
        try:
            await run_shielded(serve, self._stop_all)
        finally:
            self._running, self._group = False, None
            # All are over, unless this supervisor itself is being killed: then no child may outlive it.
            for child in self._children.values():
                child.kill_nowait()
            self._children.clear()
            self._restarts.clear()
            self._emit(SupervisorStopped(self.name, "cancelled"))

    def count_children(self) -> ChildCounts:
        """How many children it has, by kind. It reads the state of each."""
        return count(self._children.values())

    async def start_child(self, spec: ChildSpec) -> bool:
        """Start a child; returns when it is ready.

        If cancelled before the child is ready, it is stopped again.

        Returns:
            Whether it runs; False if it raised `Ignore`: then it is not kept.

        Raises:
            ConfigError: the spec is wrong, or its id is taken.
            HoldfastError: there are `max_children` already.
            RuntimeStopped: the supervisor is not running, or is stopping.
            Exception: the child raised it before it was ready; then the child is not kept.
        """
        group = self._admit(spec)
        child = self._children[spec.id] = Child(spec, self.name, self._clock, self._emit, self._on_exit)
        life = child.start(group)
        try:
            error = await child.wait_ready()
        except anyio.get_cancelled_exc_class():
            self._stop_soon(group, child)
            raise
        if error is None and life.stopping and not life.was_ready:
            error = RuntimeStopped(f"child {spec.id!r} was stopped before it was ready")
        if error is not None:
            self._forget(child)
            raise error
        if life.ignored:
            self._forget(child)
        return not life.ignored

    async def stop_child(self, id: str) -> None:
        """Stop a child and forget it.

        If cancelled, the child is stopped all the same.

        Raises:
            LookupError: there is no such child.
            RuntimeStopped: the supervisor is not running, or is stopping.
        """
        group = self._open()
        if id not in self._children:
            raise LookupError(f"supervisor {self.name!r} has no child {id!r}")
        await self._stop_soon(group, self._children[id]).wait()

    # ------------------------------------------------------------ inside

    def _open(self) -> TaskGroup:
        if self._group is None:
            raise RuntimeStopped(f"supervisor {self.name!r} is not running")
        return self._group

    def _admit(self, spec: ChildSpec) -> TaskGroup:
        group = self._open()
        refuse(self.name, check_children([spec]))
        if spec.id in self._children:
            raise ConfigError(f"supervisor {self.name!r}: child id {spec.id!r} is used more than once")
        if self._max_children is not None and len(self._children) >= self._max_children:
            raise HoldfastError(f"supervisor {self.name!r} has {self._max_children} children: stop one first, or raise max_children")
        return group

    def _on_exit(self, child: Child, life: Life, error: BaseException | None) -> None:
        if self._group is None or not child.comes_back(life, error):
            self._forget(child)
            return
        restarts = self._restarts.get(child.spec.id) or self._restarts.setdefault(child.spec.id, Restarts(self._intensity))
        wait_s = restarts.after_crash(self._backoff, self._clock.monotonic(), self._uniform, child.ran_s)
        if wait_s is None:
            self._forget(child)
            self._emit(ChildDropped(self.name, child.spec.id, child.restarts, None if error is None else child.error))
            return
        self._emit(ChildRestarting(self.name, child.spec.id, wait_s))
        again = child.start(self._group, wait_s, awaited=False)
        if child.reports:
            _apart(self._group, self._await_ready, child, again, wait_s)

    async def _await_ready(self, child: Child, life: Life, delay_s: float) -> None:
        """Wait for a restarted child, since no caller does: a child that is not ready in time counts as crashed once more."""
        late = await child.wait_ready(delay_s)
        if late is not None:
            self._on_exit(child, life, late)

    def _forget(self, child: Child) -> None:
        # The id may belong to a new child by now.
        if self._children.get(child.spec.id) is child:
            del self._children[child.spec.id]
            self._restarts.pop(child.spec.id, None)

    def _stop_soon(self, group: TaskGroup, child: Child) -> anyio.Event:
        gone = anyio.Event()
        _apart(group, self._stop, child, gone)
        return gone

    async def _stop(self, child: Child, gone: anyio.Event) -> None:
        await child.stop()
        self._forget(child)
        gone.set()

    async def _stop_all(self) -> None:
        # From here on no child is started or restarted.
        self._group = None
        # All get their cancellation now, and their deadlines begin now. So they can be waited for one by one, the earliest deadline first:
        # that is over by the last deadline, however many do not end.
        deadlines = [(child.begin_stop(), child) for child in reversed(self._children.values())]
        for _, child in sorted(deadlines, key=itemgetter(0)):
            await child.stop()


def _apart(group: TaskGroup, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
    """Start a task of the supervisor's own: it belongs to no child, even if the code of a child asks for it."""
    Context().run(partial(group.start_soon, work, *args))
