"""Removes secrets from text before it is recorded, logged or displayed: those that the program knows (`remember`), and what looks like one.

What looks like one is decided by a provider's prefix (with a length, and whether what follows is random), by the name that it is given
(`password=`, a header, a key of a dict), or by its place in a URL. Words, numbers, UUIDs, digests, the ids of sessions and of providers'
objects, paths and images in base64 stay. Any text takes time in proportion to its length.
"""

from __future__ import annotations

import re
from functools import lru_cache

from holdfast.redact import known, named, tokens
from holdfast.redact.mask import MASK, SHORTEST, storable
from holdfast.redact.named import is_secret
from holdfast.redact.randomness import is_random

__all__ = ["MASK", "SHORTEST", "is_secret", "remember", "remember_named", "storable", "text"]

_SHORT = 200
"""Texts of up to so many characters come again and again in lists and logs, such as ids and reasons: the last of them are kept, masked."""

_SENSITIVE = re.compile(r"(?i)key|token|auth|secret|pass|cred|cookie|sig")


def text(value: str, name: str = "") -> str:
    """`value` with every remembered secret masked, and what looks like a secret; fit for every store.

    Args:
        value: any text.
        name: of the field that has the value, if there is one: under a name such as `password`, the whole value is masked.
    """
    value = storable(value)
    if name:
        value = named.mask_under(name, value)
    if len(value) < SHORTEST:
        return value
    return _masked_before(value) if len(value) <= _SHORT and type(value) is str else _masked(value)


def _masked(value: str) -> str:
    return named.mask(tokens.mask(known.mask(value)))


_masked_before = lru_cache(4_096)(_masked)


def remember(secret: str | bytes) -> None:
    """Mask exactly this secret wherever it occurs from now on, in each of its spellings.

    Secrets under 8 characters are ignored: they would mask ordinary words.
    """
    known.remember(secret)
    _masked_before.cache_clear()


def remember_named(name: str, value: str) -> None:
    """Remember what stands in a header or parameter of this name, with and without its scheme (`Bearer`); except a plain value under a name
    that says nothing of a secret, such as `application/json`."""
    if _SENSITIVE.search(name) or is_random(value):
        remember(value)
        remember(value.rpartition(" ")[2])
