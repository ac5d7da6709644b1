"""What model calls cost."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from holdfast.calls.models.prices import Prices
from holdfast.errors import ConfigError


def test_a_known_model_costs_what_the_list_says_rounded_up() -> None:
    """In whole micro-dollars, never less than it costs."""
    prices = Prices()
    million = prices.price("gpt-4o-mini", "openai", 1_000_000, 0)
    assert million is not None
    assert million > 0
    assert prices.price("gpt-4o-mini", None, 1_000_000, 0) == million
    assert prices.price("gpt-4o-mini", "openai", 1, 0) == 1
    assert prices.price("gpt-4o-mini", "openai", 0, 0) == 0


def test_cached_tokens_cost_less_and_never_count_more_than_all() -> None:
    """A provider that reports more cached tokens than tokens is not an error of ours."""
    prices = Prices()
    full = prices.price("gpt-4o-mini", "openai", 100_000, 0)
    cached = prices.price("gpt-4o-mini", "openai", 100_000, 0, cached=100_000)
    assert full is not None
    assert cached is not None
    assert 0 < cached < full
    assert prices.price("gpt-4o-mini", "openai", 100_000, 0, cached=200_000) == cached


@pytest.mark.parametrize(("model", "provider"), [("my-model", None), ("my-model", "openai"), ("gpt-4o-mini", "nobody")])
def test_an_unknown_price_is_none(model: str, provider: str | None) -> None:
    """Not zero: whoever caps money has to notice."""
    assert Prices().price(model, provider, 1, 1) is None


def test_own_prices_come_first_and_are_exact() -> None:
    """Dollars for a million tokens; 0.1 is a tenth, not the nearest binary fraction above."""
    prices = Prices({"my-model": (0.1, "0.2"), "gpt-4o-mini": (0, 0)})
    assert prices.price("my-model", None, 10, 5) == 2
    assert prices.price("my-model", None, 11, 5) == 3
    assert prices.price("gpt-4o-mini", "openai", 1_000_000, 1_000_000) == 0


def test_searches_cost_as_the_list_says_also_beside_own_prices() -> None:
    """A cent a search of the web, a quarter of one a search of files; or what the operator says that they cost."""
    for prices in (Prices(), Prices({"gpt-4o-mini": (0, 0)})):
        assert prices.price("gpt-4o-mini", "openai", 0, 0, searches=20, file_searches=2) == 205_000
        assert [prices.use(tool, "gpt-4o-mini", None) for tool in ("web_search", "file_search")] == [10, Decimal("2.5")]
    assert Prices({"my-model": (1, 1, "2.5")}).price("my-model", None, 5, 5, searches=4) == 10_010


@pytest.mark.parametrize(
    ("tool", "model"),
    [
        ("web_search", "my-model"),
        ("web_search", "own"),
        ("web_search", "gpt-3.5-turbo"),
        ("file_search", "claude-sonnet-4-6"),
        ("x", "gpt-5"),
    ],
)
def test_an_unknown_price_of_a_use_is_none(tool: str, model: str) -> None:
    """Of a tool or a model that nobody has one for: the call itself is still charged."""
    prices = Prices({"own": (1, 1)})
    assert prices.use(tool, model, None) is None
    assert prices.price("own", None, 5, 5, searches=4) == 10


@pytest.mark.parametrize("pair", [(1,), (1, 2, 3, 4), ("much", 1), (1, 1, "x"), (1, 1, -1), (-1, 1), (float("nan"), 1), None, 5])
def test_a_price_that_is_none_is_refused(pair: Any) -> None:
    """When it is set, by the model's name."""
    with pytest.raises(ConfigError, match="'my-model' has "):
        Prices({"my-model": pair})


def test_the_price_list_and_the_sdk_are_loaded_late() -> None:
    """Importing the calls is cheap: no price list, no provider's SDK, no pydantic."""
    heavy = "import sys, holdfast.calls; print({'genai_prices', 'openai', 'anthropic', 'pydantic'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_the_list_can_be_read_ahead() -> None:
    """So that no call waits for it in the middle of the loop."""
    loads = "import sys; from holdfast.calls.models.prices import Prices; Prices().load(); print('genai_prices' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "True"
