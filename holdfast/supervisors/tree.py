"""The supervisor: starts its children in order, restarts crashed ones by its strategy, stops them in reverse order.

One loop makes all changes to children, one at a time, as in OTP: exits and requests wait in an inbox. Wherever that loop is interrupted,
the state of each child says whether it has to be stopped.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import anyio
from anyio.abc import TaskGroup, TaskStatus

from holdfast.clock import Clock, SystemClock
from holdfast.errors import HoldfastError, SupervisorGaveUp
from holdfast.supervisors.child import Child, Life, count, describe
from holdfast.supervisors.events import ChildRestarting, OnEvent, StopReason, SupervisorStarted, SupervisorStopped, emitter
from holdfast.supervisors.inbox import Inbox, Request
from holdfast.supervisors.intensity import AT_ONCE, OFTEN, Backoff, Intensity, RestartWindow, Uniform, faults_of
from holdfast.supervisors.shielded import run_shielded
from holdfast.supervisors.spec import AUTO_SHUTDOWNS, AutoShutdown, ChildSpec, check_children, check_name, refuse
from holdfast.supervisors.strategy import STRATEGIES, Strategy, plan
from holdfast.supervisors.view import ChildCounts, SupervisorView

_SYSTEM_CLOCK = SystemClock()


class Supervisor:
    """Supervises a fixed list of children, as OTP's `supervisor` does.

    Args:
        name: its name in the tree.
        children: their specs, in start order; supervisors among them nest.
        strategy: which siblings are restarted after a crash: "one_for_one", "one_for_all" or "rest_for_one".
        intensity: how many restarts, of all children together, within which period are too many.
        backoff: how long to wait before a restart; by default there is no wait, as in OTP.
        auto_shutdown: whether the exit of "any_significant" child, or that of the last ("all_significant"), ends the supervisor.
        clock: for the restart period and for ages.
        on_event: called with each event (see `events`); must not block.
        uniform: draws the jitter of the backoff.

    Raises:
        ConfigError: the definition is wrong; the message names every fault.
    """

    def __init__(
        self,
        name: str,
        children: Sequence[ChildSpec],
        *,
        strategy: Strategy = "one_for_one",
        intensity: Intensity = OFTEN,
        backoff: Backoff = AT_ONCE,
        auto_shutdown: AutoShutdown = "never",
        clock: Clock = _SYSTEM_CLOCK,
        on_event: OnEvent | None = None,
        uniform: Uniform = random.uniform,
    ) -> None:
        faults = check_name(name)
        if strategy not in STRATEGIES:
            faults.append(f"strategy is {strategy!r}: use one of {', '.join(STRATEGIES)}")
        if auto_shutdown not in AUTO_SHUTDOWNS:
            faults.append(f"auto_shutdown is {auto_shutdown!r}: use one of {', '.join(AUTO_SHUTDOWNS)}")
        refuse(name, faults + faults_of(intensity, backoff) + check_children(children, auto_shutdown))
        self.name = name
        self._specs = tuple(children)
        self._strategy: Strategy = strategy
        self._intensity = intensity
        self._backoff = backoff
        self._auto_shutdown: AutoShutdown = auto_shutdown
        self._clock = clock
        self._emit = emitter(on_event)
        self._uniform = uniform
        self._running = False
        self._group: TaskGroup | None = None
        self._inbox = Inbox(name)
        self._reset()

    def _reset(self) -> None:
        self._children = {spec.id: self._child(spec) for spec in self._specs}
        self._window = RestartWindow(self._intensity)
        self._due: dict[str, float] = {}

    # ------------------------------------------------------------ public

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start the children in order and keep them running until cancelled, until it gives up, or until it shuts down.

        Returns only on automatic shutdown. Every run begins with the children of the constructor. If cancelled, it first stops the children
        in reverse start order, each within its `stop_s`.

        Args:
            task_status: its `started()` is called when all children were started.

        Raises:
            SupervisorGaveUp: more restarts than the intensity allows, or a child was not ready in time in the first start. The child's
                error is the cause.
        """
        if self._running:
            raise RuntimeError(f"supervisor {self.name!r} is running already")
        self._reset()
        reason: StopReason = "error"

        async def serve(group: TaskGroup) -> None:
            nonlocal reason
            self._group = group
            self._inbox.open()
            try:
                await self._start_all()
                task_status.started()
                self._emit(SupervisorStarted(self.name))
                while not await self._turn():
                    pass
                reason = "auto_shutdown"
            except SupervisorGaveUp:
                reason = "gave_up"
                raise
            except anyio.get_cancelled_exc_class():
                reason = "cancelled"
                raise

        self._running = True
        try:
            await run_shielded(serve, self._stop_all)
        finally:
            self._running, self._group = False, None
            # All are over, unless this supervisor itself is being killed: then no child may outlive it.
            for child in self._children.values():
                child.kill_nowait()
            self._emit(SupervisorStopped(self.name, reason))

    def tree(self) -> SupervisorView:
        """The present state of it and of everything below it."""
        children = tuple(child.view() for child in self._children.values())
        return SupervisorView(self.name, self._strategy, children, len(children))

    def count_children(self) -> ChildCounts:
        """How many children it has, by kind."""
        return count(self._children.values())

    async def start_child(self, spec: ChildSpec) -> bool:
        """Add a child as the last one and start it. A restart of the supervisor itself removes it, as in OTP.

        If cancelled, the child may be started all the same.

        Returns:
            Whether it runs; False if it raised `Ignore`: then it is kept, stopped, unless it is temporary.

        Raises:
            ConfigError: the spec is wrong, or its id is taken.
            RuntimeStopped: the supervisor is not running.
            Exception: the child raised it before it was ready; then the child is not added.
        """

        runs = False

        async def verb() -> None:
            nonlocal runs
            refuse(self.name, check_children([*(child.spec for child in self._children.values()), spec], self._auto_shutdown))
            child = self._children[spec.id] = self._child(spec)
            if (error := await self._start(child)) is not None:
                del self._children[spec.id]
                raise error
            runs = not child.ignored

        await self._inbox.request(verb)
        return runs

    async def stop_child(self, id: str) -> None:
        """Stop a child. It stays stopped unless `restart_child` or a strategy starts it again; a temporary one is forgotten.

        If cancelled, the child is stopped all the same.

        Raises:
            LookupError: there is no such child.
            RuntimeStopped: the supervisor is not running.
        """

        async def verb() -> None:
            await self._stop(self._find(id))

        await self._inbox.request(verb)

    async def delete_child(self, id: str) -> None:
        """Forget a child that is stopped, so that no strategy starts it again and its id is free.

        If cancelled, the child is forgotten all the same.

        Raises:
            LookupError: there is no such child.
            HoldfastError: it runs, or waits for its restart: stop it first.
            RuntimeStopped: the supervisor is not running.
        """

        async def verb() -> None:
            child = self._find(id)
            if child.alive:
                raise HoldfastError(f"supervisor {self.name!r}: child {id!r} is {child.state}: call stop_child({id!r}) first")
            await child.stop()  # makes a report of its end that is still in the inbox out of date
            self._forget(child)

        await self._inbox.request(verb)

    async def restart_child(self, id: str) -> bool:
        """Start a stopped child; a running one is stopped first (OTP refuses that). Does not count towards the intensity.

        If cancelled, the child is restarted all the same.

        Returns:
            Whether it runs; False if it raised `Ignore`.

        Raises:
            LookupError: there is no such child.
            RuntimeStopped: the supervisor is not running.
            Exception: the child raised it before it was ready; then the child stays stopped.
        """

        runs = False

        async def verb() -> None:
            nonlocal runs
            child = self._find(id)
            await child.stop()
            if (error := await self._start(child)) is not None:
                raise error
            runs = not child.ignored

        await self._inbox.request(verb)
        return runs

    # ------------------------------------------------------------ the loop

    async def _turn(self) -> bool:
        """Handle one item of the inbox. Returns whether that shuts the supervisor down."""
        item = await self._inbox.next(until=min(self._due.values(), default=math.inf))
        if item is None:
            await self._start_due()
        elif isinstance(item, Request):
            await item.serve()
        elif item.is_current:
            return await self._exited(item.child, item.life, item.error)
        return False

    async def _exited(self, child: Child, life: Life, error: BaseException | None) -> bool:
        if child.comes_back(life, error):
            await self._restart(child, error)
            return False
        if child.spec.restart == "temporary":
            self._forget(child)
        return not life.ignored and self._shuts_down(child)

    def _shuts_down(self, gone: Child) -> bool:
        if self._auto_shutdown == "never" or not gone.spec.significant:
            return False
        if self._auto_shutdown == "any_significant":
            return True
        return not any(child.spec.significant and child.alive for child in self._children.values())

    async def _restart(self, failed: Child, error: BaseException | None) -> None:
        """Stop the children that the strategy names, and make every child that it restarts due for a start."""
        if not self._window.allow(self._clock.monotonic()):
            last = "it returned" if error is None else f"its last failure: {describe(error)}"
            raise SupervisorGaveUp(self.name, failed.spec.id, f"was restarted too often; {last}") from error
        wait_s = failed.streak.wait_s(self._backoff, failed.ran_s, self._uniform)
        concerned = plan(self._strategy, list(self._children), failed.spec.id)
        for id in concerned.stop:
            await self._stop(self._children[id])
        due = anyio.current_time() + wait_s
        for id in concerned.start:
            if (child := self._children.get(id)) is not None:
                child.await_restart()
                self._due[id] = due
                self._emit(ChildRestarting(self.name, id, wait_s))

    async def _start_due(self) -> None:
        """Start, in order, the children whose wait is over. A child that fails to start is one more crash, with its own plan."""
        now = anyio.current_time()
        for child in [child for id, child in self._children.items() if self._due.get(id, math.inf) <= now]:
            if (error := await self._start(child)) is not None:
                await self._restart(child, error)
                return

    # ------------------------------------------------------------ one child

    def _child(self, spec: ChildSpec) -> Child:
        return Child(spec, self.name, self._clock, self._emit, self._inbox.put_exit)

    def _find(self, id: str) -> Child:
        if id not in self._children:
            raise LookupError(f"supervisor {self.name!r} has no child {id!r}; it has: {', '.join(self._children) or 'none'}")
        return self._children[id]

    async def _start(self, child: Child) -> Exception | None:
        """Start a child and wait until it is ready. Returns why it is not."""
        assert self._group is not None
        self._due.pop(child.spec.id, None)
        child.start(self._group)
        error = await child.wait_ready()
        if child.ignored and child.spec.restart == "temporary":
            self._forget(child)
        return error

    async def _stop(self, child: Child) -> None:
        self._due.pop(child.spec.id, None)
        await child.stop()
        if child.spec.restart == "temporary":
            self._forget(child)

    def _forget(self, child: Child) -> None:
        # The id may belong to a new child by now.
        if self._children.get(child.spec.id) is child:
            del self._children[child.spec.id]

    # ------------------------------------------------------------ all of them

    async def _start_all(self) -> None:
        for child in list(self._children.values()):
            if (error := await self._start(child)) is not None:
                raise SupervisorGaveUp(self.name, child.spec.id, f"did not start: {describe(error)}") from error

    async def _stop_all(self) -> None:
        self._inbox.close()
        self._due.clear()
        for child in reversed(self._children.values()):
            await child.stop()
