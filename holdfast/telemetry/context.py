"""The trace of a message's sender, as a text that travels with the message.

The text is a W3C traceparent (`00-<trace>-<span>-<flags>`), and the turn of the receiver becomes a child of that span. After `link:` it is
a link instead: the receiver begins a trace of its own and points at the sender. So two agents that send each other messages for months do
not share one endless trace. "" is no trace.
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

LINK = "link:"

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class Carried(NamedTuple):
    """A parsed text: ids as integers, never 0."""

    trace_id: int
    span_id: int
    sampled: bool
    link: bool


def carried() -> str:
    """The traceparent of the current OpenTelemetry span, "" if there is none.

    It imports nothing: a process that never imported OpenTelemetry has no current span.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    try:
        context = trace.get_current_span().get_span_context()
    except AttributeError:
        return ""  # the module is being imported right now, in another thread
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"


def linked() -> str:
    """The same for a message that leaves when a turn commits: the receiver begins a trace of its own and points at the sender."""
    traceparent = carried()
    return LINK + traceparent if traceparent else ""


def parse(text: str) -> Carried | None:
    """The parsed `text`, or None if it is not valid (it may come from outside)."""
    if not text:
        return None
    link = text.startswith(LINK)
    match = _TRACEPARENT.fullmatch(text.removeprefix(LINK))
    if match is None:
        return None
    version, trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    if version == 0xFF or not trace_id or not span_id:
        return None
    return Carried(trace_id, span_id, bool(flags & 1), link)
