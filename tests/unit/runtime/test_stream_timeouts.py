"""A timeout of the handler's own around a streamed answer: it gets its own timeout, live and on replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from holdfast import NO_RETRY, Runtime, Session, agent
from holdfast.calls import ModelClient
from holdfast.testing import Crashed
from tests.unit.runtime.support import World

TEXTS = ["Once ", "upon ", "a time"]


def chunk(text: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": [choice]}


class Stalled:
    """A stream that gives a chunk each second, and then none for a long time."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        for text in TEXTS:
            await asyncio.sleep(1)
            yield chunk(text)
        await asyncio.sleep(500)

    async def close(self) -> None: ...


class Client:
    """Has the shape of openai.AsyncOpenAI."""

    api_key = "sk-not-a-real-key"

    def __init__(self) -> None:
        self.chat = self.completions = self
        self.bought = 0

    def with_options(self, **options: Any) -> Client:
        return self

    async def create(self, **request: Any) -> Any:
        self.bought += 1
        return Stalled()


Reads = Callable[[Any, list[str]], Awaitable[None]]


async def chunk_by_chunk(stream: Any, heard: list[str]) -> None:
    async for each in stream:
        heard += [each.choices[0].delta.content]


async def whole(stream: Any, heard: list[str]) -> None:
    await stream.final()


async def by_asyncio(work: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(10):
            await work
    except TimeoutError:
        return "its own timeout"
    return "read"


async def by_anyio(work: Awaitable[None]) -> str:
    with anyio.move_on_after(10) as scope:
        await work
    return "its own timeout" if scope.cancelled_caught else "read"


@pytest.mark.parametrize("within", [by_asyncio, by_anyio])
@pytest.mark.parametrize("read", [chunk_by_chunk, whole])
def test_a_timeout_around_a_stream_is_the_same_on_replay(read: Reads, within: Callable[[Awaitable[None]], Awaitable[str]]) -> None:
    """Not an error of the stream, which the code would take for one of the provider; the part that came is not bought again."""
    world, client = World(), Client()

    @agent
    async def reader(session: Session[Any], text: str) -> str:
        heard: list[str] = []

        async def reads() -> None:
            create = session.clients.openai.chat.completions.create
            async with await create(model="gpt-4o-mini", messages=[], stream=True) as stream:
                await read(stream, heard)

        way = await within(reads())
        world.done.append((way, heard))
        await session.step(asyncio.sleep, 0.0)
        if world.lives == 1:
            await world.crash()
        return way

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(reader, id="s")).ask("go", id="m", timeout_s=1000)

    clients = {"openai": ModelClient("openai", client, retry=NO_RETRY)}
    assert isinstance(world.life(reader, main, clients=clients), Crashed)
    assert world.life(reader, main, clients=clients) == "its own timeout"
    heard = TEXTS if read is chunk_by_chunk else []
    assert world.done == [("its own timeout", heard)] * 2
    assert client.bought == 1
