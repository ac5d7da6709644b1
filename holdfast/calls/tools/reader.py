"""The arguments that a model gives for a tool, read as values of their types."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import msgspec

from holdfast.calls.tools.signature import Parameter
from holdfast.codec import read_json
from holdfast.given import LONGEST, is_a

MAX_JSON = 1 << 23
"""The most characters of a model's arguments: many times as many as the longest answer of a model has. To read more would hold up the other
sessions."""

_ABSENT = object()
_MOST_NAMES = 1_000
"""How many names of arguments are checked: the error for an unknown one quotes it."""


def _dec_hook(type_: Any, value: Any) -> Any:
    # Imported late: it is loaded already, since `type_` is one of its models.
    from pydantic import ValidationError

    try:
        return read_json(type_, value)
    except ValidationError as error:
        texts = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}".lstrip(": ") for each in error.errors())
        raise ValueError("; ".join(texts)) from error


class Reader:
    """Reads the arguments that a model gives as JSON."""

    def __init__(self, tool: str, parameters: tuple[Parameter, ...]) -> None:
        fields = [(p.name, p.type) if p.required else (p.name, p.type, _ABSENT) for p in parameters]
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
