"""Real processes on one SQLite file, in random orders of starts, stops, kills, forks and lost files: never two writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PROGRAMS = 2
COMMON = ("opened", "refused", "written", "lost", "close", "kill", "fork", "remove_lock", "replace_lock", "reuse", "move", "remove_wal")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of files are made and removed."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


@pytest.mark.parametrize("rounds", [120, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(2400)])])
def test_in_any_order_one_process_writes_and_each_refusal_names_it(folder: Path, rounds: int) -> None:
    """Whatever was removed, replaced or forked: an owner or nobody can write, and once all have ended nothing keeps the next one out."""
    each, programs = rounds // PROGRAMS, []
    for number in range(PROGRAMS):
        place = folder / str(number)
        place.mkdir()
        command = [sys.executable, "-m", "tests.chaos.sqlite_orders", str(place), str(number * each), str(each)]
        # The log of a long run has thousands of lines about files that were removed; a pipe would be full before anybody reads it.
        with (folder / f"{number}.err").open("w") as log:
            programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True))
    printed = [program.communicate()[0] for program in programs]
    for number, program in enumerate(programs):
        assert program.returncode == 0, (folder / f"{number}.err").read_text()[-5000:]
    happened = sum((Counter(json.loads(each)) for each in printed), Counter[str]())
    assert {what: happened[what] for what in COMMON if happened[what] < rounds / 20} == {}
