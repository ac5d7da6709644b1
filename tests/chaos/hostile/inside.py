"""The places inside a handler where a user's or a model's value can go. Each is a function of the session and the value."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from holdfast import Budget, NotDone, Session, Usage, agent, tool
from holdfast.calls.tools.tool import Tool

Inside = Callable[[Session[Any], Any], Awaitable[Any]]
INSIDE: dict[str, Inside] = {}

given: dict[str, Any] = {}
"""The value of the case under way, for the functions that take it from the side, as a tool takes it from a service."""


class NotHere(Exception):
    """The value cannot be brought to this place at all, even by a hostile program."""


def place(name: str) -> Callable[[Inside], Inside]:
    def add(function: Inside) -> Inside:
        assert name not in INSIDE
        INSIDE[name] = function
        return function

    return add


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise NotHere
    return value


# ---------------------------------------------------------------- tools


async def look(value: Any = None, *, named: Any = None) -> Any:
    return 1


async def gives(id: str) -> Any:
    return given[id]


async def gives_texts(id: str) -> list[str]:
    return given[id]  # type: ignore[no-any-return] # that is the fault to try


@tool
async def answers(id: str, extra: Any = None) -> Any:
    """Gives the value."""
    return given[id]


@tool(effect="once")
async def gives_once(id: str) -> object:
    return given[id]


@tool(effect="once")
async def takes_once(value: Any) -> None: ...


@tool(effect="idempotent")
async def takes_again(value: Any) -> None: ...


@tool
async def fails(id: str, how: str) -> None:
    value, error = given[id], RuntimeError("odd")
    match how:
        case "text":
            raise ValueError(value)
        case "texts":
            raise ValueError("this", value)
        case "key":
            raise KeyError(value)
        case "group":
            raise ExceptionGroup("several", [ValueError(value), TypeError(value)])
        case "note":
            error.__notes__ = [value]
        case "cause":
            raise error from ValueError(value)
        case "retry-after":
            error.response = type("Response", (), {"headers": {"retry-after": value}, "status_code": 429})()  # type: ignore[attr-defined]
        case "cost":
            error.holdfast_usage = Usage(tokens=value, microusd=value, seconds=value)  # type: ignore[attr-defined]
        case _:
            setattr(error, how, value)
    raise error


@tool(effect="once")
async def not_done(id: str) -> None:
    raise NotDone(given[id])


async def _found(id: str) -> object:
    return given[id]


@tool(effect="once", reconcile=_found)
async def reconciled(id: str) -> object:
    raise ConnectionError("cut")


async def _fails_to_find(id: str) -> object:
    raise ValueError(given[id])


@tool(effect="once", reconcile=_fails_to_find)
async def unreconciled(id: str) -> object:
    raise ConnectionError("cut")


TOOLS: list[Tool[..., Any]] = [answers, gives_once, takes_once, takes_again, fails, not_done, reconciled, unreconciled]

# ---------------------------------------------------------------- state and reply


@place("the state")
async def _(session: Session[Any], value: Any) -> None:
    session.state = value


@place("a field of the state")
async def _(session: Session[Any], value: Any) -> None:
    session.state = {"field": value}


@place("a key of the state")
async def _(session: Session[Any], value: Any) -> None:
    session.state = {value: 1}


@place("an item of the state")
async def _(session: Session[Any], value: Any) -> None:
    session.state = [1, value]


@place("the reply")
async def _(session: Session[Any], value: Any) -> Any:
    return value


@place("the result of a session")
async def _(session: Session[Any], value: Any) -> None:
    session.finish(value)


# ---------------------------------------------------------------- steps


@place("the name of a step")
async def _(session: Session[Any], value: Any) -> None:
    async def odd() -> int:
        return 1

    odd.__qualname__ = text(value)
    await session.step(odd)


@place("an argument of a step")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(look, value)


@place("an argument of a step by name")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(look, named={"deeper": [value]})


@place("an argument of a once step")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(takes_once, value)


@place("an argument of an idempotent step")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(takes_again, value)


@place("the result of a step")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(gives, session.id)


@place("the result of a step with a type")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(gives_texts, session.id)


@place("the result of a once step")
async def _(session: Session[Any], value: Any) -> None:
    with suppress(Exception):
        await session.step(gives_once, session.id)


@place("the function of a step")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(value)


@place("a member of gather")
async def _(session: Session[Any], value: Any) -> None:
    await session.gather(value)


@place("the result of reconcile")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(reconciled, session.id)


@place("the error of reconcile")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(unreconciled, session.id)


@place("the text of NotDone")
async def _(session: Session[Any], value: Any) -> None:
    await session.step(not_done, session.id)


def _failing(how: str) -> None:
    async def run(session: Session[Any], value: Any) -> None:
        await session.step(fails, session.id, how)

    place(f"the error of a step: {how}")(run)


for _how in (
    "text", "texts", "key", "group", "note", "cause", "retry-after", "cost", "status_code", "holdfast_failure", "body", "code", "headers",
):  # fmt: skip
    _failing(_how)


# ---------------------------------------------------------------- what a model asks for


@place("the name of a tool that a model calls")
async def _(session: Session[Any], value: Any) -> Any:
    return (await session.call_tool(value, "{}")).content


@place("the arguments of a model")
async def _(session: Session[Any], value: Any) -> Any:
    return (await session.call_tool("answers", value)).content


@place("an argument of a model")
async def _(session: Session[Any], value: Any) -> Any:
    return (await session.call_tool("takes_once", {"value": value})).content


@place("the name of an argument of a model")
async def _(session: Session[Any], value: Any) -> Any:
    return (await session.call_tool("answers", {value: 1})).content


@place("the JSON of a model")
async def _(session: Session[Any], value: Any) -> Any:
    try:
        data = '{"id": "x", "extra": ' + json.dumps(value) + "}"
    except (TypeError, ValueError, RecursionError):
        data = '{"id": "x", "extra": ' + "[" * 100_000 + "]" * 100_000 + "}"
    return (await session.call_tool("answers", data)).content


@place("the result of a tool for a model")
async def _(session: Session[Any], value: Any) -> Any:
    return (await session.call_tool("answers", {"id": session.id})).content


@place("the result of a once tool for a model")
async def _(session: Session[Any], value: Any) -> Any:
    return (await session.call_tool("gives_once", {"id": session.id})).content


@place("the error of a tool for a model")
async def _(session: Session[Any], value: Any) -> Any:
    return (await session.call_tool("fails", {"id": session.id, "how": "text"})).content


# ---------------------------------------------------------------- errors of the handler


@place("the error of a handler")
async def _(session: Session[Any], value: Any) -> None:
    raise ValueError(value)


@place("several texts in the error of a handler")
async def _(session: Session[Any], value: Any) -> None:
    raise RuntimeError("this", value)


@place("the key of a KeyError of a handler")
async def _(session: Session[Any], value: Any) -> None:
    raise KeyError(value)


@place("a note on the error of a handler")
async def _(session: Session[Any], value: Any) -> None:
    error = ValueError("odd")
    error.__notes__ = [value]
    raise error


@place("the cause of the error of a handler")
async def _(session: Session[Any], value: Any) -> None:
    raise ValueError("odd") from RuntimeError(value)


@place("a group of errors of a handler")
async def _(session: Session[Any], value: Any) -> None:
    raise ExceptionGroup("several", [ValueError(value), KeyError(value)])


@place("the text of a group of errors of a handler")
async def _(session: Session[Any], value: Any) -> None:
    raise ExceptionGroup(text(value), [ValueError("odd")])


@place("the error of a task of a handler")
async def _(session: Session[Any], value: Any) -> None:
    async def task() -> None:
        raise ValueError(value)

    async with asyncio.TaskGroup() as group:
        group.create_task(task())


# ---------------------------------------------------------------- waits, decisions, other sessions


@place("the seconds of a sleep")
async def _(session: Session[Any], value: Any) -> None:
    await session.sleep(value)


@place("an option of a decision")
async def _(session: Session[Any], value: Any) -> None:
    await session.decide([value], value)


@place("the reason of a decision")
async def _(session: Session[Any], value: Any) -> None:
    await session.decide(["a"], "a", value)


@place("the message of a tell")
async def _(session: Session[Any], value: Any) -> None:
    await session.tell("partner", value)


@place("the session of a tell")
async def _(session: Session[Any], value: Any) -> None:
    await session.tell(value, "hello")


@place("the message of an ask")
async def _(session: Session[Any], value: Any) -> None:
    await session.ask("partner", value)


@place("the session of an ask")
async def _(session: Session[Any], value: Any) -> None:
    await session.ask(value, "hello")


@place("the time limit of an ask")
async def _(session: Session[Any], value: Any) -> None:
    await session.ask("partner", "hello", timeout_s=value)


@place("the session of a watch")
async def _(session: Session[Any], value: Any) -> None:
    await session.watch(value)


@agent(version=1)
async def child(session: Session[Any], id: str) -> Any:
    """Gives its parent the value."""
    if id == "finish":
        session.finish(given.get(id))
    return given.get(id)


@place("the id of a child")
async def _(session: Session[Any], value: Any) -> None:
    await session.spawn(child, id=value)


@place("the state of a child")
async def _(session: Session[Any], value: Any) -> None:
    await session.spawn(child, state={"a": value})


@place("the reply of a child")
async def _(session: Session[Any], value: Any) -> None:
    await (await session.spawn(child)).ask(session.id, timeout_s=20.0)


@place("a client's name")
async def _(session: Session[Any], value: Any) -> None:
    getattr(session.clients, text(value))


@place("the budget of a child")
async def _(session: Session[Any], value: Any) -> None:
    await session.spawn(child, budget=value)


def _budget(field: str) -> None:
    async def run(session: Session[Any], value: Any) -> None:
        await session.spawn(child, budget=Budget(**{field: value}))

    place(f"the budget of a child: {field}")(run)


for _field in ("steps", "tokens", "usd", "seconds", "tool_calls"):
    _budget(_field)
