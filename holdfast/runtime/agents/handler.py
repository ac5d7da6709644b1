"""The signature of a handler, and the types that it reads and writes."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

S = TypeVar("S")

Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]
"""`async def handler(session: Session[State], message: Message) -> Reply`."""


class SessionOf(Generic[S]):
    """The annotation of a handler's first parameter: a session whose state is an S. Users write its subclass `holdfast.Session`."""

    __slots__ = ()

    state: S


class Types(typing.NamedTuple):
    """The types that a handler stores."""

    state: Any
    message: Any
    reply: Any


def types_of(function: Handler, faults: list[str]) -> Types:
    """The handler's state, message and reply types. The faults of its signature are appended to `faults`."""
    nothing = Types(Any, Any, Any)
    if not inspect.iscoroutinefunction(function):
        faults.append("the handler has to be an `async def`")
        return nothing
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2:
        faults.append("the handler takes (session, message), nothing more")
        return nothing
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        faults.append(f"an annotation does not resolve: {error}")
        return nothing
    session = hints.get(parameters[0].name, SessionOf)
    state: Any = Any
    origin = typing.get_origin(session) or session
    if not (isinstance(origin, type) and issubclass(origin, SessionOf)):
        faults.append(f"the first parameter is annotated {session!r}: use Session or Session[State]")
    elif typing.get_args(session):
        (state,) = typing.get_args(session)
    return Types(state, hints.get(parameters[1].name, Any), hints.get("return", Any))
