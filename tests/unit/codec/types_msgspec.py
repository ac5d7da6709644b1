"""Types of the standard library, msgspec and attrs, with a value of each that has something to lose."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import attrs
import msgspec

INDIA = timezone(timedelta(hours=5, minutes=30))
AT = datetime(2026, 3, 1, 9, 30, 0, 7, tzinfo=INDIA)
SUMMER = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
ID = UUID("6f8a1f2e-53a1-4c6e-9c2b-0123456789ab")
T = TypeVar("T")
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclass
class Line:
    sku: str
    count: int = 1
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    at: datetime
    keys: frozenset[str] = frozenset()


@dataclass
class Made:
    id: str = field(default_factory=lambda: uuid4().hex)
    total: int = field(init=False, default=0)


@dataclass(eq=False)
class ByIdentity:
    name: str
    parts: set[int]


@dataclass
class Tree:
    name: str
    below: list[Tree] = field(default_factory=list)


@dataclass
class Stamped(Line):
    at: datetime = AT


class Order(msgspec.Struct):
    id: UUID
    cents: Decimal
    at: datetime
    lines: list[Line] = []


class Sparse(msgspec.Struct, omit_defaults=True, rename="camel"):
    first_name: str = ""
    seen_at: list[datetime] = []


class Row(msgspec.Struct, array_like=True):
    a: int
    b: bytes


class Cat(msgspec.Struct, tag="cat"):
    lives: int = 9


class Dog(msgspec.Struct, tag="dog"):
    name: str = ""


class Box(msgspec.Struct, Generic[T]):
    inside: T


class Free(msgspec.Struct):
    data: dict[str, Any]
    more: Any = None


class Movie(TypedDict):
    title: str
    year: NotRequired[int]
    cast: set[str]


class Point(NamedTuple):
    x: int
    y: int = 0


@attrs.define
class Seat:
    row: int
    free: bool = True
    held: list[str] = attrs.Factory(list)


def _made() -> Made:
    made = Made(id="first")
    made.total = 7
    return made


KINDS: dict[str, tuple[Any, Any]] = {
    "None": (None, None),
    "bool": (bool, True),
    "int": (int, -(1 << 63)),
    "int of 64 bits": (int, (1 << 64) - 1),
    "float": (float, 0.1),
    "infinity": (float, float("-inf")),
    "text": (str, "a\0ß😀"),
    "bytes that are no text": (bytes, b"\xff\x00\xd7\xff"),
    "bytearray": (bytearray, bytearray(b"\xff")),
    "Decimal": (Decimal, Decimal("1.10")),
    "Decimal with an exponent": (Decimal, Decimal("-1E+400")),
    "UUID": (UUID, ID),
    "datetime without a zone": (datetime, datetime(2026, 3, 1, 9, 30)),
    "datetime in UTC": (datetime, datetime(1969, 12, 31, 23, tzinfo=UTC)),
    "datetime with an offset": (datetime, AT),
    "datetime in a zone": (datetime, SUMMER),
    "datetime at the end of time": (datetime, datetime.max.replace(tzinfo=UTC)),
    "date": (date, date(1, 1, 1)),
    "time": (time, time(23, 59, 59, 999_999)),
    "time with an offset": (time, time(1, 2, tzinfo=INDIA)),
    "timedelta": (timedelta, timedelta(days=-3, microseconds=7)),
    "Enum": (Colour, Colour.BLUE),
    "IntEnum": (Level, Level.HIGH),
    "StrEnum": (Mode, Mode.FAST),
    "IntFlag": (Rights, Rights.READ | Rights.WRITE),
    "Literal": (Literal["a", 1, None], 1),
    "NewType": (UserId, UserId(7)),
    "Annotated": (Annotated[int, msgspec.Meta(ge=0)], 3),
    "Optional": (Optional[UUID], ID),  # noqa: UP045 # the old way of writing
    "union of plain types": (int | float | str | None, 1.0),
    "union with a text": (int | str, "1"),
    "list": (list[int], [1, 2]),
    "list of datetimes": (list[datetime], [AT, SUMMER]),
    "tuple": (tuple[int, str], (1, "a")),
    "tuple of any length": (tuple[UUID, ...], (ID, ID)),
    "set": (set[str], {"a", "b", "c"}),
    "set of datetimes": (set[datetime], {AT}),
    "frozenset": (frozenset[UUID], frozenset({ID})),
    "list of sets": (list[set[int]], [{1}, set()]),
    "dict": (dict[str, int], {"b": 1, "a": 2}),
    "dict by int": (dict[int, str], {1: "a", -1: "b"}),
    "dict by UUID": (dict[UUID, Decimal], {ID: Decimal("0.30")}),
    "dict by date": (dict[date, int], {date(2026, 1, 1): 1}),
    "dict by datetime": (dict[datetime, int], {AT: 1}),
    "dict by tuple": (dict[tuple[int, int], str], {(1, 2): "a"}),
    "dict by Enum": (dict[Colour, int], {Colour.RED: 1}),
    "dict by bytes": (dict[bytes, int], {b"\xff": 1}),
    "plain data": (Any, {"a": [1, 2.5, None, True, b"\xff", "x", {"b": {}}]}),
    "long numbers in plain data": (Any, {"a": [1 << 64, -(10**400), [{"b": 10**30}]]}),
    "a dict of anything": (dict, {"a": [{"b": 1}], 2: b"x"}),
    "a list of anything": (list, [1, "a", {"b": [None]}]),
    "dicts of a conversation": (list[dict[str, Any]], [{"role": "user", "content": [{"type": "text", "text": "x"}]}]),
    "dataclass": (Line, Line("a", 2, ["x"])),
    "dataclass, frozen, with slots": (Fixed, Fixed(at=AT, keys=frozenset("ab"))),
    "dataclass with made values": (Made, _made()),
    "dataclass compared by identity": (ByIdentity, ByIdentity("a", {1})),
    "dataclass in itself": (Tree, Tree("a", [Tree("b")])),
    "dataclass with a base": (Stamped, Stamped("a", at=SUMMER)),
    "Struct": (Order, Order(ID, Decimal("12.50"), AT, [Line("a", 2)])),
    "Struct that omits defaults": (Sparse, Sparse("", [AT])),
    "Struct as an array": (Row, Row(1, b"\xd7\xff")),
    "union of tagged Structs": (Cat | Dog, Dog("rex")),
    "generic Struct": (Box[set[int]], Box({1, 2})),
    "generic Struct of a Struct": (Box[Order], Box(Order(ID, Decimal(1), SUMMER))),
    "Struct with plain parts": (Free, Free({"a": [1]}, {"b": None})),
    "TypedDict": (Movie, {"title": "a", "cast": {"b", "c"}}),
    "NamedTuple": (Point, Point(1)),
    "dict of NamedTuples": (dict[str, Point], {"a": Point(1, 2)}),
    "attrs": (Seat, Seat(1, False, ["a"])),
    "list of attrs": (list[Seat], [Seat(1), Seat(2)]),
}
