"""The outcome of a tool as a model reads it: its value or its error."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import msgspec

from holdfast.errors import NotJournalable
from holdfast.given import brief
from holdfast.redact import storable

_INT_BITS = 63
"""A longer whole number is text for the model: few parsers of JSON keep it exactly."""


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


def data_of(value: Any) -> Any:
    """The hook of JSON encoders: a pydantic model as data. Raises NotJournalable for a value that is none."""
    if hasattr(type(value), "__pydantic_validator__"):
        return value.model_dump(mode="json")
    raise NotJournalable(f"a {type(value).__qualname__} cannot be sent to a model")


def succeeded(value: Any) -> ToolResult:
    """The outcome of a tool that returned `value`. What has no form in JSON (a key that is no text, say) is text for the model. Raises
    NotJournalable if `value` is not data."""
    try:
        content = _json(value)
    except NotJournalable:
        raise
    except Exception as error:  # also what a user's own serializer raises
        raise NotJournalable(f"a {type(value).__qualname__} cannot be sent to a model: {error}") from error
    return ToolResult(content, value=value)


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=data_of).decode()
    except Exception:  # also what a user's own serializer raises
        return msgspec.json.encode(_written(value)).decode()


def _written(value: Any) -> Any:
    """`value` as JSON can have it, part by part."""
    if isinstance(value, dict):
        return {_key(key): _written(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [_written(each) for each in value]
    if isinstance(value, msgspec.Struct):
        return {name: _written(getattr(value, name)) for name in value.__struct_fields__}
    if hasattr(type(value), "__pydantic_fields__"):
        return {name: _written(getattr(value, name)) for name in type(value).__pydantic_fields__}
    if dataclasses.is_dataclass(value):
        return {each.name: _written(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return _leaf(value)


def _key(key: Any) -> str:
    leaf = _leaf(key) if not isinstance(key, tuple | frozenset) else _written(key)
    return leaf if isinstance(leaf, str) else msgspec.json.encode(leaf).decode()


def _leaf(value: Any) -> Any:
    if isinstance(value, str):
        return storable(str.__str__(value))
    if isinstance(value, int) and value.bit_length() > _INT_BITS:
        return brief(value)
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=data_of))


def done_without_result(message: str) -> ToolResult:
    """The outcome of a tool that succeeded but whose return value is lost: a model that reads this must not call it again."""
    return ToolResult(msgspec.json.encode({"done": True, "note": storable(message)}).decode())


def failed(error_type: str, message: str) -> ToolResult:
    """The outcome of a tool that failed: its content is `{"error": type, "message": text}`."""
    return ToolResult(msgspec.json.encode({"error": storable(error_type), "message": storable(message)}).decode(), error=True)
