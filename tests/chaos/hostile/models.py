"""The places in a model call where a user's or a model's value can go: the request, the answer, the chunks, the provider's errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from holdfast import Session
from tests.chaos.hostile.inside import given, place


def _answer(**fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "a", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [choice], "usage": usage, **fields}


def _choice(finish: Any = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return _answer(choices=[choice])


def _call(**fields: Any) -> dict[str, Any]:
    return _choice(tool_calls=[{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}", **fields}}])


def _chunk(content: Any = "hello", finish: Any = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}
    return {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": [choice], **fields}


ANSWERS: dict[str, Any] = {
    "the text of an answer": lambda value: _choice(content=value),
    "the id of an answer": lambda value: _answer(id=value),
    "the model of an answer": lambda value: _answer(model=value),
    "the finish reason of an answer": lambda value: _choice(value, content="hello"),
    "the usage of an answer": lambda value: _answer(usage=value),
    "the tokens of an answer": lambda value: _answer(usage={"prompt_tokens": value, "completion_tokens": value, "total_tokens": value}),
    "the choices of an answer": lambda value: _answer(choices=value),
    "the name of a tool call": lambda value: _call(name=value),
    "the arguments of a tool call": lambda value: _call(arguments=value),
    "an unknown field of an answer": lambda value: _answer(reasoning={"deeper": [value]}),
    "an error in place of an answer": lambda value: _answer(choices=[], error={"message": value, "code": value}),
    "an answer": lambda value: value,
}

CHUNKS: dict[str, Any] = {
    "the text of a chunk": lambda value: [_chunk(value), _chunk("", "stop")],
    "the finish reason of a chunk": lambda value: [_chunk(), _chunk("", value)],
    "the usage of a chunk": lambda value: [_chunk(), _chunk("", "stop"), {**_chunk(), "choices": [], "usage": {"prompt_tokens": value}}],
    "the tool call of a chunk": lambda value: [
        {**_chunk(), "choices": [{"index": 0, "delta": {"tool_calls": [{"index": value, "id": value, "function": {"arguments": value}}]}}]},
        _chunk("", "stop"),
    ],
    "a chunk": lambda value: [value, _chunk("", "stop")],
}


class Stream:
    """The chunks of a streamed answer, as an SDK gives them."""

    def __init__(self, chunks: list[Any]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[Any]:
        for chunk in self._chunks:
            yield chunk

    async def close(self) -> None: ...


class Completions:
    def __init__(self) -> None:
        self.bought = 0

    async def create(self, **request: Any) -> Any:
        self.bought += 1
        how, value = request["user"]["how"], given[request["user"]["id"]]
        if how == "error":
            error = RuntimeError("refused")
            error.status_code, error.body, error.message = 400, {"error": {"code": value, "message": value}}, value  # type: ignore[attr-defined]
            raise error
        if how in CHUNKS:
            return Stream(CHUNKS[how](value))
        return ANSWERS[how](value) if how in ANSWERS else _answer()


class Chat:
    def __init__(self) -> None:
        self.completions = Completions()


class FakeClient:
    """A client of the shape of openai.AsyncOpenAI that answers with the value of the case under way."""

    api_key = "sk-not-a-real-key"

    def __init__(self) -> None:
        self.chat = Chat()

    def with_options(self, **options: Any) -> FakeClient:
        return self


async def _asked(session: Session[Any], how: str, **request: Any) -> Any:
    user = {"id": session.id, "how": how}
    wanted: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "user": user, **request}
    return await session.clients.openai.chat.completions.create(**wanted)


def _answered(how: str) -> None:
    async def run(session: Session[Any], value: Any) -> Any:
        reply = await _asked(session, how)
        message = reply.choices[0].message if reply.choices else None
        return getattr(message, "content", None)

    place(how)(run)


def _streamed(how: str) -> None:
    async def run(session: Session[Any], value: Any) -> None:
        async with await _asked(session, how, stream=True) as stream:
            async for _ in stream:
                pass

    place(how)(run)


for _how in [*ANSWERS, "error"]:
    _answered(_how)
for _how in CHUNKS:
    _streamed(_how)


def _requested(name: str, make: Any) -> None:
    async def run(session: Session[Any], value: Any) -> None:
        await _asked(session, "", **make(value))

    place(name)(run)


_requested("the model of a request", lambda value: {"model": value})
_requested("the messages of a request", lambda value: {"messages": value})
_requested("the text of a request", lambda value: {"messages": [{"role": "user", "content": value}]})
_requested("the token limit of a request", lambda value: {"max_tokens": value})
_requested("a setting of a request", lambda value: {"temperature": value})
_requested("the time limit of a request", lambda value: {"timeout": value})
_requested("the body of a request", lambda value: {"extra_body": {"a": value}})
_requested("the headers of a request", lambda value: {"extra_headers": {"a": value}})
