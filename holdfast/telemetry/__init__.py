"""Observers of events: spans, logs and the trace that a message carries. Nothing below knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.telemetry.telemetry import Telemetry

__all__ = ["Telemetry"]


def __getattr__(name: str) -> Any:
    """Public names are imported when first asked for: whoever sends a message imports `context` alone."""
    if name == "Telemetry":
        from holdfast.telemetry.telemetry import Telemetry

        return Telemetry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
