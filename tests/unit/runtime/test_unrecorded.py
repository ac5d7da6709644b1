"""A handler that calls a tool itself, without a step: nothing would record the effect, and after a crash it would happen again."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdfast import ConfigError, Runtime, Session, agent, tool
from tests.unit.runtime.support import World

done: list[int] = []


@tool(effect="once")
async def pay(cents: int) -> int:
    done.append(cents)
    return cents


@tool(effect="idempotent")
def note(cents: int) -> int:
    done.append(cents)
    return cents


@tool
async def look(cents: int) -> int:
    return cents


async def pays(cents: int) -> int:
    """A function that runs as a step, and calls a tool as any other function."""
    return await pay(cents) + note(cents)


async def by_itself(session: Session[None]) -> Any:
    return await pay(1)


async def in_a_task(session: Session[None]) -> Any:
    return await asyncio.create_task(pay(1))


async def in_a_gather(session: Session[None]) -> Any:
    async def branch() -> int:
        return await pay(1)

    return await session.gather(branch())


async def in_a_thread(session: Session[None]) -> Any:
    return await asyncio.to_thread(note, 1)


async def after_a_step(session: Session[None]) -> Any:
    await session.step(pays, 7)
    return note(1)


REFUSED: list[Callable[[Session[None]], Awaitable[Any]]] = [by_itself, in_a_task, in_a_gather, in_a_thread, after_a_step]


async def as_a_step(session: Session[None]) -> Any:
    return await session.step(pay, 1)


async def within_a_step(session: Session[None]) -> Any:
    return await session.step(pays, 1)


async def in_a_task_within_a_step(session: Session[None]) -> Any:
    async def outer(cents: int) -> int:
        return await asyncio.create_task(pays(cents))

    return await session.step(outer, 1)


async def without_an_effect(session: Session[None]) -> Any:
    return await look(1)


async def in_no_turn(session: Session[None]) -> Any:
    return await contextvars.Context().run(asyncio.ensure_future, pays(1))


ALLOWED: list[Callable[[Session[None]], Awaitable[Any]]] = [
    as_a_step, within_a_step, in_a_task_within_a_step, without_an_effect, in_no_turn,
]  # fmt: skip


def turn(shape: Callable[[Session[None]], Awaitable[Any]]) -> str:
    done.clear()

    @agent
    async def shop(session: Session[None], text: str) -> str:
        try:
            return str(await shape(session))
        except ConfigError as error:
            return str(error)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(shop, id="s")).ask("go")

    return str(World().life(shop, main))


@pytest.mark.parametrize("shape", REFUSED, ids=lambda shape: shape.__name__)
def test_an_effect_that_nothing_would_record_does_not_begin(shape: Callable[[Session[None]], Awaitable[Any]]) -> None:
    said = turn(shape)
    assert "await session.step(" in said
    assert 1 not in done


@pytest.mark.parametrize("shape", ALLOWED, ids=lambda shape: shape.__name__)
def test_a_tool_is_called_as_any_function_where_that_is_recorded_or_no_turn_is(shape: Callable[[Session[None]], Awaitable[Any]]) -> None:
    assert "session.step" not in turn(shape)


async def test_outside_of_sessions_a_tool_is_a_function() -> None:
    done.clear()
    assert await pay(3) + note(4) == 7
    assert done == [3, 4]
