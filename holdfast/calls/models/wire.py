"""The events of a streamed answer, read from the bytes of the response: also where a server does not quite keep to the protocol.

The SDKs' own readers hide the end mark `[DONE]`, skip events without a name, and give up at a line that is no JSON. What is read here:

| a server sends | what it is |
| --- | --- |
| `data: [DONE]` | the end mark: `END` |
| a comment, `retry:`, `id:`, an event without data, or data that is a text, a number or null | nothing |
| events with one line end between them instead of two | one event for each line |
| the rest of an event in lines without `data:` | part of that event |
| an event without its `type`, but with a name | the name is the type |
| `event: error` with any data | an error |
| the last event without an empty line after it | an event |
| one JSON object in place of events | the whole answer |
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from holdfast.calls.models.dialect import Fields, listed
from holdfast.calls.models.replies import BrokenStream, NoReply, fields_of


class _End:
    """The type of `END`."""


END: Final = _End()
"""The end mark of a stream."""

_NAMED = ("response.", "message_", "content_block_", "ping")
"""The beginnings of the names of events that are also their type."""

_QUOTED = 100
"""The most characters of an unreadable event that an error shows."""


class Events:
    """The events of one response, as plain fields; `END` where the end mark came. An async iterator, and closed by `close`."""

    def __init__(self, response: Any) -> None:
        """Takes the stream of an SDK, or an async iterator of chunks."""
        read = getattr(getattr(response, "response", None), "aiter_bytes", None)
        self._response, self._reader = response, EventReader()
        self._bytes: AsyncIterator[bytes] | None = None if read is None else aiter(read())
        self._chunks: AsyncIterator[Any] | None = aiter(response) if read is None else None
        self._ready: deque[Fields | _End] = deque()
        self._over = False

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Fields | _End:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            await self._more()
        return self._ready.popleft()

    async def close(self) -> None:
        """Close the connection, or return it. If cancelled, the response may stay open."""
        await self._response.close()

    async def _more(self) -> None:
        if self._bytes is not None:
            data = await self._read(self._bytes)
            self._over = data is None
            self._ready.extend(self._reader.end() if data is None else self._reader.feed(data))
        elif self._chunks is not None:
            try:
                self._ready.append(fields_of(await anext(self._chunks)))
            except StopAsyncIteration:
                self._over = True

    async def _read(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        try:
            return await anext(pieces, None)
        except Exception as error:
            # By its name, since no HTTP client is imported here: the SDKs' own readers call it an error of the connection, too.
            if type(error).__name__ != "DecodingError":
                raise
            raise BrokenStream(f"the body of the stream does not decode: {error}") from error


class EventReader:
    """Makes events of the bytes of a response. Does no I/O."""

    __slots__ = ("_began", "_event", "_lines", "_partial", "_plain", "_seen")

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._plain: list[str] = []
        self._lines: list[tuple[bool, str]] = []
        self._event = ""
        self._seen = self._began = False

    def feed(self, data: bytes) -> Iterator[Fields | _End]:
        """The events that these bytes complete. Raises ValueError at an event that is unreadable."""
        if b"\n" not in data and b"\r" not in data:
            self._partial.append(data)
            return
        text = b"".join([*self._partial, data])
        *lines, last = text.splitlines(keepends=True)
        # A "\r" at the end may be the first half of "\r\n".
        whole = last.endswith(b"\n")
        self._partial = [] if whole else [last]
        for line in [*lines, last] if whole else lines:
            yield from self._line(line)

    def end(self) -> Iterator[Fields | _End]:
        """The events that the end of the response completes; the whole answer, if it came without events.

        Raises:
            ValueError: the rest is unreadable.
            NoReply: it is a text, and no stream.
        """
        for line in b"".join(self._partial).splitlines():
            yield from self._line(line)
        self._partial = []
        yield from self._dispatch()
        body = "\n".join(self._plain).strip()
        if body and not self._seen:
            found = list(_values(json.loads(body) if body[0] in "{[" else None))
            if not found:
                raise NoReply(f"the server answered with a text, not with a stream: {body[:_QUOTED]!r}: is the client's base_url right?")
            yield from found
            yield END

    def _line(self, raw: bytes) -> Iterator[Fields | _End]:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not self._began:
            self._began, line = True, line.removeprefix("\ufeff")
        if not line:
            yield from self._dispatch()
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._lines.append((True, value))
        elif name == "event":
            self._event = value.strip()
        elif name not in ("", "id", "retry"):
            if self._lines:
                self._lines.append((False, line))
            else:
                self._plain.append(line)

    def _dispatch(self) -> Iterator[Fields | _End]:
        lines, event = self._lines, self._event
        self._lines, self._event = [], ""
        if not lines:
            return
        data = [line for is_data, line in lines if is_data]
        text = "\n".join(data).strip()
        if not text:
            return
        if text.startswith("[DONE]"):
            yield END
            return
        for found in _read(text, data, [line for _, line in lines], event):
            self._seen = True
            yield found


def _read(text: str, data: list[str], lines: list[str], event: str) -> Iterator[Fields | _End]:
    if event == "error":
        yield _error(text)
        return
    if text[0] not in "{[":
        return
    try:
        value = json.loads(text)
    except ValueError:
        # Either several events with one line end between them, or one event in lines of which some lack "data:".
        if len(data) > 1 and all(_is_json(line) for line in data if line.strip()):
            for line in data:
                yield from _each(line, event)
            return
        value = json.loads("\n".join(lines))
    yield from _values(value, event)


def _each(line: str, event: str) -> Iterator[Fields | _End]:
    if line.strip().startswith("[DONE]"):
        yield END
    elif line.strip():
        yield from _values(json.loads(line), event)


def _values(value: Any, event: str = "") -> Iterator[Fields]:
    for fields in [value] if isinstance(value, dict) else listed(value):
        if event.startswith(_NAMED) and "type" not in fields:
            yield {"type": event, **fields}
        else:
            yield fields


def _error(text: str) -> Fields:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, dict) and (value.get("error") or value.get("type") == "error"):
        return value
    return {"type": "error", "error": value if isinstance(value, dict) else {"message": str(value)}}


def _is_json(line: str) -> bool:
    if line.strip().startswith("[DONE]"):
        return True
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def events_in(text: str) -> list[Fields]:
    """The events of a stream that came where a whole answer was asked for; none if it is another text. Raises as `EventReader`."""
    reader = EventReader()
    found = [*reader.feed(text.encode("utf-8", "replace")), *reader.end()] if "data:" in text[:10_000] else []
    return [event for event in found if not isinstance(event, _End)]
