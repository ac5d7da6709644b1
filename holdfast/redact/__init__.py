"""Removes secrets from text before it is recorded, logged or displayed: those that the program knows (`remember`), and what looks like one.

What looks like one is decided by a provider's prefix (with a length, and whether what follows is random), by the name that it is given
(`password=`, a header, a key of a dict), or by its place in a URL. Words, numbers, UUIDs, digests, the ids of sessions and of providers'
objects, paths and images in base64 stay. Any text takes time in proportion to its length.
"""

from __future__ import annotations

import re

from holdfast.redact import known, named, tokens
from holdfast.redact.known import remember
from holdfast.redact.mask import MASK, SHORTEST, storable
from holdfast.redact.named import is_secret
from holdfast.redact.randomness import is_random

__all__ = ["MASK", "SHORTEST", "is_secret", "remember", "remember_named", "storable", "text"]

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
    return value if len(value) < SHORTEST else named.mask(tokens.mask(known.mask(value)))


def remember_named(name: str, value: str) -> None:
    """Remember what stands in a header or parameter of this name, with and without its scheme (`Bearer`); except a plain value under a name
    that says nothing of a secret, such as `application/json`."""
    if _SENSITIVE.search(name) or is_random(value):
        remember(value)
        remember(value.rpartition(" ")[2])
