"""The tasks that run the steps of one run of a turn, of any origin, and how all of them are ended.

A step runs in the task that asked for it. The flight knows that task from the step's first to its last moment, so that no work of a turn
outlives it: not in `asyncio.gather`, not in a TaskGroup, not in a task of a framework.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, Literal, Protocol

from holdfast.errors import ConfigError
from holdfast.runtime.turns import branches, tasks
from holdfast.runtime.turns.branches import Branch
from holdfast.runtime.turns.order import Order

FIRST_S, MOST_S = 0.05, 1.0
"""The pause before a task that did not end is cancelled again, in seconds: doubling from the first to the second."""

_MANY = 64

Between = Literal["no", "maybe", "yes"]


def _nothing() -> None:
    """For a run that is over."""


class Lane:
    """One task that runs steps of the turn.

    Attributes:
        steps: how many steps are open in it: more than one where a step's function asks for steps itself.
        pinned: how many of those must not be left for a wait inside them.
        waits: whether it is in a wait that the turn could be parked for.
    """

    __slots__ = ("gathers", "pinned", "steps", "task", "waits")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.steps = self.pinned = 0
        self.waits = self.gathers = False

    @property
    def counts(self) -> bool:
        """Whether it keeps the turn from parking: a step in it is neither waiting nor gathering."""
        return self.steps > 0 and (self.pinned > 0 or not (self.waits or self.gathers))


class Open(Protocol):
    """A step that is in flight."""

    @property
    def lane(self) -> Lane: ...


class Flight:
    """The lanes of one run. `all_waiting` is called when no step in flight is running: each of them waits, or none is in flight.

    Attributes:
        awaited: whether the end of a step may call `all_waiting`: another step waits, or the run is to be left.
        handler: the task of the handler, once it runs.
        made: the tasks that the handler's code made itself and that have not ended, with or without a step in them; each with its line.
        counts: how often each identity was asked for, by the path of its branch.
        steps: how many steps are open.
        busy: how many lanes have a step that does not wait.
        nested: the open steps of branches below the handler's own, each with the path of its branch.
        mark: monotonic seconds up to which the run's activity was counted.
    """

    __slots__ = (
        "_all_waiting", "_emptied", "_gathered", "_loop", "_monotonic", "_order", "_title", "awaited", "branches", "busy", "counts",
        "handler", "lanes", "made", "mark", "nested", "steps",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        monotonic: Callable[[], float],
        title: str,
        order: Order,
        all_waiting: Callable[[], None],
    ) -> None:
        self._loop, self._monotonic, self._title, self._order, self._all_waiting = loop, monotonic, title, order, all_waiting
        self.counts: dict[str, dict[bytes, int]] = {}
        self.lanes: dict[asyncio.Task[Any], Lane] = {}
        self.branches: dict[asyncio.Task[Any], None] = {}  # a set that keeps its order
        self.handler: asyncio.Task[Any] | None = None
        self.made: dict[asyncio.Task[Any], Branch] = {}
        self._gathered: set[asyncio.Task[Any]] = set()
        self.busy = self.steps = self.awaited = 0
        self.nested: dict[Open, str] = {}
        self.mark = 0.0
        self._emptied: asyncio.Future[None] | None = None

    # ------------------------------------------------------------ steps

    def enter(self) -> Lane:
        """A step begins in the calling task."""
        task = asyncio.current_task()
        assert task is not None
        lane = self.lanes.get(task)
        if lane is None:
            lane = self._open(task)
        lane.steps += 1
        self.steps += 1
        if lane.steps == 1:
            if self.busy == 0:
                self.mark = self._monotonic()
            self.busy += 1
        return lane

    def leave(self, lane: Lane) -> None:
        """The step has ended."""
        lane.steps -= 1
        self.steps -= 1
        if lane.steps:
            return
        self.busy -= 1
        if self.awaited and self.busy == 0:
            self._all_waiting()
        if self._emptied is not None and self.steps == 0 and not self._emptied.done():
            self._emptied.set_result(None)

    def _open(self, task: asyncio.Task[Any]) -> Lane:
        if task.get_loop() is not self._loop:
            raise ConfigError(
                "a step was asked for in another event loop than the session's: hand it over with "
                "asyncio.run_coroutine_threadsafe(session.step(...), loop)"
            )
        if len(self.lanes) >= _MANY and len(self.lanes) % _MANY == 0:
            self.lanes = {task: lane for task, lane in self.lanes.items() if lane.steps or not task.done()}
        lane = self.lanes[task] = Lane(task)
        task.add_done_callback(self._task_over)
        return lane

    def _task_over(self, task: asyncio.Task[Any]) -> None:
        if self.busy == 0:
            self._all_waiting()

    def pause(self, lane: Lane) -> None:
        """The step in the lane begins to wait."""
        before = lane.counts
        lane.waits = True
        self._count(lane, before)

    def resume(self, lane: Lane) -> None:
        """The step in the lane stops waiting."""
        before = lane.counts
        lane.waits = False
        self._count(lane, before)

    def gathering(self, on: bool) -> None:
        """The calling task begins, or stops, waiting for branches of its own."""
        task = asyncio.current_task()
        assert task is not None
        lane = self.lanes.get(task) or self._open(task)
        before = lane.counts
        lane.gathers = on
        self._count(lane, before)

    def _count(self, lane: Lane, before: bool) -> None:
        change = lane.counts - before
        if change > 0 and self.busy == 0:
            self.mark = self._monotonic()
        self.busy += change
        if self.busy == 0:
            self._all_waiting()

    # ------------------------------------------------------------ branches

    def start(self, work: Coroutine[Any, Any, Any], branch: Branch, *, gathered: bool = False) -> asyncio.Task[Any]:
        """Run `work` concurrently with the handler, in `branch`; it ends with the run at the latest."""
        context = copy_context()
        context.run(branches.enter, branch)
        task = tasks.start(tasks.contained(lambda: work), f"branch {self._title}{branch.path}", context)
        branch.task = branch.task or task
        self.branches[task] = None
        if gathered:
            self._gathered.add(task)
        task.add_done_callback(partial(self._branch_over, work, branch))
        return task

    def _branch_over(self, work: Coroutine[Any, Any, Any], branch: Branch, task: asyncio.Task[Any]) -> None:
        work.close()  # a task that is cancelled before it begins never awaits its coroutine
        if branch.task is task:
            branch.task = None  # as in `close`
        del self.branches[task]
        self._gathered.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: where the turn is left, no code reads it
        if self.busy == 0:
            self._all_waiting()

    @property
    def seen(self) -> int:
        """The place of the last outcome that the code of the run has seen (see Order)."""
        return self._order.seen

    # ------------------------------------------------------------ code between two steps

    def between(self) -> Between:
        """Whether code of the run is between two steps: it neither waits nor has a step open, so it can ask for the next one by itself.

        "maybe": it could also wait for a task of its own that waits. Of such a task only its steps are known.
        """
        if self.handler is None or self.handler.done():
            return "yes"  # the run begins or ends without a step
        lanes = [lane for lane in self.lanes.values() if not lane.task.done()]
        waiting = {lane.task for lane in lanes if lane.waits or lane.gathers}
        in_steps = waiting.union(lane.task for lane in lanes if lane.steps)
        ours = {*self.branches, self.handler}
        running = {task for task in (*ours, *(lane.task for lane in lanes), *self.made) if not task.done()} - in_steps
        if not running:
            return "no"
        # A task that waits for a gathered one is known: it gathers.
        awaited = waiting - self._gathered - {self.handler}
        return "yes" if running & ours and not awaited else "maybe"

    def tasks(self) -> set[asyncio.Task[Any]]:
        """All known tasks of the run, including ended ones."""
        tasks = {*self.branches, *self.made, *self.lanes}
        if self.handler is not None:
            tasks.add(self.handler)
        return tasks

    def task_made(self, task: asyncio.Task[Any], line: Branch) -> None:
        """The handler's code made a task itself, which is a line of its own."""
        self.made[task] = line
        task.add_done_callback(self._forget_made)

    def _forget_made(self, task: asyncio.Task[Any]) -> None:
        self.made.pop(task, None)

    def forget_inside(self, path: str) -> None:
        """A step has ended: tasks that its function left (such as the heartbeat of a client that it opened) are not the handler's."""
        for task in [task for task, line in self.made.items() if line.path.startswith(path)]:
            del self.made[task]

    # ------------------------------------------------------------ the end

    async def end_inside(self, path: str) -> None:
        """The function of a step has ended: cancel the steps that it left in tasks of its own, and wait for their end."""
        pause_s = FIRST_S
        while left := self.cancel_inside(path):
            await asyncio.wait(left, timeout=pause_s)
            pause_s = min(2 * pause_s, MOST_S)

    def cancel_inside(self, path: str) -> list[asyncio.Task[Any]]:
        """The same without the wait: returns the cancelled tasks."""
        tasks = list(dict.fromkeys(step.lane.task for step, within in self.nested.items() if within.startswith(path)))
        for task in tasks:
            task.cancel()
        return tasks

    @property
    def all_ended(self) -> bool:
        """Whether the handler and all that it made has ended."""
        alone = self.steps == 0 and not self.branches and not self.made
        return alone and self.handler is not None and self.handler.done()

    async def end(self, quarantine_s: float, stuck: Callable[[asyncio.Future[Any]], None]) -> bool:
        """Cancel all tasks of the run, and wait until they have ended.

        A task that swallows its cancellation is cancelled again. After `quarantine_s` seconds, `stuck` is called with each that has not
        ended. The wait for steps has no limit, since an effect may still happen. False if the handler or a branch, with no step open, still
        runs and is left behind.
        """
        deadline, pause_s, reported = self._loop.time() + quarantine_s, FIRST_S, set[asyncio.Task[Any]]()
        while pending := self._pending():
            for task in pending:
                task.cancel()
            left_s = deadline - self._loop.time()
            await self._some_end(min(pause_s, left_s) if left_s > 0 else pause_s)
            pause_s = min(2 * pause_s, MOST_S)
            if self._loop.time() < deadline:
                continue
            for task in self._pending():
                if task not in reported:
                    reported.add(task)
                    stuck(task)
            if self.steps == 0 and reported:
                return not self._ours()
        return True

    def close(self) -> None:
        """All has ended. What ties the run and its tasks in a circle is let go of: else each turn waited for the garbage collector."""
        self.lanes, self.handler, self._all_waiting = {}, None, _nothing

    def _ours(self) -> list[asyncio.Task[Any]]:
        """The handler and the branches that have not ended."""
        return [task for task in (*reversed(self.branches), self.handler) if task is not None and not task.done()]

    def _pending(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended. Also the handler's own tasks that asked for steps and wait for work: none will come."""
        working = [lane.task for lane in self.lanes.values() if lane.steps]
        return [task for task in dict.fromkeys([*self._ours(), *working, *self._workers()]) if not task.done()]

    def _workers(self) -> list[asyncio.Task[Any]]:
        """The handler's own tasks that asked for steps and have not ended."""
        return [task for task, line in self.made.items() if line.asked and not task.done()]

    async def _some_end(self, within_s: float) -> None:
        waited: list[asyncio.Future[Any]] = [*self._ours(), *self._workers()]
        if self.steps:
            self._emptied = self._loop.create_future()
            waited.append(self._emptied)
        if waited:
            await asyncio.wait(waited, timeout=within_s)
