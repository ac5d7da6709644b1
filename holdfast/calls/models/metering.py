"""The cost of model calls: before a call, the most it can cost; after it, the cost by the provider's report."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.calls.models.dialect import Asked, Billed, Fields, Tokens, text_size
from holdfast.calls.models.prices import Prices, tokens_of
from holdfast.calls.models.refusals import checked_window, refuse_unbounded_uses, refuse_unpriced
from holdfast.policies.budget import Usage

MOST = 1 << 50
"""The most tokens, or micro-dollars (a thousand million dollars), that one call counts for: a provider may report absurd numbers, and a sum
of many must fit into 64 bits."""

IMAGE_TOKENS = 2_000
"""The tokens of an image in an estimate, whatever its size in bytes."""

_IMAGES = ("image_url", "input_image", "image", "computer_screenshot")


class Contexts:
    """The tokens of the latest answers that a provider keeps: a prompt that continues one of them takes these tokens, too."""

    __slots__ = ("_tokens",)

    MOST = 10_000

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}

    def get(self, id: str) -> int | None:
        """The tokens of that answer; None if it is not known: another process may have requested it."""
        return self._tokens.get(id)

    def note(self, id: str, tokens: int) -> None:
        """Note how many tokens the answer with this id took, including all answers that it continued."""
        self._tokens[id] = tokens
        if len(self._tokens) > self.MOST:
            del self._tokens[next(iter(self._tokens))]


class Meter:
    """The cost of calls of one model.

    Attributes:
        prompt: tokens of the prompt, estimated.
        most: the most that an attempt can cost.
        most_microusd: the money of it, in micro-dollars; None if the price of the model is not known.
    """

    __slots__ = ("_contexts", "_model", "_prices", "_provider", "most", "most_microusd", "prompt")

    def __init__(self, prices: Prices, model: str, provider: str | None, contexts: Contexts, *, prompt: int, worst: Tokens) -> None:
        self._prices, self._model, self._provider, self._contexts, self.prompt = prices, model, provider, contexts, prompt
        self.most_microusd = self._price(worst)
        self.most = self.of(worst)

    def of_reply(self, dialect: Billed, reply: Fields, heard: int | None = None) -> Usage:
        """The cost of an answer: as reported, else estimated from its text.

        Args:
            dialect: the dialect of the answer.
            reply: the answer.
            heard: bytes of its text, if the caller knows them better than the answer does.
        """
        tokens = dialect.tokens(reply) or self.estimate(dialect.text_bytes(reply) if heard is None else heard)
        id = dialect.answer(reply).id
        if id is not None:
            self._contexts.note(id, tokens.input + tokens.output)
        return self.of(tokens)

    def of(self, tokens: Tokens) -> Usage:
        """The cost of an attempt that took these tokens."""
        return Usage(steps=1, tokens=min(tokens.input + tokens.output, MOST), microusd=min(self._price(tokens) or 0, MOST))

    def estimate(self, size: int) -> Tokens:
        """The most tokens that an answer of `size` bytes of text is likely to have taken."""
        return Tokens(self.prompt, tokens_of(size))

    def _price(self, tokens: Tokens) -> int | None:
        return self._prices.price(
            self._model,
            self._provider,
            tokens.input,
            tokens.output,
            tokens.cached,
            written=tokens.written,
            written_1h=tokens.written_1h,
            searches=tokens.searches,
            file_searches=tokens.file_searches,
        )


class Metering:
    """Makes the meters of one client's calls."""

    __slots__ = ("_context_tokens", "_contexts", "_max_tokens", "_prices", "_provider")

    def __init__(self, prices: Prices, provider: str | None, *, max_tokens: int, context_tokens: int | None) -> None:
        """Takes the settings of the client (see `ModelClient`)."""
        self._prices, self._provider, self._max_tokens, self._context_tokens = prices, provider, max_tokens, context_tokens
        self._contexts = Contexts()

    def meter(self, dialect: Billed, model: str, asked: Asked, args: bytes, *, cap_tokens: bool, cap_money: bool) -> Meter:
        """The meter of one request.

        Args:
            dialect: the dialect of the request.
            model: its model.
            asked: the parts of it that decide its cost.
            args: the request as MessagePack.
            cap_tokens: whether the session's tokens are limited.
            cap_money: whether its money is limited.

        Raises:
            ConfigError: the session is limited, and the most that the request can cost is not known.
        """
        prompt = estimate_prompt(args)
        most = prompt
        if asked.elsewhere is not None:
            before = self._contexts.get(asked.elsewhere)
            if before is not None:
                prompt = most = prompt + before
            elif cap_tokens or cap_money:
                window = self._context_tokens or self._prices.window(model, self._provider)
                most = max(prompt, checked_window(model, window))
        limit = self._max_tokens if asked.limit is None else asked.limit
        worst = msgspec.structs.replace(
            dialect.worst(args, most, limit * asked.answers),
            searches=asked.uses.get("web_search") or 0,
            file_searches=asked.uses.get("file_search") or 0,
        )
        meter = Meter(self._prices, model, self._provider, self._contexts, prompt=prompt, worst=worst)
        if cap_money:
            refuse_unpriced(model, meter.most_microusd)
            refuse_unbounded_uses(dialect, model, asked, self._prices, self._provider)
        return meter


def estimate_prompt(request: bytes) -> int:
    """The most tokens of a request (as MessagePack), nearly always: half its bytes, and a fixed number for each image.

    Images do not count by their bytes: base64 has a hundred times as many bytes as the provider counts tokens.
    """
    inline, images = _images(msgspec.msgpack.decode(request)) if b"image" in request or b"screenshot" in request else (0, 0)
    return tokens_of(len(request) - inline) + images * IMAGE_TOKENS


def _images(value: Any) -> tuple[int, int]:
    if isinstance(value, dict):
        if value.get("type") in _IMAGES and ("image_url" in value or "source" in value or "file_id" in value):
            return text_size([value.get("image_url"), value.get("source")]), 1
        value = list(value.values())
    if isinstance(value, list):
        found = [_images(each) for each in value if isinstance(each, dict | list)]
        return sum(size for size, _ in found), sum(count for _, count in found)
    return 0, 0
