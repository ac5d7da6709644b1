"""Stored text on its way to a terminal."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import msgspec
import pytest
import typer

from holdfast.console.cli import options, words
from holdfast.console.cli.render import console
from holdfast.console.process import keeper
from holdfast.console.process.main import _Redacting
from holdfast.console.reading.values import clean, escaped, legible, plain

EVIL = "a\x1b]0;pwn\x07b\u202ec\u200bd\x9be\ufefff\U000e0041g"


@pytest.mark.parametrize("shown", [clean(EVIL), legible(EVIL), escaped(EVIL)])
def test_nothing_that_a_terminal_would_act_on_is_left(shown: str) -> None:
    """No escapes, no marks of direction, nothing invisible; the letters stay."""
    assert shown.isprintable()
    assert [letter for letter in "abcdefg" if letter not in shown] == []


def test_text_of_several_lines_keeps_its_lines_and_columns() -> None:
    """Line feeds and tabs stay, and every character where it was; JSON means what it meant."""
    text = f"one\n\ttwo {EVIL}\n"
    assert (len(legible(text)), legible(text)[:9]) == (len(text), "one\n\ttwo ")
    found = json.dumps({"x": text, "y": "\ud83d"}, ensure_ascii=False)
    assert json.loads(escaped(found)) == {"x": text, "y": "\ud83d"}


def test_a_large_value_is_named_by_its_size() -> None:
    """To search it for secrets would hold up the sessions of the process."""
    assert plain(msgspec.msgpack.encode("x" * 2_000_000)) == "(2,000,005 bytes, left out: show --turn N --whole prints them)"
    assert plain(msgspec.msgpack.encode("x" * 2_000)) == "x" * 2_000


@pytest.mark.parametrize("way", ["error", "reply", "json", "table", "complaint", "log"])
def test_no_way_to_the_terminal_prints_stored_text_as_it_is(way: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Errors, replies, JSON, tables, and the log."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    match way:
        case "error":
            with pytest.raises(typer.Exit):
                options.refuse(EVIL)
        case "reply":
            words.reply(EVIL)
        case "json":
            options.print_json({"x": EVIL})
        case "table":
            monkeypatch.setenv("NO_COLOR", "1")
            monkeypatch.setenv("TERM", "dumb")
            console().print(EVIL)
        case "complaint":
            keeper.complain(EVIL)
        case "log":
            print(_Redacting("%(message)s").format(logging.makeLogRecord({"msg": EVIL})))
    told = "".join(capsys.readouterr())
    assert "pwn" in told
    assert all(line.isprintable() for line in told.split("\n"))


def test_a_reply_in_a_pipe_is_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever reads it is no terminal."""
    words.reply(EVIL)
    assert capsys.readouterr().out == f"{EVIL}\n"
