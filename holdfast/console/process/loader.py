"""Loads the object that `module:attr` names. Each error is one line that says what to write instead."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from holdfast.errors import ConfigError, HoldfastError

if TYPE_CHECKING:
    from holdfast.runtime.runtime import Runtime

Feed = Callable[["Runtime"], Awaitable[None]]


def load(target: str) -> Any:
    """The attribute that "module:attr" names; `attr` may be dotted. The current folder is searched first.

    Raises:
        ConfigError: there is no such module or attribute, or importing it failed.
    """
    name, colon, path = target.partition(":")
    if not name or not colon or not path or name.startswith(".") or name.endswith(".py"):
        raise ConfigError(f"{target!r} is not of the form module:attr, such as app:runtime for `runtime` in app.py")
    found: Any = _import(name)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ConfigError(f"{target!r}: {name} has no {path!r}{_alike(found, part)}") from error
        except Exception as error:
            # A module or class may compute its attributes, and raise any exception.
            raise ConfigError(f"{target!r} failed: {one_line(error)}{_where(error)}") from error
    return found


def _import(name: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"there is no module {error.name!r} here ({folder}): run this from the folder that holds it") from error
        raise ConfigError(f"{name} needs a module that is not installed: {error.name}{_where(error)}") from error
    except (Exception, SystemExit) as error:
        # A user's module may raise any exception at its import; in each case there is no Runtime to run.
        raise ConfigError(f"importing {name} failed: {one_line(error)}{_where(error)}") from error


def one_line(error: BaseException) -> str:
    """The text of an error, on one line; with its class, unless it is holdfast's own."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its text cannot be read)"
    if isinstance(error, HoldfastError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<") and frame.filename != __file__
    ]
    mine = [frame for frame in frames if frame.filename.startswith(os.getcwd())]
    return "".join(f" ({frame.filename}:{frame.lineno})" for frame in (mine or frames)[-1:])


def _alike(found: object, part: str) -> str:
    from holdfast.runtime.runtime import Runtime

    close = difflib.get_close_matches(part, [name for name in dir(found) if not name.startswith("_")], 1)
    if close:
        return f": did you mean {close[0]!r}?"
    runtimes = [name for name, value in vars(found).items() if isinstance(value, Runtime)] if hasattr(found, "__dict__") else []
    return f": it has the Runtime {runtimes[0]!r}" if runtimes else ": name a Runtime, or a function that returns one"


async def runtime_of(found: Any, target: str) -> Runtime:
    """The Runtime that was loaded, or that the loaded function returns.

    Raises:
        ConfigError: it is neither, or the function failed.
    """
    from holdfast.runtime.runtime import Runtime

    if not isinstance(found, Runtime) and (inspect.isfunction(found) or inspect.ismethod(found)):
        if any(
            p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in inspect.signature(found).parameters.values()
        ):
            raise ConfigError(f"{target!r} takes arguments: name a Runtime, or a function without arguments that returns one")
        try:
            found = found()
            if inspect.isawaitable(found):
                found = await found
        except (Exception, SystemExit) as error:
            # As for an import: a user's function may raise any exception.
            raise ConfigError(f"{target!r} failed: {one_line(error)}{_where(error)}") from error
    if not isinstance(found, Runtime):
        raise ConfigError(f"{target!r} is of type {type(found).__name__}: name a Runtime, or a function that returns one")
    return found


def feed_of(target: str) -> Feed:
    """The async function that "module:attr" names, to run with the Runtime. Raises ConfigError if it is none."""
    found = load(target)
    if not inspect.iscoroutinefunction(found):
        raise ConfigError(f"{target!r} is of type {type(found).__name__}: --with takes an async function with one parameter, the Runtime")
    try:
        inspect.signature(found).bind(None)
    except TypeError as error:
        raise ConfigError(f"{target!r} has to take one argument, the Runtime: {error}") from error
    feed: Feed = found
    return feed
