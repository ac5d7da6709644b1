"""The arguments that a model gives for a tool, read as values of their types."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec

from holdfast.calls.tools.constraints import adapter_of
from holdfast.calls.tools.signature import Parameter
from holdfast.codec import MAX_BYTES, read_json
from holdfast.codec.bounds import is_large
from holdfast.given import LONGEST, is_a, text_of
from holdfast.policies.classify import MESSAGE_MAX
from holdfast.redact import storable

MAX_JSON = 1 << 23
"""The most characters of a model's arguments: many times as many as the longest answer of a model has. To read more would hold up the other
sessions."""

_EXACT = 1 << 53
"""The largest whole number up to which each has a float of its own."""

_DIGITS = 1_000
"""The most digits of a whole number: to read more takes time that grows with their square."""

_ABSENT = object()
_MOST_FAULTS = 10
_MOST_NAMES = 1_000
"""How many names of arguments are checked: the error for an unknown one quotes it."""


def _dec_hook(type_: Any, value: Any) -> Any:
    # Imported late: it is loaded already, since `type_` is one of its models.
    from pydantic import ValidationError

    try:
        return read_json(type_, value)
    except ValidationError as error:
        raise ValueError(_faults(error)) from error


def _faults(error: Any) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    texts = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}".lstrip(": ") for each in found[:_MOST_FAULTS])
    return "; ".join(texts)


class Reader:
    """Reads the arguments that a model gives as JSON."""

    def __init__(self, tool: str, parameters: tuple[Parameter, ...]) -> None:
        self._adapters = {p.name: adapter for p in parameters if (adapter := adapter_of(p)) is not None}
        types = ((p, Any if p.name in self._adapters else p.type) for p in parameters)
        fields = [(p.name, type_) if p.required else (p.name, type_, _ABSENT) for p, type_ in types]
        self._names = ", ".join(p.name for p in parameters) or "none"
        self._type = msgspec.defstruct(f"{tool}__arguments", fields, forbid_unknown_fields=True, kw_only=True)
        self._decoder = msgspec.json.Decoder(self._type, dec_hook=_dec_hook)

    def read(self, arguments: object) -> dict[str, Any]:
        """The arguments that were given, by name, as values of their types.

        JSON text in a JSON string is read, too; so are 5.0 for an int, no text or null for no arguments, and half of a surrogate pair, as
        U+FFFD.

        Raises:
            ValueError: they are not valid; the text names the argument and its fault, for the model.
        """
        try:
            return self._checked(self._decoded(arguments))
        except msgspec.ValidationError as error:
            raise ValueError(self._explain(str(error))) from error
        except (msgspec.DecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"the arguments are not valid JSON: {error}") from error
        except RecursionError:
            raise ValueError("the arguments are nested too deeply") from None
        except ValueError:
            raise
        except Exception as error:  # a user's own type can raise anything where it checks a value
            raise ValueError(f"the arguments cannot be read: {type(error).__name__}: {text_of(error, MESSAGE_MAX)}") from error

    def _decoded(self, arguments: object) -> Any:
        if isinstance(arguments, str | bytes | bytearray):
            return self._parsed(arguments)
        if arguments is None:
            return self._converted({})
        if not isinstance(arguments, Mapping):
            raise ValueError(f"the arguments are a {type(arguments).__name__}: give JSON text, or a dict")
        given = dict(arguments)
        if any(not is_a(name, str) or len(name) > LONGEST for name in islice(given, _MOST_NAMES)):
            raise ValueError(f"an argument has no name of up to {LONGEST} characters; the arguments are: {self._names}")
        if is_large(given):
            raise ValueError(f"the arguments have over {MAX_BYTES:,} bytes: give at most {MAX_JSON:,} characters")
        return self._converted(_storable(given))

    def _parsed(self, arguments: str | bytes | bytearray) -> Any:
        if len(arguments) > MAX_JSON:
            raise ValueError(f"the arguments have {len(arguments):,} characters: give at most {MAX_JSON:,}")
        if not arguments.strip():
            return self._converted({})  # some models send an empty text if a tool takes no arguments
        try:
            return self._decoder.decode(arguments)
        except (msgspec.MsgspecError, UnicodeError):
            return self._converted(_loaded(arguments))

    def _converted(self, given: Any) -> Any:
        try:
            return msgspec.convert(given, self._type, dec_hook=_dec_hook)
        except msgspec.ValidationError as error:
            if "got `float`" not in str(error):
                raise
            return msgspec.convert(_whole(given), self._type, dec_hook=_dec_hook)

    def _checked(self, read: Any) -> dict[str, Any]:
        given = ((name, getattr(read, name)) for name in self._type.__struct_fields__)
        values = {name: value for name, value in given if value is not _ABSENT}
        for name in self._adapters.keys() & values.keys():
            values[name] = _validated(self._adapters[name], name, values[name])
        return values

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


def _validated(adapter: Any, name: str, value: Any) -> Any:
    from pydantic import ValidationError  # loaded already: the adapter is pydantic's

    try:
        return adapter.validate_json(msgspec.json.encode(value), by_alias=True, by_name=True)
    except ValidationError as error:
        raise ValueError(f"argument {name!r}: {_faults(error)}") from error


def _loaded(text: str | bytes | bytearray) -> Any:
    """JSON that is odd, read by the parser of the standard library. Raises msgspec.DecodeError where it is none."""
    if not isinstance(text, str):
        text = text.decode("utf-8", "replace")
    try:
        value = json.loads(text.removeprefix("\ufeff"), parse_constant=_refuse, parse_int=_int)
        if isinstance(value, str) and ((inner := value.strip()) in ("", "null") or inner.startswith("{")):  # encoded twice
            value = json.loads(inner or "null", parse_constant=_refuse, parse_int=_int)
    except json.JSONDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error
    return {} if value is None else _storable(value)


def _refuse(constant: str) -> Any:
    raise ValueError(f"the arguments are not valid JSON: {constant} is no number there")


def _int(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits: give at most {_DIGITS:,}")
    return int(digits)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if isinstance(value, dict):
        return {storable(name): _storable(each) for name, each in value.items()}
    return value


def _whole(value: Any) -> Any:
    """`value` with 5 for 5.0: in JSON they are the same number."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    return value
