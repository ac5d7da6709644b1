"""OpenAI's chat completions, also those of compatible servers."""

from __future__ import annotations

from typing import Any

from holdfast.calls.models.dialect import (
    Answer,
    Asked,
    Fields,
    Tokens,
    count,
    joined,
    listed,
    mapped,
    parts,
    reported_error,
    text,
    text_size,
    whole,
)
from holdfast.calls.models.replies import EmptyReply, reported

_CUT = ("length", "content_filter")
"""Finish reasons that explain an empty answer."""

_SEARCHING = ("-search-preview", "-search-api")
"""Parts of the names of models that search the web at each call."""

_MOST_CALLS = 1_000
"""How far the index of a tool call may be ahead of the calls before it: an absurd index must not fill the memory."""


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

    def limited(self, tokens: int, host: str, capped: bool) -> Fields:
        if not capped:
            return {}
        # OpenAI's newer models refuse `max_tokens`; many compatible servers do not know its successor.
        newer = host == "api.openai.com" or host.endswith(".openai.azure.com")
        return {"max_completion_tokens" if newer else "max_tokens": tokens}

    def streamed(self, request: Fields) -> Fields:
        return {**request, "stream_options": {**mapped(request.get("stream_options")), "include_usage": True}}

    def worst(self, args: bytes, prompt: int, limit: int) -> Tokens:
        # OpenAI writes to its cache unasked. The price list has no extra price for it where it is free.
        return Tokens(prompt, limit, written=prompt)

    # ---------------------------------------------------------------- answers

    def reply_type(self) -> Any:
        from openai.types.chat import ChatCompletion

        return ChatCompletion

    def check(self, reply: Fields, request: Fields) -> None:
        choices = listed(reply.get("choices"))
        error = _error_of(reply)
        if error is not None:
            raise reported(error)
        if not choices or any(_says_nothing(choice) for choice in choices):
            raise EmptyReply("the model answered without text, tool call or refusal")

    def tokens(self, reply: Fields) -> Tokens | None:
        usage = mapped(reply.get("usage"))
        tokens_in, total = count(usage, "prompt_tokens"), count(usage, "total_tokens")
        # Some compatible servers count reasoning in the total alone.
        tokens_out = max(count(usage, "completion_tokens"), total - tokens_in if tokens_in else 0)
        if not tokens_in and not tokens_out:
            # No provider charges for a request that failed without an answer.
            return Tokens() if reported_error(reply) is not None and not listed(reply.get("choices")) else None
        return Tokens(
            tokens_in,
            tokens_out,
            cached=count(usage, "prompt_tokens_details", "cached_tokens"),
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
        return None  # the SDK raises it

    def finished(self, chunks: list[Fields]) -> bool:
        return self.complete(chunks)

    def complete(self, chunks: list[Fields]) -> bool:
        finished: dict[int, bool] = {}
        for chunk in chunks:
            for choice in listed(chunk.get("choices")):
                index = whole(choice.get("index")) or 0
                finished[index] = finished.get(index, False) or choice.get("finish_reason") is not None
        return bool(finished) and all(finished.values())

    def last(self, chunk: Fields, request: Fields) -> bool:
        choices = listed(chunk.get("choices"))
        if not choices:
            return bool(mapped(chunk.get("usage")))
        # With several choices, one can end before another has begun. Some servers have an empty reason in each chunk.
        return (whole(request.get("n")) or 1) == 1 and all(text(choice.get("finish_reason")) for choice in choices)

    def heard(self, chunks: list[Fields]) -> int:
        return text_size([choice.get("delta") for chunk in chunks for choice in listed(chunk.get("choices"))])

    def assemble(self, chunks: list[Fields]) -> Fields:
        reply: Fields = {}
        choices: dict[int, Fields] = {}
        for chunk in chunks:
            reply.update({name: value for name, value in chunk.items() if name != "choices" and value is not None})
            for part in listed(chunk.get("choices")):
                index = whole(part.get("index")) or 0
                choice = choices.setdefault(index, {"index": index, "message": {"role": "assistant", "content": None}})
                _add_choice(choice, part)
        reply["object"] = "chat.completion"
        reply["choices"] = [choices[index] for index in sorted(choices)]
        return reply


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
    message = mapped(choice.get("message"))
    if choice.get("finish_reason") in _CUT:
        return False
    return not any(message.get(part) for part in ("content", "tool_calls", "refusal", "function_call", "audio"))


def _add_choice(choice: Fields, part: Fields) -> None:
    for name, value in part.items():
        if name == "delta":
            _add_delta(choice["message"], mapped(value))
        elif name == "logprobs" and isinstance(value, dict):
            logprobs = mapped(choice.get("logprobs"))
            choice["logprobs"] = {**logprobs, **{key: joined(logprobs.get(key), more) for key, more in value.items()}}
        elif name != "index" and (value is not None or name not in choice):
            choice[name] = value


def _add_delta(message: Fields, delta: Fields) -> None:
    for name, value in delta.items():
        if value is None:
            message.setdefault(name, None)
        elif name == "tool_calls":
            calls = message["tool_calls"] = listed(message.get("tool_calls"))
            for fragment in listed(value):
                _add_call(calls, fragment)
        elif name == "function_call":
            call = mapped(message.get(name))
            message[name] = {**call, **{key: joined(call.get(key), more) for key, more in mapped(value).items()}}
        else:
            message[name] = value if name == "role" else joined(message.get(name), value)


def _add_call(calls: list[Fields], fragment: Fields) -> None:
    # Some servers leave the index out; then each id begins another call.
    index = whole(fragment.get("index"))
    if index is None:
        index = len(calls) if fragment.get("id") or not calls else len(calls) - 1
    if index > len(calls) + _MOST_CALLS:
        return
    while len(calls) <= index:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[index]
    for name in ("id", "type"):
        if fragment.get(name):
            call[name] = fragment[name]
    function = call["function"]
    for name, part in mapped(fragment.get("function")).items():
        function[name] = joined(function.get(name), part)
