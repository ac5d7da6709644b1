"""What a handler looks like: its signature, and the types that it reads and writes."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

S = TypeVar("S")

Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]
"""`async def handler(session: Session[State], message: Message) -> Reply`."""


class SessionOf(Generic[S]):
    """What a handler's first parameter is annotated with: a session whose state is an S. `holdfast.Session` is the one that users name."""

    __slots__ = ()

    state: S


class Types(typing.NamedTuple):
    """What a handler stores."""

    state: Any
    message: Any
    reply: Any


def types_of(function: Handler, faults: list[str]) -> Types:
    """The handler's state, message and reply types; what is wrong with its signature goes to `faults`."""
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
