"""The shapes of chat completions from which their quirks are made."""

from __future__ import annotations

import json
from typing import Any

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
Fields = dict[str, Any]


def chunk(delta: Any = None, reason: str | None = None, **more: Any) -> Fields:
    """A chunk with one choice."""
    return chunks_of({"index": 0, "delta": {} if delta is None else delta, "finish_reason": reason}, **more)


def chunks_of(*choices: Fields, **more: Any) -> Fields:
    """A chunk with these choices."""
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    return {**base, "choices": list(choices), **more}


def says(*texts: str, reason: str | None = None) -> list[Fields]:
    """A chunk for each text."""
    return [chunk({"content": text}, reason) for text in texts]


def usage(**counts: Any) -> Fields:
    """The last chunk, with the usage."""
    return chunks_of(usage=counts or USAGE)


STOP = chunk({}, "stop")
CALLED = chunk({}, "tool_calls")
HELLO = [*says("hel", "lo"), STOP, usage()]
"""What OpenAI sends."""


def fragment(index: Any = None, id: Any = None, name: Any = None, arguments: Any = None, **more: Any) -> Fields:
    """A chunk with a fragment of a tool call; None leaves a field out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    call = {key: value for key, value in (("index", index), ("id", id), ("type", "function"), ("function", function)) if value is not None}
    return chunk({"tool_calls": [{**call, **more}]})


def answer(content: Any = "hello", reason: Any = "stop", usage: Any = USAGE, message: Fields | None = None, **more: Any) -> Fields:
    """A whole completion; `message` has its other fields."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **(message or {})}, "finish_reason": reason}
    base = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [choice]}
    return {**base, "usage": usage, **more}


def call(id: Any, name: str, arguments: Any, **more: Any) -> Fields:
    """A tool call of a whole answer; None leaves its id out."""
    return {**({} if id is None else {"id": id}), "type": "function", "function": {"name": name, "arguments": arguments}, **more}


ROME, PARIS = json.dumps({"city": "Rome"}), json.dumps({"city": "Paris"})
WEATHER = ("get_weather", {"city": "Rome"})
"""A tool call as the handler sees it."""
BOTH = (WEATHER, ("get_weather", {"city": "Paris"}))
