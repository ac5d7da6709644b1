"""The events of supervisors: small frozen values that `on_event` gets at the moment they happen.

| event | when |
| --- | --- |
| ChildStarted | a child runs (for one that reports readiness: it is ready) |
| ChildExited | a child returned by itself |
| ChildIgnored | a child raised `Ignore` before it was ready: it is not started, and that is no crash |
| ChildCrashed | a child raised, or ended with a CancelledError that no code requested; also while it was being stopped |
| ChildRestarting | a crashed child, or one that a strategy stopped, will be started again after `delay_s` |
| ChildRestarted | it runs again |
| ChildStopped | a child ended because its supervisor stopped it |
| ChildStuck | a child did not end within its `stop_s`; it was killed |
| ChildTasksLeft | a child ended, and asyncio tasks that it had started still run after its `stop_s`: a warning |
| ChildDropped | a dynamic child spent its intensity and is gone; its siblings keep running |
| SupervisorStarted | all children of a supervisor were started |
| SupervisorStopped | a supervisor has stopped all its children; the event names the cause |
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import msgspec

_log = logging.getLogger("holdfast.supervisors")


class ChildEvent(msgspec.Struct, frozen=True):
    """An event of one child. `supervisor` is the name of its supervisor, `child` its id."""

    supervisor: str
    child: str


class ChildStarted(ChildEvent, frozen=True):
    """The child runs."""


class ChildExited(ChildEvent, frozen=True):
    """The child returned by itself."""


class ChildIgnored(ChildEvent, frozen=True):
    """The child has nothing to do, and was not started. `reason` is the text of its `Ignore`."""

    reason: str


class ChildCrashed(ChildEvent, frozen=True):
    """The child raised. `exception` holds the frames of the crash: read it, do not keep it."""

    error: str
    exception: BaseException


class ChildRestarting(ChildEvent, frozen=True):
    """The child will be started again in `delay_s` seconds."""

    delay_s: float


class ChildRestarted(ChildEvent, frozen=True):
    """The child runs again, for the `restarts`th time."""

    restarts: int


class ChildStopped(ChildEvent, frozen=True):
    """The child ended because its supervisor stopped it."""


class ChildStuck(ChildEvent, frozen=True):
    """The child did not end within its `stop_s` seconds: it was killed, and its code does not run again."""

    stop_s: float


class ChildTasksLeft(ChildEvent, frozen=True):
    """The child has ended, and these of its asyncio tasks, by name, swallowed their cancellation: their code still runs."""

    tasks: tuple[str, ...]


class ChildDropped(ChildEvent, frozen=True):
    """The dynamic child spent its intensity. `error` is the text of its last crash, None if it had returned."""

    restarts: int
    error: str | None


class SupervisorStarted(msgspec.Struct, frozen=True):
    """All children were started."""

    supervisor: str


StopReason = Literal["cancelled", "gave_up", "auto_shutdown", "error"]


class SupervisorStopped(msgspec.Struct, frozen=True):
    """All children are stopped."""

    supervisor: str
    reason: StopReason


SupervisionEvent = ChildEvent | SupervisorStarted | SupervisorStopped
OnEvent = Callable[[SupervisionEvent], None]


def emitter(on_event: OnEvent | None) -> OnEvent:
    """An observer that is safe to call anywhere: an exception of `on_event` is logged, and reaches neither child nor supervisor."""
    if on_event is None:
        return _ignore

    def emit(event: SupervisionEvent) -> None:
        try:
            on_event(event)
        except Exception:
            # A bug of an observer must not end the supervisor.
            _log.exception("on_event raised for %s", type(event).__name__)

    return emit


def _ignore(event: SupervisionEvent) -> None:
    """No observer."""
