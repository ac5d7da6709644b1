"""The turn and the step that the current code runs in, for logs and spans.

The frame is a context variable. Observers of events set it; they are called synchronously in the task that runs the step. So all code that
the step calls or starts sees it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, TypeAlias

from holdfast import events
from holdfast.telemetry.context import Carried, parse
from holdfast.telemetry.ids import TurnIds, step_id, turn_ids


class TurnFrame:
    """One run of a turn.

    Attributes:
        sampled: whether its spans are recorded.
        batch, number, head: its place in the batch that is being gathered, and its description in a batch (see packing).
        running, concurrent: the spans of the running steps: of one step, and by key those of the steps that run at the same time.
        left: the unfinished steps of this run, by key, and when each was left.
        parting: the turn was left to park; the event with the reason is still to come.
        span: its span where this process makes the spans (see plain).
    """

    __slots__ = (
        "agent", "batch", "began", "carried", "concurrent", "head", "ids", "left", "message", "number", "parting", "restarts", "running",
        "sampled", "session", "span", "tenant", "turn", "user",
    )  # fmt: skip

    def __init__(self, event: events.TurnStarted) -> None:
        self.session, self.turn, self.message = event.session, event.turn, event.message
        self.agent, self.tenant, self.user = event.agent, event.tenant, event.user
        self.began, self.restarts = event.began, event.restarts
        self.carried: Carried | None = parse(event.context)
        self.ids: TurnIds = turn_ids(event.session, event.turn, event.message, self.carried)
        self.sampled, self.parting = True, False
        self.batch, self.number = -1, 0
        self.head: Any = None
        self.running: Any = None
        self.concurrent: dict[bytes, Any] = {}
        self.left: dict[bytes, tuple[Any, float]] | None = None
        self.span: Any = None

    @property
    def of(self) -> TurnFrame:
        """The turn."""
        return self

    @property
    def span_id(self) -> int:
        """The id of its span."""
        return self.ids.span_id


class StepFrame:
    """One step of a turn, while it runs; `within` is the frame that it runs in."""

    __slots__ = ("effect", "key", "kind", "name", "of", "opened", "outer", "span", "within")

    def __init__(self, event: events.StepStarted, of: TurnFrame, within: Frame | None) -> None:
        self.of, self.within = of, within
        self.key, self.kind, self.name, self.effect, self.opened = event.key, event.kind, event.name, event.effect, event.opened
        self.span: Any = None
        self.outer: Any = None

    @property
    def span_id(self) -> int:
        """The id of its span; computed at first use."""
        return step_id(self.of.ids, self.key)


Frame: TypeAlias = TurnFrame | StepFrame


def step_of(frame: Frame | None, session: str, key: bytes) -> StepFrame | None:
    """The step `key` of `session`, if `frame` is it or is inside it."""
    while type(frame) is StepFrame:
        if frame.key == key and frame.of.session == session:
            return frame
        frame = frame.within
    return None


def current_var(name: str) -> ContextVar[Frame | None]:
    """A variable for the frame that code runs in; each observer that tracks frames has its own."""
    return ContextVar(name, default=None)
