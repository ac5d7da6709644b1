"""Real processes on SQLite that die at each of their commits, and others that take over from them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KILLED = 137


def play(folder: Path, cases: list[str]) -> subprocess.Popen[str]:
    """Run cases in a program of their own, one after the other."""
    program = [sys.executable, "-m", "tests.chaos.sqlite_lives", str(folder), *cases]
    return subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def results(program: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], str]:
    """What came of its cases, and what it had to say."""
    try:
        out, err = program.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)  # with whatever it forked
        raise
    assert program.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err


@pytest.mark.timeout(180)
def test_a_process_killed_at_each_of_its_commits_leaves_a_database_to_go_on_from(tmp_path: Path) -> None:
    """At each COMMIT of a turn with every class of effect, before one and after the next: the next process finishes, nothing done twice."""
    (undisturbed,), err = results(play(tmp_path, ["undisturbed"]))
    assert undisturbed["died"] == 0, err
    assert undisturbed["finished"] == 0, err
    commits = undisturbed["commits"]
    assert commits > 20
    cases = [f"{at}-{'before' if at % 2 else 'after'}" for at in range(1, commits + 1)]
    programs = [play(tmp_path, cases[0::2]), play(tmp_path, cases[1::2])]
    for program in programs:
        played, err = results(program)
        assert [case for case in played if case["finished"] != 0] == [], err
        # Batches are not the same in each run: one that got by with fewer commits ends by itself.
        alive = [case for case in played if case["died"] != KILLED]
        assert len(alive) <= 8, (alive, err)
