"""OTP supervision for any async function: trees of supervisors, restart strategies, intensities, ordered stops.

The package does not know sessions. `Supervisor` keeps a fixed list of children that may depend on each other; `DynamicSupervisor` keeps any
number of independent children that come and go: one for each connection, tenant or file. `Watchdog` is a thread that names the code that
blocks their loop.
"""

from holdfast.errors import Ignore
from holdfast.supervisors.dynamic import DynamicSupervisor
from holdfast.supervisors.events import (
    ChildCrashed,
    ChildDropped,
    ChildEvent,
    ChildExited,
    ChildIgnored,
    ChildRestarted,
    ChildRestarting,
    ChildStarted,
    ChildStopped,
    ChildStuck,
    ChildTasksLeft,
    OnEvent,
    SupervisionEvent,
    SupervisorStarted,
    SupervisorStopped,
)
from holdfast.supervisors.intensity import Backoff, Intensity
from holdfast.supervisors.spec import AutoShutdown, ChildSpec, Nested, Restart
from holdfast.supervisors.strategy import Strategy
from holdfast.supervisors.tree import Supervisor
from holdfast.supervisors.view import ChildCounts, ChildState, ChildView, SupervisorView
from holdfast.supervisors.watchdog import Blocked, Frame, Watchdog

__all__ = [
    "AutoShutdown",
    "Backoff",
    "Blocked",
    "ChildCounts",
    "ChildCrashed",
    "ChildDropped",
    "ChildEvent",
    "ChildExited",
    "ChildIgnored",
    "ChildRestarted",
    "ChildRestarting",
    "ChildSpec",
    "ChildStarted",
    "ChildState",
    "ChildStopped",
    "ChildStuck",
    "ChildTasksLeft",
    "ChildView",
    "DynamicSupervisor",
    "Frame",
    "Ignore",
    "Intensity",
    "Nested",
    "OnEvent",
    "Restart",
    "Strategy",
    "SupervisionEvent",
    "Supervisor",
    "SupervisorStarted",
    "SupervisorStopped",
    "SupervisorView",
    "Watchdog",
]
