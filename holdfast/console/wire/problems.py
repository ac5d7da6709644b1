"""Errors on the wire: each as a status and a JSON body that makes the same exception again, so that inside and outside are caught alike."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast import codec, errors, redact
from holdfast.console.reading.values import masked

MSGPACK = "application/vnd.msgpack"
"""What holdfast's own client sends and accepts: a value comes out as it went in, bytes too. All else is JSON."""

INTERNAL = "InternalError"
"""What an answer names where the fault is the server's own; its log says more."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is an error.

    Attributes:
        error: the class in holdfast.errors that the client raises, or "InternalError".
        message: what happened, and what to do next.
        attributes: of that class.
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
    errors.NodeUnreachable: 403,  # the only reason that the process itself gives
    errors.SupervisorGaveUp: 503,
    errors.HoldfastError: 409,
}
_KEPT = frozenset({"session", "message_id"})  # what a client needs as it was, to ask again


def status_of(error: errors.HoldfastError) -> int:
    """The HTTP status of an error: that of the nearest class of it which has one."""
    return next(_STATUS[base] for base in type(error).__mro__ if base in _STATUS)


def problem_of(error: errors.HoldfastError) -> Problem:
    """An error as data, without secrets. The message that a mailbox did not take is left out: whoever sent it has it."""
    known = next(base for base in type(error).__mro__ if getattr(errors, base.__name__, None) is base)
    attributes = {
        name: value if name in _KEPT else masked(value)
        for name, value in vars(error).items()
        if not name.startswith("_") and not (isinstance(error, errors.MailboxFull) and name == "message")
    }
    return Problem(error=known.__name__, message=redact.text(str(error)), attributes=attributes)


def error_of(problem: Problem) -> errors.HoldfastError:
    """The exception that a problem stands for; a HoldfastError where its class is not known here."""
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
    """A value as plain data: what the journal would hold of it."""
    return msgspec.msgpack.decode(codec.encode(value))


def portable(value: Any) -> Any:
    """Plain data as JSON can hold it: as it is, but for bytes, of which text stays text and others become a note of their size.

    What is nested too deeply is a note of that.
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
