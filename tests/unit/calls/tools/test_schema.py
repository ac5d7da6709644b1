"""The JSON schema of a tool, and how a model's arguments are read."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, Field

from holdfast.calls import ToolArgumentError, tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(msgspec.Struct):
    sku: str
    count: int = 1


@dataclasses.dataclass
class Place:
    street: str


class City(BaseModel):
    name: str


class Address(BaseModel):
    city: City
    code: int = Field(ge=10_000)


@tool
async def order(
    items: list[Item],
    to: Address,
    colour: Colour = Colour.RED,
    speed: Literal["slow", "fast"] = "slow",
    note: str | None = None,
    place: Place | None = None,
    tags: list[str] = ["new"],  # noqa: B006
    percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0,
) -> str:
    """Orders something.

    Takes a while.

    Args:
        items: what to order,
            and how many.
        to (Address): where it goes.

    Returns:
        A number.
    """
    return "n-1"


@tool
async def nothing() -> None: ...


def test_a_schema_says_types_defaults_and_descriptions() -> None:
    """Everything a model needs comes from the annotations, the defaults and the docstring."""
    schema = order.schema()
    properties = schema["properties"]
    assert (schema["type"], schema["required"], schema["additionalProperties"]) == ("object", ["items", "to"], False)
    assert properties["items"] == {
        "type": "array",
        "items": {"$ref": "#/$defs/Item"},
        "description": "what to order, and how many.",
    }
    assert properties["to"]["description"] == "where it goes."
    assert properties["speed"] == {"enum": ["fast", "slow"], "default": "slow"}
    assert properties["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert properties["colour"]["default"] == "red"
    assert schema["$defs"]["Colour"]["enum"] == ["blue", "red"]
    assert properties["percent"] == {"type": "integer", "minimum": 0, "maximum": 100, "default": 0}
    assert schema["$defs"]["Item"]["required"] == ["sku"]
    assert schema["$defs"]["Place"]["properties"]["street"] == {"type": "string"}
    assert "title" not in schema


def test_every_reference_in_a_schema_leads_somewhere() -> None:
    """Definitions of nested pydantic models stand at the top, where their references look for them."""
    schema = order.schema()

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if "$ref" in value else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    assert {"#/$defs/City", "#/$defs/Item", "#/$defs/Place"} <= references(schema)
    assert {reference.removeprefix("#/$defs/") for reference in references(schema)} <= set(schema["$defs"])


def test_a_tool_is_shown_as_each_provider_wants_it() -> None:
    """The APIs differ in the frame only."""
    empty = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert nothing.openai() == {"type": "function", "function": {"name": "nothing", "description": "", "parameters": empty}}
    frame = {"type": "function", "name": "nothing", "description": "", "strict": False}
    assert nothing.openai_responses() == {**frame, "parameters": empty}
    assert nothing.anthropic() == {"name": "nothing", "description": "", "input_schema": empty}
    assert order.openai()["function"]["description"] == "Orders something.\n\nTakes a while."


def test_arguments_become_values_of_their_types() -> None:
    """From text, bytes or a dict; what the model left out is left to the function."""
    text = '{"items": [{"sku": "a"}], "to": {"city": {"name": "Bonn"}, "code": 53111}, "colour": "blue", "place": {"street": "x"}}'
    wanted = {
        "items": [Item("a")],
        "to": Address(city=City(name="Bonn"), code=53111),
        "colour": Colour.BLUE,
        "place": Place("x"),
    }
    assert order.parse(text) == order.parse(text.encode()) == order.parse(msgspec.json.decode(text)) == wanted


@pytest.mark.parametrize("arguments", ["{}", "", " ", b"", {}])
def test_no_arguments_come_in_many_ways(arguments: Any) -> None:
    """Some models send an empty text for a tool without parameters."""
    assert nothing.parse(arguments) == {}


GOOD = {"items": [], "to": {"city": {"name": "Bonn"}, "code": 53111}}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"items": [}', "tool 'order': the arguments are not valid JSON: "),
        ("[]", "tool 'order': expected `object`, got `array`"),
        ('"x"', "tool 'order': expected `object`, got `str`"),
        ({"to": GOOD["to"]}, "tool 'order': argument 'items' is missing"),
        ({**GOOD, "cents": 5}, "tool 'order': there is no argument 'cents'; the arguments are: items, to, colour,"),
        ({**GOOD, "note": 5}, "tool 'order': argument 'note': expected `str | null`, got `int`"),
        ({**GOOD, "speed": "warp"}, "tool 'order': argument 'speed': invalid enum value 'warp'"),
        ({**GOOD, "colour": "green"}, "tool 'order': argument 'colour': invalid enum value 'green'"),
        ({**GOOD, "percent": 101}, "tool 'order': argument 'percent': expected `int` <= 100"),
        ({**GOOD, "items": [{"sku": 1}]}, "tool 'order': argument 'items[0].sku': expected `str`, got `int`"),
        ({**GOOD, "items": [{}]}, "tool 'order': argument 'items[0]': object missing required field `sku`"),
        (
            {**GOOD, "to": {"city": {}, "code": 1}},
            "tool 'order': argument 'to': city.name: Field required; code: Input should be",
        ),
    ],
)
def test_wrong_arguments_are_explained_to_the_model(arguments: Any, text: str) -> None:
    """It says which argument, and what is wrong with it, so that the next call can be right."""
    for given in (arguments, msgspec.json.encode(arguments)) if isinstance(arguments, dict) else (arguments,):
        with pytest.raises(ToolArgumentError) as caught:
            order.parse(given)
        assert str(caught.value).startswith(text)
        assert "\n" not in str(caught.value)
