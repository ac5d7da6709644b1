"""The model provider: it answers with the recorded assistant's next message. Run: python -m benchmarks.airline.model_server

Prints its port. An answer depends only on the request, so a repeated call gets the same answer: `user` is the id of the session, and the
number of its messages the place in the recording. The messages of users and of the assistant must equal the recorded ones; the outputs of
tools may differ. Each line of `model.jsonl` is about one request: `asked`, and `answered` just before the answer is sent.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio
import uvicorn

from benchmarks.airline import recordings, settings
from benchmarks.airline.books import MODEL, Book
from benchmarks.airline.recordings import Conversation, Spoken

THE_END = "The recording ends here."
"""Its answer after the last recorded message."""

_PATH = "/v1/chat/completions"
_WAY_S = 0.05

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


class Misplaced(Exception):
    """The request is no beginning of a recorded conversation."""


def next_message(conversation: Conversation, messages: list[Spoken]) -> Spoken:
    """The assistant's recorded message after `messages`.

    Raises:
        Misplaced: the recording does not begin with these messages.
    """
    place = len(messages)
    if place > len(conversation.messages):
        raise Misplaced(f"{place} messages, but only {len(conversation.messages)} were recorded")
    for number, (mine, recorded) in enumerate(zip(messages, conversation.messages, strict=False)):
        same = mine["role"] == recorded["role"] and (mine["role"] == "tool" or mine.get("content") == recorded["content"])
        if not same or _calls(mine) != _calls(recorded):
            raise Misplaced(f"message {number} of {conversation.id} is not the recorded one")
    if place == len(conversation.messages):
        return {"role": "assistant", "content": THE_END}
    if conversation.messages[place]["role"] != "assistant":
        raise Misplaced(f"it is not the assistant's turn after {place} messages of {conversation.id}")
    return conversation.messages[place]


def _calls(message: Spoken) -> list[Any]:
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]


class ModelServer:
    """An ASGI app."""

    def __init__(self, conversations: list[Conversation], log: Book, wait_s: float) -> None:
        self._by_id = {conversation.id: conversation for conversation in conversations}
        self._log, self._wait_s, self._number = log, wait_s, 0

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _PATH:
            return await _reply(send, 404, {"error": {"message": f"only POST {_PATH} is here"}})
        raw = await _body(receive)
        if raw is None:
            return
        request = json.loads(raw)
        messages = [message for message in request["messages"] if message["role"] != "system"]
        self._number += 1
        number, session = self._number, request.get("user", "")
        self._log.append(what="asked", number=number, session=session, place=len(messages), at=time.time())
        try:
            message = next_message(self._by_id[session], messages)
        except (KeyError, Misplaced) as error:
            self._log.append(what="refused", number=number, session=session, place=len(messages), text=str(error))
            return await _reply(send, 400, {"error": {"message": str(error), "type": "invalid_request_error"}})
        # The delay differs between calls, or they would all wait for the disk and the processor at the same time.
        await anyio.sleep(self._wait_s * (0.5 + number * 0.618 % 1))
        self._log.append(what="answered", number=number, session=session, place=len(messages), at=time.time())
        await _reply(send, 200, _completion(request["model"], number, message, len(raw)))


def _completion(model: str, number: int, message: Spoken, asked_bytes: int) -> dict[str, Any]:
    tokens_in, tokens_out = asked_bytes // 4, len(json.dumps(message)) // 4
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}],
        "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out},
    }


async def _body(receive: Receive) -> bytes | None:
    """The body of the request; None if the caller was killed before it had sent all of it."""
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        body += event.get("body", b"")
        more = event.get("more_body", False)
    return body


async def _reply(send: Send, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def main() -> None:
    """Serve on a free port of this machine, until killed."""
    conversations = recordings.load(settings.conversations(), run=settings.run(), first=settings.first())
    server = ModelServer(conversations, Book(settings.folder() / MODEL), _WAY_S * settings.pace())
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(server, log_level="warning", lifespan="off")).run(sockets=[listener])


if __name__ == "__main__":
    main()
