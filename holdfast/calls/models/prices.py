"""The cost of a model call, in micro-dollars, from the price lists in the package genai-prices: no network is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from holdfast.errors import ConfigError
from holdfast.given import brief, decimal_of

Amount = float | Decimal | str
"""An amount of money; a float counts as its printed form."""

_USES = {"web_search": "web_searches", "file_search": "storage_searches"}
"""The providers' own tools that have a price per use, and their names in genai-prices."""

BYTES_PER_TOKEN = 2
"""Bytes of a request for each token, for an estimate that is rarely too low: English has about 4, Chinese 2 to 3."""


def tokens_of(size: int) -> int:
    """The most tokens that `size` bytes of a request are likely to be."""
    return -(-size // BYTES_PER_TOKEN)


class Prices:
    """The price list. A price in `overrides` takes precedence over that of the list."""

    __slots__ = ("_overrides",)

    def __init__(self, overrides: Mapping[str, tuple[Amount, Amount] | tuple[Amount, Amount, Amount]] | None = None) -> None:
        """Set the prices of models that the list lacks, or has too high.

        Args:
            overrides: by the model's name: dollars for a million tokens in, and out, with or without the provider's cache; and, if the list
                lacks it as well, dollars for a thousand web searches.

        Raises:
            ConfigError: a price is not an amount; the message names every such model.
        """
        self._overrides: dict[str, tuple[Decimal, ...]] = {}
        faults: list[str] = []
        for model, pair in (overrides or {}).items():
            read = _amounts(pair)
            if read is None:
                faults.append(
                    f"{brief(model)} has {brief(pair)}: give two amounts, dollars for a million tokens in and out, or three, the last for "
                    "a thousand searches of the web"
                )
            else:
                self._overrides[model] = read
        if faults:
            raise ConfigError(f"Prices: {'; '.join(faults)}")

    def load(self) -> None:
        """Read the price list now (some 0.2 s), rather than in the middle of the first call."""
        self.price("", None, 0, 0)

    def price(
        self,
        model: str,
        provider: str | None,
        tokens_in: int,
        tokens_out: int,
        cached: int = 0,
        *,
        written: int = 0,
        written_1h: int = 0,
        searches: int = 0,
        file_searches: int = 0,
    ) -> int | None:
        """The cost of a call, in micro-dollars, rounded up; None if the price of the model is not known.

        Searches whose price is not known (see `use`) cost nothing here.

        Args:
            model: its name as in the request.
            provider: the id in genai-prices of the provider that serves it; None guesses by the name of the model.
            tokens_in: tokens of the prompt, those of the cache included.
            tokens_out: tokens of the answer, reasoning included.
            cached: those of `tokens_in` that the provider read from its cache.
            written: those of `tokens_in` that it wrote to its cache.
            written_1h: those of `written` that it keeps for an hour.
            searches: web searches that the provider made.
            file_searches: searches of files that the provider keeps.
        """
        own = self._overrides.get(model)
        if own is not None:
            # Dollars for a million tokens are micro-dollars for one.
            total = own[0] * tokens_in + own[1] * tokens_out
            for name, made in (("web_search", searches), ("file_search", file_searches)):
                if made:
                    total += made * 1_000 * (self.use(name, model, provider) or 0)
            return math.ceil(total)
        # Imported late: reading the lists takes 0.2 s, which a process that calls no model need not spend.
        from genai_prices import Usage, calc_price

        # genai-prices refuses parts that add up to more than the whole; an answer is not lost for that.
        cached = min(cached, tokens_in)
        written = min(written, tokens_in - cached)
        usage = Usage(
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cache_read_tokens=cached,
            cache_write_tokens=written,
            cache_write_1h_tokens=min(written_1h, written),
            web_searches=searches,
            storage_searches=file_searches,
        )
        try:
            total = calc_price(usage, model, provider_id=provider).total_price
        except LookupError:
            return None
        return math.ceil(total * 1_000_000)

    def window(self, model: str, provider: str | None) -> int | None:
        """The most tokens that fit into a prompt of the model; None if that is not known."""
        from genai_prices import Usage, calc_price  # late, as in `price`

        try:
            return calc_price(Usage(), model, provider_id=provider).model.context_window
        except LookupError:
            return None

    def use(self, tool: str, model: str, provider: str | None) -> Decimal | None:
        """Dollars for a thousand uses that a model makes of one of the provider's own tools; None if that is not known."""
        own = self._overrides.get(model, ())
        if tool == "web_search" and len(own) == 3:
            return own[2]
        if tool not in _USES:
            return None
        from genai_prices import Usage, calc_price  # late, as in `price`

        try:
            # Some models have a price for the call itself.
            calls = (Usage(**{_USES[tool]: 1_000}), Usage())
            thousand, none = (calc_price(usage, model, provider_id=provider).total_price for usage in calls)
        except LookupError:
            return None
        return thousand - none or None  # the list has 0 for an unknown price


def _amounts(given: Any) -> tuple[Decimal, ...] | None:
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        return None
    amounts = tuple(amount for each in given if (amount := decimal_of(each)) is not None and amount >= 0)
    return amounts if len(amounts) == len(given) else None
