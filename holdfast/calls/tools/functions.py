"""Any function as a step: without a definition as a tool, it is a `read` of plain data."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

from holdfast.calls.call import Call
from holdfast.calls.tools.signature import read
from holdfast.calls.tools.tool import NO_KWARGS, Tool
from holdfast.codec import codec_for

_CACHED = "__holdfast_tool__"


def spec_for(fn: Callable[..., Any]) -> Tool[..., Any]:
    """The tool for a function that `session.step` got: the function itself if it is a tool, otherwise a `read` of plain data.

    Arguments inside a `functools.partial` count as arguments of the call, so that they are part of its identity.

    Raises:
        NotJournalable: its return type cannot be journaled.
        TypeError: `fn` cannot be called.
    """
    if isinstance(fn, Tool):
        return fn
    cached = getattr(fn, _CACHED, None)
    # The attribute may be of the class or the unbound function.
    if cached is not None and cached.__wrapped__ is fn:
        return cached  # type: ignore[no-any-return]
    if isinstance(fn, functools.partial):
        return _Partial(spec_for(fn.func), fn.args, fn.keywords)
    if not callable(fn):
        raise TypeError(f"a step needs a function, not a {type(fn).__qualname__}: give the function and its arguments, uncalled")
    signature = read(fn)
    codec_for(signature.returns)
    spec: Tool[..., Any] = Tool(fn, signature, name=_name_of(fn))
    if inspect.isfunction(fn):
        setattr(fn, _CACHED, spec)
    return spec


def _name_of(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return cast(str, name).rpartition("<locals>.")[2]


class _Partial(Tool[..., Any]):
    """A tool with some arguments already bound."""

    def __init__(self, inner: Tool[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.__dict__.update(inner.__dict__)
        self._args, self._kwargs = args, kwargs

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any] = NO_KWARGS, kind: str = "step") -> Call:
        return super().call((*self._args, *args), {**self._kwargs, **kwargs}, kind)
