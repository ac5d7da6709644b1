"""The fields that holdfast adds to a request: a limit of tokens, and the wish for usage. Some servers refuse one of them.

Such a refusal is not the handler's mistake, and costs nothing: the request is sent again at once, without that field or with the other name
of the limit, and the client remembers it for the model. A name that is right for an API (`OpenAIChat.limited`) can be wrong behind a
gateway or for a deployment whose name does not tell its model (BerriAI/litellm#8855, rcourtman/Pulse#1867, avante-corp/avante.nvim#2347).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from holdfast.calls.call import ONE_STEP
from holdfast.calls.models.dialect import Fields

_OTHER_NAME = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_REFUSALS = (400, 422)
_UNKNOWN = re.compile(r"(?i)not support|unsupported|not permitted|forbidden|not allowed|unrecogni|unknown|unexpected|additional propert")
_READ = 10_000


async def requested(create: Callable[..., Any], request: Fields, added: Fields, refused: set[str]) -> Any:
    """The response to `request` with the fields in `added`.

    Args:
        create: sends it.
        request: the handler's request. Its fields are never left out.
        added: the fields to add.
        refused: the names of added fields that the server has refused for this model; grows.
    """
    added = _without(added, refused)
    while True:
        try:
            return await create(**{**request, **added})
        except (TypeError, ValueError) as error:
            if type(error) in (TypeError, ValueError):
                # The SDK rejected the arguments: no request was sent.
                error.holdfast_usage = ONE_STEP  # type: ignore[union-attr] # an exception takes any attribute
            raise
        except Exception as error:
            name = _refused_name(error, request, added)
            if name is None or (name in _OTHER_NAME and _OTHER_NAME[name] in refused):
                raise
            refused.add(name)
            added = _without(added, refused)


def _refused_name(error: Exception, request: Fields, added: Fields) -> str | None:
    if getattr(error, "status_code", None) not in _REFUSALS:
        return None
    text = f"{error} {getattr(error, 'body', '')}"[:_READ]
    # Not where only the value is refused: a limit under a name that the server ignores would be none.
    found = (name for name in added if name not in request and name in text)
    return next(found, None) if _UNKNOWN.search(text) else None


def _without(added: Fields, refused: set[str]) -> Fields:
    """The fields without those that were refused; a limit keeps its value under its other name."""
    names = {name: _OTHER_NAME.get(name) if name in refused else name for name in added}
    return {kept: added[name] for name, kept in names.items() if kept is not None}
