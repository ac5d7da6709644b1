"""Recorded work under a real SIGKILL: ten conversations of the airline, where their data are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.airline.__main__ import BROKEN, DATA, MISSING, main
from benchmarks.airline.books import read

present = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded conversations are not beside the checkout")


def run(tmp_path: Path, *arguments: str) -> dict[str, object]:
    """Run ten conversations with one kill; what was counted."""
    out = tmp_path / "out.json"
    options = ["--first", "10", "--concurrency", "10", "--kills", "1", "--pace", "0.5", "--deadline-s", "50"]
    code = main([*options, "--folder", str(tmp_path / "run"), "--json", str(out), *arguments])
    counted: dict[str, object] = json.loads(out.read_text())
    assert code == 0, counted
    return counted


def check(counted: dict[str, object]) -> None:
    zero = ("writes_twice", "writes_missing", "messages_lost", "answers_differing", "answers_bought_twice", "worlds_differing")
    assert {name: counted[name] for name in zero} == dict.fromkeys(zero, 0)
    assert counted["turns_answered"] == counted["turns"]
    assert counted["writes_made"] == counted["writes_expected"]
    assert counted["outputs_as_uninterrupted"] == counted["outputs_compared"] == counted["tool_calls"]
    assert (counted["kills"], counted["kills_with_open_step"]) == (1, 1)
    assert len(list(read(Path(str(counted["ledger"]))))) == counted["writes_made"]


@present
def test_ten_conversations_with_one_kill_are_answered_and_nothing_is_done_twice(tmp_path: Path) -> None:
    """On SQLite: every answer, every output and every table is what it is without the kill."""
    counted = run(tmp_path)
    check(counted)
    assert counted["conversations"] == 10
    assert int(str(counted["steps_replayed"])) > 0


@present
@pytest.mark.slow
def test_ten_conversations_with_one_kill_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    """The same promises."""
    check(run(tmp_path, "--store", postgres_url))


def test_data_that_are_missing_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and no traceback."""
    assert main(["--data", str(tmp_path)]) == MISSING != BROKEN
    said = capsys.readouterr().err
    assert said.startswith("airline: ")
    assert "--data" in said
    assert said.count("\n") == 1
