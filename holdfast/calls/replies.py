"""What chat models answer: how it is kept, what it cost, and whether it is an answer at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.calls.prices import Prices, tokens_of
from holdfast.codec import Codec, encode
from holdfast.policies.budget import Usage

IMAGE_TOKENS = 2_000
"""What an image in a request counts for in an estimate, whatever the size of its bytes."""


class EmptyReply(Exception):
    """The model answered with nothing: no text, no tool call, no refusal. The answer is paid; asking again often helps."""

    holdfast_category = "transient"


class BrokenStream(ConnectionError):
    """A streamed answer that ended, or became unreadable, before it said that it was complete."""


class ReplyCodec(Codec):
    """Of an SDK's model, kept as the fields that the provider sent and built from them without validation, as the SDK does.

    Compatible servers leave fields out and have values of their own: an answer that is paid is not refused for that.
    """

    __slots__ = ()

    def __init__(self, type_: Any) -> None:
        self.type = type_
        self.plain = False
        self.decode = self._decode

    def encode(self, value: Any) -> bytes:
        return encode(fields_of(value))

    def _decode(self, data: bytes) -> Any:
        return self.type.model_construct(**msgspec.msgpack.decode(data))


def fields_of(reply: Any) -> dict[str, Any]:
    """What the provider sent, as plain data."""
    fields: dict[str, Any] = reply.model_dump(mode="json", exclude_unset=True, warnings=False)
    return fields


class Meter:
    """What calls of one model cost.

    Attributes:
        prompt: tokens of the prompt, estimated.
        most: the most that an attempt can cost.
        most_microusd: its money; None when the price of the model is not known.
    """

    __slots__ = ("_model", "_prices", "_provider", "most", "most_microusd", "prompt")

    def __init__(self, prices: Prices, model: str, provider: str | None, prompt: int, max_tokens: int) -> None:
        self._prices, self._model, self._provider, self.prompt = prices, model, provider, prompt
        self.most_microusd = prices.price(model, provider, prompt, max_tokens)
        self.most = Usage(steps=1, tokens=prompt + max_tokens, microusd=self.most_microusd or 0)

    def of_usage(self, usage: Any) -> Usage | None:
        """What an answer cost, from the usage that the provider reported with it (as plain data); None if it reported none."""
        if not isinstance(usage, dict):
            return None
        tokens_in, tokens_out = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        details = usage.get("prompt_tokens_details")
        cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
        return self.of_tokens(tokens_in, tokens_out, cached)

    def of_tokens(self, tokens_in: int, tokens_out: int, cached: int = 0) -> Usage:
        """What an attempt with so many tokens costs."""
        money = self._prices.price(self._model, self._provider, tokens_in, tokens_out, cached)
        return Usage(steps=1, tokens=tokens_in + tokens_out, microusd=money or 0)

    def of_reply(self, fields: dict[str, Any]) -> Usage:
        """What a whole answer cost: as reported, else estimated from its text."""
        return self.of_usage(fields.get("usage")) or self.of_tokens(self.prompt, tokens_of(text_size(_messages(fields))))


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return max(value, 0) if isinstance(value, int) else 0


def _messages(fields: dict[str, Any]) -> list[Any]:
    return [choice.get("message") or {} for choice in fields.get("choices") or []]


def text_size(value: Any) -> int:
    """Bytes of all text in plain data."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        return sum(map(text_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(text_size, value))
    return 0


def estimate_prompt(request: bytes) -> int:
    """Tokens of a request (as MessagePack) at most, or nearly so: half its bytes, with a flat figure for each image.

    Images are not counted by their bytes, of which base64 has a hundred times as many as the provider counts tokens.
    """
    inline, images = _images(msgspec.msgpack.decode(request)) if b"image_url" in request else (0, 0)
    return tokens_of(len(request) - inline) + images * IMAGE_TOKENS


def _images(value: Any) -> tuple[int, int]:
    if isinstance(value, dict):
        if value.get("type") == "image_url":
            return text_size(value.get("image_url")), 1
        value = list(value.values())
    if isinstance(value, list):
        found = [_images(each) for each in value if isinstance(each, dict | list)]
        return sum(size for size, _ in found), sum(count for _, count in found)
    return 0, 0


def refuse_empty(fields: dict[str, Any]) -> None:
    """Raises where an answer holds nothing: no choice, or a choice without text, tool call or refusal.

    One that was cut at the limit of its length is not empty: it was asked for so little.

    Raises:
        EmptyReply: there is nothing in it.
    """
    choices = fields.get("choices") or []
    if not choices or any(_says_nothing(choice) for choice in choices):
        raise EmptyReply("the model answered without text, tool call or refusal")


def _says_nothing(choice: dict[str, Any]) -> bool:
    message = choice.get("message") or {}
    if choice.get("finish_reason") in ("length", "content_filter"):
        return False
    return not any(message.get(part) for part in ("content", "tool_calls", "refusal", "function_call", "audio"))


# ---------------------------------------------------------------- from chunks


def is_complete(chunks: Iterable[dict[str, Any]]) -> bool:
    """Whether every choice of a streamed answer said why it finished."""
    finished: dict[int, bool] = {}
    for chunk in chunks:
        for choice in chunk.get("choices") or []:
            index = choice.get("index") or 0
            finished[index] = finished.get(index, False) or choice.get("finish_reason") is not None
    return bool(finished) and all(finished.values())


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The fields of the whole answer that a streamed one comes to."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        whole.update({name: value for name, value in chunk.items() if name != "choices" and value is not None})
        for part in chunk.get("choices") or []:
            index = part.get("index") or 0
            choice = choices.setdefault(index, {"index": index, "message": {"role": "assistant", "content": None}})
            _add_choice(choice, part)
    whole["object"] = "chat.completion"
    whole["choices"] = [choices[index] for index in sorted(choices)]
    return whole


def _add_choice(choice: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if name == "delta":
            _add_delta(choice["message"], value or {})
        elif name == "logprobs" and isinstance(value, dict):
            logprobs = choice.get("logprobs") or {}
            choice["logprobs"] = {key: (logprobs.get(key) or []) + (more or []) for key, more in value.items()}
        elif name != "index" and (value is not None or name not in choice):
            choice[name] = value


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if value is None:
            message.setdefault(name, None)
        elif name == "tool_calls":
            calls = message["tool_calls"] = message.get("tool_calls") or []
            for fragment in value:
                _add_call(calls, fragment)
        elif name == "function_call":
            message[name] = {key: (message.get(name) or {}).get(key, "") + (more or "") for key, more in value.items()}
        elif isinstance(value, str) and name != "role":
            message[name] = (message.get(name) or "") + value
        else:
            message[name] = value


def _add_call(calls: list[dict[str, Any]], fragment: dict[str, Any]) -> None:
    # Some servers leave the index out; then an id begins another call.
    index = fragment.get("index")
    if index is None:
        index = len(calls) if fragment.get("id") or not calls else len(calls) - 1
    while len(calls) <= index:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[index]
    for name in ("id", "type"):
        if fragment.get(name):
            call[name] = fragment[name]
    for name, text in (fragment.get("function") or {}).items():
        call["function"][name] = call["function"].get(name, "") + (text or "")
