"""Tokens and keys that are known by their shape: the prefix of a provider, a JWT, a private key, what follows "Bearer".

Each pattern takes time in proportion to the text: once its prefix is there, it either fails within a bounded number of characters, or
takes all that can belong to the token, whether it is one or not, so that no character is read again and again.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from holdfast.redact.mask import MASK
from holdfast.redact.randomness import CERTAIN, LIKELY, has_random_letters

_OWN: Final = (
    # Prefixes that no word and no name has: any 10 characters behind it are a secret.
    *("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-", "sk-ant-", "sk-or-v1-", "sk-lf-", "pk-lf-", "sk_live_", "rk_live_", "whsec_"),
    *("nvapi-", "tgp_v1_", "pcsk_", "lsv2_pt_", "lsv2_sk_", "tvly-", "pylf_v1_", "AIza", "GOCSPX-", "ya29.", "ops_eyJ", "pypi-AgE"),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-", "glimt-"),
    *("xoxa-", "xoxb-", "xoxe-", "xoxe.xox", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "hvs.", "hvb.", "dp.pt.", "dp.st.", "doo_v1_", "dop_v1_"),
    *("dckr_pat_", "dckr_oat_", "shpat_", "shpca_", "shppa_", "shpss_", "sq0atp-", "sq0csp-", "lin_api_", "PMAK-", "NRAK-", "glsa_"),
    *(
        "sntrys_eyJ",
        "sntryu_",
        "pscale_tkn_",
        "pscale_pw_",
        "AGE-SECRET-KEY-1",
        "ATATT3",
        "ATCTT3",
        "pat-na1-",
        "pat-eu1-",
        "bedrock-api-key-",
    ),
)
_SHARED: Final = (
    # Names have them, too (`sk-southwest1`, `pplx-70b-online`, `npm_config_registry`): what is behind it has to look random.
    *("sk-", "sk_", "rk_test_", "pk_live_", "pk_test_", "gsk_", "xai-", "csk-", "pplx-", "hf_", "api_org_", "r8_", "fw_", "jina_", "e2b_"),
    *("npm_", "rubygems_", "secret_", "AQ.", "SG.", "LTAI", "EAAA", "xapp-", "ntn_", "figd_", "sbp_", "sb_secret_", "vcp_", "pul-", "pnu_"),
    *("napi_", "nfp_", "fo1_", "HRKU-", "rdme_", "sgp_", "CFPAT-", "tfp_", "EZAK", "EZTK", "wandb_v1_", "xkeysib-"),
)
_EXACT: Final = {
    # Fixed lengths, where ids begin in the same way. The ids of AWS users and roles (AIDA, AROA) and Twilio's AC are no secrets.
    "[A-Z0-9]{16}(?![A-Za-z0-9])": ("AKIA", "ASIA", "ABIA", "ACCA"),
    "[0-9a-f]{32}(?![A-Za-z0-9])": ("SK", "dapi", "key-", "fc-"),
    "[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])": ("pa-",),
    "[A-Za-z0-9]{8}_[A-Za-z0-9]{24}(?![A-Za-z0-9])": ("re_",),
    "[A-Za-z0-9+/_-]{32,}+={0,2}": ("ABSK", "glc_", "fm1r_", "fm1a_", "fm2_"),
}
_RUN: Final = "[A-Za-z0-9_-]"


def _is_jwt(token: str) -> bool:
    parts = token.split(".")
    return len(parts) > 2 or (len(parts) == 2 and parts[1].startswith("eyJ"))


def _is_basic(token: str) -> bool:
    credentials = token[6:].lstrip(" ")
    return b":" in a2b_base64(credentials[: len(credentials) // 4 * 4])


_Check: TypeAlias = Callable[[str], bool] | None
"""Whether a text of a shape is a secret; None: it always is."""


_ESCAPED: Final = r"(?:(?<=\\)[nrtbf]|(?<=\\)u[0-9A-Fa-f]{4}|(?<=%)[0-9A-Fa-f]{2})(?=[A-Za-z0-9+])"
"""The rest of an escape, a line feed in JSON or a character in a URL: no part of the word behind it."""


class _Family(NamedTuple):
    prefixes: tuple[str, ...]
    bodies: tuple[tuple[str, _Check], ...]  # what can follow them
    alone: bool = False  # whether a short prefix within a name, as in `task-sk-1`, is a part of that


_DOTTED: Final = rf"{_RUN}++(?:\.{_RUN}{{6,}}+){{0,3}}+"
_BLANK: Final = r"(?:[\s+]|%20){1,4}+"
_CREDENTIALS: Final = "[A-Za-z0-9._~+/=-]"
_FAMILIES: Final = (
    _Family(_OWN, ((rf"(?={_RUN}{{10}}){_DOTTED}", None),)),
    _Family(
        _SHARED,
        (
            (rf"(?={_RUN}{{12}})(?={CERTAIN}){_DOTTED}", None),
            (rf"(?={_RUN}{{12}})(?={LIKELY}){_DOTTED}", has_random_letters),
        ),
        alone=True,
    ),
    *(_Family(prefixes, ((body, None),)) for body, prefixes in _EXACT.items()),
    _Family(("eyJ",), ((rf"(?={_RUN}{{8}}){_RUN}++(?:\.{_RUN}*+){{0,4}}+", _is_jwt),)),
    _Family(
        ("bearer", "Bearer", "BEARER"),
        (
            (rf"{_BLANK}(?={_CREDENTIALS}{{8}})(?={CERTAIN}){_CREDENTIALS}++", None),
            (rf"{_BLANK}(?={LIKELY}){_CREDENTIALS}++", has_random_letters),
            (rf"{_BLANK}\[redacted\]", None),
        ),
    ),
    _Family(("basic", "Basic", "BASIC"), ((rf"{_BLANK}[A-Za-z0-9+/]{{8,}}+={{0,2}}", _is_basic), (rf"{_BLANK}\[redacted\]", None))),
)


def _scanner() -> tuple[re.Pattern[str], tuple[_Check, ...]]:
    """All families by their first letters, so that `re` decides at most places by one letter; and the checks by the number of the empty
    group at the end of each body.

    A token begins after a character that is no letter and no digit, or after an escape: a line feed in JSON, a character in a URL.
    """
    letters: dict[str, list[str]] = {}
    checks: list[_Check] = []
    for first in sorted({prefix[0] for family in _FAMILIES for prefix in family.prefixes}):
        for family in _FAMILIES:
            if rest := "|".join(_rest(prefix, family.alone) for prefix in family.prefixes if prefix[0] == first):
                letters.setdefault(first, []).append(f"(?:{rest})(?:{'|'.join(f'{body}()' for body, _ in family.bodies)})")
                checks += (check for _, check in family.bodies)
    found = "|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in letters.items())
    return re.compile(rf"([^A-Za-z0-9](?=[A-Za-z0-9])(?:{_ESCAPED})?)(?:{found})"), tuple(checks)


def _rest(prefix: str, alone: bool) -> str:
    own = re.escape(prefix)
    return own[1:] + (f"(?<![_-]{own})" if alone and len(prefix) < 7 else "")


_SCANNER, _CHECKS = _scanner()

_BREAK: Final = r"(?:\s|\\{1,4}[rn]|%0[AaDd]|[\"'+,])"
_TO_DASHES: Final = "[^-]*+(?:-{1,4}(?!-)[^-]*+)*+"
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    rf"(?={_BREAK}{{0,16}}+(?:[A-Za-z0-9+/=]{{16}}|Proc-Type:|Version:|Comment:))"
    rf"(?:{_TO_DASHES}-----END [A-Z0-9 ]{{0,40}}-----|(?:{_BREAK}{{0,16}}+[A-Za-z0-9+/=]{{16,}}+)++|{_TO_DASHES})"
)
"""A private key with all its lines, also where they are joined by escapes. Where its end was cut off, up to the last long line; with
headers, up to the next dashes."""

_AZURE: Final = re.compile(r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}")
_TELEGRAM: Final = re.compile(r"(?<![0-9])[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])")
_BARE: Final = re.compile(
    rf"([^A-Za-z0-9+/_.-](?=[A-Za-z0-9+/]{{40}})(?:{_ESCAPED})?)(?=[A-Za-z0-9+])"
    r"(?=(?:[a-z]++|[A-Z]++|[0-9+/]++){15})(?=[^a-z]{0,39}[a-z])(?=[^A-Z]{0,39}[A-Z])(?=[^0-9]{0,39}[0-9])(?!(?:[A-Za-z0-9+]*+/){4})"
    r"(?:[A-Za-z0-9+/]{40}|[A-Za-z0-9+/]{86}==)(?![A-Za-z0-9+/=_-]|\.[A-Za-z])"
)
"""The secret keys of AWS and of Azure's storage accounts have no prefix, only a length, and letters and digits that take turns as they do
at random. Hexadecimal digests, which have letters of one case, and paths, which have slashes, are none."""

_BARE_LENGTH: Final = 40


def mask(value: str) -> str:
    """`value` with every token and key masked that has a known shape."""
    if "-----BEGIN" in value:
        value = _PEM.sub(MASK, value)
    value = _SCANNER.sub(_masked, f" {value}")
    if "Q~" in value:
        value = _AZURE.sub(MASK, value)
    if ":AA" in value:
        value = _TELEGRAM.sub(MASK, value)
    return (_BARE.sub(_masked_bare, value) if len(value) > _BARE_LENGTH else value)[1:]


def _masked(match: re.Match[str]) -> str:
    check = _CHECKS[(match.lastindex or 2) - 2]
    before: str = match[1]
    return before + MASK if check is None or check(match[0][len(before) :]) else match[0]


def _masked_bare(match: re.Match[str]) -> str:
    before: str = match[1]
    return before + MASK
