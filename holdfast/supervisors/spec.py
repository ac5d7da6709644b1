"""The definition of a child: how it starts, when it is restarted, how long it may take to stop."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
from anyio.abc import TaskStatus

from holdfast.errors import ConfigError, SupervisorGaveUp
from holdfast.given import brief
from holdfast.supervisors.intensity import is_duration
from holdfast.supervisors.view import SupervisorView

Restart = Literal["permanent", "transient", "temporary"]
RESTARTS: tuple[Restart, ...] = ("permanent", "transient", "temporary")
AutoShutdown = Literal["never", "any_significant", "all_significant"]
AUTO_SHUTDOWNS: tuple[AutoShutdown, ...] = ("never", "any_significant", "all_significant")


@runtime_checkable
class Nested(Protocol):
    """A supervisor, as its parent supervisor sees it."""

    @property
    def name(self) -> str:
        """Its name in the tree."""
        ...

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Run until cancelled, until it gives up, or until it shuts down."""
        ...

    def tree(self) -> SupervisorView:
        """Its present state."""
        ...


class ChildSpec(msgspec.Struct, frozen=True):
    """The definition of a child. Checked, with all others at once, by the supervisor that takes it.

    Attributes:
        id: its name, unique in its supervisor.
        start: an async function without required arguments, run as the child: returning is a normal exit, raising a crash. If it
            has a parameter `task_status`, the next child is started only after `task_status.started()`. Raising `Ignore` before that call
            leaves the child stopped, as `ignore` does in OTP. The asyncio tasks that it starts end with it. Or a supervisor.
        restart: "permanent": always; "transient": after a crash only, and a supervisor that gave up is none, as in OTP; "temporary": never.
        significant: whether its exit can shut the supervisor down (see `auto_shutdown`); not allowed for a permanent child.
        stop_s: seconds it may take to end after it was cancelled; then it is killed. None means 5; for a supervisor no limit, as in OTP.
        start_s: seconds it may take to report readiness. None means 30; for a supervisor no limit.
    """

    id: str
    start: Callable[..., Awaitable[None]] | Nested
    restart: Restart = "permanent"
    significant: bool = False
    stop_s: float | None = None
    start_s: float | None = None

    @property
    def nested(self) -> Nested | None:
        """The supervisor that this child is, if it is one."""
        return None if inspect.isfunction(self.start) or not isinstance(self.start, Nested) else self.start

    @property
    def stop_limit_s(self) -> float:
        """Seconds that its stop may take; the default where the spec has None."""
        return self._limit(self.stop_s, 5.0)

    @property
    def start_limit_s(self) -> float:
        """Seconds that its start may take; the default where the spec has None."""
        return self._limit(self.start_s, 30.0)

    def _limit(self, given: float | None, default: float) -> float:
        if given is not None:
            return given
        return default if self.nested is None else math.inf

    def restarts_after(self, error: BaseException | None) -> bool:
        """Whether its restart type asks for a restart after this end (None: it returned).

        A supervisor that gave up has ended in order: OTP's exit reason is `shutdown` then, which restarts no transient child.
        """
        crashed = error is not None and not isinstance(error, SupervisorGaveUp)
        return self.restart == "permanent" or (self.restart == "transient" and crashed)

    def body(self) -> tuple[Callable[..., Awaitable[None]], bool]:
        """The function to call, and whether it takes a `task_status` with which it reports readiness."""
        nested = self.nested
        if nested is not None:
            return nested.run, True
        assert callable(self.start)
        return self.start, "task_status" in _parameters(self.start)


def check_children(specs: Iterable[ChildSpec], auto_shutdown: AutoShutdown = "never") -> list[str]:
    """The faults of these children under one supervisor; empty if there are none."""
    specs = list(specs)
    if strangers := [item for item in specs if not _is(item, ChildSpec)]:
        return [f"{brief(item)} is not a ChildSpec" for item in strangers]
    found = [fault for spec in specs for fault in _faults(spec, auto_shutdown)]
    repeated = [id for id, times in Counter(spec.id for spec in specs).items() if times > 1]
    return found + [f"child id {id!r} is used more than once" for id in repeated]


def check_name(value: object, field: str = "name") -> list[str]:
    """The faults of a name; empty if there are none."""
    return [] if _is(value, str) and value else [f"{field} is {brief(value)}: use a string that is not empty"]


def refuse(name: object, faults: list[str]) -> None:
    """Raise one ConfigError that lists all faults of the supervisor `name`, if there are any."""
    if faults:
        raise ConfigError(f"supervisor {brief(name)}: " + "; ".join(faults))


def _faults(spec: ChildSpec, auto_shutdown: AutoShutdown) -> list[str]:
    found = check_name(spec.id, "id")
    if spec.restart not in RESTARTS:
        found.append(f"restart is {brief(spec.restart)}: use one of {', '.join(RESTARTS)}")
    for field, value in (("stop_s", spec.stop_s), ("start_s", spec.start_s)):
        if value is not None and not is_duration(value):
            found.append(f"{field} is {brief(value)}: use seconds from 0")
    if spec.significant and spec.restart == "permanent":
        found.append("a permanent child cannot be significant, because it is always restarted: use transient or temporary")
    if spec.significant and auto_shutdown == "never":
        found.append("a significant child needs a supervisor with auto_shutdown any_significant or all_significant")
    found += _start_faults(spec)
    return [f"child {brief(spec.id)}: {fault}" for fault in found]


def _start_faults(spec: ChildSpec) -> list[str]:
    if spec.nested is not None:
        return []
    if not callable(spec.start):
        return [f"start is {brief(spec.start)}: use an async function or a supervisor"]
    required = [
        name
        for name, parameter in _parameters(spec.start).items()
        if name != "task_status"
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return [f"start needs arguments ({', '.join(required)}): bind them with functools.partial"] if required else []


def _is(value: object, kind: type) -> bool:
    """Types are checked at run time too: a definition may come from code that was never type-checked."""
    return isinstance(value, kind)


def _parameters(start: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(start).parameters)
    except ValueError:
        # Some callables written in C have no signature; they are called without arguments.
        return {}
