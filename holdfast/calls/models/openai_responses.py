"""OpenAI's responses."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from holdfast.calls.models.dialect import (
    Answer,
    Asked,
    Fields,
    Tokens,
    count,
    listed,
    mapped,
    parts,
    reported_error,
    text,
    text_size,
    variants,
    whole,
)
from holdfast.calls.models.replies import EmptyReply, reported

_LAST = ("response.completed", "response.incomplete", "response.failed")
_OWN_TOOLS = ("function", "custom", "local_shell", "shell", "apply_patch", "namespace")
"""Kinds of tools that OpenAI does not run itself. The results of the others are added to the prompt."""


class OpenAIResponses:
    """The dialect of `responses`."""

    path = "responses"
    provider = "openai"
    use_limit = "max_tool_calls"

    # ---------------------------------------------------------------- requests

    def asked(self, request: Fields) -> Asked:
        if request.get("background"):
            raise ValueError("responses.create(background=True) does not wait for its answer, which a step has to: leave it out")
        return Asked(whole(request.get("max_output_tokens")), 1, _elsewhere(request), _uses(request))

    def limited(self, tokens: int, host: str, capped: bool) -> Fields:
        return {"max_output_tokens": tokens} if capped else {}

    def streamed(self, request: Fields) -> Fields:
        return request

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens:
        # As with chat completions, OpenAI writes to its cache unasked.
        return Tokens(prompt, limit, written=prompt)

    # ---------------------------------------------------------------- answers

    def reply_type(self) -> Any:
        from openai.types.responses import Response

        return Response

    def check(self, reply: Fields, request: Fields) -> None:
        status = reply.get("status")
        if _failed(reply):
            raise reported(reported_error(reply) or {}, f"the response is {status}")
        if status != "incomplete" and not any(_says_something(item) for item in listed(reply.get("output"))):
            raise EmptyReply("the model answered without text, tool call or refusal")

    def tokens(self, reply: Fields) -> Tokens | None:
        usage = mapped(reply.get("usage"))
        found = Tokens(
            count(usage, "input_tokens"),
            count(usage, "output_tokens"),
            cached=count(usage, "input_tokens_details", "cached_tokens"),
            written=count(usage, "input_tokens_details", "cache_write_tokens"),
            reasoning=count(usage, "output_tokens_details", "reasoning_tokens"),
            searches=count(reply, "tool_usage", "web_search", "num_requests"),
            file_searches=sum(item.get("type") == "file_search_call" for item in listed(reply.get("output"))),
        )
        if found.input or found.output:
            return found
        # No provider charges for a request that failed without an answer.
        return found if reply.get("status") != "cancelled" and _failed(reply) and not self.text_bytes(reply) else None

    def text_bytes(self, reply: Fields) -> int:
        return text_size(reply.get("output"))

    def answer(self, reply: Fields) -> Answer:
        finish = text(mapped(reply.get("incomplete_details")).get("reason")) or text(reply.get("status"))
        return Answer(text(reply.get("model")), text(reply.get("id")), (finish,) if finish else ())

    def message(self, reply: Any) -> Any:
        return reply

    # ---------------------------------------------------------------- chunks

    def chunk(self, chunk: Fields) -> Any:
        from openai import BaseModel

        # An event that is newer than the SDK stays plain fields.
        return _events().get(str(chunk.get("type")), BaseModel).model_construct(**chunk)

    def for_consumer(self, chunk: Fields, request: Fields) -> bool:
        return True

    def error(self, chunk: Fields) -> Fields | None:
        return chunk if chunk.get("type") == "error" else None

    def finished(self, chunks: list[Fields]) -> bool:
        return self.complete(chunks)

    def complete(self, chunks: list[Fields]) -> bool:
        return any(chunk.get("type") in _LAST for chunk in chunks)

    def last(self, chunk: Fields, request: Fields) -> bool:
        return chunk.get("type") in _LAST

    def heard(self, chunks: list[Fields]) -> int:
        return text_size([chunk.get("delta") for chunk in chunks])

    def assemble(self, chunks: list[Fields]) -> Fields:
        reply = dict(next((found for chunk in reversed(chunks) if (found := mapped(chunk.get("response")))), {}))
        if not reply.get("output"):
            # Some compatible servers do not repeat the whole answer at the end.
            done = [chunk for chunk in chunks if chunk.get("type") == "response.output_item.done"]
            reply["output"] = [item for chunk in done if (item := mapped(chunk.get("item")))]
        return reply


def _elsewhere(request: Fields) -> str | None:
    tools = listed(request.get("tools"))
    if request.get("conversation") or request.get("prompt") or any(tool.get("type") not in _OWN_TOOLS for tool in tools):
        return ""
    if any(map(_is_fetched, _given(request.get("input")))):
        return ""
    return text(request.get("previous_response_id"))


def _given(items: Any) -> Iterator[Fields]:
    yield from parts(items)
    for item in listed(items):
        yield item
        yield from listed(item.get("output"))


def _is_fetched(part: Fields) -> bool:
    # Images are excluded: they count for the same tokens wherever they come from.
    kind = part.get("type")
    return kind == "item_reference" or (kind == "input_file" and bool(part.get("file_id") or part.get("file_url")))


def _uses(request: Fields) -> dict[str, int | None]:
    found = {use for tool in listed(request.get("tools")) if (use := _use(tool))}
    return dict.fromkeys(sorted(found), whole(request.get("max_tool_calls")))  # the limit is for all tools together


def _use(tool: Fields) -> str | None:
    kind = str(tool.get("type"))
    if kind.startswith("web_search"):
        return "web_search"
    hosted = kind == "shell" and str(mapped(tool.get("environment")).get("type")).startswith("container")
    return kind if hosted or kind in ("file_search", "code_interpreter", "image_generation") else None


def _failed(reply: Fields) -> bool:
    status = reply.get("status")
    if status in ("failed", "cancelled"):
        return True
    return status != "incomplete" and reported_error(reply) is not None and not listed(reply.get("output"))


def _says_something(item: Fields) -> bool:
    if item.get("type") == "message":
        return any(part.get("text") or part.get("refusal") for part in listed(item.get("content")))
    return item.get("type") != "reasoning"


@functools.cache
def _events() -> dict[str, Any]:
    from openai.types.responses import ResponseStreamEvent

    return variants(ResponseStreamEvent)
