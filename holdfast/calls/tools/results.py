"""The outcome of a tool as a model reads it: its value or its error."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.errors import NotJournalable
from holdfast.redact import storable


class ToolResult(msgspec.Struct, frozen=True):
    """The outcome of a tool, for a model.

    Attributes:
        content: JSON text for the model.
        error: whether the content is an error.
        value: the return value of the tool; None if it failed.
    """

    content: str
    error: bool = False
    value: Any = None


def _plain(value: Any) -> Any:
    if hasattr(type(value), "__pydantic_validator__"):
        return value.model_dump(mode="json")
    raise NotJournalable(f"a {type(value).__qualname__} cannot be sent to a model")


def succeeded(value: Any) -> ToolResult:
    """The outcome of a tool that returned `value`. Raises NotJournalable if that is not data."""
    try:
        content = msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotJournalable(f"a {type(value).__qualname__} cannot be sent to a model: {error}") from error
    return ToolResult(content, value=value)


def done_without_result(message: str) -> ToolResult:
    """The outcome of a tool that succeeded but whose return value is lost: a model that reads this must not call it again."""
    return ToolResult(msgspec.json.encode({"done": True, "note": storable(message)}).decode())


def failed(error_type: str, message: str) -> ToolResult:
    """The outcome of a tool that failed: its content is `{"error": type, "message": text}`."""
    return ToolResult(msgspec.json.encode({"error": storable(error_type), "message": storable(message)}).decode(), error=True)
