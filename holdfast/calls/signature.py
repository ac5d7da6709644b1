"""The parameters and the return type of a function, from its annotations: checked, as a JSON schema, and as a reader of a model's
arguments."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from holdfast.calls.call import StepContext
from holdfast.codec import codec_for, read_model
from holdfast.errors import NotJournalable
from holdfast.given import LONGEST, is_a

_EMPTY = inspect.Parameter.empty
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_ABSENT = object()
_MOST_NAMES = 1_000
"""How many names of arguments are checked: the error for an unknown one quotes it."""

MAX_JSON = 1 << 23
"""The most characters of a model's arguments: many times as many as the longest answer of a model has. To read more would hold up the other
sessions."""

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
    default: Any = _EMPTY


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


# ---------------------------------------------------------------- a model's arguments


def _dec_hook(type_: Any, value: Any) -> Any:
    # Imported late: it is loaded already, since `type_` is one of its models.
    from pydantic import ValidationError

    try:
        return read_model(type_, value)
    except ValidationError as error:
        texts = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}".lstrip(": ") for each in error.errors())
        raise ValueError("; ".join(texts)) from error


class Reader:
    """Reads the arguments that a model gives as JSON."""

    def __init__(self, tool: str, parameters: tuple[Parameter, ...]) -> None:
        fields = [(p.name, p.type) if p.default is _EMPTY else (p.name, p.type, _ABSENT) for p in parameters]
        self._names = ", ".join(p.name for p in parameters) or "none"
        self._type = msgspec.defstruct(f"{tool}__arguments", fields, forbid_unknown_fields=True, kw_only=True)
        self._decoder = msgspec.json.Decoder(self._type, dec_hook=_dec_hook)

    def read(self, arguments: str | bytes | dict[str, Any]) -> dict[str, Any]:
        """The arguments that were given, by name, as values of their types.

        Raises:
            ValueError: they are not valid; the text names the argument and its fault, for the model.
        """
        try:
            if isinstance(arguments, dict):
                if any(not is_a(name, str) or len(name) > LONGEST for name in islice(arguments, _MOST_NAMES)):
                    raise ValueError(f"an argument has no name of up to {LONGEST} characters; the arguments are: {self._names}")
                read = msgspec.convert(arguments, self._type, dec_hook=_dec_hook)
            elif not isinstance(arguments, str | bytes):
                raise ValueError(f"the arguments are a {type(arguments).__name__}: give JSON text, or a dict")
            elif len(arguments) > MAX_JSON:
                raise ValueError(f"the arguments have {len(arguments):,} characters: give at most {MAX_JSON:,}")
            else:
                # Some models send an empty text if a tool takes no arguments.
                read = self._decoder.decode(arguments if arguments.strip() else b"{}")
        except msgspec.ValidationError as error:
            raise ValueError(self._explain(str(error))) from error
        except msgspec.DecodeError as error:
            raise ValueError(f"the arguments are not valid JSON: {error}") from error
        except RecursionError:
            raise ValueError("the arguments are nested too deeply") from None
        given = ((name, getattr(read, name)) for name in self._type.__struct_fields__)
        return {name: value for name, value in given if value is not _ABSENT}

    def _explain(self, text: str) -> str:
        unknown = re.fullmatch(r"Object contains unknown field `([^`]*)`", text)
        if unknown:
            return f"there is no argument {unknown[1]!r}; the arguments are: {self._names}"
        missing = re.fullmatch(r"Object missing required field `([^`]*)`", text)
        if missing:
            return f"argument {missing[1]!r} is missing"
        what, _, where = text.rpartition(" - at `$")
        if not what:
            return text[:1].lower() + text[1:]
        what = what[:1].lower() + what[1:]
        path = where.rstrip("`").lstrip(".")
        return f"argument {path!r}: {what}"


# ---------------------------------------------------------------- JSON schema


def schema_of(tool: str, parameters: tuple[Parameter, ...], descriptions: dict[str, str]) -> dict[str, Any]:
    """The JSON schema of an object with a property for each parameter."""
    definitions: dict[str, Any] = {}

    def of_pydantic(type_: Any) -> dict[str, Any]:
        schema: dict[str, Any] = type_.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        return schema

    fields: list[Any] = [(p.name, p.type) if p.default is _EMPTY else (p.name, p.type, _default(p.default)) for p in parameters]
    type_ = msgspec.defstruct(f"{tool}__arguments", fields, forbid_unknown_fields=True, kw_only=True)
    _, components = msgspec.json.schema_components([type_], schema_hook=of_pydantic, ref_template="#/$defs/{name}")
    schema = dict(components.pop(type_.__name__))
    schema.pop("title", None)
    for name, text in descriptions.items():
        if name in schema["properties"]:
            schema["properties"][name] = {**schema["properties"][name], "description": text}
    definitions.update(components)
    if definitions:
        schema["$defs"] = definitions
    return schema


def _default(value: Any) -> Any:
    # A mutable default is copied by a factory; msgspec refuses it as a plain one.
    if isinstance(value, list | dict | set | bytearray) and value:
        return msgspec.field(default_factory=lambda: value)
    return value


# ---------------------------------------------------------------- docstrings

_SECTION = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Attributes|Examples?|Notes?):\s*$")
_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The description of a function and of each argument in its Google docstring."""
    lines = (inspect.getdoc(function) or "").splitlines()
    sections = [at for at, line in enumerate(lines) if _SECTION.match(line)]
    description = "\n".join(lines[: sections[0]] if sections else lines).strip()
    arguments: dict[str, str] = {}
    for at in sections:
        if lines[at].startswith("Arg"):
            after = [later for later in sections if later > at]
            arguments.update(_entries(lines[at + 1 : after[0] if after else len(lines)]))
    return description, arguments


def _entries(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name, depth = "", None
    for line in lines:
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if not text:
            continue
        if depth is None:
            depth = indent
        entry = _ENTRY.match(text) if indent <= depth else None
        if entry is not None:
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] = f"{found[name]} {text}".strip()
    return found
