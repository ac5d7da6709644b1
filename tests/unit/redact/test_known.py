"""Secrets that the program knows: found in each spelling in which a text can have them, and nothing else is."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import anthropic
import openai
import pytest

from holdfast import redact
from holdfast.calls.models.keys import remember_keys
from holdfast.redact import known

SECRETS = (
    "hunter2-correct/horse+battery=",
    "p@$$ (w)[o]rd.*+?^|{2}",
    "tr\"\u00e8s\\s'<cret>\n\U0001f600&line\ttab",
    "plainletters",
    "a" * 9,
    "-----BEGIN KEY-----\nAbC\nDeF\n",
)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test knows only its own secrets."""
    monkeypatch.setattr(known, "_known", frozenset())
    monkeypatch.setattr(known, "_spellings", ())


def spelled(secret: str) -> Iterator[str]:
    """The secret as it can stand in a text."""
    yield secret
    in_json = json.dumps(secret)[1:-1]
    yield from (in_json, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(in_json)[1:-1], json.dumps(json.dumps(in_json))[1:-1])
    yield in_json.replace("/", "\\/").replace("<", "\\u003c").replace("+", "\\u002B")
    in_url = quote(secret, safe="")
    yield from (quote(secret), in_url, quote_plus(secret), quote(in_url, safe=""))
    yield from (re.sub("%..", lambda sign: sign[0].lower(), in_url), re.sub("%..", lambda sign: sign[0].lower(), quote(in_url)))
    yield from (html.escape(secret), secret.replace("\n", "\r\n"))
    for before in ("", "u", "u:", "user:"):
        for behind in ("", "!", "!!", "\u00e9"):
            encoded = base64.b64encode(f"{before}{secret}{behind}".encode()).decode()
            yield from (
                encoded,
                encoded.rstrip("="),
                encoded.replace("+", "-").replace("/", "_"),
                encoded.replace("/", "\\/"),
                quote(encoded),
            )


@pytest.mark.parametrize("secret", SECRETS)
def test_a_known_secret_is_found_in_each_spelling(secret: str) -> None:
    """JSON, JSON in JSON, URLs in both cases and encoded twice, HTML, lines of Windows, base64 at each place."""
    redact.remember(secret)
    for text in spelled(secret.strip()):
        found = redact.text(f"<<{text}>>")
        assert redact.MASK in found, text
        left = found.replace(redact.MASK, "").replace("%3D", "").strip("<>=")
        assert len(left) <= 10, (text, found)  # what stands before and behind it in base64


@pytest.mark.parametrize("first", [0, 1])
def test_one_secret_that_begins_another_leaves_nothing_of_it(first: int) -> None:
    secrets = ["correct-horse-1", "correct-horse-1-battery-2"]
    redact.remember(secrets[first])
    redact.remember(secrets[1 - first])
    assert redact.text(f"a {secrets[0]} b {secrets[1]} c") == "a [redacted] b [redacted] c"


def test_secrets_that_overlap_leave_nothing_of_either() -> None:
    redact.remember("one-two-three")
    redact.remember("three-four-five")
    assert redact.text("x one-two-three-four-five y") == "x [redacted] y"


@pytest.mark.parametrize("short", ["", "a", "hunter2", " \n ", "a      "])
def test_a_very_short_secret_masks_no_words(short: str) -> None:
    redact.remember(short)
    text = "a banana is no hunter2"
    assert redact.text(text) == text


def test_bytes_are_remembered_as_text_and_in_base64() -> None:
    redact.remember(b"hunter-two-three")
    redact.remember(b"\xff\xfe\x00binary-key")
    encoded = base64.b64encode(b"k\xff\xfe\x00binary-key").decode()
    assert redact.text(f"hunter-two-three, {encoded}.") == f"[redacted], {encoded[:1]}[redacted]."


def test_a_secret_with_characters_that_no_store_takes_is_masked() -> None:
    redact.remember("half \ud83d and \0 zero")
    assert redact.text("<half \ud83d and \0 zero>") == "<[redacted]>"


def test_what_clients_authenticate_with_is_known() -> None:
    """Their keys, their own headers and parameters, the password in their URL; but no name of a content type or a server."""
    remember_keys(
        openai.AsyncOpenAI(
            api_key="of-openai-key",
            webhook_secret="of-the-webhook",
            base_url="http://gateway-user:of-the-url@gateway.test/v1",
            default_headers={"X-Gateway-Key": "Token of-the-header", "Accept": "application/json"},
            default_query={"subscription-key": "of-the-query"},
        )
    )
    remember_keys(anthropic.AsyncAnthropic(auth_token="of-anthropic-key"))
    remember_keys(openai.AsyncOpenAI(api_key="lm-studio"))
    for secret in ("of-openai-key", "of-the-webhook", "of-the-url", "of-the-header", "of-the-query", "of-anthropic-key"):
        assert redact.text(f"no {secret}.") == "no [redacted].", secret
    ordinary = "application/json from lm-studio at gateway.test by gateway-user"
    assert redact.text(ordinary) == ordinary
