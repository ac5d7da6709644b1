"""The parameters and the return type of a function, from its annotations, and why it cannot be a tool."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from holdfast.calls.call import StepContext
from holdfast.codec import codec_for
from holdfast.errors import NotJournalable

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_BY_NAME = 1 << 30  # a position that no argument has


class Parameter(msgspec.Struct, frozen=True):
    """One parameter that the caller gives.

    Attributes:
        name: of the parameter.
        type: its annotation, resolved; Any if it has none.
        default: its default, or `inspect.Parameter.empty`.
    """

    name: str
    type: Any
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Whether the caller has to give it."""
        return self.default is inspect.Parameter.empty


class Signature(msgspec.Struct, frozen=True):
    """The parameters and the return type of a function.

    Attributes:
        parameters: those that the caller gives, in order.
        context: the name and position of the parameter that gets the `StepContext`, if there is one; the position is one that no argument
            has if the parameter is keyword-only.
        returns: the return annotation; Any if there is none.
        faults: the reasons why it cannot be a tool, one line each.
        asynchronous: whether it is an `async def`.
        annotated: whether it has a return annotation.
    """

    parameters: tuple[Parameter, ...]
    context: tuple[str, int] | None
    returns: Any
    faults: tuple[str, ...]
    asynchronous: bool
    annotated: bool


def _target_of(function: Any) -> Any:
    """The plain function that has the annotations of `function`: of a callable object, its `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function) or inspect.isclass(function):
        return function
    return type(function).__call__.__get__(function)


def read(function: Callable[..., Any]) -> Signature:
    """The signature of `function`. Never raises: its faults are in `faults`."""
    target = _target_of(function)
    faults: list[str] = []
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except Exception as error:  # annotations are evaluated, and can raise anything
        hints = {}
        faults.append(f"its annotations do not resolve ({error}): name types that exist where the function is defined")
    try:
        given = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        # Some builtins have none.
        given = []
    parameters: list[Parameter] = []
    context: tuple[str, int] | None = None
    for position, each in enumerate(given):
        type_ = hints.get(each.name, Any)
        if type_ is StepContext:
            context = (each.name, _BY_NAME if each.kind is inspect.Parameter.KEYWORD_ONLY else position)
            continue
        parameters.append(Parameter(each.name, type_, each.default))
        faults += _parameter_faults(each, type_, annotated=each.name in hints or bool(faults))
    returns = hints.get("return", Any)
    fault = _type_fault(returns)
    if fault is not None:
        faults.append(f"its return type: {fault}")
    asynchronous = inspect.iscoroutinefunction(target)
    return Signature(tuple(parameters), context, returns, tuple(faults), asynchronous, "return" in hints)


def _parameter_faults(parameter: inspect.Parameter, type_: Any, annotated: bool) -> list[str]:
    name = parameter.name
    if parameter.kind in _VARIADIC:
        star = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
        return [f"{star}{name} is not possible: name each parameter"]
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        return [f"parameter {name!r} can be given by position only: remove the '/'"]
    if not annotated:
        return [f"parameter {name!r} needs a type annotation"]
    fault = _type_fault(type_)
    return [] if fault is None else [f"parameter {name!r}: {fault}"]


def _type_fault(type_: Any) -> str | None:
    try:
        codec_for(type_)
    except NotJournalable as error:
        return str(error)
    except TypeError as error:  # an unhashable type cannot be a key of the cache of codecs
        return f"{type_!r} cannot be journaled: {error}"
    return None
