"""The present state of a supervision tree: plain values for display, which msgspec can encode."""

from __future__ import annotations

from typing import Literal

import msgspec

ChildState = Literal["starting", "running", "stopped", "restarting", "stuck"]


class ChildCounts(msgspec.Struct, frozen=True):
    """How many children a supervisor has, as OTP's `count_children` counts them.

    Attributes:
        specs: all of them, also those that are stopped.
        active: those whose code runs now, or is starting.
        supervisors: those that are supervisors.
        workers: those that are not.
    """

    specs: int
    active: int
    supervisors: int
    workers: int


class ChildView(msgspec.Struct, frozen=True):
    """One child.

    Attributes:
        id: its id.
        restart: its restart type.
        state: "starting" (not ready yet), "running", "stopped", "restarting" (waits to be started again), "stuck" (killed at the
            deadline of its stop).
        restarts: how often it was started again.
        age_s: seconds in this state.
        error: one redacted line about its last crash; None if it never crashed.
        supervisor: the tree below it, if it is a supervisor.
    """

    id: str
    restart: str
    state: ChildState
    restarts: int
    age_s: float
    error: str | None = None
    supervisor: SupervisorView | None = None


class SupervisorView(msgspec.Struct, frozen=True):
    """One supervisor.

    Attributes:
        name: its name.
        strategy: its strategy, or "dynamic".
        children: its children in start order; of a dynamic supervisor at most the `limit` of the call.
        count: how many children it has.
    """

    name: str
    strategy: str
    children: tuple[ChildView, ...]
    count: int
