"""Anthropic's messages."""

from __future__ import annotations

import contextlib
import functools
import json
from typing import Any

import msgspec

from holdfast.calls.models.dialect import (
    Answer,
    Asked,
    Fields,
    Tokens,
    call_id,
    count,
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
from holdfast.given import brief

REASONS = {
    "stop_sequence": "paused",
    "pause_turn": "paused",
    "compaction": "paused",
    "max_tokens": "limit",
    "model_context_window_exceeded": "limit",
    "refusal": "filtered",
    "content_filtered": "filtered",
    "guardrail_intervened": "filtered",
    "error": "broken",
    "abort": "broken",
    "cancelled": "broken",
    "malformed_model_output": "broken",
}
"""What stop reasons mean, those of gateways to Bedrock too; every other one is `ended`. With `paused` an answer may be empty."""

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

    def limited(self, tokens: int, host: str, model: str, capped: bool) -> Fields:
        return {"max_tokens": tokens}  # it refuses a request without a limit

    def streamed(self, request: Fields) -> Fields:
        return {}

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens:
        # It writes to its cache where the request has `cache_control`, at a higher price; to keep it for an hour costs twice the
        # price.
        written = prompt if b"cache_control" in args else 0
        return Tokens(prompt, limit, written=written, written_1h=written if _HOUR in args else 0)

    # ---------------------------------------------------------------- answers

    def reply_type(self) -> Any:
        from anthropic.types import Message

        return Message

    def mended(self, reply: Fields) -> Fields:
        content = reply.get("content")
        blocks = [{"type": "text", "text": content}] if text(content) else listed(content)
        return {"stop_reason": None, **reply, "content": [_mended_block(reply, number, block) for number, block in enumerate(blocks)]}

    def check(self, reply: Fields, request: Fields) -> None:
        if _failed(reply):
            raise reported(reported_error(reply) or {})
        reason = REASONS.get(str(reply.get("stop_reason") or "end_turn").lower(), "ended")
        if reason == "broken":
            raise reported(
                reported_error(reply) or {}, f"the provider broke the answer off: its stop reason is {brief(reply['stop_reason'])}"
            )
        if reason in ("limit", "filtered", "paused") or any(map(_says_something, listed(reply.get("content")))):
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
        return chunk if chunk.get("type") == "error" else reported_error(chunk)

    def chunks(self, event: Fields) -> list[Fields]:
        if event.get("type") == "ping":
            return []
        if event.get("type") != "message":
            return [event]
        content, usage = listed(event.get("content")), mapped(event.get("usage"))
        found: list[Fields] = [{"type": "message_start", "message": {**event, "content": [], "stop_reason": None}}]
        for index, block in enumerate(content):
            start, delta = _as_started(block)
            found.append({"type": "content_block_start", "index": index, "content_block": start})
            found += [{"type": "content_block_delta", "index": index, "delta": delta}] if delta else []
            found.append({"type": "content_block_stop", "index": index})
        ended = {name: event.get(name) for name in ("stop_reason", "stop_sequence")}
        return [*found, {"type": "message_delta", "delta": ended, "usage": usage}, {"type": "message_stop"}]

    def ending(self, request: Fields) -> Ending:
        return MessageEnding()

    def heard(self, chunks: list[Fields]) -> int:
        deltas = [mapped(chunk.get("delta")) for chunk in chunks]
        return text_size([delta.get(name) for delta in deltas for name in _TEXT_FIELDS])

    def assemble(self, chunks: list[Fields]) -> Fields:
        reply: Fields = {"role": "assistant", "type": "message"}
        blocks = _Blocks()
        for chunk in chunks:
            match chunk.get("type"):
                case "message_start":
                    reply.update(mapped(chunk.get("message")))
                case "content_block_start":
                    blocks.start(whole(chunk.get("index")), dict(mapped(chunk.get("content_block"))))
                case "content_block_delta":
                    blocks.add(whole(chunk.get("index")), mapped(chunk.get("delta")))
                case "message_delta":
                    ended = mapped(chunk.get("delta"))
                    reply.update({name: value for name, value in ended.items() if value is not None or name not in reply})
                    # Totals so far.
                    reply["usage"] = reporting(mapped(reply.get("usage")), chunk.get("usage"))
        reply["content"] = [_mended_block(reply, number, block) for number, block in enumerate(blocks.whole())]
        return reply


class MessageEnding:
    """Follows a stream to its end."""

    __slots__ = ("_doubted", "_marked", "_reason")

    def __init__(self) -> None:
        self._marked = self._reason = self._doubted = False

    @property
    def stage(self) -> Stage:
        """How near its end the stream is."""
        if self._marked:
            return Stage.MARKED
        if not self._reason:
            return Stage.OPEN
        return Stage.DOUBTFUL if self._doubted else Stage.DONE

    def add(self, chunk: Fields) -> None:
        """Take the next chunk."""
        kind = chunk.get("type")
        if kind == "message_stop":
            self._marked = True
        elif kind == "message_delta" and text(mapped(chunk.get("delta")).get("stop_reason")):
            self._reason = True
        elif kind in ("content_block_start", "content_block_delta") and self._reason:
            self._reason, self._doubted = False, True

    def mark(self) -> None:
        """The end mark `[DONE]` of another protocol came: some gateways send it."""
        self._marked = True


class _Blocks:
    """The content of a message. Each start begins a block, also with an index that an earlier block had."""

    __slots__ = ("_blocks", "_by_index", "_order")

    def __init__(self) -> None:
        self._blocks: list[Fields] = []
        self._order: list[int] = []
        self._by_index: dict[int | None, Fields] = {}

    def start(self, index: int | None, block: Fields) -> None:
        """Begin a block; one with the id of an earlier one is the same block."""
        id = block.get("id")
        same = next((each for each in self._blocks if id is not None and each.get("id") == id), None)
        if same is None:
            self._blocks.append(block)
            self._order.append(len(self._blocks) - 1 if index is None else index)
        self._by_index[index] = self._by_index[None] = block if same is None else same

    def add(self, index: int | None, delta: Fields) -> None:
        """Add to the last block with that index; without an index, to the last block."""
        if index not in self._by_index:
            self.start(index, {"type": str(delta.get("type")).removesuffix("_delta")})
        _add_delta(self._by_index[index], delta)

    def whole(self) -> list[Fields]:
        """The blocks, in order."""
        return [_whole_block(self._blocks[at]) for at in sorted(range(len(self._blocks)), key=self._order.__getitem__)]


def _as_started(block: Fields) -> tuple[Fields, Fields]:
    """A whole block as its start and its delta."""
    kind = block.get("type")
    if kind in ("text", "thinking"):
        return {**block, str(kind): ""}, {"type": f"{kind}_delta", str(kind): block.get(str(kind)) or ""}
    return block, {}


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


def _mended_block(reply: Fields, number: int, block: Fields) -> Fields:
    kind = text(block.get("type")) or ("text" if "text" in block else "unknown")
    if kind != "tool_use" or (text(block.get("id")) and isinstance(block.get("input"), dict)):
        return {**block, "type": kind, **({"text": str(block.get("text") or "")} if kind == "text" else {})}
    given = block.get("input")
    if isinstance(given, str) and given:
        with contextlib.suppress(ValueError):
            given = json.loads(given)
    return {**block, "id": text(block.get("id")) or call_id(reply, number, block), "input": {} if given in (None, "") else given}


def _failed(reply: Fields) -> bool:
    return not listed(reply.get("content")) and (reply.get("type") == "error" or reported_error(reply) is not None)


def _says_something(block: Fields) -> bool:
    match block.get("type"):
        case "text":
            return bool(block.get("text"))
        case "thinking":
            # Claude signs its thinking, which is never its answer; an open model behind a gateway may put its answer there.
            return bool(block.get("thinking")) and not block.get("signature")
        case "redacted_thinking":
            return False
    return True


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
