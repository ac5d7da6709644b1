"""Real processes on one SQLite file, killed and robbed of their files: never two writers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("rounds", [3, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_rivals_never_write_in_between(tmp_path: Path, rounds: int) -> None:
    """Each owner finds the count of writes that its own last write left, whatever was removed, and whoever died or forked."""
    command = [sys.executable, "-m", "tests.chaos.sqlite_rivals", str(tmp_path), "0", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each for each in found if each["wrong"]] == []
    assert len(found) == rounds
    assert sum(each["writes"] for each in found) > 5 * rounds
    assert sum(each["owners"] for each in found) > rounds
