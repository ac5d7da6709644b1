"""Events of another process, as they come over its control socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx
import msgspec

from holdfast.console.wire.answers import Happened
from holdfast.errors import NodeUnreachable

_decode = msgspec.json.Decoder(Happened).decode


class Events:
    """What happens, one struct at a time, until the process ends. It can be iterated over in turns: each goes on where the last one ended.

    Attributes:
        dropped: events that this reader was too slow for.
    """

    def __init__(self, response: httpx.Response, address: str) -> None:
        self._response, self._address = response, address
        self._events = self._read()
        self.dropped = 0

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Happened:
        return await anext(self._events)

    async def aclose(self) -> None:
        """Listen no more."""
        await self._events.aclose()

    async def _read(self) -> AsyncGenerator[Happened, None]:
        kind = ""
        try:
            async for line in self._response.aiter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    data = line.removeprefix("data: ")
                    if kind == "dropped":
                        self.dropped += int(msgspec.json.decode(data)["dropped"])
                    else:
                        yield _decode(data)
        except httpx.TransportError as error:
            raise NodeUnreachable(self._address, f"the process at {self._address} went away: nothing more is known", sent=True) from error
