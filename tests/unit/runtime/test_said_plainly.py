"""Errors that newcomers meet: each is one line that names the place and the next action."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from holdfast import ConfigError, MessageRefused, NotJournalable, Runtime, Session, agent, tool
from tests.unit.runtime.support import World, rest


class Case(msgspec.Struct):
    items: list[Any] = []


@tool(effect="once")
async def refund(order: str, *, note: Any = None) -> str:
    raise ConnectionError("cut off")


async def read(order: Any, note: Any = None) -> str:
    return "read"


NO_OBJECT = "a value of type object cannot be journaled: use plain data, a dataclass, a msgspec.Struct or a pydantic model"
NO_SESSION = (
    "a value of type Session cannot be journaled: pass what the function needs of it, such as session.id or a part of session.state"
)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a session", f"read: argument 1: {NO_SESSION}"),
        ("an object", f"read: argument note: {NO_OBJECT}"),
        ("an effect", f"refund: argument note: {NO_OBJECT}"),
        ("both", "read: argument 2: the value cannot be journaled: can't serialize ints"),
    ],
)
def test_an_argument_that_is_no_data_is_named(what: str, text: str) -> None:
    """The step, the argument by its position or name, and what to give in its place; nothing ran."""
    world, refused = World(), list[str]()

    @agent(tools=[refund])
    async def worker(session: Session[Case], message: str) -> None:
        asked: dict[str, Any] = {
            "a session": lambda: session.step(read, session),
            "an object": lambda: session.step(read, "x", note=object()),
            "an effect": lambda: session.step(refund, "x", note=object()),
            "both": lambda: session.step(read, "x", 1 << 70),
        }
        try:
            await asked[what]()
        except NotJournalable as error:
            refused.append(str(error))

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.ask("go")
        return await runtime.store.steps("s", 1)

    assert world.life(worker, main) == []
    assert [error.startswith(text) for error in refused] == [True], refused


def test_lists_are_asked_for_where_they_are_meant_and_only_there() -> None:
    """One agent in place of a list of them, and a list of coroutines in place of coroutines."""
    world, refused = World(), list[str]()

    @agent
    async def worker(session: Session[Any], message: str) -> None:
        steps = [session.step(read, 1), session.step(read, 2)]
        try:
            await session.gather(steps)  # type: ignore[arg-type]
        except TypeError as error:
            refused.append(str(error))
        await session.gather(*steps)

    async def main(runtime: Runtime) -> None:
        await (await runtime.spawn(worker, id="s")).ask("go")

    with pytest.raises(ConfigError, match=r"agents= is one agent: give a list, agents=\[worker\]"):
        Runtime("memory:", agents=worker)  # type: ignore[arg-type]
    world.life(worker, main)
    assert refused == ["gather takes coroutines, not a list: give its items one by one, gather(*items)"]


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("state", f"session.state: {NO_OBJECT}"),
        ("session", f"session.state: {NO_SESSION}"),
        ("reply", "the reply: a value of type object cannot be journaled without an annotation of its type"),
        ("any", "session.state: a value of type object cannot be journaled without an annotation of its type"),
    ],
)
def test_a_state_or_reply_that_is_no_data_is_named(where: str, text: str) -> None:
    """At the commit: which of the two it is, and what to keep in its place."""
    world = World()

    @agent(name="a")
    async def typed(session: Session[Case], message: str) -> Any:
        if where == "reply":
            return object()
        session.state.items.append(session if where == "session" else object())
        return None

    @agent(name="a")
    async def untyped(session: Session[Any], message: str) -> None:
        session.state = {"thing": object()}

    async def main(runtime: Runtime) -> str:
        handle = await runtime.spawn(runtime.agents["a"], id="s")
        await handle.tell("go", id="m")
        await rest(handle)
        (letter,) = await runtime.store.dead_letters("s")
        return letter.cause

    cause = world.life(untyped if where == "any" else typed, main)
    assert cause.startswith("NotJournalable: ")
    assert text in cause
    assert "\n" not in cause


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({}, "give what refund returned, as --result JSON (in Python result=): Expected `str`, got `None`"),
        ({"result": 5}, "that is not what refund returns, as --result JSON (in Python result=): Expected `str`, got `int`"),
    ],
)
def test_a_result_that_is_missing_or_of_another_type_names_the_option(result: dict[str, Any], text: str) -> None:
    """An effect that returned a text is not resolved as done without one."""
    world = World()

    @agent(tools=[refund])
    async def worker(session: Session[Any], message: str) -> str:
        return await session.step(refund, message)

    async def main(runtime: Runtime) -> str:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("order-17", id="m")
        await rest(handle)
        with pytest.raises(MessageRefused) as refused:
            await handle.resolve("done", **result)
        assert await handle.resolve("done", result="paid back") == 1
        assert await handle.ask("order-17", id="m") == "paid back"
        await asyncio.sleep(0)
        return str(refused.value)

    assert world.life(worker, main) == text
