"""Whether a machine made a text at random, as it makes keys and tokens, or whether it is of words and numbers, as names and ids are."""

from __future__ import annotations

import re
from typing import Final

_WORDS = r"(?:[A-Z]?[a-z]++(?:[A-Z][a-z]{2,}+){0,4}+[0-9]{0,4}|[A-Z]++[0-9]{0,4}|[0-9]++)"
PLAIN: Final = rf"(?:[A-Za-z0-9]{{1,7}}|{_WORDS})(?![A-Za-z0-9])"
"""A pattern for a run of letters and digits that is not random: a short one, a number, or words in camelCase or capitals, with a number of
up to 4 digits behind them."""

LETTERS: Final = 12
"""From so many letters on, a run of letters of one kind can be random, too."""

CERTAIN: Final = rf"(?:{PLAIN}[._~+/=-]){{0,4}}+(?!{PLAIN})[A-Za-z0-9]"
"""A pattern for the beginning of a text one of whose first parts is random. It reads a bounded number of them."""

LIKELY: Final = rf"(?:(?![A-Za-z]{{{LETTERS}}}){PLAIN}[._~+/=-]){{0,4}}+[A-Za-z]{{{LETTERS}}}"
"""A pattern for the beginning of a text one of whose first parts is of letters: `has_random_letters` decides."""

_DISTINCT = 12
"""Hardly any word has so many different letters; it means over 3.5 bits of entropy for each letter."""

_LONG = 24
"""No word has so many letters."""

_LOOKED_AT = 256
"""How many characters of a text are looked at."""

_RANDOM = re.compile(rf"(?<![A-Za-z0-9])(?!{PLAIN})[A-Za-z0-9]")
_WORD = re.compile(rf"(?<![A-Za-z0-9])(?:[A-Z]?[a-z]{{{LETTERS - 1},}}+|[A-Z]{{{LETTERS},}}+)(?![A-Za-z0-9])")


def is_random(text: str) -> bool:
    """Whether a part of `text` between signs is random: of letters and digits that are no words, or letters that are too many, or of too
    many kinds, for a word."""
    return _RANDOM.search(text, 0, _LOOKED_AT) is not None or has_random_letters(text)


def has_random_letters(text: str) -> bool:
    """Whether a part of `text` is of letters that are too many, or of too many kinds, for a word."""
    words = _WORD.findall(text, 0, _LOOKED_AT)
    return max(map(len, map(set, words)), default=0) >= _DISTINCT or max(map(len, words), default=0) >= _LONG
