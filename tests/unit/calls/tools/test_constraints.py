"""Constraints in annotations, in the ways of several libraries: in the schema and checked, or refused where the tool is defined."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType

import annotated_types
import msgspec
import pydantic
import pytest
from annotated_types import Ge, Interval, Len, MultipleOf, Predicate
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, StringConstraints, conint
from typing_extensions import Doc, TypedDict

from holdfast.calls import ToolArgumentError, tool
from holdfast.errors import ConfigError


def even(value: int) -> int:
    if value % 2:
        raise ValueError("an even number is needed")
    return value


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    cents: Annotated[int, Field(ge=1)]


class Deep(TypedDict):
    cents: Annotated[int, Field(ge=1)]


@dataclasses.dataclass
class Box:
    width: Annotated[int, Ge(1)]


@pydantic.dataclasses.dataclass
class Checked:
    width: Annotated[int, Ge(1)]


class Pair(NamedTuple):
    left: Annotated[int, Ge(1)]
    right: int


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    kind: Literal["cash"]
    cents: int


class Crate(BaseModel):
    box: Box


@dataclasses.dataclass
class Tree:
    cents: Annotated[int, Ge(1)]
    below: list[Tree]


class Metered(msgspec.Struct):
    cents: Annotated[int, msgspec.Meta(ge=1)]


Cents = NewType("Cents", Annotated[int, Field(ge=1)])


def made(type_: Any, *default: Any, description: str = "") -> Any:
    """A tool with the parameter `p` of that annotation."""

    def work(p: Any) -> str:
        return "done"

    work.__annotations__["p"] = type_
    work.__defaults__ = default
    work.__doc__ = f"Works.\n\nArgs:\n    p: {description}\n" if description else ""
    return tool(work)


@pytest.mark.parametrize(
    ("type_", "good", "bad", "in_schema"),
    [
        (Annotated[int, Field(ge=1, le=9)], 1, 10, {"minimum": 1, "maximum": 9}),
        (Annotated[int, Ge(1)], 1, 0, {"minimum": 1}),
        (Annotated[float, Interval(gt=0, lt=1)], 0.5, 1, {"exclusiveMinimum": 0}),
        (Annotated[str, Len(1, 3)], "abc", "abcd", {"maxLength": 3}),
        (Annotated[int, MultipleOf(5)], 10, 11, {"multipleOf": 5}),
        (Annotated[int, Predicate(lambda value: value > 0)], 1, 0, {"type": "integer"}),
        (Annotated[int, msgspec.Meta(ge=1)], 1, 0, {"minimum": 1}),
        (Annotated[str, Field(pattern=r"^o-\d+$")], "o-1", "o-x", {"pattern": r"^o-\d+$"}),
        (Annotated[str, StringConstraints(max_length=2)], "ab", "abc", {"maxLength": 2}),
        (Annotated[int, AfterValidator(even)], 2, 3, {"type": "integer"}),
        (Annotated[int, BeforeValidator(even)], 2, 3, {"type": "integer"}),
        (Annotated[int, Field(strict=True)], 2, "2", {"type": "integer"}),
        (PositiveInt, 1, 0, {"exclusiveMinimum": 0}),
        (conint(lt=3), 2, 3, {"exclusiveMaximum": 3}),
        (Cents, 1, 0, {"minimum": 1}),
        (Annotated[int, Field(ge=1)] | None, None, 0, {"anyOf": [{"minimum": 1, "type": "integer"}, {"type": "null"}]}),
        (Annotated[int | None, Field(ge=1)], 1, 0, {"anyOf": [{"minimum": 1, "type": "integer"}, {"type": "null"}]}),
        (list[Annotated[int, Field(ge=1)]], [1], [1, 0], {"items": {"minimum": 1, "type": "integer"}}),
        (Annotated[list[str], Field(min_length=1)], ["a"], [], {"minItems": 1}),
        (dict[str, Annotated[int, Ge(1)]], {"a": 1}, {"a": 0}, {"additionalProperties": {"minimum": 1, "type": "integer"}}),
        (dict[Annotated[str, Len(1, 1)], int], {"a": 1}, {"ab": 1}, {"propertyNames": {"minLength": 1, "maxLength": 1}}),
        (tuple[int, Annotated[str, Len(1, 1)]], [1, "a"], [1, "ab"], {"maxItems": 2}),
        (Annotated[Decimal, Field(ge=1)], "1.5", "0.5", {}),
        (Annotated[datetime.date, Ge(datetime.date(2020, 1, 1))], "2020-01-01", "2019-12-31", {"format": "date"}),
        (Literal["a", 2], 2, 3, {"enum": [2, "a"]}),
        (Level, 2, 3, {}),
        (int | str, "a", [], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Line, {"cents": 1}, {"cents": 0}, {"required": ["cents"]}),
        (list[Line], [{"cents": 1}], [{"cents": 1, "more": 1}], {"type": "array"}),
        (Annotated[list[Line], Field(max_length=1)], [{"cents": 1}], [{"cents": 1}, {"cents": 2}], {"maxItems": 1}),
        (Deep, {"cents": 1}, {"cents": 0}, {"required": ["cents"]}),
        (Box, {"width": 1}, {"width": 0}, {"required": ["width"]}),
        (Checked, {"width": 1}, {"width": 0}, {"required": ["width"]}),
        (Pair, [1, 0], [0, 0], {"type": "array"}),
        (Metered, {"cents": 1}, {"cents": 0}, {}),
        (Card | Cash, {"kind": "cash", "cents": 1}, {"kind": "card", "cents": 1}, {}),
        (Annotated[Card | Cash, Field(discriminator="kind")], {"kind": "card", "number": "1"}, {"kind": "coin"}, {}),
        (list[Card | Cash] | None, [{"kind": "card", "number": "1"}], [{}], {}),
        (tuple[Crate, Box], [{"box": {"width": 1}}, {"width": 1}], [{"box": {"width": 1}}, {"width": 0}], {"maxItems": 2}),
        (Tree, {"cents": 1, "below": [{"cents": 1, "below": []}]}, {"cents": 1, "below": [{"cents": 0, "below": []}]}, {}),
    ],
    ids=str,
)
def test_a_constraint_is_checked_and_shown(type_: Any, good: Any, bad: Any, in_schema: dict[str, Any]) -> None:
    """Whichever library it is written with, and however deep it stands."""
    one = made(type_)
    for give in (json.dumps, lambda arguments: arguments):
        assert list(one.parse(give({"p": good}))) == ["p"]
        with pytest.raises(ToolArgumentError, match="argument 'p"):
            one.parse(give({"p": bad}))
    shown = one.schema()["properties"]["p"]
    assert {key: shown.get(key) for key in in_schema} == in_schema
    with pytest.raises(ToolArgumentError, match="argument 'p' is missing"):
        one.parse("{}")


def test_a_value_has_the_type_of_its_annotation() -> None:
    """Also where pydantic reads it."""
    when = made(Annotated[datetime.date, Field(gt=datetime.date(2020, 1, 1))])
    assert when.parse('{"p": "2024-02-29"}') == {"p": datetime.date(2024, 2, 29)}
    assert made(Annotated[set[Level], Len(1)]).parse('{"p": [2, 2]}') == {"p": {Level.HIGH}}
    assert made(Card | Cash).parse('{"p": {"kind": "cash", "cents": 5}}') == {"p": Cash(kind="cash", cents=5)}
    assert made(Annotated[list[Box], Len(1)]).parse('{"p": [{"width": 2}]}') == {"p": [Box(2)]}


class Loose(msgspec.Struct):
    width: Annotated[int, Ge(1)]


class Unchecked(BaseModel):
    width: Annotated[int, msgspec.Meta(ge=1)]


class Item(msgspec.Struct):
    sku: str


@pytest.mark.parametrize(
    ("type_", "default", "text"),
    [
        (int, (Field(default=5, ge=1),), "its default is a FieldInfo, which the function itself would get as its value"),
        (int, (Field(..., description="how many"),), "its default is a FieldInfo"),
        (list[int], (Field(default_factory=list),), "p: Annotated[..., Field(...)], and the value after it"),
        (list[int], (dataclasses.field(default_factory=list),), "its default is a Field"),
        (list[int], (msgspec.field(default_factory=list),), "its default is a Field"),
        (Annotated[int, Field(default=5)], (), "its Field has a default, which the function would not get"),
        (Annotated[list[int], Field(default_factory=list)], (), "its Field has a default"),
        (Annotated[int, Field(alias="many")], (), "a parameter has no alias: rename it"),
        (Loose, (), "Loose.width: Ge is checked by pydantic, which cannot read the msgspec.Struct Loose: use msgspec.Meta"),
        (Annotated[list[Item], Field(max_length=3)], (), "a Field is checked by pydantic, which cannot read the msgspec.Struct Item"),
        (Annotated[int, msgspec.Meta(ge=1), Field(le=5)], (), "a Field is checked by pydantic, which cannot read a msgspec.Meta"),
        (Unchecked, (), "Unchecked.width: pydantic does not check a msgspec.Meta: use Field(...)"),
        (list[Unchecked], (), "Unchecked.width: pydantic does not check a msgspec.Meta"),
    ],
)
def test_a_constraint_that_could_not_be_checked_is_refused_by_the_name_of_the_parameter(
    type_: Any, default: tuple[Any, ...], text: str
) -> None:
    """Where the tool is defined: a model that breaks it would not be told."""
    with pytest.raises(ConfigError) as caught:
        made(type_, *default)
    assert str(caught.value).startswith("tool 'work': parameter 'p': ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (Annotated[int, Field(description="how many")], "how many"),
        (Annotated[Item, Field(description="which")], "which"),
        (Annotated[int, msgspec.Meta(description="how much")], "how much"),
        (Annotated[int, Doc("how far")], "how far"),
        (Annotated[int, "a text", annotated_types.doc("how long")], "how long"),
        (Annotated[int, Field(ge=1)], "from the docstring"),
    ],
)
def test_a_description_comes_from_the_annotation_or_the_docstring(type_: Any, text: str) -> None:
    """That beside the parameter comes first."""
    assert made(type_, description="from the docstring").schema()["properties"]["p"]["description"] == text


class _Unset:
    pass


@pytest.mark.parametrize(
    ("type_", "default", "shown"),
    [
        (Annotated[int, Field(ge=1)], 5, 5),
        (Annotated[int, Field(ge=1)] | None, None, None),
        (Level, Level.HIGH, 2),
        (list[int], [1], [1]),
        (Line, Line(cents=5), {"cents": 5}),
        (Box, Box(5), {"width": 5}),
        (Any, _Unset(), "-"),
        (int, float("nan"), None),
        (str, "\ud83d", "-"),
    ],
)
def test_a_default_is_shown_where_it_is_data(type_: Any, default: Any, shown: Any) -> None:
    """Else only the function knows it: the schema is made all the same."""
    schema = made(type_, default).schema()
    assert schema["properties"]["p"].get("default", "-") == shown
    assert schema["required"] == []
    assert made(type_, default).parse("") == {}


def _places() -> tuple[type[Any], type[Any]]:
    def one() -> type[Any]:
        class Place(BaseModel):
            city: str

        class Trip(BaseModel):
            place: Place

        return Trip

    def other() -> type[Any]:
        class Place(BaseModel):
            number: int

        class Route(BaseModel):
            place: Place

        return Route

    return one(), other()


def test_two_types_of_the_same_name_have_a_definition_each() -> None:
    """Two modules of a project may both have a `Place`."""
    trip, route = _places()

    def work(a: Any, b: Any, c: Any) -> None: ...

    work.__annotations__ |= {"a": trip, "b": route, "c": Annotated[list[route], Field(max_length=1)]}  # type: ignore[valid-type]
    schema = tool(work).schema()

    def place(of: dict[str, Any]) -> dict[str, Any]:
        name = of["properties"]["place"]["$ref"].removeprefix("#/$defs/")
        found: dict[str, Any] = schema["$defs"][name]["properties"]
        return found

    properties = schema["properties"]
    assert list(place(properties["a"])) == ["city"]
    assert list(place(properties["b"])) == ["number"]
    nested = schema["$defs"][properties["c"]["items"]["$ref"].removeprefix("#/$defs/")]
    assert list(place(nested)) == ["number"]


def test_the_order_of_the_parameters_stays() -> None:
    """A model reads them as they are written."""

    @tool
    def work(z: Annotated[int, Field(ge=1)], a: str, m: Annotated[int, msgspec.Meta(ge=1)] = 1, b: bool = False) -> None: ...

    assert list(work.schema()["properties"]) == ["z", "a", "m", "b"]
    assert work.schema()["required"] == ["z", "a"]


def test_a_check_that_raises_anything_is_an_error_for_the_model() -> None:
    """Validators are users' code."""

    class Strange(msgspec.Struct):
        n: int

        def __post_init__(self) -> None:
            raise KeyError("strange")

    def broken(value: int) -> int:
        raise ZeroDivisionError("broken")

    cases: list[tuple[Any, Callable[[], Any]]] = [(Strange, lambda: {"n": 1}), (Annotated[int, AfterValidator(broken)], lambda: 1)]
    for type_, value in cases:
        with pytest.raises(ToolArgumentError, match=r"the arguments cannot be read: (KeyError|ZeroDivisionError)"):
            made(type_).parse({"p": value()})
