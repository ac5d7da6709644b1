"""Observers of events: spans, logs and the trace that a message carries. No lower package imports this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.telemetry.telemetry import Telemetry

__all__ = ["Telemetry"]


def __getattr__(name: str) -> Any:
    """Public names are imported at first use: code that sends a message imports only `context`."""
    if name == "Telemetry":
        from holdfast.telemetry.telemetry import Telemetry

        return Telemetry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
