"""Types that cannot come back as they were, with the part that is at fault; and such values."""

from __future__ import annotations

import enum
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID

import attrs
import msgspec
import typing_extensions
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from tests.unit.codec.types_msgspec import AT, ID, Colour, Line, Mode
from tests.unit.codec.types_pydantic import Base, Card, Cash, Derived, Open


class Opaque: ...


class Half(enum.Enum):
    A = 0.5


class Unions(msgspec.Struct):
    id: UUID | str


class Deep(msgspec.Struct):
    by_name: dict[str, list[Unions]] = {}


class WithModels(msgspec.Struct):
    payment: Card | Cash


@dataclass
class Files:
    path: Path


class Extended(typing_extensions.TypedDict):
    path: Path


@dataclass
class Hook:
    call: Callable[[], None]


@dataclass
class Init:
    a: int
    b: InitVar[int] = 0


@attrs.define
class Private:
    a: int
    _b: int = 0


class Movie(TypedDict):
    kinds: list[Half]


class Known(TypedDict):
    a: int


class Key(BaseModel):
    key: SecretStr


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    lock: Opaque


class Below(BaseModel):
    inner: list[Arbitrary] = []


class Texts(BaseModel):
    id: UUID | str
    other: int = 0


class Amounts(BaseModel):
    amount: Decimal | float


class Lists(BaseModel):
    items: list[int] | set[int]


class Loose(BaseModel):
    what: Card | dict[str, Any]


class First(BaseModel):
    x: int = 0


class Second(BaseModel):
    x: int = 0


class Twins(BaseModel):
    one: First | Second


class Narrow(BaseModel):
    a: int


class Wide(Narrow):
    b: int = 0


class Counted(BaseModel):
    _count: int = PrivateAttr(0)


class Within(BaseModel):
    counted: Counted


class Excluded(BaseModel):
    a: int = Field(exclude=True)


class Pattern(BaseModel):
    rule: re.Pattern[str]


class Halves(BaseModel):
    half: Half


KINDS: dict[str, tuple[Any, str]] = {
    "a class": (Opaque, f"{Opaque!r}"),
    "complex": (complex, "<class 'complex'>"),
    "a function": (Callable[[], None], "collections.abc.Callable[[], None]"),
    "a dict that is more": (OrderedDict[str, int], "collections.OrderedDict[str, int]"),
    "two kinds of text in a Struct": (Unions, "Unions.id"),
    "the same, deep down": (list[Deep], "Deep.by_name.id"),
    "a union of models in a Struct": (WithModels, "WithModels.payment"),
    "a path in a dataclass": (Files, "Files.path"),
    "a path in a TypedDict of typing_extensions": (Extended, "Extended.path"),
    "a function in a dataclass": (Hook, "Hook.call"),
    "an argument of __init__ alone": (Init, "Init.b"),
    "a private field of attrs": (Private, "Private._b"),
    "an Enum of floats": (Movie, "Movie.kinds"),
    "a secret": (Key, "Key.key"),
    "any class in a model": (Arbitrary, "Arbitrary.lock"),
    "the same in a model of a model": (Below, "Below.inner"),
    "two kinds of text in a model": (Texts, "Texts.id"),
    "two kinds of numbers": (Amounts, "Amounts.amount"),
    "two kinds of lists": (Lists, "Lists.items"),
    "a model or a dict": (Loose, "Loose.what"),
    "two models alike": (Twins, "Twins.one"),
    "a wider model before a narrower one": (Wide | Narrow, "it"),
    "a private attribute with data": (Counted, "Counted._count"),
    "the same in a model": (Within, "Within.counted._count"),
    "an excluded field without a default": (Excluded, "Excluded.a"),
    "a pattern": (Pattern, "Pattern.rule"),
    "an Enum of floats in a model": (Halves, "Halves.half"),
}

VALUES: dict[str, tuple[Any, Any, str]] = {
    "a set in plain data": (Any, {"a": [{1, 2}]}, "set"),
    "a UUID in plain data": (Any, {"a": ID}, "UUID"),
    "a dataclass in plain data": (Any, [Line("a")], "Line"),
    "a datetime in a dict": (dict, {"at": AT}, "datetime"),
    "a Decimal in dicts": (list[dict[str, Any]], [{"a": Decimal(1)}], "Decimal"),
    "an Enum in a dict": (dict[str, Any], {"a": Mode.FAST}, "Mode"),
    "a lock in a dict": (dict, {"a": threading.Lock()}, "lock"),
    "an int over 64 bits": (int, 1 << 64, "int"),
    "half of a surrogate pair": (str, "a\ud83d", "str"),
    "a set in a field that a model does not know": (Open, Open(a=1, b={1}), "b"),  # type: ignore[call-arg]
    "a field that a TypedDict does not declare": (Known, {"a": 1, "z": 2}, "z"),
    "a subclass": (list[Line], [type("More", (Line,), {})("a")], "[0]"),
    "a model's subclass": (dict[str, Base], {"k": Derived(a=1, b=2)}, "k"),
    "a text for an Enum": (Colour, "green", "Colour"),
}
