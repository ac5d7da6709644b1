"""Removes secrets from text before it is recorded, logged or displayed."""

from __future__ import annotations

import re

MASK = "[redacted]"

_PATTERNS = re.compile(
    r"(?i)(?:\bbearer\s+|\bbasic\s+)(?:[A-Za-z0-9._~+/=-]{8,}|\[redacted\])"
    r"|\b(?:sk|pk|rk|ghp|gho|xox[abps])[-_][A-Za-z0-9_-]{8,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+"
)

_REFUSED = re.compile("[\0\ud800-\udfff]")

SHORTEST = 8
"""The length of the shortest text that is masked, in characters."""

_known: set[str] = set()


def remember(secret: str) -> None:
    """Mask exactly this text wherever it occurs from now on. Texts under 8 characters are ignored: they would mask too much."""
    if len(secret) >= SHORTEST:
        _known.add(secret)


def text(value: str) -> str:
    """`value` with every remembered secret masked, and every text that looks like a token or key; fit for every store."""
    value = storable(value)
    for secret in _known:
        if secret in value:
            value = value.replace(secret, MASK)
    return _PATTERNS.sub(MASK, value)


def storable(value: str) -> str:
    """`value` with U+FFFD for each character that some store or codec refuses: NUL, and a half of a surrogate pair (a cut emoji)."""
    return value if value.isascii() and "\0" not in value else _REFUSED.sub("\ufffd", value)
