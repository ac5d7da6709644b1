"""Live events of another process, over its control socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import httpx
import msgspec

from holdfast.console.wire.answers import Dropped, Happened
from holdfast.errors import HoldfastError, NodeUnreachable

_decode = msgspec.json.Decoder(Happened).decode
_decode_dropped = msgspec.json.Decoder(Dropped).decode


class Events:
    """The events, one struct at a time, until the process ends. You can iterate over it several times: each loop continues where the last
    one ended.

    Attributes:
        dropped: the number of events that were lost because this reader was too slow.
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
        """Stop listening. If cancelled, the connection is closed all the same."""
        await self._events.aclose()

    async def _read(self) -> AsyncGenerator[Happened, None]:
        kind = b""
        try:
            async for line in self._lines():
                if line.startswith(b"event: "):
                    kind = line.removeprefix(b"event: ")
                elif line.startswith(b"data: "):
                    data = line.removeprefix(b"data: ")
                    if kind == b"dropped":
                        self.dropped += _decode_dropped(data).dropped
                    else:
                        yield _decode(data)
        except httpx.TimeoutException as error:
            text = f"{self._address} sends no heartbeat: its process may be blocked, and its log names what blocks it"
            raise NodeUnreachable(self._address, text, sent=True) from error
        except httpx.TransportError as error:
            raise NodeUnreachable(self._address, f"the process at {self._address} went away: nothing more is known", sent=True) from error
        except msgspec.MsgspecError as error:
            text = f"{self._address} runs another version of holdfast, whose events are not understood: {error}"
            raise HoldfastError(text) from error

    async def _lines(self) -> AsyncIterator[bytes]:
        """Split at line feeds only: other characters that end a line of text may occur within a line here."""
        begun = b""
        async for part in self._response.aiter_bytes():
            *lines, begun = (begun + part).split(b"\n")
            for line in lines:
                yield line
