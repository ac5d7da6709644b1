"""pydantic's types, dumped whole by their own serializers and read back by their own validators.

A dump has Python values, not JSON: bytes of any kind, sets, numbers that are none and keys that are no text pass. It is read back leniently
whatever the type says, since the values in it were of the right types: a strict model would refuse the text of its own UUID.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from typing import Any, cast

import msgspec

from holdfast.codec.numbers import extension
from holdfast.errors import NotJournalable

_TEXT_LIKE = (PurePath, IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)
_READ: dict[str, Any] = {"by_alias": True, "by_name": True}


def is_model(type_: Any) -> bool:
    """Whether it is a pydantic model or a pydantic dataclass."""
    return hasattr(type_, "__pydantic_validator__") and hasattr(type_, "__pydantic_fields__")


def is_base_model(type_: Any) -> bool:
    """Whether it is a pydantic model. msgspec takes a pydantic dataclass for one of the standard library."""
    return is_model(type_) and not hasattr(type_, "__dataclass_fields__")


def is_secret(type_: Any) -> bool:
    """Whether it is one of pydantic's types for secrets, whose dump hides the value."""
    return callable(getattr(type_, "get_secret_value", None))


def dumped(value: Any) -> Any:
    """The hook of encoders: `value` as data that msgspec knows. Raises NotJournalable for a value that is not data."""
    kind = type(value)
    if is_model(kind):
        # Not `model_dump`: a class can override it to leave fields out, and the validator may need them. `round_trip` leaves out what is
        # computed from the other fields.
        return kind.__pydantic_serializer__.to_python(value, mode="python", by_alias=False, round_trip=True, warnings=False)
    if isinstance(value, _TEXT_LIKE):
        return str(value)
    if kind is deque:
        return list(value)
    if kind is msgspec.Raw:  # encoded before
        return msgspec.msgpack.decode(value)
    if hasattr(kind, "__get_pydantic_core_schema__") and not is_secret(kind):
        return adapter(cast(Any, kind)).dump_python(value, mode="json", by_alias=False, round_trip=True)
    instead = getattr(kind, "journal_instead", "use plain data, a dataclass, a msgspec.Struct or a pydantic model")
    raise NotJournalable(f"a value of type {kind.__qualname__} cannot be journaled: {instead}")


def read_model(type_: Any, value: Any) -> Any:
    """`value` as the pydantic model `type_`; its fields may have their names, as written here, or their aliases.

    Raises:
        NotJournalable: `type_` is no pydantic model.
        ValueError: as pydantic's ValidationError, if `value` is not a valid one.
    """
    if not is_model(type_):
        raise NotJournalable(f"{type_!r} cannot be read back from the journal")
    return type_.__pydantic_validator__.validate_python(value, strict=False, **_READ)


def read_json(type_: Any, value: Any) -> Any:
    """As `read_model`, for data that came as JSON and may be wrong: a strict model takes no text for a number."""
    if not is_model(type_):
        raise NotJournalable(f"{type_!r} cannot be read from JSON")
    return type_.__pydantic_validator__.validate_json(msgspec.json.encode(value), **_READ)


@lru_cache(maxsize=1024)
def adapter(type_: Any) -> Any:
    """pydantic's adapter of a type. Raises a TypeError or a PydanticUserError where pydantic does not know it."""
    from pydantic import TypeAdapter  # loaded already where a type is pydantic's

    return TypeAdapter(type_)


def reader(type_: Any) -> Any:
    """A function that reads bytes as a type that pydantic knows and msgspec does not, such as a union of models."""
    validate, decode = adapter(type_).validator.validate_python, msgspec.msgpack.Decoder(ext_hook=extension).decode

    def read(data: bytes) -> Any:
        return validate(decode(data), strict=False, **_READ)

    return read
