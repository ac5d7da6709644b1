"""What stands in place of a secret, and which characters every store takes."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "[redacted]"

SHORTEST: Final = 8
"""The length of the shortest known secret that is masked, in characters: a shorter one would mask ordinary words."""

_REFUSED = re.compile("[\0\ud800-\udfff]")


def storable(value: str) -> str:
    """`value` with U+FFFD for each character that some store or codec refuses: NUL, and a half of a surrogate pair (a cut emoji)."""
    return value if value.isascii() and "\0" not in value else _REFUSED.sub("\ufffd", value)
