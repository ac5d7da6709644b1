"""Runs the case programs, several at once, and reads their verdicts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("HOLDFAST_CASES") or ROOT.parent / "shared" / "cases")
"""Where the cases are: next to the checkout, unless the environment names another folder."""

LIMIT_S = 130.0
"""How long one case may run. Each ends itself earlier, and prints ERROR then."""

AT_ONCE = 4
"""Cases that run at the same time. They wait most of the time: on two cores four of them disturb each other little."""


@dataclass(frozen=True)
class Ran:
    """What a case printed, and how it ended.

    Attributes:
        out: its standard output.
        err: its standard error.
        status: its exit status, negative for a signal; None if it ran longer than its limit and was killed.
    """

    out: str
    err: str
    status: int | None

    @property
    def fault(self) -> str | None:
        """Why the case did not hold; None if it held: it ran to its end, and every verdict is HOLDS."""
        lines = self.out.splitlines()
        fails = [line for line in lines if line.startswith("FAILS ")]
        if self.status is None:
            return f"still running after {LIMIT_S:g} s: killed"
        if fails:
            return "\n".join(fails)
        if any(line.startswith("ERROR") for line in lines):
            return "it printed ERROR"
        if self.status != 0:
            return f"exit status {self.status}"
        if not any(line.startswith("HOLDS ") for line in lines):
            return "it printed no verdict"
        return None

    @property
    def needs_root(self) -> bool:
        """Whether the case ended at once because it needs rights that this run does not have."""
        return self.status != 0 and "needs root" in self.err and not self.out.strip()

    def __str__(self) -> str:
        return "\n".join(part.rstrip() for part in (self.out, self.err) if part.strip())


def names(folder: Path) -> list[str]:
    """The cases of a folder, as `core/02_one_bad_row`; none if there is no such folder."""
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.glob("*/[0-9]*.py"))


class Cases:
    """Runs cases in the background, in the order given."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="case")
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False
        self._results: dict[str, Future[Ran]] = {name: self._pool.submit(self._run, name) for name in names}

    def result(self, name: str) -> Ran:
        """Wait for the case to end, `LIMIT_S` after its start at the latest."""
        return self._results[name].result()

    def close(self) -> None:
        """End the cases that run, and begin no other one."""
        with self._lock:
            self._closed = True
            for process in self._running:
                _kill(process)
        self._pool.shutdown(cancel_futures=True)

    def _run(self, name: str) -> Ran:
        script = self._folder / f"{name}.py"
        # This checkout comes before a holdfast that is installed; no bytecode is written beside the cases.
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with self._lock:
            if self._closed:
                return Ran("", "", None)
            process = subprocess.Popen(
                [sys.executable, script.name],
                cwd=script.parent,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # so that the processes it starts can be killed with it
            )
            self._running.add(process)
        try:
            out, err = process.communicate(timeout=LIMIT_S)
            return Ran(out, err, process.returncode)
        except subprocess.TimeoutExpired:
            _kill(process)
            out, err = process.communicate()
            return Ran(out, err, None)
        finally:
            with self._lock:
                self._running.discard(process)


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
