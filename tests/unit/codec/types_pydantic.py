"""Types of pydantic, with a value of each that has something to lose."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID, uuid4

import msgspec
from pydantic import (
    AliasPath,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    NonNegativeInt,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    Strict,
    StrictInt,
    Tag,
    computed_field,
    field_serializer,
    field_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from tests.unit.codec.types_msgspec import AT, ID, INDIA, SUMMER, Colour, Level

T = TypeVar("T")


class Notes(BaseModel):
    texts: list[str] = []
    opened: str = Field(default_factory=lambda: uuid4().hex)


def changed() -> Notes:
    """Defaults that were changed in place: pydantic does not count them as set."""
    notes = Notes()
    notes.texts.append("a")
    return notes


class Everything(BaseModel):
    id: UUID
    at: datetime
    day: date
    clock: time
    span: timedelta
    amount: Decimal
    raw: bytes
    share: float
    tags: set[str]
    keys: frozenset[int]
    pair: tuple[int, str]
    colour: Colour
    level: Level
    none: None = None


EVERYTHING: dict[str, Any] = {
    "id": ID, "at": AT, "day": date(2026, 1, 2), "clock": time(1, 2, tzinfo=INDIA), "span": timedelta(days=-1, microseconds=3),
    "amount": Decimal("1.10"), "raw": b"\xff\x00", "share": float("inf"), "tags": {"a", "b"}, "keys": frozenset({1}), "pair": (1, "a"),
    "colour": Colour.RED, "level": Level.HIGH,
}  # fmt: skip


class Strictly(Everything):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class StrictFields(BaseModel):
    number: StrictInt
    id: Annotated[UUID, Strict()]
    colour: Annotated[Colour, Strict()]


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"
    cents: int


Payment = Annotated[Card | Cash, Field(discriminator="kind")]


class Bill(BaseModel):
    paid: Payment
    others: list[Payment] = []


class Answer(BaseModel):
    text: str


class Refusal(BaseModel):
    reason: str


class Numbers(RootModel[list[int]]): ...


class Named(RootModel[dict[str, Card]]): ...


class Page(BaseModel, Generic[T]):
    items: list[T] = []
    total: int = 0


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 0


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width**2


class Aliased(BaseModel):
    user_id: int = Field(alias="userId")
    city: str = Field(default="", validation_alias=AliasPath("address", "city"), serialization_alias="town")


class CamelOnly(BaseModel):
    model_config = ConfigDict(validate_by_name=False, validate_by_alias=True, serialize_by_alias=True, extra="forbid")
    first_name: str = Field(alias="firstName")


class Hidden(BaseModel):
    kept: int = 0
    client: Any = Field(default=None, exclude=True)
    _lock: object = PrivateAttr(default_factory=object)


class Places(BaseModel):
    path: Path
    url: HttpUrl
    address: IPv4Address
    network: IPv6Network
    size: ByteSize
    count: NonNegativeInt
    at: AwareDatetime


class Odd(BaseModel):
    by_pair: dict[tuple[int, int], int]
    by_id: dict[UUID, bytes]
    by_colour: dict[Colour, int]
    last: deque[int]
    lists: defaultdict[str, list[int]]
    counts: Counter[str]
    ordered: OrderedDict[str, int]
    text: Json[list[int]]


class Spot(NamedTuple):
    x: int
    at: datetime


class Extra(TypedDict, total=False):
    ids: set[UUID]


class Nested(BaseModel):
    spot: Spot
    extra: Extra
    below: list[Nested] = []


class Shade(enum.Enum):
    DARK = 1


class OwnWay(BaseModel):
    model_config = ConfigDict(use_enum_values=True)
    when: datetime
    words: Annotated[list[str], BeforeValidator(lambda v: v.split() if isinstance(v, str) else v), PlainSerializer(" ".join)]
    shade: Shade = Shade.DARK

    @field_serializer("when")
    def _when(self, value: datetime) -> str:
        return value.isoformat(" ")


class Loaded(BaseModel):
    total: int = 0

    @field_validator("total")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return {}


class Base(BaseModel):
    a: int


class Derived(Base):
    b: int = 0


@pydantic_dataclass
class Job:
    name: str
    at: datetime
    parts: list[Card] = Field(default_factory=list)


@dataclass
class Holder:
    payment: Card | Cash
    at: datetime


class Ticket(msgspec.Struct):
    at: datetime
    notes: Notes
    bills: dict[str, Bill] = {}


def _hidden() -> Hidden:
    return Hidden(kept=3)


KINDS: dict[str, tuple[Any, Any]] = {
    "defaults changed in place": (Notes, changed()),
    "all types of values": (Everything, Everything(**EVERYTHING)),
    "a strict model": (Strictly, Strictly(**EVERYTHING)),
    "strict fields": (StrictFields, StrictFields(number=1, id=ID, colour=Colour.RED)),
    "a model or None": (Notes | None, changed()),
    "a discriminated union in a model": (Bill, Bill(paid=Cash(cents=1), others=[Card(number="1")])),
    "a discriminated union": (Payment, Cash(cents=3)),
    "a list of a discriminated union": (list[Payment], [Card(number="1"), Cash(cents=3)]),
    "a union of models": (Answer | Refusal, Refusal(reason="no")),
    "a union with text": (Answer | str, "plain"),
    "a union of a wider and a narrower model": (Base | Derived, Derived(a=1, b=2)),
    "a union by tags": (Annotated[Annotated[Card, Tag("card")] | Annotated[Cash, Tag("cash")], Field(discriminator="kind")], Cash(cents=1)),
    "a root model": (Numbers, Numbers([1, 2])),
    "a root model of models": (Named, Named({"a": Card(number="1")})),
    "a generic model": (Page[int], Page[int](items=[1], total=1)),
    "a generic model of models": (Page[Bill], Page[Bill](items=[Bill(paid=Cash(cents=1))])),
    "a generic model of datetimes": (Page[datetime], Page[datetime](items=[AT, SUMMER])),
    "unknown fields that are allowed": (Open, Open(a=1, b=[1], c={"d": None})),  # type: ignore[call-arg]
    "a computed field": (Closed, Closed(width=3)),
    "aliases": (Aliased, Aliased(userId=3, address={"city": "Pune"})),  # type: ignore[call-arg]
    "aliases only": (CamelOnly, CamelOnly(firstName="a")),
    "excluded and private parts of no data": (Hidden, _hidden()),
    "pydantic's own types": (
        Places,
        Places(
            path=Path("/a"),
            url=HttpUrl("https://a.b/c"),
            address=IPv4Address("1.2.3.4"),
            network=IPv6Network("::/64"),
            size=ByteSize(3),
            count=1,
            at=AT,
        ),
    ),
    "odd containers and keys": (
        Odd,
        Odd(
            by_pair={(1, 2): 3},
            by_id={ID: b"\xff"},
            by_colour={Colour.RED: 1},
            last=deque([1]),
            lists=defaultdict(list, a=[1]),
            counts=Counter("aab"),
            ordered=OrderedDict(a=2, b=1),
            text="[1, 2]",  # type: ignore[arg-type] # as JSON
        ),
    ),
    "models in a model": (Nested, Nested(spot=Spot(1, AT), extra={"ids": {ID}}, below=[Nested(spot=Spot(2, SUMMER), extra={})])),
    "serializers and validators of its own": (OwnWay, OwnWay(when=AT, words=["a", "b"], shade=Shade.DARK)),
    "a model that overrides model_dump": (Loaded, Loaded(total=3)),
    "a model with a base": (Derived, Derived(a=1, b=2)),
    "a list of models": (list[Bill], [Bill(paid=Card(number="1"))]),
    "a dict of models": (dict[UUID, Notes], {ID: changed()}),
    "a pydantic dataclass": (Job, Job("a", AT, [Card(number="1")])),
    "a list of pydantic dataclasses": (list[Job], [Job("a", SUMMER)]),
    "a dataclass with a union of models": (Holder, Holder(Cash(cents=1), AT)),
    "a Struct with models": (Ticket, Ticket(AT, changed(), {"a": Bill(paid=Cash(cents=2))})),
}
