"""What models and servers send as the call of a tool: right or wrong, it is data, and the turn goes its way."""

from __future__ import annotations

import datetime
import json
from collections import UserDict
from collections.abc import Awaitable, Callable
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import pytest
from pydantic import BaseModel, Field, model_validator

from holdfast import NO_RETRY, Runtime, Session, StepContext, StepError, ToolResult, agent, tool

Give = Callable[[Session[Any]], Awaitable[Any]]
effects_made: list[Any] = []


@tool
async def add(n: int, note: str = "", share: float = 0.0) -> str:
    return f"{n} {note!r} {share}"


@tool
async def ping() -> str:
    return "pong"


@tool
async def count(n: Annotated[int, Field(ge=1)], more: Any = None) -> str:
    return f"{n} {more!r}"


async def call(*asked: tuple[Any, Any], tools: list[Any] | None = None) -> list[ToolResult]:
    """What a model reads after these calls, name and arguments, in one turn."""
    got: list[ToolResult] = []

    @agent(tools=tools or [add, ping, count])
    async def clerk(session: Session[Any], text: str) -> str:
        for name, arguments in asked:
            got.append(await session.call_tool(name, arguments))
        return "answered"

    async with Runtime("memory:", [clerk]) as runtime:
        assert await (await runtime.spawn(clerk, id="a")).ask("go", timeout_s=20) == "answered"
    for each in got:
        json.loads(each.content.encode())
    return got


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


class Name(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"n": 5.0}', "5 '' 0.0"),
        ('{"n": 1e2, "share": 2.0}', "100 '' 2.0"),
        ({"n": 5.0, "share": 1}, "5 '' 1.0"),
        ('{"n": 1, "n": 2}', "2 '' 0.0"),
        ('"{\\"n\\": 1}"', "1 '' 0.0"),
        ('\ufeff{"n": 1}', "1 '' 0.0"),
        ('{"n": 1, "note": "\\u0000"}', "1 '\\x00' 0.0"),
        ('{"n": 1, "note": "cut \\ud83d"}', "1 'cut \ufffd' 0.0"),
        ('{"n": 1, "note": "cut \ud83d"}', "1 'cut \ufffd' 0.0"),
        ({"n": 1, "note": "cut \ud83d"}, "1 'cut \ufffd' 0.0"),
        ('{"n": 1, "note": "whole \\ud83d\\ude00"}', "1 'whole \U0001f600' 0.0"),
        (b'{"n": 1}', "1 '' 0.0"),
        (bytearray(b'{"n": 1}'), "1 '' 0.0"),
        (b'{"n": 1, "note": "\xff"}', "1 '\ufffd' 0.0"),
        (MappingProxyType({"n": 1}), "1 '' 0.0"),
        (UserDict({"n": 1}), "1 '' 0.0"),
    ],
    ids=repr,
)
async def test_arguments_of_which_it_is_clear_what_they_mean_are_read(arguments: Any, read: str) -> None:
    """The model's call is not refused for its form."""
    (result,) = await call(("add", arguments))
    assert (result.error, result.value) == (False, read)


@pytest.mark.parametrize("arguments", [None, "null", "", " \n", b"", "{}", '"{}"', '"null"', '""', {}], ids=repr)
async def test_no_arguments_come_in_many_ways(arguments: Any) -> None:
    """For a tool that needs none; for another, the first that it needs is missing."""
    result, other = await call(("ping", arguments), ("add", arguments))
    assert (result.error, result.value) == (False, "pong")
    assert (other.error, "argument 'n' is missing" in other.content) == (True, True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("nope", "not valid JSON"),
        ("[1]", "expected `object`, got `array`"),
        ("1.5", "expected `object`, got `float`"),
        ('"text"', "expected `object`, got `str`"),
        ("true", "expected `object`, got `bool`"),
        ('{"n": 1} and so on', "not valid JSON: "),
        ('{"n": 1}{"n": 2}', "not valid JSON"),
        ('```json\n{"n": 1}\n```', "not valid JSON"),
        ("{'n': 1}", "not valid JSON"),
        ('{"n": 1', "not valid JSON"),
        ('{"n": NaN}', "NaN is no number there"),
        ('{"n": -Infinity}', "-Infinity is no number there"),
        ('{"n": 5.5}', "argument 'n': expected `int`, got `float`"),
        ('{"n": 1e999}', "argument 'n': expected `int`"),
        ('{"n": true}', "argument 'n': expected `int`, got `bool`"),
        ('{"n": "5"}', "argument 'n': expected `int`, got `str`"),
        ('{"n": null}', "argument 'n': expected `int`, got `null`"),
        ('{"n": ' + "9" * 5_000 + "}", "a number has 5,000 digits"),
        ('{"n": ' + "9" * 30 + "}", "argument n"),
        ({"n": 10**5_000}, "argument n"),
        ('{"n": 1, "extra": 2}', "there is no argument 'extra'; the arguments are: n, note, share"),
        ('{"n": 1, "\\ud83d": 2}', "there is no argument"),
        ('{"N": 1}', "there is no argument 'N'"),
        ("[" * 100_000, "nested too deeply"),
        ('{"n": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ({"n": Hostile()}, "expected `int`, got `Hostile`"),
        ({1: 2}, "has no name"),
        ({None: 1}, "has no name"),
        ([("n", 1)], "the arguments are a list: give JSON text, or a dict"),
        (5, "the arguments are a int"),
        (Hostile(), "the arguments are a Hostile"),
        (object, "the arguments are a type"),
        ("\ud83d", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, str) else type(value).__name__,
)
async def test_arguments_that_are_wrong_are_an_error_for_the_model(arguments: Any, text: str) -> None:
    """It can do better in its next call; the handler goes on with what comes after."""
    result, after = await call(("add", arguments), ("ping", "{}"))
    assert result.error
    assert text in json.loads(result.content)["message"]
    assert after.value == "pong"


@pytest.mark.parametrize("arguments", ['{"n": 0}', {"n": 0}, '{"n": "none"}', '{"n": null}', '{"n": ' + "9" * 5_000 + "}"])
async def test_a_constraint_that_a_model_breaks_is_an_error_for_it(arguments: Any) -> None:
    """The tool does not run."""
    (result,) = await call(("count", arguments))
    assert (result.error, json.loads(result.content)["error"]) == (True, "ToolArgumentError")


@pytest.mark.parametrize(
    "name", [None, 5, b"ping", ["ping"], {"a": 1}, "", "PING", "ping ", "functions.ping", "\0", "\ud83d", "x" * 1_000_000, Hostile()]
)
async def test_a_name_that_is_no_tools_is_an_error_for_the_model(name: Any) -> None:
    """It names those that there are."""
    (result,) = await call((name, "{}"))
    said = json.loads(result.content)
    assert (result.error, said["error"], len(said["message"]) < 400) == (True, "UnknownTool", True)
    assert "use one of: add, ping, count" in said["message"]


async def test_a_name_of_a_type_of_its_own_is_its_text() -> None:
    """An enum of texts, say."""
    assert [each.value for each in await call((Name("ping"), "{}"))] == ["pong"]


# ---------------------------------------------------------------- what a tool returns


class Held(BaseModel):
    by: dict[tuple[int, int], str]


class Boom(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n == 2:
            raise KeyError("two")


class Reader(BaseModel):
    n: int

    @model_validator(mode="after")
    def _check(self) -> Reader:
        if self.n == 2:
            raise ZeroDivisionError
        return self


def boom() -> Boom:
    made = Boom(1)
    made.n = 2
    return made


def cycle() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


def giving(returns: Any, value: Callable[[], Any], effect: Any) -> Any:
    async def work() -> Any:
        effects_made.append(effect)
        return value()

    work.__annotations__["return"] = returns
    return tool(effect=effect, retry=NO_RETRY)(work)


@pytest.mark.parametrize("effect", ["read", "idempotent", "once"])
@pytest.mark.parametrize(
    ("returns", "value", "content"),
    [
        (dict, lambda: {1: "a"}, {"1": "a"}),
        (dict, lambda: {None: 1, True: 2, 2.5: 3}, {"null": 1, "true": 2, "2.5": 3}),
        (dict[tuple[int, int], str], lambda: {(1, 2): "a"}, {"[1,2]": "a"}),
        (dict[datetime.date, int], lambda: {datetime.date(2020, 1, 2): 1}, {"2020-01-02": 1}),
        (dict[str, dict[Decimal, int]], lambda: {"a": {Decimal("1.5"): 1}}, {"a": {"1.5": 1}}),
        (list[dict[tuple[int, int], bytes]], lambda: [{(1, 2): b"x"}], [{"[1,2]": "eA=="}]),
        (float, lambda: float("nan"), None),
        (str, lambda: "\0", "\0"),
        (set[int], lambda: {1}, [1]),
    ],
)
async def test_a_result_with_odd_keys_or_types_is_data_for_the_model(
    effect: Any, returns: Any, value: Callable[[], Any], content: Any
) -> None:
    """The effect was made, and its result is recorded as it is; the model reads it in the form that JSON has."""
    (result,) = await call(("work", None), tools=[giving(returns, value, effect)])
    assert (result.error, json.loads(result.content)) == (False, content)


@pytest.mark.parametrize("effect", ["idempotent", "once"])
@pytest.mark.parametrize(
    ("returns", "value"),
    [
        (str, lambda: 5),
        (dict, lambda: object()),
        (dict, lambda: {"a": "\ud83d"}),
        (list[int], lambda: [None]),
        (Boom, boom),
        (Reader, lambda: Reader.model_construct(n=2)),
        (str, lambda: "x" * (1 << 25)),
        (list, cycle),
    ],
)
async def test_a_model_is_told_that_an_effect_was_made_whose_result_is_lost(effect: Any, returns: Any, value: Callable[[], Any]) -> None:
    """It must not call the tool again; and the handler that asks for the step itself is told the same, once and on replay."""
    effects_made.clear()
    work = giving(returns, value, effect)
    (result,) = await call(("work", "{}"), tools=[work])
    said = json.loads(result.content)
    assert (result.error, said["done"], "cannot be stored" in said["note"]) == (False, True, True)
    assert effects_made == [effect]


@pytest.mark.parametrize(("returns", "value"), [(Boom, boom), (str, lambda: 5)])
async def test_a_read_whose_result_does_not_fit_is_an_error_for_the_model(returns: Any, value: Callable[[], Any]) -> None:
    """Whatever the type raises where it checks its fields."""
    (result,) = await call(("work", "{}"), tools=[giving(returns, value, "read")])
    assert (result.error, "does not fit" in result.content) == (True, True)


async def test_a_result_that_is_lost_stays_lost_on_replay() -> None:
    """The effect of the turn that crashed is not made again, whatever its class."""
    made: list[str] = []
    crashes = [True]

    @tool(effect="idempotent", retry=NO_RETRY)
    async def write(context: StepContext) -> str:
        made.append(context.key)
        return 5  # type: ignore[return-value]

    @agent(tools=[write])
    async def clerk(session: Session[Any], text: str) -> str:
        try:
            await session.step(write)
        except StepError as error:
            if crashes:
                crashes.pop()
                raise ValueError("a bug") from error
            return error.type
        return "kept"

    async with Runtime("memory:", [clerk]) as runtime:
        assert await (await runtime.spawn(clerk, id="a")).ask("go", timeout_s=20) == "ResultNotKept"
    assert len(made) == 1
