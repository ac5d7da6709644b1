"""Secrets that are known by their name: `password=...`, `"api_key": "..."`, an authorization header, a user and password in a URL.

The word has to end the name: the values of `password_policy` and `token_count` are no secrets. As in `tokens`, no pattern reads a character
again and again: once a name is there, it fails within a bounded number of characters, or takes the value whole.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from holdfast.redact.mask import MASK
from holdfast.redact.randomness import CERTAIN, is_random

_KEYS: Final = (
    *("api", "access", "account", "application", "private", "secret", "signing", "encryption", "master", "shared", "subscription"),
    *("service", "storage", "auth"),
)
_TOKENS: Final = ("access", "refresh", "auth", "id", "api", "session", "security", "bot", "bearer", "sas", "personal")


_ENDS: Final = r"[\\\"'`\]\s=:>%]|\Z"
"""What can follow a name."""


def _ends(word: str, firsts: tuple[str, ...]) -> str:
    """A lookbehind: that `word`, which was just read, ends such a name as `api_key`, `apiKey`, `api-key` or `api key`."""
    return "|".join(f"(?<=(?i:{first}{sign}{word}))" for first in firsts for sign in ("", "[_ .-]"))


def _words(*rest: tuple[str, str]) -> str:
    """Words by their first letter, in both cases: `re` skips a text quickly if each alternative of a pattern begins with a letter."""
    return "(?:" + "|".join(f"{case}(?i:{word})" for first, word in rest for case in (first, first.upper())) + ")"


# What is given under these names is a secret, whatever it is.
_STRONG: Final = _words(
    ("p", "ass(?:word|wd|phrase|code)"),
    ("s", "ecret"),
    ("k", f"ey(?={_ENDS})(?:{_ends('key', _KEYS)})"),
    ("t", f"oken(?={_ENDS})(?:{_ends('token', _TOKENS)})"),
)
# Other things have these names, too (a token of a parser, the pass of a test): what is given has to look random.
_WEAK: Final = _words(("t", "oken"), ("p", "wd|ass"), ("c", "redentials?"), ("a", "uth"), ("s", "ig(?:nature)?"))

_LIKE_NOTHING: Final = (
    r"\\{0,7}[\"'`](?!\w)|\s{0,4}(?:[,;:)}\]]{1,3}\s{0,4}(?:\\{0,7}[\"'`{\[]|\Z)|\Z)|\[redacted|(?i:none|null|nil|true|false|undefined|str|string|bytes|int)(?![\w-])|[*x.\u2022]{3,}+(?!\w)"
    r"|\$[{(]|\$[A-Z_]{1,64}+(?!\w)|\{|<|%\(|%s(?!\w)"
)
"""Values that are none: an empty text (or a quote that ends one), a type, a placeholder, a variable of a template."""

_LIKE_CODE: Final = (
    r"(?:[a-z_.]{3,64}|(?:[A-Z][a-z]{1,20}){1,4})[(\[]|(?:[A-Za-z_]\w{0,32}\.){1,3}(?i:\w{0,16}(?:key|password|token|secret))(?![\w-])"
)
"""In a traceback: a call, a subscript, an attribute."""

_BARE: Final = r"[^\s\"'`,;&<>\\]"
_OPENED: Final = r"(?:[bBrRuUfF]{0,2}\\{0,7}[\"'`])"
_NAMED: Final = r"\\{0,7}[\"'`]?\]?\s{0,4}"  # from the end of the name to the sign
_EQUALS: Final = r"(?:=>|:=|={1,2}|%3[dD])\s{0,4}"
_COLON: Final = r":\s{0,4}"
_ODD: Final = r"(?=\S{6})(?=[A-Za-z]{0,32}[^A-Za-z\s.,;:!?'\"`(){}\[\]<>\\-])"
"""With a digit or a sign in its first word: in prose, a word follows the colon (`password: incorrect`)."""

_OPTION: Final = "|".join(
    f"(?<=(?i:--{name}))"
    for name in ("password", "passwd", "secret", "api-key", "secret-key", "access-key", "client-secret", "access-token")
)
"""An option of a command line: its value is the next word, or the next text of a list."""

_SOME: Final = f"(?!{_LIKE_NOTHING})"
_AFTER_STRONG: Final = (
    rf"(?:{_NAMED}(?:{_EQUALS}(?:{_OPENED}|(?!{_LIKE_CODE})){_SOME}|{_COLON}{_OPENED}{_SOME}|(?:{_COLON}|(?<!=)>){_SOME}{_ODD})"
    rf"|(?:{_OPTION})(?:\s{{1,4}}|[\"'],\s?(?=[\"'])){_OPENED}?{_SOME}(?!-))"
)
_AFTER_WEAK: Final = rf"{_NAMED}(?:{_EQUALS}|{_COLON}){_OPENED}?(?=[A-Za-z0-9._~+/-]{{12}})(?={CERTAIN})"
_VALUE: Final = (
    "(?:"
    r"(?<=\\\\[\"'])[^\"']*+"  # in JSON within JSON within JSON: to the next quote
    r"|(?<=\\\")[^\"\\]*+(?:\\{2,}+.[^\"\\]*+)*+"  # in JSON within JSON: to the next quote that has one backslash
    r"|(?<=\\')[^'\\]*+"
    r"|(?<=\")[^\"\\]*+(?:\\.[^\"\\]*+)*+"
    r"|(?<=')[^'\\]*+(?:\\.[^'\\]*+)*+"
    r"|(?<=`)[^`]*+"
    rf"|{_BARE}++"
    ")"
)
_SURE: Final = re.compile(f"({_STRONG}{_AFTER_STRONG}){_VALUE}", re.DOTALL)
_UNSURE: Final = re.compile(f"({_WEAK}{_AFTER_WEAK}){_VALUE}", re.DOTALL)
_SIGN: Final = re.compile("[=:>]|%3[dD]|--")
"""What stands between a name and its value: a text without it, such as an id, has no named value."""

_AUTHORIZATION: Final = re.compile(
    rf"((?i:authorization){_NAMED}[:=]>?\s{{0,4}}{_OPENED}?)(?!{_LIKE_NOTHING})"
    r"((?i:bearer|basic|token|digest|negotiate|ntlm|oauth|api-?key|key|splunk|aws4-hmac-sha256)(?:[\s+]|%20){1,4}+)?"
    rf"(?!\[redacted)({_BARE}++)((?=\s*+(?:\Z|[\"'\\,;\r\n])))?"
)
_COOKIE: Final = re.compile(rf"((?i:cookie){_NAMED}:\s{{0,4}}{_OPENED}?)[^\s\"'\\;=]{{1,64}}=[^\r\n\"'\\]*+")
_IN_URL: Final = r"[^\s\"'<>`\\@/?#]"
_URL: Final = re.compile(
    r"(:\\{0,7}/\\{0,7}/(?:"
    rf"[^\s\"'<>`\\@/?#:]*+:(?!{_LIKE_NOTHING}|\*)(?={_IN_URL}++@(?!sha256:)|(?<!\[:)(?![0-9]*+[/?#])[^\s\"'<>`\\@:]++@(?!sha256:))"
    rf"|(?={_IN_URL}{{16}})(?={CERTAIN})(?=[^\s\"'<>`\\@/?#:]++@)"
    "))"
    rf"[^\s\"'<>`\\@]++(?:@{_IN_URL}*+(?=@))*+(?=@)"
)
"""A password, or a user that is a token. One that is not encoded can have any character: it ends at the last "@" of the host, or, where
that has none, at the first one behind it. A port is no password, and the tag of an image is none."""


def mask(value: str) -> str:
    """`value` with what stands under the name of a secret masked; the names stay."""
    if "@" in value and ("://" in value or "\\/" in value):
        value = _URL.sub(_masked, value)
    if "uthorization" in value or "UTHORIZATION" in value:
        value = _AUTHORIZATION.sub(_without_credentials, value)
    if "ookie" in value or "OOKIE" in value:
        value = _COOKIE.sub(_masked, value)
    return _UNSURE.sub(_masked, _SURE.sub(_masked, value)) if _SIGN.search(value) else value


def _masked(match: re.Match[str]) -> str:
    head: str = match[1]
    return head + MASK


def _without_credentials(match: re.Match[str]) -> str:
    head, scheme, credentials, alone = match.groups()
    secret = is_random(credentials) or (scheme and alone is not None and len(credentials) >= 8)
    return f"{head}{MASK}" if secret else match[0]


_NAME: Final = re.compile(rf"(?:(?P<strong>{_STRONG}|(?i:authorization|cookie))|{_WEAK})s?\Z")


@lru_cache(4_096)
def is_secret(name: str) -> bool | None:
    """Whether what stands under this name is a secret: True, False, or None if it is one where it looks random."""
    found = _NAME.search(name, max(0, len(name) - 64))
    return False if found is None else bool(found["strong"]) or None


def mask_under(name: str, value: str) -> str:
    """A text that stands under a name, masked whole where both make it a secret."""
    secret = is_secret(name)
    return MASK if value and (secret or (secret is None and len(value) >= 12 and is_random(value))) else value
