"""Values of users' types, on each store: through state, message, reply, argument, result, child and replay, and over a crash, equal."""

# Without `from __future__ import annotations`: the annotations name local types.
import asyncio
from typing import Any

import msgspec
import pytest

from holdfast import Runtime, Session, agent, tool
from holdfast.codec import codec_for
from tests.contract.conftest import Disk
from tests.unit.codec import types_msgspec, types_pydantic

CHOSEN = (
    "Decimal with an exponent",
    "datetime with an offset",
    "bytes that are no text",
    "set of datetimes",
    "dict by UUID",
    "tuple of any length",
    "dataclass with made values",
    "Struct that omits defaults",
    "union of tagged Structs",
    "TypedDict",
    "attrs",
    "dicts of a conversation",
    "plain data",
    "defaults changed in place",
    "a strict model",
    "a discriminated union",
    "a list of a discriminated union",
    "a generic model of models",
    "unknown fields that are allowed",
    "aliases only",
    "odd containers and keys",
    "a pydantic dataclass",
    "a Struct with models",
    "serializers and validators of its own",
)
KINDS = {**types_msgspec.KINDS, **types_pydantic.KINDS}


class Stage:
    """The agents of one kind of value, and what they saw."""

    def __init__(self, name: str) -> None:
        type_, self.value = KINDS[name]
        self.seen: list[tuple[str, Any]] = []
        self.hang, self.hangs = asyncio.Event(), asyncio.Event()

        @tool(effect="once")
        async def pay(given: type_, again: int) -> type_:  # type: ignore[valid-type]
            self.see("argument", given)
            return self.value  # type: ignore[no-any-return]

        @agent(name="child")
        async def child(session: Session[type_], message: type_) -> type_:  # type: ignore[valid-type]
            self.see("state of a child", session.state)
            self.see("message of a child", message)
            session.finish()
            return message

        @agent(name="worker", tools=[pay])
        async def worker(session: Session[type_], message: type_) -> type_:  # type: ignore[valid-type]
            self.see("state", session.state)
            self.see("message", message)
            self.see("result", await session.step(pay, message, again=1))
            born = await session.spawn(child, state=self.value)
            # As plain data, of which its type makes the same value.
            self.see("reply of a child", codec_for(type_).decode(msgspec.msgpack.encode(await born.ask(message))))
            if not self.hang.is_set():
                self.hangs.set()
                await self.hang.wait()
            session.state = message
            return message

        self.agents = [worker, child]

    def see(self, where: str, value: Any) -> None:
        self.seen.append((where, value))

    async def first_life(self, disk: Disk) -> None:
        runtime = Runtime(disk.store(), self.agents)
        async with runtime:
            handle = await runtime.spawn(self.agents[0], id="s", state=self.value)
            await handle.tell(self.value, id="m")
            await asyncio.wait_for(self.hangs.wait(), 10)

    async def second_life(self, disk: Disk) -> None:
        self.hang.set()
        async with Runtime(disk.store(), self.agents) as runtime:
            handle = await runtime.spawn(self.agents[0], id="s", state=self.value)
            self.see("reply", await handle.ask(self.value, id="m"))
            self.see("second reply", await handle.ask(self.value))


@pytest.mark.parametrize("name", CHOSEN)
async def test_a_value_comes_back_equal_everywhere(name: str, disk: Disk) -> None:
    """The first process ends in the middle of the turn; the second answers its steps from their records."""
    stage = Stage(name)
    await stage.first_life(disk)
    await stage.second_life(disk)
    where = [place for place, _ in stage.seen]
    assert where.count("argument") == 2  # once in each turn: the one on record is not run again
    assert where.count("result") == 3
    for place, got in stage.seen:
        assert (place, type(got), got) == (place, type(stage.value), stage.value)
