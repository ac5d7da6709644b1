"""The secrets of a model client, so that no text that is recorded or displayed has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from holdfast import redact

_ATTRIBUTES: Final = ("api_key", "auth_token", "admin_api_key", "webhook_secret", "webhook_key", "_azure_ad_token")
_GIVEN: Final = ("_custom_headers", "_custom_query")  # what `default_headers=` and `default_query=` were; openai and anthropic have both
_PLACEHOLDERS: Final = frozenset(
    {"lm-studio", "not-needed", "not-used", "no-key-required", "sk-no-key-required", "placeholder", "dummy-key"}
)
"""What servers without authentication have in their instructions: masking it would mask the name of a server."""


def remember_keys(client: Any) -> None:
    """Mask from now on what the client authenticates with: its keys and tokens, headers and parameters of its own, the user and password of
    its `base_url`."""
    for name in _ATTRIBUTES:
        value = getattr(client, name, None)
        if isinstance(value, str | bytes) and value not in _PLACEHOLDERS:
            redact.remember(value)
    url = getattr(client, "base_url", None)
    for given in (*(getattr(client, name, None) for name in _GIVEN), getattr(url, "params", None)):
        if isinstance(given, Mapping):
            for name, value in given.items():
                if isinstance(value, str):
                    redact.remember_named(str(name), value)
    for part, name in (("username", "user"), ("password", "password")):
        value = getattr(url, part, None)
        if isinstance(value, str):
            redact.remember_named(name, value)
