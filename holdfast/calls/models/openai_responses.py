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
    as_json,
    call_id,
    count,
    joined,
    listed,
    mapped,
    parts,
    reported_error,
    reporting,
    text,
    text_size,
    variants,
    whole,
)
from holdfast.calls.models.ends import Ending, Stage
from holdfast.calls.models.replies import EmptyReply, reported

_ENDS = ("completed", "incomplete", "failed", "cancelled", "done")
"""The events, after "response.", that end a stream; "done" is that of some gateways."""

_THOUGHT = "reasoning_text"
"""The parts of an item of reasoning that are the model's own words: open models now and then put their answer there. A summary is not."""

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

    def limited(self, tokens: int, host: str, model: str, capped: bool) -> Fields:
        return {"max_output_tokens": tokens} if capped else {}

    def streamed(self, request: Fields) -> Fields:
        return {}

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens:
        # As with chat completions, OpenAI writes to its cache unasked.
        return Tokens(prompt, limit, written=prompt)

    # ---------------------------------------------------------------- answers

    def reply_type(self) -> Any:
        from openai.types.responses import Response

        return Response

    def mended(self, reply: Fields) -> Fields:
        return {**reply, "output": [_mended_item(reply, number, item) for number, item in enumerate(listed(reply.get("output")))]}

    def check(self, reply: Fields, request: Fields) -> None:
        status = reply.get("status")
        if _failed(reply):
            raise reported(reported_error(reply) or {}, f"the response is {status}")
        if status == "incomplete" or any(map(_says_something, listed(reply.get("output")))):
            return
        if not _answers_tools(request):
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
        return chunk if chunk.get("type") == "error" else reported_error(chunk)

    def chunks(self, event: Fields) -> list[Fields]:
        if event.get("object") != "response" or "type" in event:
            return [event]
        status = text(event.get("status"))
        return [{"type": f"response.{status if status in _ENDS else 'completed'}", "response": event, "sequence_number": 0}]

    def ending(self, request: Fields) -> Ending:
        return ResponseEnding()

    def heard(self, chunks: list[Fields]) -> int:
        return text_size([chunk.get("delta") for chunk in chunks])

    def assemble(self, chunks: list[Fields]) -> Fields:
        reply: Fields = {}
        usage: Fields = {}
        for chunk in chunks:
            about = mapped(chunk.get("response"))
            reply = about or reply
            usage = reporting(usage, about.get("usage"))
        reply = {**reply, **({"usage": usage} if usage else {})}
        if not reply.get("output"):
            # Some compatible servers do not repeat the whole answer at the end.
            reply["output"] = _output(chunks)
        return self.mended(reply)


class ResponseEnding:
    """Follows a stream to its end, which is one event."""

    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage = Stage.OPEN

    def add(self, chunk: Fields) -> None:
        """Take the next event."""
        if str(chunk.get("type")).removeprefix("response.") in _ENDS:
            self.stage = Stage.MARKED

    def mark(self) -> None:
        """The end mark `[DONE]` came: some compatible servers send nothing else."""
        self.stage = Stage.MARKED


def _output(chunks: list[Fields]) -> list[Fields]:
    """The items that the events of a stream make, in their order."""
    items: dict[int, Fields] = {}
    done: dict[int, Fields] = {}
    for chunk in chunks:
        kind, index = str(chunk.get("type")), whole(chunk.get("output_index")) or 0
        item = mapped(chunk.get("item"))
        if kind == "response.output_item.done" and item and (_says_something(item) or index not in items):
            # Some servers give every item the same index.
            while index in done and done[index].get("id") != item.get("id"):
                index += 1
            done[index] = item
        elif kind == "response.output_item.added" and item:
            items[index] = dict(item)
        elif kind in _TEXTS:
            _add_text(items.setdefault(index, {"type": "message", "role": "assistant", "status": "completed"}), kind, chunk)
        elif kind == "response.function_call_arguments.delta":
            call = items.setdefault(index, {"type": "function_call"})
            call["arguments"] = joined(call.get("arguments"), chunk.get("delta"))
        elif kind == "response.function_call_arguments.done" and index in items and text(chunk.get("arguments")):
            items[index]["arguments"] = chunk["arguments"]
    found = {**items, **done}
    return [found[index] for index in sorted(found)]


_TEXTS = {"response.output_text.delta": ("output_text", "text"), "response.refusal.delta": ("refusal", "refusal")}
"""The events that bring the text of a message: the type of its part, and the field of the text."""


def _add_text(item: Fields, kind: str, chunk: Fields) -> None:
    type_, field = _TEXTS[kind]
    content = item["content"] = listed(item.get("content"))
    if not content or content[-1].get("type") != type_:
        content.append({"type": type_, field: "", **({"annotations": []} if field == "text" else {})})
    content[-1][field] = joined(content[-1].get(field), chunk.get("delta"))


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
    match item.get("type"):
        case "message":
            return any(part.get("text") or part.get("refusal") for part in listed(item.get("content")))
        case "reasoning":
            return any(part.get("text") and part.get("type") == _THOUGHT for part in listed(item.get("content")))
    return True


def _answers_tools(request: Fields) -> bool:
    # After the results of tools an empty answer is valid: the model has nothing to add, and would answer the same again.
    items = listed(request.get("input"))
    return bool(items) and str(items[-1].get("type")).endswith("_output")


def _mended_item(reply: Fields, number: int, item: Fields) -> Fields:
    kind = text(item.get("type")) or ("message" if "content" in item else "unknown")
    mended = {**item, "type": kind}
    if kind == "message":
        mended["content"] = listed(item.get("content"))
    if kind == "function_call":
        mended["call_id"] = text(item.get("call_id")) or text(item.get("id")) or call_id(reply, number, item)
        mended |= {"name": text(item.get("name")) or "", "arguments": as_json(item.get("arguments"))}
    return mended


@functools.cache
def _events() -> dict[str, Any]:
    from openai.types.responses import ResponseStreamEvent

    return variants(ResponseStreamEvent)
