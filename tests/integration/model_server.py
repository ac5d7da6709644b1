"""A model provider on a local socket that says exactly what a test tells it to: usage, errors inside streams, streams that break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

End = Literal["whole", "disconnected", "stalled", "garbled"]


@dataclass(frozen=True)
class Says:
    """One answer: a JSON body, or events of a stream and how it ends.

    Attributes:
        held: how many of the last events, and the end, wait for `ModelServer.released`; None: nothing waits.
        kind: the content type of a body that is a text.
    """

    body: dict[str, Any] | str | None = None
    status: int = 200
    events: Sequence[dict[str, Any]] = ()
    end: End = "whole"
    held: int | None = None
    kind: str = "text/html"


class ModelServer:
    """Gives the answers in `script` in turn.

    Attributes:
        requests: the bodies of what came in.
        released: what is held waits for it.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.script: list[Says] = []
        self.requests: list[dict[str, Any]] = []
        self.released = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.splitlines()[1:])}
            self.requests.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
            await self._answer(self.script.pop(0), writer)
        finally:
            writer.close()

    async def _answer(self, says: Says, writer: asyncio.StreamWriter) -> None:
        kind = "text/event-stream" if says.events else says.kind if isinstance(says.body, str) else "application/json"
        lines = [f"HTTP/1.1 {says.status} -", f"content-type: {kind}", "connection: close", "transfer-encoding: chunked"]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if not says.events:
            self._chunk(writer, says.body if isinstance(says.body, str) else json.dumps(says.body))
        for number, event in enumerate(says.events):
            if says.held and number == len(says.events) - says.held:
                await self.released.wait()
            name = f"event: {event['type']}\n" if "type" in event else ""
            self._chunk(writer, f"{name}data: {json.dumps(event)}\n\n")
            await writer.drain()
        if says.end == "stalled" or says.held is not None:
            await self.released.wait()
        if says.end == "garbled":
            self._chunk(writer, 'event: message_delta\ndata: {"type": "mess\n\n')
        if says.end not in ("disconnected", "stalled"):
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _chunk(self, writer: asyncio.StreamWriter, text: str) -> None:
        data = text.encode()
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    """A running one, on a free port."""
    listening: asyncio.Server | None = None
    serving = ModelServer("")
    listening = await asyncio.start_server(serving.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    serving.base_url = f"http://127.0.0.1:{port}"
    try:
        yield serving
    finally:
        serving.released.set()
        listening.close()


# ---------------------------------------------------------------- what OpenAI sends


def chat_chunks(text: str) -> list[dict[str, Any]]:
    """A chunk of a chat completion for each word, without the last."""
    return [
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": f"{word} "}, "finish_reason": None}],
        }
        for word in text.split()
    ]


def response(*output: dict[str, Any], status: str = "completed", usage: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A whole response."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": status,
        "model": "gpt-4o-mini-2024-07-18",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "usage": usage,
        **more,
    }


def says_text(text: str, kind: str = "output_text") -> dict[str, Any]:
    """A message as an item of a response; `kind` may be "refusal"."""
    part = {"type": "refusal", "refusal": text} if kind == "refusal" else {"type": kind, "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}


def calls_function(name: str, arguments: str) -> dict[str, Any]:
    """A function call as an item of a response."""
    return {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name, "arguments": arguments, "status": "completed"}


def response_usage(tokens_in: int, tokens_out: int, *, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    """As OpenAI reports it: the cached tokens are part of the input, the reasoning tokens of the output."""
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": tokens_in + tokens_out,
    }


def response_events(text: str, last: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The events of a streamed response: a delta for each word, and `last` as the final response; None: it is not sent."""
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response(status="in_progress")}]
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events += [{"type": "response.output_text.delta", **place, "delta": f"{word} ", "logprobs": []} for word in text.split()]
    if last is not None:
        events.append({"type": f"response.{last['status']}", "response": last})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


# ---------------------------------------------------------------- what Anthropic sends


def message(*content: dict[str, Any], stop_reason: str | None = "end_turn", usage: dict[str, Any] | None = None) -> dict[str, Any]:
    """A whole message."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6-20260101",
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage or {"input_tokens": 10, "output_tokens": 5},
    }


def message_events(
    deltas: Sequence[dict[str, Any]],
    *,
    block: dict[str, Any] | None = None,
    begin: dict[str, Any] | None = None,
    end: dict[str, Any] | None = None,
    stop_reason: str = "end_turn",
) -> list[dict[str, Any]]:
    """The events of a streamed message with one block; `begin` and `end` are the usage that is reported there."""
    start = {**message(stop_reason=None), "usage": begin or {"input_tokens": 10, "output_tokens": 1}}
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block or {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop_reason, "stop_sequence": None}, "usage": end or {"output_tokens": 5}},
        {"type": "message_stop"},
    ]


def text_deltas(text: str) -> list[dict[str, Any]]:
    """A delta for each word."""
    return [{"type": "text_delta", "text": f"{word} "} for word in text.split()]
