"""One child of any supervisor: its state machine, and one `Life` for each time it runs.

stopped -> starting -> running -> stopped              it returned, crashed, or was stopped in time
           starting, running   -> stuck                it outlived its stop deadline and was killed
stopped, stuck -> restarting -> starting               its supervisor will start it again

A life is over when its code and the asyncio tasks that it started have ended (see `owned`).
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable
from contextvars import Context

import anyio
from anyio.abc import TaskGroup, TaskStatus

from holdfast import redact
from holdfast.clock import Clock
from holdfast.errors import Ignore
from holdfast.supervisors.events import (
    ChildCrashed,
    ChildExited,
    ChildIgnored,
    ChildRestarted,
    ChildStarted,
    ChildStopped,
    ChildStuck,
    ChildTasksLeft,
    OnEvent,
)
from holdfast.supervisors.intensity import Streak
from holdfast.supervisors.killable import Killable
from holdfast.supervisors.owned import Owned, own
from holdfast.supervisors.spec import ChildSpec
from holdfast.supervisors.view import ChildCounts, ChildState, ChildView

OnExit = Callable[["Child", "Life", BaseException | None], None]
_ERROR_CHARS = 500
_TASKS_S = 5.0
"""How long the tasks of a child that may take for ever to stop (a supervisor) have to end, in seconds."""

_log = logging.getLogger("holdfast.supervisors")


class Life:
    """One run of a child, from its start to its end.

    Attributes:
        ready: set when it is ready, at the latest when it is over.
        was_ready: whether it became ready.
        over: set when its code and its tasks have stopped.
        ignored: whether it raised `Ignore` instead of becoming ready.
        stopping: whether its supervisor is stopping it: then its end is no exit.
        awaited: whether a caller waits for it to be ready, and so gets the failure if it never is.
        failure: that failure.
    """

    __slots__ = ("awaited", "body", "failure", "ignored", "over", "owned", "ready", "scope", "stop_at", "stopping", "tail", "was_ready")

    def __init__(self, body: Killable, awaited: bool) -> None:
        self.body = body
        self.awaited = awaited
        self.failure: Exception | None = None
        self.scope = anyio.CancelScope()
        self.tail: anyio.CancelScope | None = None
        self.owned: Owned | None = None
        self.ready = anyio.Event()
        self.over = anyio.Event()
        self.was_ready = False
        self.ignored = False
        self.stopping = False
        self.stop_at = math.inf


class Child:
    """A child and its state. Only its supervisor calls it.

    Args:
        spec: its definition.
        supervisor: name of its supervisor, for events.
        clock: for ages.
        emit: where its events go.
        on_exit: called when a life ended by itself: with its error, or None if it returned. Not called for a failure that `wait_ready`
            returns, and for a child that ignored its start.
        streak: its restarts in a row; its supervisor counts them.
    """

    __slots__ = (
        "_body",
        "_clock",
        "_emit",
        "_on_exit",
        "_ran_s",
        "_since",
        "_supervisor",
        "error",
        "life",
        "reports",
        "restarts",
        "spec",
        "state",
        "streak",
    )

    def __init__(self, spec: ChildSpec, supervisor: str, clock: Clock, emit: OnEvent, on_exit: OnExit) -> None:
        self.spec = spec
        self._body, self.reports = spec.body()
        self._supervisor = supervisor
        self._clock = clock
        self._emit = emit
        self._on_exit = on_exit
        self.state: ChildState = "stopped"
        self._since = clock.monotonic()
        self.life: Life | None = None
        self.restarts = -1
        self._ran_s = 0.0
        self.streak = Streak()
        self.error: str | None = None

    # ------------------------------------------------------------ start

    def start(self, group: TaskGroup, delay_s: float = 0.0, *, awaited: bool = True) -> Life:
        """Begin a life, after `delay_s` seconds. Returns at once.

        Args:
            group: where its task lives.
            delay_s: seconds to wait first.
            awaited: whether the caller calls `wait_ready` next.
        """
        status = _Status(self)
        life = self.life = status.life = Life(
            Killable(functools.partial(self._body, task_status=status) if self.reports else self._body), awaited
        )
        self.restarts += 1
        self._ran_s = 0.0
        self._enter("restarting" if delay_s else "starting")
        # A fresh context: a child must not inherit the trace span, or any other context variable, of the code that crashed or spawned it.
        name = f"{self._supervisor}/{self.spec.id}"
        Context().run(functools.partial(group.start_soon, self._live, life, delay_s, name=name))
        return life

    async def wait_ready(self, delay_s: float = 0.0) -> Exception | None:
        """Wait until the child is ready or over. Returns why it is not ready; after its `start_s` it is stopped."""
        life = self.life
        assert life is not None
        # A child that does not report readiness is ready at its first step, and needs no timer.
        with anyio.move_on_after(delay_s + self.spec.start_limit_s if self.reports else math.inf):
            await life.ready.wait()
        if not life.ready.is_set():
            await self.stop()
            late = TimeoutError(f"child {self.spec.id!r} was not ready within {self.spec.start_limit_s:g} s")
            self._crashed(late)
            return late
        try:
            return life.failure
        finally:
            # The error refers to frames that refer to this life: without this, only the garbage collector would free them.
            life.failure = None

    async def _live(self, life: Life, delay_s: float) -> None:
        try:
            with life.scope:
                if delay_s:
                    await anyio.sleep(delay_s)
                    self._enter("starting")
                # A task that was cancelled before its first step still takes that step: the child's code must not.
                if not life.scope.cancel_called:
                    life.owned = own()
                    if not self.reports:
                        self._ready(life)
                    await life.body
        except BaseException as error:
            # The child wrapper catches everything. A CancelledError that this supervisor did not cause (the child awaited a cancelled
            # future) would cancel all siblings and end the group silently; SystemExit and KeyboardInterrupt would end the loop.
            await self._end_tasks(life)
            self._end(life, error)
        else:
            await self._end_tasks(life)
            self._end(life, None)

    async def _end_tasks(self, life: Life) -> None:
        """End the asyncio tasks that the child started, within what is left of its stop."""
        owned = life.owned
        if owned is None or not owned.running():
            return
        limit = anyio.current_time() + min(self.spec.stop_limit_s, _TASKS_S)
        life.tail = anyio.CancelScope(shield=True, deadline=min(limit, life.stop_at))
        try:
            left = await owned.end(life.tail)
        except anyio.get_cancelled_exc_class():
            # A native cancellation passes every shield: the supervisor itself is being killed.
            owned.cancel()
            return
        if left:
            names = ", ".join(left)
            _log.warning("child %s/%s ended, and tasks that it started do not end: %s", self._supervisor, self.spec.id, names)
            self._emit(ChildTasksLeft(self._supervisor, self.spec.id, left))

    def _ready(self, life: Life) -> None:
        if life.over.is_set() or life.was_ready or life.stopping:
            return
        life.was_ready = True
        self._enter("running")
        if self.restarts:
            self._emit(ChildRestarted(self._supervisor, self.spec.id, self.restarts))
        else:
            self._emit(ChildStarted(self._supervisor, self.spec.id))
        life.ready.set()

    # ------------------------------------------------------------ end

    def _end(self, life: Life, error: BaseException | None) -> None:
        life.ready.set()
        life.over.set()
        if life.stopping:
            self._end_of_stop(error)
        else:
            self._end_by_itself(life, error)

    def _end_by_itself(self, life: Life, error: BaseException | None) -> None:
        self._ran_s = self._clock.monotonic() - self._since if self.state == "running" else 0.0
        # A child that does not report readiness may find that it has nothing to do at any time.
        life.ignored = isinstance(error, Ignore) and not (life.was_ready and self.reports)
        self._enter("stopped")
        if error is not None and life.ignored:
            self._emit(ChildIgnored(self._supervisor, self.spec.id, describe(error).partition(": ")[2]))
        elif error is None:
            self._emit(ChildExited(self._supervisor, self.spec.id))
        else:
            self._crashed(error)
        if error is None or life.was_ready or not life.awaited:
            self._on_exit(self, life, error)
        elif not life.ignored:
            life.failure = self._as_failure(error)

    def _as_failure(self, error: BaseException) -> Exception:
        """An error that is safe to raise in the task that waits: a stray CancelledError there would look like that task's own."""
        if isinstance(error, Exception):
            return error
        failure = RuntimeError(f"child {self.spec.id!r} failed to start: {describe(error)}")
        failure.__cause__ = error
        return failure

    def _end_of_stop(self, error: BaseException | None) -> None:
        if self.state == "stuck":
            return
        self._enter("stopped")
        if error is not None and not isinstance(error, anyio.get_cancelled_exc_class()):
            self._crashed(error)
        self._emit(ChildStopped(self._supervisor, self.spec.id))

    def _crashed(self, error: BaseException) -> None:
        self.error = describe(error)
        self._emit(ChildCrashed(self._supervisor, self.spec.id, self.error, error))

    async def stop(self) -> None:
        """Cancel the child and wait until it is over; after its `stop_s`, kill it. Call it again if it was interrupted."""
        life = self.life
        if life is None or life.over.is_set():
            self.life = None
            if self.state != "stuck":
                self._enter("stopped")
            return
        self.begin_stop()
        with anyio.CancelScope(deadline=life.stop_at):
            await life.over.wait()
        if not life.over.is_set():
            # Its own code may have ended in time, and only its tasks have not: they are reported as that.
            if life.tail is None and self.state != "stuck":
                self._enter("stuck")
                self._emit(ChildStuck(self._supervisor, self.spec.id, self.spec.stop_limit_s))
            self.kill_nowait()
            await life.over.wait()
        # Reports about this life that are still in the inbox are out of date now.
        self.life = None

    def begin_stop(self) -> float:
        """Cancel the child, unless that was done before. Returns the end of its `stop_s`, on the loop's clock; `stop` waits for it."""
        life = self.life
        if life is None or life.over.is_set():
            return 0.0
        if not life.stopping:
            life.stopping = True
            life.stop_at = anyio.current_time() + self.spec.stop_limit_s
            life.scope.cancel()
        return life.stop_at

    def kill_nowait(self) -> None:
        """End the child by force within the next turns of the loop; does nothing if it is over."""
        life = self.life
        if life is not None and not life.over.is_set():
            life.stopping, life.stop_at = True, -math.inf
            life.scope.cancel()
            life.body.kill()
            if life.tail is not None:
                life.tail.cancel()

    # ------------------------------------------------------------ for supervisors

    @property
    def ignored(self) -> bool:
        """Whether it raised `Ignore` at its last start."""
        return self.life is not None and self.life.ignored

    @property
    def active(self) -> bool:
        """Whether its code runs."""
        return self.state in ("starting", "running")

    @property
    def alive(self) -> bool:
        """Whether it runs or is about to."""
        return self.state in ("starting", "running", "restarting")

    def comes_back(self, life: Life, error: BaseException | None) -> bool:
        """Whether it is to be restarted after this end of `life` (None: it returned)."""
        if life.ignored:
            return False
        # As in OTP a restart that fails is tried again, whatever the error, until the intensity is spent.
        failed = self.reports and not life.was_ready and error is not None
        return failed or self.spec.restarts_after(error)

    def await_restart(self) -> None:
        """Mark it as down until its supervisor starts it again."""
        self.life = None
        self._enter("restarting")

    @property
    def ran_s(self) -> float:
        """How long it ran in its last life, in seconds; 0 if it never became ready."""
        return self._ran_s

    def view(self) -> ChildView:
        """Its present state."""
        nested = self.spec.nested
        return ChildView(
            id=self.spec.id,
            restart=self.spec.restart,
            state=self.state,
            restarts=max(self.restarts, 0),
            age_s=self._clock.monotonic() - self._since,
            error=self.error,
            supervisor=None if nested is None else nested.tree(),
        )

    def _enter(self, state: ChildState) -> None:
        if state != self.state:
            self.state = state
            self._since = self._clock.monotonic()


def count(children: Iterable[Child]) -> ChildCounts:
    """How many children these are, by kind."""
    specs = active = supervisors = 0
    for child in children:
        specs += 1
        active += child.active
        supervisors += child.spec.nested is not None
    return ChildCounts(specs, active, supervisors, specs - supervisors)


class _Status(TaskStatus[None]):
    """The object on which a child calls `started()`."""

    __slots__ = ("_child", "life")

    def __init__(self, child: Child) -> None:
        self._child = child
        self.life: Life | None = None

    def started(self, value: None = None) -> None:
        if self.life is not None:
            self._child._ready(self.life)


def describe(error: BaseException) -> str:
    """One line about an error, of bounded length and without secrets."""
    try:
        text = redact.text(" ".join(str(error).split()))
    except Exception as broken:
        text = f"(its text could not be read: {type(broken).__name__})"
    if not text and isinstance(error, anyio.get_cancelled_exc_class()):
        text = "no code cancelled this child; it awaited something that was cancelled"
    return f"{type(error).__name__}: {text}"[:_ERROR_CHARS] if text else type(error).__name__
