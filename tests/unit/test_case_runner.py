"""The runner of the case programs sees a case that fails, dies, hangs or says nothing."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.cases import running
from tests.cases.running import Cases, Ran, names


def run(folder: Path, code: str) -> Ran:
    """Run one case of this code."""
    script = folder / "some" / "01_case.py"
    script.parent.mkdir()
    script.write_text(textwrap.dedent(code))
    cases = Cases(folder, ["some/01_case"])
    try:
        return cases.result("some/01_case")
    finally:
        cases.close()


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("print('HOLDS one')\nprint('a note that says FAILS')", None),
        ("print('HOLDS one')\nprint('FAILS two: seen')", "FAILS two: seen"),
        ("print('HOLDS one')\nraise SystemExit(3)", "exit status 3"),
        ("print('HOLDS one')\nprint('ERROR not ended')", "it printed ERROR"),
        ("print('nothing')", "it printed no verdict"),
    ],
)
def test_a_case_holds_only_if_it_ends_well_and_every_line_holds(code: str, fault: str | None, tmp_path: Path) -> None:
    """As the README of the cases says."""
    assert run(tmp_path, code).fault == fault


def test_a_case_that_hangs_is_killed_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child holds the pipe open: the run would wait for it."""
    monkeypatch.setattr(running, "LIMIT_S", 1.0)
    ran = run(tmp_path, "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])")
    assert ran.fault == "still running after 1 s: killed"


def test_a_case_runs_in_its_folder_with_this_checkout(tmp_path: Path) -> None:
    """It imports the files beside it, and the holdfast of this checkout."""
    ran = run(tmp_path, "import os, holdfast\nprint(os.getcwd(), holdfast.__file__)\nprint('HOLDS one')")
    assert ran.fault is None
    assert ran.out.split()[:2] == [str(tmp_path / "some"), str(running.ROOT / "holdfast" / "__init__.py")]


def test_a_case_that_lacks_the_rights_says_so(tmp_path: Path) -> None:
    """It is skipped, and neither held nor failed."""
    assert run(tmp_path, "raise SystemExit('needs root, for a small tmpfs')").needs_root


def test_only_numbered_files_are_cases(tmp_path: Path) -> None:
    """What the cases share stands beside them."""
    for name in ("core/02_two.py", "core/kit.py", "calls/01_one.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["calls/01_one", "core/02_two"]
    assert names(tmp_path / "absent") == []
