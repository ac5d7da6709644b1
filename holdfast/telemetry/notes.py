"""Events that become events of a span, not spans: their names, and their fields as attributes without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from holdfast import events, redact
from holdfast.telemetry.conventions import MAX_TEXT, Attributes, clean

OF_STEP: Final[Mapping[type[events.Event], str]] = {
    events.StepRetried: "holdfast.retry",
    events.ThreadAbandoned: "holdfast.thread_abandoned",
    events.MaybePaid: "holdfast.maybe_paid",
    events.DoubtRaised: "holdfast.doubt",
    events.StepLeft: "holdfast.left",
}
"""Events of the running step in which they happen, else of the turn."""

OF_TURN: Final[Mapping[type[events.Event], str]] = {
    events.TurnCrashed: "holdfast.crash",
    events.TurnLeft: "holdfast.left",
    events.SessionParked: "holdfast.park",
    events.SessionStuck: "holdfast.stuck",
    events.DoubtSettled: "holdfast.doubt_settled",
    events.Drifted: "holdfast.drift",
    events.Unclaimed: "holdfast.unclaimed",
    events.StoreFailed: "holdfast.store_failed",
}

NAMES: Final[Mapping[type[events.Event], str]] = {**OF_STEP, **OF_TURN}

_LEFT_OUT = {"session", "turn", "key"}


def text(value: str) -> str:
    """A free text that may be recorded: without secrets, and of limited length."""
    return clean(redact.text(value)[:MAX_TEXT]) if value else value


def facts(event: events.Event) -> Attributes:
    """The fields of an event as attributes."""
    found: Attributes = {}
    for field in event.__struct_fields__:
        value = getattr(event, field)
        if field in _LEFT_OUT or value is None or value == "":
            continue
        found[f"holdfast.{field}"] = text(value) if isinstance(value, str) else value
    return found
