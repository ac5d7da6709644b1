"""Anthropic's messages."""

from __future__ import annotations

import functools
import json
from typing import Any

import msgspec

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

_THOUGHTS = ("thinking", "redacted_thinking")
_TEXT_FIELDS = ("text", "thinking", "partial_json")
_HOUR = msgspec.msgpack.encode({"ttl": "1h"})[1:]


class AnthropicMessages:
    """The dialect of `messages`."""

    path = "messages"
    provider = "anthropic"
    use_limit = "max_uses of the tool"

    # ---------------------------------------------------------------- requests

    def asked(self, request: Fields) -> Asked:
        return Asked(whole(request.get("max_tokens")), 1, _elsewhere(request), _uses(request))

    def limited(self, tokens: int, host: str, capped: bool) -> Fields:
        return {"max_tokens": tokens}  # it refuses a request without a limit

    def streamed(self, request: Fields) -> Fields:
        return request

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens:
        # It writes to its cache where the request has `cache_control`, at a higher price; to keep it for an hour costs twice the
        # price.
        written = prompt if b"cache_control" in args else 0
        return Tokens(prompt, limit, written=written, written_1h=written if _HOUR in args else 0)

    # ---------------------------------------------------------------- answers

    def reply_type(self) -> Any:
        from anthropic.types import Message

        return Message

    def check(self, reply: Fields, request: Fields) -> None:
        if _failed(reply):
            raise reported(reported_error(reply) or {})
        if reply.get("stop_reason") not in (None, "end_turn", "tool_use") or any(map(_says_something, listed(reply.get("content")))):
            return
        # After the results of tools an empty answer is valid: the model has nothing to add, and would answer the same again.
        if not _answers_tools(request):
            raise EmptyReply("the model answered without text, tool use or refusal")

    def tokens(self, reply: Fields) -> Tokens | None:
        usage = mapped(reply.get("usage"))
        hour = count(usage, "cache_creation", "ephemeral_1h_input_tokens")
        # The three counts do not overlap, unlike OpenAI's.
        fresh, cached = count(usage, "input_tokens"), count(usage, "cache_read_input_tokens")
        written = max(count(usage, "cache_creation_input_tokens"), count(usage, "cache_creation", "ephemeral_5m_input_tokens") + hour)
        found = Tokens(
            fresh + cached + written,
            count(usage, "output_tokens"),
            cached=cached,
            written=written,
            written_1h=hour,
            reasoning=count(usage, "output_tokens_details", "thinking_tokens"),
            searches=count(usage, "server_tool_use", "web_search_requests"),
        )
        if found.input or found.output:
            return found
        # No provider charges for a request that failed without an answer.
        return found if _failed(reply) else None

    def text_bytes(self, reply: Fields) -> int:
        return text_size(reply.get("content"))

    def answer(self, reply: Fields) -> Answer:
        finish = text(reply.get("stop_reason"))
        return Answer(text(reply.get("model")), text(reply.get("id")), (finish,) if finish else ())

    def message(self, reply: Any) -> Any:
        return reply

    # ---------------------------------------------------------------- chunks

    def chunk(self, chunk: Fields) -> Any:
        from anthropic import BaseModel

        # An event that is newer than the SDK stays plain fields.
        return _events().get(str(chunk.get("type")), BaseModel).model_construct(**chunk)

    def for_consumer(self, chunk: Fields, request: Fields) -> bool:
        return True

    def error(self, chunk: Fields) -> Fields | None:
        return chunk if chunk.get("type") == "error" else None

    def finished(self, chunks: list[Fields]) -> bool:
        return any(text(mapped(chunk.get("delta")).get("stop_reason")) for chunk in chunks if chunk.get("type") == "message_delta")

    def complete(self, chunks: list[Fields]) -> bool:
        return any(chunk.get("type") == "message_stop" for chunk in chunks)

    def last(self, chunk: Fields, request: Fields) -> bool:
        return chunk.get("type") == "message_stop"

    def heard(self, chunks: list[Fields]) -> int:
        deltas = [mapped(chunk.get("delta")) for chunk in chunks]
        return text_size([delta.get(name) for delta in deltas for name in _TEXT_FIELDS])

    def assemble(self, chunks: list[Fields]) -> Fields:
        reply: Fields = {"role": "assistant", "type": "message"}
        blocks: dict[int, Fields] = {}
        for chunk in chunks:
            index = whole(chunk.get("index")) or 0
            match chunk.get("type"):
                case "message_start":
                    reply.update(mapped(chunk.get("message")))
                case "content_block_start":
                    blocks[index] = dict(mapped(chunk.get("content_block")))
                case "content_block_delta":
                    _add_delta(blocks.setdefault(index, {}), mapped(chunk.get("delta")))
                case "message_delta":
                    reply.update(mapped(chunk.get("delta")))
                    # Totals so far: a count that is missing has not changed.
                    later = {name: value for name, value in mapped(chunk.get("usage")).items() if value is not None}
                    reply["usage"] = {**mapped(reply.get("usage")), **later}
        reply["content"] = [_whole_block(blocks[index]) for index in sorted(blocks)]
        return reply


_PARTIAL = "\0input"
"""The key under which the text of an input is gathered: no field has this name."""


def _add_delta(block: Fields, delta: Fields) -> None:
    match delta.get("type"):
        case "text_delta":
            block["text"] = str(block.get("text") or "") + str(delta.get("text") or "")
        case "thinking_delta":
            block["thinking"] = str(block.get("thinking") or "") + str(delta.get("thinking") or "")
        case "signature_delta":
            block["signature"] = delta.get("signature")
        case "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta.get("citation")]
        case "input_json_delta":
            block[_PARTIAL] = block.get(_PARTIAL, "") + str(delta.get("partial_json") or "")


def _whole_block(block: Fields) -> Fields:
    written = block.pop(_PARTIAL, "")
    if written:
        try:
            block["input"] = json.loads(written)
        except ValueError:
            # The input was cut at the token limit. It stays a text, which no tool accepts: partial arguments are never taken for complete
            # ones.
            block["input"] = written
    return block


def _failed(reply: Fields) -> bool:
    return not listed(reply.get("content")) and (reply.get("type") == "error" or reported_error(reply) is not None)


def _says_something(block: Fields) -> bool:
    return bool(block.get("text")) if block.get("type") == "text" else block.get("type") not in _THOUGHTS


def _answers_tools(request: Fields) -> bool:
    messages = listed(request.get("messages"))
    return bool(messages) and any(part.get("type") == "tool_result" for part in listed(messages[-1].get("content")))


def _elsewhere(request: Fields) -> str | None:
    # The tools that Anthropic runs have a version in their type. Tools without one, and those that act on the caller's machine, run here.
    kinds = (str(tool.get("type") or "custom") for tool in listed(request.get("tools")))
    served = any(kind.startswith(("web_", "code_execution", "tool_search", "mcp_")) for kind in kinds)
    return "" if served or request.get("container") or any(map(_is_fetched, parts(request.get("messages")))) else None


def _is_fetched(part: Fields) -> bool:
    # Images are excluded: they count for the same tokens wherever they come from.
    return part.get("type") == "document" and mapped(part.get("source")).get("type") not in ("base64", "text", "content")


def _uses(request: Fields) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for tool in listed(request.get("tools")):
        kind = str(tool.get("type"))
        if kind.startswith("web_search"):
            before, more = found.get("web_search", 0), whole(tool.get("max_uses"))
            found["web_search"] = None if before is None or more is None else before + more
        elif kind.startswith("code_execution"):
            found["code_execution"] = None  # its price is by the time of its container
    return found


@functools.cache
def _events() -> dict[str, Any]:
    from anthropic.types import RawMessageStreamEvent

    return variants(RawMessageStreamEvent)
