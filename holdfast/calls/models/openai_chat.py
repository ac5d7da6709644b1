"""OpenAI's chat completions, also those of compatible servers."""

from __future__ import annotations

import re
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
    whole,
)
from holdfast.calls.models.ends import Ending
from holdfast.calls.models.openai_chat_chunks import (
    ChatEnding,
    assemble,
    calls_in,
    meaning,
    mended_call,
    says_something,
    usage_in,
)
from holdfast.calls.models.replies import EmptyReply, UnreadableReply, reported
from holdfast.given import brief

_SEARCHING = ("-search-preview", "-search-api")
"""Parts of the names of models that search the web at each call."""

_LIMIT_NAMES = (
    # the host, the model, the name of the limit; the first match decides
    (r"(.*\.)?api\.openai\.com", r".*", "max_completion_tokens"),
    (r".*\.(openai|cognitiveservices|services\.ai)\.azure\.com", r".*", "max_completion_tokens"),
    (r".*", r"(.*/)?(o\d|gpt-[5-9]|gpt-\d\d|chatgpt-|codex-|computer-use)(?!.*oss).*", "max_completion_tokens"),
    (r".*", r".*", "max_tokens"),
)
"""The name of the limit of tokens: OpenAI's newer models refuse `max_tokens`, also behind a gateway; many compatible servers do
not know its successor, and some ignore it silently, so that an answer would have no limit."""

_CACHED = (("prompt_tokens_details", "cached_tokens"), ("prompt_cache_hit_tokens",), ("cached_tokens",))
"""The places of the tokens that were read from the cache: of OpenAI, DeepSeek and Moonshot."""


class OpenAIChat:
    """The dialect of `chat.completions`."""

    path = "chat.completions"
    provider = "openai"
    use_limit = ""

    # ---------------------------------------------------------------- requests

    def asked(self, request: Fields) -> Asked:
        limits = (whole(request.get(name)) for name in ("max_completion_tokens", "max_tokens"))
        limit = next((limit for limit in limits if limit is not None), None)
        elsewhere = "" if any(map(_is_fetched, parts(request.get("messages")))) else None
        return Asked(limit, whole(request.get("n")) or 1, elsewhere, {"web search": None} if _searches(request) else {})

    def limited(self, tokens: int, host: str, model: str, capped: bool) -> Fields:
        if not capped:
            return {}
        names = (name for hosts, models, name in _LIMIT_NAMES if re.fullmatch(hosts, host) and re.fullmatch(models, model))
        return {next(names): tokens}

    def streamed(self, request: Fields) -> Fields:
        return {"stream_options": {**mapped(request.get("stream_options")), "include_usage": True}}

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens:
        # OpenAI writes to its cache unasked. The price list has no extra price for it where it is free.
        return Tokens(prompt, limit, written=prompt)

    # ---------------------------------------------------------------- answers

    def reply_type(self) -> Any:
        from openai.types.chat import ChatCompletion

        return ChatCompletion

    def mended(self, reply: Fields) -> Fields:
        choices = [_mended_choice(reply, choice) for choice in listed(reply.get("choices"))]
        return {**reply, "choices": choices}

    def check(self, reply: Fields, request: Fields) -> None:
        choices = listed(reply.get("choices"))
        error = _error_of(reply)
        if error is not None:
            raise reported(error)
        broken = next((choice for choice in choices if meaning(choice.get("finish_reason")) == "broken"), None)
        if broken is not None:
            why = reported_error(reply) or reported_error(broken) or {}
            raise reported(why, f"the provider broke the answer off: its finish reason is {brief(broken['finish_reason'])}")
        malformed = next((choice for choice in choices if meaning(choice.get("finish_reason")) == "malformed"), None)
        if malformed is not None:
            raise UnreadableReply(f"the model's tool call is malformed: its finish reason is {brief(malformed['finish_reason'])}")
        if not choices or (any(map(_says_nothing, choices)) and not _answers_tools(request)):
            raise EmptyReply("the model answered without text, tool call or refusal")

    def tokens(self, reply: Fields) -> Tokens | None:
        usage = usage_in(reply)
        tokens_in, total = count(usage, "prompt_tokens"), count(usage, "total_tokens")
        # Some compatible servers count reasoning in the total alone.
        tokens_out = max(count(usage, "completion_tokens"), total - tokens_in if tokens_in else 0)
        if not tokens_in and not tokens_out:
            # No provider charges for a request that failed without an answer.
            return Tokens() if reported_error(reply) is not None and not listed(reply.get("choices")) else None
        return Tokens(
            tokens_in,
            tokens_out,
            cached=next((found for path in _CACHED if (found := count(usage, *path))), 0),
            written=count(usage, "prompt_tokens_details", "cache_write_tokens"),
            reasoning=count(usage, "completion_tokens_details", "reasoning_tokens"),
        )

    def text_bytes(self, reply: Fields) -> int:
        return text_size([mapped(choice.get("message")) for choice in listed(reply.get("choices"))])

    def answer(self, reply: Fields) -> Answer:
        finish = (text(choice.get("finish_reason")) for choice in listed(reply.get("choices")))
        return Answer(text(reply.get("model")), text(reply.get("id")), tuple(each for each in finish if each))

    def message(self, reply: Any) -> Any:
        return reply.choices[0].message

    # ---------------------------------------------------------------- chunks

    def chunk(self, chunk: Fields) -> Any:
        from openai.types.chat import ChatCompletionChunk

        return ChatCompletionChunk.model_construct(**chunk)

    def for_consumer(self, chunk: Fields, request: Fields) -> bool:
        return bool(chunk.get("choices")) or bool(mapped(request.get("stream_options")).get("include_usage"))

    def error(self, chunk: Fields) -> Fields | None:
        return chunk if chunk.get("object") == "error" or chunk.get("type") == "error" else reported_error(chunk)

    def chunks(self, event: Fields) -> list[Fields]:
        if _is_chunk(event.get("choices")):
            return [event]
        return [{**event, "object": "chat.completion.chunk", "choices": [_as_chunk(choice) for choice in listed(event.get("choices"))]}]

    def ending(self, request: Fields) -> Ending:
        return ChatEnding(whole(request.get("n")) or 1)

    def heard(self, chunks: list[Fields]) -> int:
        return text_size([choice.get("delta") for chunk in chunks for choice in listed(chunk.get("choices"))])

    def assemble(self, chunks: list[Fields]) -> Fields:
        return assemble(chunks)


def _delta(choice: Fields) -> Fields:
    message = mapped(choice.get("message"))
    calls = calls_in(message)
    return {**message, "tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]} if calls else message


def _mended_choice(reply: Fields, choice: Fields) -> Fields:
    message = mapped(choice.get("message"))
    if "tool_calls" in message:
        calls = [mended_call(reply, number, call) for number, call in enumerate(calls_in(message))]
        message = {**message, "tool_calls": calls or None}
    return {"finish_reason": None, **choice, "message": {"role": "assistant", "content": None, **message}}


def _is_chunk(choices: Any) -> bool:
    return isinstance(choices, list) and all(isinstance(choice, dict) and isinstance(choice.get("delta"), dict) for choice in choices)


def _as_chunk(choice: Fields) -> Fields:
    """A choice of a chunk, which may be that of a whole answer, or have no delta."""
    parts = {name: value for name, value in choice.items() if name not in ("message", "delta")}
    return {**parts, "delta": mapped(choice.get("delta")) or _delta(choice)}


def _is_fetched(part: Fields) -> bool:
    # Images are excluded: they count for the same tokens wherever they come from.
    kind, file = str(part.get("type")), mapped(part.get("file"))
    if kind == "file":
        return bool(file.get("file_id")) or str(file.get("file_data")).startswith("http")
    return kind.endswith("_url") and kind != "image_url" and not str(mapped(part.get(kind)).get("url")).startswith("data:")


def _searches(request: Fields) -> bool:
    # Each such search has a price, and no answer has the number of searches.
    return request.get("web_search_options") is not None or any(name in str(request.get("model")) for name in _SEARCHING)


def _error_of(reply: Fields) -> Fields | None:
    """The error in place of an answer; None if there is an answer, even if it has an error next to it."""
    choices = listed(reply.get("choices"))
    if not all(map(_says_nothing, choices)):
        return None
    return reported_error(reply) or next((error for choice in choices if (error := reported_error(choice)) is not None), None)


def _says_nothing(choice: Fields) -> bool:
    return meaning(choice.get("finish_reason")) not in ("limit", "filtered") and not says_something(mapped(choice.get("message")))


def _answers_tools(request: Fields) -> bool:
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list | tuple) and messages else None
    return (last.get("role") if isinstance(last, dict) else getattr(last, "role", None)) in ("tool", "function")
