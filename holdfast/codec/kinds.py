"""Which types make the round trip. One that does not is refused where it is declared, and the field is named."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import types
import typing
import warnings
from collections import deque
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from re import Pattern
from typing import Any
from uuid import UUID

import msgspec

from holdfast.codec.models import adapter, is_base_model, is_model, is_secret
from holdfast.errors import NotJournalable

_USE = "use plain data, a dataclass, a msgspec.Struct or a pydantic model"
WRAPPERS = (typing.Required, typing.NotRequired, typing.Final, typing.ClassVar)
_PLAIN = (bool, int, float, str, bytes, list, dict)
_CONTAINERS = (list, dict, tuple, set, frozenset, deque)
_AS_TEXT = (UUID, datetime, date, time, timedelta, Decimal, enum.Enum, PurePath, bytes,
            IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)  # fmt: skip
"""The types that are stored as text, or read text as theirs."""

_ARRAYS = (list, tuple, set, frozenset, deque)


class Kind(msgspec.Struct, frozen=True):
    """What is known of a type that makes the round trip.

    Attributes:
        by_value: whether a part of it has no type of its own, so that only the value shows whether it makes the round trip.
        untyped: whether no part of it has a type but those of plain data, so that the value shows it without being read back.
        adapted: whether pydantic reads it, since msgspec cannot: a union of models.
    """

    by_value: bool
    untyped: bool
    adapted: bool


def kind_of(type_: Any) -> Kind:
    """What is known of `type_`. Raises NotJournalable, which names the field, where it does not make the round trip."""
    survey = _Survey()
    survey.look(type_, "", within=False)
    if survey.adapted:
        try:
            adapter(type_)
        except Exception as error:  # pydantic, or an annotation, can raise anything
            raise NotJournalable(
                f"{survey.adapted} cannot be journaled: only pydantic can read it, and not inside a msgspec.Struct: use dataclasses or "
                "pydantic models around it"
            ) from error
    return Kind(survey.by_value or survey.models, survey.by_value and survey.plain, bool(survey.adapted))


class _Survey:
    """Looks at a type and at the types of its parts. `adapted` is the path of a part that only pydantic can read."""

    def __init__(self) -> None:
        self.by_value, self.plain, self.adapted, self.models = False, True, "", False
        self._seen: dict[int, Any] = {}  # the types themselves, so that no other gets the id of one

    def look(self, type_: Any, path: str, within: bool) -> None:
        """Look at `type_`. `within`: it is a part of a pydantic model."""
        type_ = bare(type_)
        if type_ in (Any, object) or isinstance(type_, typing.TypeVar):
            self.by_value = True
            return
        origin, args = typing.get_origin(type_), typing.get_args(type_)
        if origin is typing.Literal or type_ in (None, type(None)):
            return
        union = origin in (typing.Union, types.UnionType)
        fault = "" if within else _fault(type_)
        if union and (within or fault):
            self._look_at_union(args, path)
        for each in args:
            if each is not Ellipsis and not isinstance(each, list):
                self.look(each, path, within)
        if not union and isinstance(origin or type_, type):
            self._look_at_class(type_, origin or type_, path, within, parts=bool(args))
        if fault:  # and none of its parts is at fault
            if not _has_model(type_):
                raise NotJournalable(f"{path or repr(type_)} cannot be journaled: {fault}")
            self.adapted = self.adapted or path or repr(type_)

    def _look_at_class(self, type_: Any, cls: Any, path: str, within: bool, parts: bool) -> None:
        self.plain &= cls in _PLAIN
        if cls in _CONTAINERS:
            self.by_value |= not parts
        elif id(type_) not in self._seen:
            self._seen[id(type_)] = type_
            if is_model(cls):
                self._look_at_model(cls, path, within)
            elif within:
                _check_leaf(cls, path)
            for name, hint in hints_of(cls):
                self.look(hint, f"{path or cls.__qualname__}.{name}", within)

    def _look_at_model(self, cls: Any, path: str, within: bool) -> None:
        self.models = True
        if not is_base_model(cls) and not within:
            self.adapted = self.adapted or path or repr(cls)
        if not within:
            _check_schema(cls, path)
        for name, field in cls.__pydantic_fields__.items():
            at = f"{path or cls.__qualname__}.{name}"
            if field.exclude and field.is_required():
                raise NotJournalable(f"{at} cannot be journaled: it is excluded and has no default: give it one, or do not exclude it")
            self.look(field.annotation, at, within=True)
        for name in getattr(cls, "__private_attributes__", {}):
            if _is_data(_hint_of(cls, name)):
                raise NotJournalable(
                    f"{path or cls.__qualname__}.{name} cannot be journaled: a private attribute is not stored: make it a field, or "
                    "Field(default=..., exclude=True) where it need not be kept"
                )

    def _look_at_union(self, members: tuple[Any, ...], path: str) -> None:
        bares = [bare(each) for each in members]
        bares = [each for each in bares if each is not type(None) and typing.get_origin(each) is not typing.Literal]
        classes = [each if isinstance(each, type) else typing.get_origin(each) or each for each in bares]
        texts = [each for each in classes if isinstance(each, type) and issubclass(each, _AS_TEXT)]
        others = [each for each in classes if each is str or (texts and each in (int, float, bool) and Decimal in texts)]
        arrays = [each for each in classes if each in _ARRAYS]
        models = [each for each in classes if is_model(each)]
        dicts = [each for each in classes if each is dict]
        for alike in ([*texts, *others] if texts else [], arrays, [*models[:1], *dicts] if models and dicts else [], _alike(models)):
            if len(alike) > 1:
                names = " or ".join(each.__qualname__ for each in alike)
                raise NotJournalable(
                    f"{path or 'it'} cannot be journaled: {names} cannot be distinguished when they are read back: use one of them, or "
                    "models with a discriminator"
                )


def _alike(models: list[Any]) -> list[Any]:
    """Two of the models, where what the second one stores is read back as the first."""
    for at, second in enumerate(models):
        for first in models[:at]:
            mine, its = first.__pydantic_fields__, second.__pydantic_fields__
            required = {name for name, field in mine.items() if field.is_required()}
            if its.keys() <= mine.keys() and required <= its.keys() and all(mine[name].annotation == its[name].annotation for name in its):
                return [first, second]
    return []


def bare(type_: Any) -> Any:
    """The type without what is around it: Annotated, NewType, aliases, Required."""
    while True:
        origin = typing.get_origin(type_)
        if origin is typing.Annotated or origin in WRAPPERS:
            type_ = typing.get_args(type_)[0]
        elif hasattr(type_, "__supertype__"):
            type_ = type_.__supertype__
        elif hasattr(type_, "__value__"):
            type_ = type_.__value__
        else:
            return type_


def hints_of(cls: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a structured type, but of a model."""
    if is_model(cls) or not isinstance(cls, type):
        return
    if hasattr(cls, "__attrs_attrs__"):
        for each in cls.__attrs_attrs__:
            if each.name.startswith("_"):
                raise NotJournalable(
                    f"{cls.__qualname__}.{each.name} cannot be journaled: attrs gives private fields another name: rename it"
                )
    if not (
        issubclass(cls, msgspec.Struct)
        or dataclasses.is_dataclass(cls)
        or hasattr(cls, "__required_keys__")  # a TypedDict, also that of typing_extensions
        or hasattr(cls, "__attrs_attrs__")
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    ):
        return
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # annotations are evaluated, and can raise anything
        raise NotJournalable(f"{cls.__qualname__} cannot be journaled: its annotations do not resolve: {_short(error)}") from error
    names = getattr(cls, "__struct_fields__", getattr(cls, "__dataclass_fields__", hints))
    for name in names:
        if name in hints and typing.get_origin(hints[name]) is not typing.ClassVar:
            yield name, hints[name]


def _fault(type_: Any) -> str:
    """Why msgspec does not read it; "" where it does."""
    try:
        info = msgspec.inspect.type_info(type_)
    except Exception as error:  # also what an annotation raises
        return _short(error)
    if isinstance(info, msgspec.inspect.CustomType) and not is_model(info.cls):
        return _USE
    return ""


def _has_model(type_: Any) -> bool:
    """Whether it is or has a pydantic type."""
    found, seen = [type_], set[int]()
    while found:
        each = bare(found.pop())
        if is_model(each) or is_model(typing.get_origin(each)):
            return True
        if id(each) not in seen:
            seen.add(id(each))
            found += [arg for arg in typing.get_args(each) if arg is not Ellipsis]
            found += [hint for _, hint in hints_of(typing.get_origin(each) or each)]
    return False


def _hint_of(cls: Any, name: str) -> Any:
    """The annotation of a private attribute; Any where it has none, or one that does not resolve."""
    for base in cls.__mro__:
        if name in (hints := inspect.get_annotations(base)):
            alone = types.SimpleNamespace(__annotations__={name: hints[name]})
            try:
                return typing.get_type_hints(alone, vars(sys.modules[base.__module__]))[name]
            except Exception:  # annotations are evaluated, and can raise anything
                return Any
    return Any


def _is_data(type_: Any) -> bool:
    if type_ in (Any, object):
        return False
    try:
        kind_of(type_)
    except NotJournalable:
        return False
    return True


def _check_leaf(cls: type, path: str) -> None:
    """Check a class that is a part of a model, and has no fields."""
    if is_secret(cls):
        raise NotJournalable(f"{path} cannot be journaled: a secret is not stored: read it where it is used")
    if issubclass(cls, Pattern | complex):
        raise NotJournalable(f"{path} cannot be journaled: a {cls.__qualname__} does not come back as it was: keep its text")
    if issubclass(cls, enum.Enum) and (fault := _fault(cls)):
        raise NotJournalable(f"{path} cannot be journaled: {fault}")


def _check_schema(cls: Any, path: str) -> None:
    """Check that every part of a model is data: what has no JSON schema is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapter(cls).json_schema()
    except Exception as error:  # pydantic, or a type's own schema, can raise anything
        for name, field in cls.__pydantic_fields__.items():
            if _unknown(field.annotation):
                raise NotJournalable(f"{path or cls.__qualname__}.{name} cannot be journaled: {_USE}") from error
        raise NotJournalable(f"{path or cls.__qualname__} cannot be journaled: {_short(error)}") from error


def _unknown(type_: Any) -> bool:
    from pydantic import ConfigDict, TypeAdapter

    try:
        if is_base_model(type_):
            adapter(type_).json_schema()
        else:
            TypeAdapter(type_, config=ConfigDict(arbitrary_types_allowed=True)).json_schema()
    except Exception:  # as above
        return True
    return False


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
