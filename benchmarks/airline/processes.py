"""The processes of a run: the model server, and `holdfast run`, which is killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

ROOT = Path(__file__).parents[2]
"""The folder that holds `benchmarks`."""

_HOLDFAST = ("-c", "import sys; from holdfast.console.cli.app import main; sys.argv[0] = 'holdfast'; main()")
_RUN = ("run", "benchmarks.airline.app:desk_runtime", "--with", "benchmarks.airline.feed:talk")
_END_S = 60.0


class ProcessFailed(Exception):
    """A process failed. The text names it, and has the last line of its log."""


class Processes:
    """Starts them, and ends those that still run.

    Args:
        folder: the folder of their logs.
        store: the URL of the store of `holdfast run`; None for its own, a SQLite file in the folder.
        environment: the variables that settings.py reads.
    """

    def __init__(self, folder: Path, store: str | None, environment: dict[str, str]) -> None:
        self._folder = folder
        self._run = (*_HOLDFAST, *_RUN, *(("--store", store) if store else ()))
        # A proxy must not come between processes of one machine.
        local = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._env = {**os.environ, **environment, **local, "PYTHONPATH": path}
        self._all: list[subprocess.Popen[bytes]] = []
        self._files: list[IO[bytes]] = []
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._all:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for file in self._files:
            file.close()

    def start_model(self) -> None:
        """Start the model server and wait until it listens. Raises ProcessFailed if it does not."""
        process = self._start("model.log", "-m", "benchmarks.airline.model_server", stdout=subprocess.PIPE)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise ProcessFailed(f"the model server did not start: {self._last('model.log')}")
        self._env["AIRLINE_MODEL_URL"] = f"http://127.0.0.1:{port.decode()}/v1"

    def start_worker(self) -> None:
        """Start `holdfast run`."""
        self._worker = self._start("holdfast.log", *self._run)

    def check_worker(self) -> None:
        """Raises ProcessFailed if it ended by itself."""
        code = None if self._worker is None else self._worker.poll()
        if code is not None:
            raise ProcessFailed(f"holdfast run ended by itself with {code}: {self._last('holdfast.log')}")

    def kill_worker(self) -> None:
        """Send SIGKILL and wait for its end. Raises ProcessFailed if it had ended by itself."""
        self.check_worker()
        assert self._worker is not None
        self._worker.kill()
        self._worker.wait()

    def stop_worker(self) -> None:
        """Send SIGTERM, so that it drains. Raises ProcessFailed if it does not end, or not with exit code 0."""
        self.check_worker()
        assert self._worker is not None
        self._worker.terminate()
        try:
            code = self._worker.wait(_END_S)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"holdfast run did not end within {_END_S:g} s of SIGTERM: {self._last('holdfast.log')}") from None
        if code != 0:
            raise ProcessFailed(f"holdfast run ended with {code} after SIGTERM: {self._last('holdfast.log')}")

    def _start(self, log: str, *args: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
        file = (self._folder / log).open("ab")
        self._files.append(file)
        process = subprocess.Popen(
            [sys.executable, *args],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for the driver, which ends the others
        )
        self._all.append(process)
        return process

    def _last(self, log: str) -> str:
        lines = (self._folder / log).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"
