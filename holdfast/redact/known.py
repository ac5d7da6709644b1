"""Secrets that the program knows, in every spelling in which a text can have them.

A secret stands in a text as it is, in JSON (also in JSON that is a text of other JSON), in a URL (also encoded twice) or in XML; or its
bytes stand in base64, alone or among other bytes, so that they begin at one of three places.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode
from typing import Final, NamedTuple

from holdfast.redact.mask import MASK, SHORTEST, storable

_PIECE = re.compile(r"[A-Za-z0-9]+")
_ESCAPES: Final = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_URL_SAFE: Final = {"+": "-", "/": "_"}
_BACKSLASHES: Final = r"\\{1,8}"
"""Each level of JSON in JSON doubles the backslashes; three levels are found. A bound, so that a long run of them is read once."""


class _Spelling(NamedTuple):
    piece: str  # of the secret: a text without it need not be searched
    pattern: re.Pattern[str]


_known: frozenset[str] = frozenset()
_spellings: tuple[_Spelling, ...] = ()  # replaced, never changed: threads log, too


def remember(secret: str | bytes) -> None:
    """Mask exactly this secret wherever it occurs from now on, in each of its spellings.

    Secrets under 8 characters are ignored: they would mask ordinary words.
    """
    global _known, _spellings
    try:
        text = storable(secret.decode() if isinstance(secret, bytes) else secret).strip()
        raw = text.encode()
    except UnicodeDecodeError:
        text, raw = "", bytes(secret)  # type: ignore[arg-type]
    name = text or raw.hex()
    if len(text or raw) < SHORTEST or name in _known or name in MASK:
        return
    _known |= {name}
    _spellings += (*((_spelling(text),) if text else ()), *(_in_base64(raw, offset) for offset in range(3)))


def mask(value: str) -> str:
    """`value` with every remembered secret masked. Where two overlap, as one secret that begins another, both are."""
    spans = [
        match.span() for piece, pattern in _spellings if piece in value for match in pattern.finditer(value) if match.end() > match.start()
    ]
    return _without(value, spans) if spans else value


def _without(value: str, spans: list[tuple[int, int]]) -> str:
    kept: list[str] = []
    at, masked_to = 0, -1
    for start, end in sorted(spans):
        if start > masked_to:
            kept += (value[at:start], MASK)
        masked_to = at = max(end, masked_to)
    return "".join((*kept, value[at:]))


def _spelling(secret: str) -> _Spelling:
    piece = max(_PIECE.findall(secret), key=len, default="")
    return _Spelling(piece, re.compile("".join(map(_spelled, secret))))


def _in_base64(raw: bytes, offset: int) -> _Spelling:
    """The secret within base64 whose other bytes are unknown: `offset` is the number of bytes before it, modulo 3. The characters at its
    ends, which also have bits of its neighbours, can be any."""
    first, last = (0, 2, 3)[offset], (offset + len(raw)) * 8 // 6
    core = b64encode(bytes(offset) + raw).decode()[first:last]
    edge = "[A-Za-z0-9+/_-]"
    before, behind = f"{edge}?" if offset else "", f"{edge}?" if (offset + len(raw)) % 3 else ""
    piece = max(_PIECE.findall(core), key=len, default="")
    return _Spelling(piece, re.compile(before + "".join(map(_spelled_in_base64, core)) + behind + "={0,2}"))


def _spelled_in_base64(letter: str) -> str:
    return f"(?:{_spelled(letter)}|{_URL_SAFE[letter]})" if letter in _URL_SAFE else letter


def _spelled(letter: str) -> str:
    """A pattern for one character, in every spelling. Encoders leave letters and digits as they are."""
    if letter.isascii() and letter.isalnum():
        return letter
    ways = [re.escape(letter)]
    ways.append("".join(rf"%(?:25){{0,2}}(?i:{byte:02x})" for byte in letter.encode()))
    units = letter.encode("utf-16-be")
    ways.append("".join(rf"{_BACKSLASHES}u(?i:{units[at : at + 2].hex()})" for at in range(0, len(units), 2)))
    if letter in _ESCAPES:
        ways.append(_BACKSLASHES + _ESCAPES[letter])
    if letter == "\n":  # a key of several lines, read from a file of Windows or written to one
        ways += [r"\r\n", rf"{_BACKSLASHES}r{_BACKSLASHES}n", "%0[dD]%0[aA]"]
    if letter in "/\"'\\":
        ways.append(_BACKSLASHES + re.escape(letter))
    if letter == " ":
        ways.append(r"\+")
    if (entity := html.escape(letter)) != letter:
        ways.append(re.escape(entity))
    return f"(?:{'|'.join(ways)})"
