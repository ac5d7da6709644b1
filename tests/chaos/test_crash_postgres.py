"""Real processes on Postgres that die at each of their batches, and others that take over from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.stores.postgres.dev import DevServer
from tests.chaos.test_crash_sqlite import KILLED, ROOT, results


def play(dsn: str, folder: Path, cases: list[str]) -> subprocess.Popen[str]:
    """Run cases in a program of their own, one after the other."""
    program = [sys.executable, "-m", "tests.chaos.postgres_lives", dsn, str(folder), *cases]
    return subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.timeout(180)
def test_a_process_killed_at_each_of_its_batches_leaves_a_database_to_go_on_from(tmp_path: Path, postgres_dev_server: DevServer) -> None:
    """Before a batch, with its outcome unknown, or after it, in turn: the next process opens it and finishes, nothing done twice."""
    dsn = postgres_dev_server.start_now()
    (undisturbed,), err = results(play(dsn, tmp_path, ["undisturbed"]))
    assert undisturbed["died"] == 0, err
    assert undisturbed["finished"] == 0, err
    commits = undisturbed["commits"]
    assert commits > 20
    cases = [f"{at}-{('before', 'during', 'after')[at % 3]}" for at in range(1, commits + 1)]
    programs = [play(dsn, tmp_path, cases[0::2]), play(dsn, tmp_path, cases[1::2])]
    for program in programs:
        played, err = results(program)
        assert [case for case in played if case["finished"] != 0] == [], err
        # Batches are not the same in each run: one that got by with fewer of them ends by itself.
        alive = [case for case in played if case["died"] != KILLED]
        assert len(alive) <= 8, (alive, err)
