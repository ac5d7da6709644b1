"""A model provider that is down at first: it drops connections, answers with errors, or never; then it may limit its rate for a while."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count, cycle
from typing import Any

WAYS = ("drops", "500", "hangs", "503")
"""How it is down, one request after the other."""


class FlakyServer:
    """Answers chat completions once it has recovered.

    Attributes:
        requests: how many came in.
    """

    def __init__(self, ways: Sequence[str] = WAYS) -> None:
        self.base_url = ""
        self.requests = 0
        self._ways, self._numbers = cycle(ways), count(1)
        self._back = asyncio.Event()
        self._retry_after_s: int | None = None

    def limit(self, retry_after_s: int) -> None:
        """Answer with 429 and this `Retry-After`, in seconds, until it recovers."""
        self._retry_after_s = retry_after_s

    def recover(self) -> float:
        """Work from now on; the monotonic time of that."""
        self._back.set()
        return time.monotonic()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, which takes one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length:")[2].split()[0]
            await reader.readexactly(int(length))
            self.requests += 1
            way = "200" if self._back.is_set() else next(self._ways) if self._retry_after_s is None else "429"
            if way == "drops":
                writer.transport.abort()
            elif way == "hangs":
                await reader.read()  # until the client gives up
            else:
                await self._answer(writer, way)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, status: str) -> None:
        said = "too many requests" if status == "429" else "out of order"
        body = json.dumps(_completion(next(self._numbers)) if status == "200" else {"error": {"message": said}}).encode()
        wait = f"retry-after: {self._retry_after_s}\r\n" if status == "429" else ""
        head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{wait}connection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()


@asynccontextmanager
async def flaky_server(ways: Sequence[str] = WAYS) -> AsyncIterator[FlakyServer]:
    """A running one, on a free port of this machine."""
    flaky = FlakyServer(ways)
    listening = await asyncio.start_server(flaky.serve, "127.0.0.1", 0, backlog=1024)
    flaky.base_url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    async with listening:
        yield flaky


def _completion(number: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": "The blue one."}
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
