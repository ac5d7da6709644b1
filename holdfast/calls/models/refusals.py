"""Why a model call is refused before it is sent: its model has no name, or the session is limited and its highest cost is not known."""

from __future__ import annotations

from typing import Any

from holdfast.calls.models.dialect import Asked, Billed
from holdfast.calls.models.prices import Prices
from holdfast.errors import ConfigError
from holdfast.given import brief

_MODEL_MAX = 512
"""The most characters of the name of a model."""


def checked_model(path: str, model: Any) -> str:
    """The argument `model` of the `create` at `path`. Raises TypeError if it is not the name of a model."""
    if not isinstance(model, str) or not 0 < len(model) <= _MODEL_MAX or not model.isprintable():
        raise TypeError(f"{path}.create needs model=, the name of a model, and not {brief(model)}")
    return model


def checked_window(model: str, window: int | None) -> int:
    """The tokens that fit into the model. Raises ConfigError if they are not known: the prompt could have any number of them."""
    if window is None:
        raise ConfigError(
            f"a part of the prompt is kept by the provider, or fetched, how much fits into model {model!r} is not known, and the "
            "session's tokens or money are limited: send all of it, set ModelClient(context_tokens=...), or lift the limits"
        )
    return window


def refuse_unpriced(model: str, most_microusd: int | None) -> None:
    """Raises ConfigError if the price of the model is not known."""
    if most_microusd is None:
        raise ConfigError(
            f"the price of model {model!r} is not known, and the session's money is limited: "
            f"set it with Prices(overrides={{{model!r}: (usd_per_mtok_in, usd_per_mtok_out)}}), or lift the limit"
        )


def refuse_unbounded_uses(dialect: Billed, model: str, asked: Asked, prices: Prices, provider: str | None) -> None:
    """Raises ConfigError if one of the provider's own tools has no known price, or may be used without end."""
    for tool, most in asked.uses.items():
        if prices.use(tool, model, provider) is None:
            third = f"set it with Prices(overrides={{{model!r}: (usd_per_mtok_in, usd_per_mtok_out, usd_per_1000_searches)}}), "
            raise ConfigError(
                f"what {tool} costs a use is not known for model {model!r}, and the session's money is limited: "
                f"{third if tool == 'web_search' else ''}do without it, or lift the limit"
            )
        if most is None:
            raise ConfigError(
                f"{tool} costs by use, the request does not say how often the provider may use it, and the session's money is "
                f"limited: give {dialect.use_limit}, or lift the limit"
            )
