"""Errors on the wire: each is a status and a JSON body from which the client builds the same exception, so that code catches the same
errors inside and outside the process."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast import codec, errors, redact
from holdfast.console.reading.values import masked

MSGPACK = "application/vnd.msgpack"
"""What holdfast's own client sends and accepts: a value round-trips, bytes included. Other clients use JSON."""

INTERNAL = "InternalError"
"""The `error` of an answer if the fault is the server's own; its log has the details."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is an error.

    Attributes:
        error: the class in holdfast.errors that the client raises, or "InternalError".
        message: what happened, and the next action.
        attributes: the attributes of that exception.
    """

    error: str
    message: str
    attributes: dict[str, Any] = {}


_STATUS: dict[type[errors.HoldfastError], int] = {
    errors.SessionNotFound: 404,
    errors.SessionEnded: 410,
    errors.MailboxFull: 429,
    errors.MessageRefused: 422,
    errors.ReplyTimeout: 504,
    errors.SessionError: 409,
    errors.ConfigError: 422,
    errors.RuntimeStopped: 503,
    errors.StoreError: 503,
    errors.NodeUnreachable: 403,  # the only case in which the process itself raises it
    errors.SupervisorGaveUp: 503,
    errors.HoldfastError: 409,
}
_KEPT = frozenset({"session", "message_id"})  # fields that a client needs unchanged, to ask again


def status_of(error: errors.HoldfastError) -> int:
    """The HTTP status of an error: that of the nearest base class which has one."""
    return next(_STATUS[base] for base in type(error).__mro__ if base in _STATUS)


def problem_of(error: errors.HoldfastError) -> Problem:
    """An error as data, without secrets. The message that a mailbox refused is left out: its sender has it."""
    known = next(base for base in type(error).__mro__ if getattr(errors, base.__name__, None) is base)
    attributes = {
        name: value if name in _KEPT else masked(value)
        for name, value in vars(error).items()
        if not name.startswith("_") and not (isinstance(error, errors.MailboxFull) and name == "message")
    }
    return Problem(error=known.__name__, message=redact.text(str(error)), attributes=attributes)


def error_of(problem: Problem) -> errors.HoldfastError:
    """The exception of a problem; a HoldfastError if its class is not known here."""
    kind = getattr(errors, problem.error, None)
    if not (isinstance(kind, type) and issubclass(kind, errors.HoldfastError)):
        kind = errors.HoldfastError
    error: errors.HoldfastError = kind.__new__(kind)
    error.args = (problem.message,)
    if kind is errors.MailboxFull:
        error.__dict__["message"] = None
    for name, value in problem.attributes.items():
        error.__dict__[name] = tuple(value) if isinstance(value, list) else value
    return error


def plain(value: Any) -> Any:
    """A value as plain data, as the journal would hold it."""
    return codec.decode(codec.encode(value))


def portable(value: Any) -> Any:
    """Plain data for JSON: bytes that are text become that text, other bytes a note of their size. A value that is nested too deeply
    becomes a note.
    """
    try:
        return _portable(value)
    except RecursionError:
        return "(nested too deeply for JSON)"


def _portable(value: Any) -> Any:
    match value:
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return f"({len(value)} bytes)"
        case list():
            return [_portable(item) for item in value]
        case dict():
            return {key if isinstance(key, str) else str(_portable(key)): _portable(item) for key, item in value.items()}
        case _:
            return value
