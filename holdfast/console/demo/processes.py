"""The processes of the demo: the model server, and `holdfast run`, which is killed and started again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from holdfast.console.demo.facts import Kill, OpenStep
from holdfast.errors import HoldfastError
from holdfast.stores.records import StepRecord, StepState

_HOLDFAST = "import sys; from holdfast.console.cli.app import main; sys.argv[0] = 'holdfast'; main()"
_RUN = ("run", "examples.support.app:runtime", "--with", "examples.support.customers:talk")
_END_S = 20.0
_record = msgspec.msgpack.Decoder(StepRecord).decode


def _open_step(record: StepRecord) -> OpenStep:
    args = msgspec.msgpack.decode(record.args) if record.kind == "tool" and record.args else {}
    return OpenStep(record.name, args.get("order_id", "") if isinstance(args, dict) else "")


class DemoError(HoldfastError):
    """A process of the demo failed. The text names the process, and has the last line of its log."""


class Processes:
    """Starts them in a folder, and ends those that still run.

    Args:
        checkout: the folder that holds `examples`.
        folder: the folder for all files.
        settings: the settings of examples/support, by name.
    """

    def __init__(self, checkout: Path, folder: Path, settings: dict[str, str]) -> None:
        self._checkout, self._folder = checkout, folder
        # A proxy must not come between processes of one machine.
        local = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
        self._env = {**os.environ, **local, **settings, "SUPPORT_FOLDER": str(folder)}
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
        """Start the model server and wait until it listens. Raises DemoError if it does not."""
        process = self._start("model.log", "-m", "examples.support.model_server", stdout=subprocess.PIPE)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise DemoError(f"the model server did not start: {self._last('model.log')}")
        self._env["SUPPORT_MODEL_URL"] = f"http://127.0.0.1:{port.decode()}/v1"

    def start_worker(self) -> int:
        """Start `holdfast run`. Returns its process id."""
        self._worker = self._start("holdfast.log", "-c", _HOLDFAST, *_RUN)
        return self._worker.pid

    def check_worker(self) -> None:
        """Raises DemoError if it ended by itself."""
        code = None if self._worker is None else self._worker.poll()
        if code is not None:
            raise DemoError(f"holdfast run ended by itself with {code}: {self._last('holdfast.log')}")

    def kill_worker(self) -> Kill:
        """Send SIGKILL, read which steps it left open, and start it again."""
        assert self._worker is not None
        at = time.time()
        self._worker.kill()
        self._worker.wait()
        left = self.open_steps()
        restarted = time.time()
        self.start_worker()
        return Kill(at, restarted, left)

    def stop_worker(self) -> None:
        """Send SIGTERM, so that it drains. Raises DemoError if it does not end, or not with exit code 0."""
        self.check_worker()
        assert self._worker is not None
        self._worker.send_signal(signal.SIGTERM)
        try:
            code = self._worker.wait(_END_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"holdfast run did not end within {_END_S:g} s of SIGTERM: {self._last('holdfast.log')}") from None
        if code != 0:
            raise DemoError(f"holdfast run ended with {code} after SIGTERM: {self._last('holdfast.log')}")

    def open_steps(self) -> list[OpenStep]:
        """Steps that have begun and not ended: read from the database, by a connection that cannot write."""
        latest = "SELECT max(num) FROM steps GROUP BY session, turn, key"  # of two rows for a step the later one counts
        rows = self._rows(f"SELECT body FROM steps WHERE state = ? AND num IN ({latest})", int(StepState.OPEN))
        return [_open_step(_record(body)) for (body,) in rows]

    def held_back(self) -> int:
        """How many sessions are parked until the circuit breaker of the model server lets calls through: read in the same way."""
        return len(self._rows("SELECT id FROM sessions WHERE status = 'parked' AND reason = 'breaker'"))

    def _rows(self, query: str, *values: int) -> list[tuple[Any, ...]]:
        path = self._folder / "sessions.db"
        if not path.exists():
            return []
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            return db.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            return []  # the tables are not made yet
        finally:
            db.close()

    def _start(self, log: str, *args: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
        file = (self._folder / log).open("ab")
        self._files.append(file)
        process = subprocess.Popen(
            [sys.executable, *args],
            cwd=self._checkout,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for the demo itself, which ends the others
        )
        self._all.append(process)
        return process

    def _last(self, log: str) -> str:
        lines = (self._folder / log).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"
