"""Where a value stands under a name, as in a dict, the name decides, too."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from holdfast import redact
from holdfast.console.reading.values import masked
from holdfast.telemetry import logs


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PGPASSWORD",
        "userPassword",
        "api_key",
        "X-Api-Key",
        "apiKey",
        "Authorization",
        "set-cookie",
        "client_secret",
        "passwords",
    ],
)
def test_a_value_under_the_name_of_a_secret_is_masked(name: str) -> None:
    assert redact.is_secret(name) is True
    assert redact.text("a", name) == redact.MASK
    assert redact.text("", name) == ""


@pytest.mark.parametrize("name", ["token", "credential", "sig", "auth"])
def test_under_a_name_that_others_have_a_value_that_looks_random_is_masked(name: str) -> None:
    assert redact.is_secret(name) is None
    assert redact.text("9f86d081884c7d65", name) == redact.MASK
    assert redact.text("Hello there, you", name) == "Hello there, you"


@pytest.mark.parametrize("name", ["", "key", "keyboard", "password_policy", "token_count", "user", "secretary", "name" * 100_000])
def test_other_names_decide_nothing(name: str) -> None:
    assert redact.is_secret(name) is False
    assert redact.text("9f86d081884c7d65", name) == "9f86d081884c7d65"


def test_the_keys_of_plain_data_decide_at_each_depth() -> None:
    value: dict[Any, Any] = {
        "user": "ann",
        "password": "a",
        "pin": 1234,
        "headers": [{"authorization": ["Bearer x", b"y"]}, {b"password": "stays"}],
        "passwd": 1234,
        "secret": {"type": "string", "api_key": None},
        "private_key": True,
        "tokens": 15,
        1: "one",
    }
    assert masked(value) == {
        "user": "ann",
        "password": "[redacted]",
        "pin": 1234,
        "headers": [{"authorization": ["[redacted]", "[redacted]"]}, {"b'password'": "stays"}],
        "passwd": "[redacted]",
        "secret": {"type": "string", "api_key": None},
        "private_key": True,
        "tokens": 15,
        "1": "one",
    }


def test_the_fields_of_a_log_line_decide() -> None:
    record = logging.LogRecord("shop", logging.INFO, "", 0, "login", None, None)
    record.__dict__ |= {"password": "a", "api_key": 1234, "order": "o1", "request": {"password": "b"}}
    line = logs.JsonFormatter().format(record)
    assert '"password":"[redacted]"' in line
    assert '"api_key":"[redacted]"' in line
    assert '"order":"o1"' in line
    assert "'b'" not in line
