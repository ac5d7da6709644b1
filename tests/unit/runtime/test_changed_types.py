"""The type of a state changes between two processes: nothing of the stored state is dropped silently."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import msgspec
import pytest
from pydantic import BaseModel

from holdfast import Agent, Runtime, Session, StateError, agent
from tests.unit.runtime.support import World, rest


def agent_of(type_: Any, **options: Any) -> Agent:
    async def handler(session: Any, message: str) -> str:
        return repr(session.state)

    handler.__annotations__ = {"session": Session[type_], "message": str, "return": str}
    return agent(name="worker", **options)(handler)


class Items(msgspec.Struct):
    count: int = 0
    tags: set[str] = set()


class Renamed(msgspec.Struct):
    number: int = 0
    tags: set[str] = set()


class Fewer(msgspec.Struct):
    count: int = 0


class More(msgspec.Struct, omit_defaults=True):
    count: int = 0
    more: list[int] = []
    tags: set[str] = set()


class Texts(msgspec.Struct):
    count: str = ""
    tags: set[str] = set()


class Inner(BaseModel):
    a: int = 0
    b: list[int] = []


class Model(BaseModel):
    inner: list[Inner] = []


class InnerFewer(BaseModel):
    a: int = 0


class ModelFewer(BaseModel):
    inner: list[InnerFewer] = []


class InnerSet(BaseModel):
    a: int = 0
    b: set[int] = set()


class ModelSet(BaseModel):
    inner: list[InnerSet] = []


class InnerMore(Inner):
    c: str = "new"


class ModelMore(BaseModel):
    inner: list[InnerMore] = []


@dataclass
class Line:
    sku: str = ""
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class LineFewer:
    sku: str = ""


class Words(TypedDict, total=False):
    one: str
    two: str


class WordsFewer(TypedDict, total=False):
    one: str


ITEMS, MODEL = Items(3, {"a", "b", "c"}), Model(inner=[Inner(a=1), Inner(b=[2, 2])])

LOST: dict[str, tuple[Any, Any, Any, str]] = {
    "a field renamed": (Items, Renamed, ITEMS, "count"),
    "a field removed": (Items, Fewer, ITEMS, "tags"),
    "a field of another type": (Items, Texts, ITEMS, "count"),
    "a field of an inner model removed": (Model, ModelFewer, MODEL, r"inner\[1\].b"),
    "a list that becomes a set": (Model, ModelSet, MODEL, r"inner\[1\].b"),
    "a field of a dataclass removed": (Line, LineFewer, Line("a"), "counts"),
    "a key of a TypedDict removed": (Words, WordsFewer, {"one": "a", "two": "b"}, "two"),
    "plain data that gets a type": (dict, Fewer, {"count": 1, "old": 2}, "old"),
}
KEPT: dict[str, tuple[Any, Any, Any]] = {
    "the same type": (Items, Items, ITEMS),
    "a field with a default added": (Items, More, ITEMS),
    "a field with a default added to an inner model": (Model, ModelMore, MODEL),
    "a key that was not there removed": (Words, WordsFewer, {"one": "a"}),
    "a type that becomes plain data": (Items, dict, ITEMS),
    "plain data that gets a type": (dict, Items, {"count": 1, "tags": ["a"]}),
}


def stored(world: World, before: Any, state: Any) -> None:
    async def main(runtime: Runtime) -> None:
        worker = next(iter(runtime.agents.values()))
        await (await runtime.spawn(worker, id="s", state=state)).ask("hello")

    world.life(agent_of(before), main)


@pytest.mark.parametrize("name", LOST)
def test_a_state_that_would_lose_a_field_parks_and_names_it(name: str) -> None:
    """With `version=` unchanged. The stored state is as it was: the type of before goes on with it."""
    before, after, state, path = LOST[name]
    world = World()
    stored(world, before, state)

    async def changed(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        with pytest.raises(StateError, match=path):
            await handle.ask("again", id="m")
        return await rest(handle)

    row = world.life(agent_of(after), changed)
    assert (row.status, row.park.reason) == ("parked", "state")

    async def back(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("again", id="m", timeout_s=100)

    assert "count" in str(world.life(agent_of(before), back)) or before is not Items


@pytest.mark.parametrize("name", KEPT)
def test_a_change_that_loses_nothing_is_no_matter(name: str) -> None:
    before, after, state = KEPT[name]
    world = World()
    stored(world, before, state)

    async def changed(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        return await handle.ask("again"), await handle.ask("and again")

    first, second = world.life(agent_of(after), changed)
    assert sorted(first) == sorted(second)


def test_a_migration_takes_the_field_out() -> None:
    """And one that leaves it parks as well."""
    world = World()
    stored(world, Items, ITEMS)

    async def changed(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        with pytest.raises(StateError, match="tags"):
            await handle.ask("again", id="m")

    world.life(agent_of(Fewer, version=2, migrations={1: lambda state: state}), changed)

    async def main(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("again", id="m", timeout_s=100)

    migrate = {1: lambda state: {"count": state["count"]}}
    assert world.life(agent_of(Fewer, version=2, migrations=migrate), main) == "Fewer(count=3)"


def test_a_row_without_a_fingerprint_loads_as_before() -> None:
    """One that an earlier version of holdfast wrote."""
    worker = agent_of(Fewer)
    data = msgspec.msgpack.encode({"count": 3, "tags": []})
    assert worker.load_state("s", data, 1) == worker.load_state("s", data, 1, 0) == Fewer(3)
    with pytest.raises(StateError, match="'tags'"):
        worker.load_state("s", data, 1, 1)


def test_a_session_whose_state_does_not_fit_can_be_rewound() -> None:
    """Its message waits, and is handled from the state that came back."""
    world = World()

    async def first(runtime: Runtime) -> None:
        worker = next(iter(runtime.agents.values()))
        handle = await runtime.spawn(worker, id="s", state={"count": 1})
        await handle.ask("hello")
        await handle.ask("more")

    async def second(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        with pytest.raises(StateError, match="odd"):
            await handle.ask("again", id="m")
        await rest(handle)
        await handle.rewind(1)
        return await handle.ask("again", id="m")

    @agent(name="worker")
    async def grows(session: Session[dict[str, int]], message: str) -> str:
        if message == "more":
            session.state["odd"] = 1
        return message

    world.life(grows, first)
    assert world.life(agent_of(Fewer), second) == "Fewer(count=1)"
