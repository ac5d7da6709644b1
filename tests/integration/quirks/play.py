"""A server that plays odd answers, and the rows of the tables of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

DONE = "[DONE]"
Event = dict[str, Any] | str


@dataclass(frozen=True)
class Stream:
    """A streamed answer.

    Attributes:
        events: JSON objects, or texts that are sent as they are after "data: "; "raw:" and a text is sent without it.
        done: whether `[DONE]` ends it.
        end: how the connection ends: properly, cut, or not at all.
        named: whether each event has its type as its name.
        between: what stands between two events.
    """

    events: Sequence[Event]
    done: bool = True
    end: Literal["proper", "cut", "open"] = "proper"
    named: bool = False
    between: str = "\n\n"
    status: int = 200


@dataclass(frozen=True)
class Body:
    """A whole answer: JSON, or a text as it is.

    Attributes:
        missing: how many bytes fewer than announced are sent.
    """

    body: Any
    status: int = 200
    kind: str = "application/json"
    missing: int = 0


Play = Stream | Body


@dataclass(frozen=True)
class Gets:
    """What the handler gets: the text, the tool calls as (name, arguments), the reason; and whether it can read reasoning."""

    text: str = "hello"
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    reason: str | None = "stop"
    thinks: bool = False


@dataclass(frozen=True)
class Fails:
    """The handler gets a StepError of this kind (docs/failures.md)."""

    kind: str


@dataclass(frozen=True)
class Quirk:
    """One odd answer.

    Attributes:
        name: what is odd.
        source: the public issue or pull request that reports it; "" for a shape of our own.
        streamed, whole: what the server sends, in turn, to a request for a stream or for a whole answer; the last one again and again.
        gets: what the handler gets.
        paid: how many requests the server answers.
        counted: the type of the error that the breaker of the provider counts; "" for none.
        tokens: the tokens that the session is charged; None: more than 0.
        after_tool: whether the request ends with the result of a tool.
    """

    name: str
    source: str
    streamed: tuple[Play, ...] = ()
    whole: tuple[Play, ...] = ()
    gets: Gets | Fails = Gets()  # it is frozen
    paid: int = 1
    counted: str = ""
    tokens: int | None = None
    after_tool: bool = False


class PlayServer:
    """Plays the answers in turn.

    Attributes:
        requests: the bodies of what came in.
        paid: how many of them it answered with status 200.
    """

    def __init__(self, plays: Sequence[Play]) -> None:
        self.base_url = ""
        self._plays = plays
        self.requests: list[dict[str, Any]] = []
        self.paid = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.splitlines()[1:])}
            play = self._plays[min(len(self.requests), len(self._plays) - 1)]
            self.requests.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
            self.paid += play.status == 200
            if isinstance(play, Stream):
                await self._stream(play, reader, writer)
            else:
                self._body(play, writer)
            await writer.drain()
        finally:
            writer.close()

    def _body(self, play: Body, writer: asyncio.StreamWriter) -> None:
        data = (play.body if isinstance(play.body, str) else json.dumps(play.body)).encode()
        head = f"HTTP/1.1 {play.status} -\r\ncontent-type: {play.kind}\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data[: len(data) - play.missing])

    async def _stream(self, play: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {play.status} -\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for event in [*play.events, *[DONE] * play.done]:
            data = _line(event, play).encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
        if play.end == "open":
            await reader.read()
        elif play.end == "proper":
            writer.write(b"0\r\n\r\n")


def _line(event: Event, play: Stream) -> str:
    if isinstance(event, str):
        return event.removeprefix("raw:") if event.startswith("raw:") else f"data: {event}{play.between}"
    name = f"event: {event['type']}\n" if play.named else ""
    return f"{name}data: {json.dumps(event)}{play.between}"


@asynccontextmanager
async def playing(plays: Sequence[Play]) -> AsyncIterator[PlayServer]:
    """A running server, on a free port."""
    server = PlayServer(plays)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
