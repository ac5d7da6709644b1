"""A real process whose clock is set back and ahead, passes a change to summer time, and stops with its machine: no wait ends early.

libfaketime stands between the process and its wall clock; the monotonic clock is the kernel's. tests/unit/runtime/test_clock_jumps.py has
the same in virtual time, with more kinds of waits.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from holdfast.errors import StoreLocked
from holdfast.stores import open_store
from tests.chaos.clock_lives import NAMES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
HOUR_S, WEEK_S = 3600, 7 * 24 * 3600
LENGTH_S = 8.0
BUSY_S = 8.0
"""How late a wait may be since other tests use the machine, too."""

SERVICE = """
from holdfast import Runtime, Session, agent

@agent
async def idle(session: Session[None], text: str) -> None: ...

runtime = Runtime("sqlite:///s.db", agents=[idle])
"""

STORES = pytest.mark.parametrize("kind", ["sqlite", "postgres"])


class Times:
    """The clocks of the processes under test.

    Attributes:
        environment: for a process that is to have them.
    """

    def __init__(self, folder: Path, library: Path, zone: str) -> None:
        self.boot, self._wall = folder / "boot", folder / "wall"
        self.environment = {
            **os.environ,
            "TZ": zone,
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._wall),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0.0)
        self._write(self.boot, "0")

    def set(self, ahead_s: float) -> None:
        """Set the wall clock to so many seconds ahead of the true one."""
        self._write(self._wall, f"{ahead_s:+.3f}")

    def suspend(self, for_s: float) -> None:
        """The machine was suspended for so long, until now."""
        self._write(self.boot, str(for_s))
        self.set(for_s)

    def _write(self, path: Path, text: str) -> None:
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)


class Life:
    """One process.

    Attributes:
        waits, parks, over: when each wait began, when its session had parked, and when it was over, by name, on the monotonic clock.
    """

    def __init__(self, store: str, times: Times, length_s: float, which: str = "first") -> None:
        program = [sys.executable, "-m", "tests.chaos.clock_lives", store, str(times.boot), str(length_s), which]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            program, cwd=ROOT, env=times.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.waits: dict[str, float] = {}
        self.parks: dict[str, float] = {}
        self.over: dict[str, float] = {}

    def until(self, found: dict[str, float], names: tuple[str, ...] = NAMES) -> None:
        """Read its output until `found` has all those names."""
        assert self.process.stdout is not None
        while not set(names) <= found.keys():
            line = self.process.stdout.readline()
            assert line, f"it ended; {set(names) - found.keys()} are missing"
            said: dict[str, Any] = json.loads(line)
            getattr(self, said["what"]).setdefault(said["name"], said["at"])  # a handler that was parked begins again

    def all_wait(self) -> None:
        """Every wait has begun, and those that park have parked."""
        self.until(self.waits)
        self.until(self.parks, tuple(name for name in NAMES if "parked" in name))

    def end(self) -> None:
        """It has to end as it should."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.wait() == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        sweep(self.process.pid)


def sweep(pid: int) -> None:
    """Remove what libfaketime leaves of a process that was killed."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        Path("/dev/shm", name).unlink(missing_ok=True)


@contextmanager
def life(*args: Any) -> Iterator[Life]:
    """A process; killed at the end, if it is still there."""
    found = Life(*args)
    try:
        yield found
    finally:
        found.kill()
        for pipe in (found.process.stdin, found.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="session")
def library() -> Path:
    """The library to preload, where it works."""
    spec = importlib.util.find_spec("libfaketime")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("libfaketime is not installed")
    path = Path(spec.submodule_search_locations[0]) / "vendor/libfaketime/src/libfaketime.so.1"
    environment = {**os.environ, "LD_PRELOAD": str(path), "FAKETIME": "+10000"}
    now = subprocess.run([sys.executable, "-c", "import time; print(time.time())"], env=environment, capture_output=True, text=True).stdout
    if float(now) < time.time() + 9000:
        pytest.skip("libfaketime does not work on this machine")
    return path


@pytest.fixture
def times(tmp_path: Path, library: Path) -> Times:
    return Times(tmp_path, library, "Europe/Berlin")


@pytest.fixture
def store(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else str(request.getfixturevalue("postgres_url"))


async def no_other_may_open(store: str) -> None:
    """The process holds its store, whatever its clock says."""
    with pytest.raises(StoreLocked):
        await open_store(store).open()


def earliest_s(name: str) -> float:
    """How much earlier a wait may end: a date has whole seconds, an alarm a millisecond."""
    return 1.01 if "date" in name else 0.01


@STORES
@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S], ids=["back", "ahead"])
async def test_a_clock_that_is_set_moves_no_wait(store: str, times: Times, by_s: float) -> None:
    """Sleeps, asks, retries and breakers, in memory and parked, and the lock of the store."""
    with life(store, times, LENGTH_S) as process:
        process.all_wait()
        times.set(by_s)
        await no_other_may_open(store)
        process.until(process.over)
        process.end()
    took = {name: process.over[name] - process.waits[name] for name in NAMES}
    assert {name: took_s for name, took_s in took.items() if not LENGTH_S - earliest_s(name) <= took_s <= LENGTH_S + BUSY_S} == {}


@STORES
async def test_a_suspension_for_a_week_delays_no_wait_by_more_than_a_minute(store: str, times: Times) -> None:
    """The process stops, a week passes, and it runs again: waits that are due later than that end after their rest."""
    length_s = WEEK_S + LENGTH_S
    with life(store, times, length_s) as process:
        process.all_wait()
        process.process.send_signal(signal.SIGSTOP)
        times.suspend(WEEK_S)
        process.process.send_signal(signal.SIGCONT)
        await no_other_may_open(store)
        process.until(process.over)
        process.end()
    took = {name: process.over[name] - process.waits[name] for name in NAMES}
    assert {name: took_s for name, took_s in took.items() if not LENGTH_S - earliest_s(name) <= took_s <= LENGTH_S + 60 + BUSY_S} == {}


@pytest.mark.parametrize("change", [datetime(2026, 3, 29, 1), datetime(2026, 10, 25, 1)], ids=["summer", "winter"])
@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_change_to_summer_time_moves_no_wait(store: str, times: Times, change: datetime) -> None:
    """The hour is skipped, or comes twice, while all wait: what is stored has no time zone."""
    change = change.replace(tzinfo=ZoneInfo("UTC"))
    with life(store, times, LENGTH_S) as process:
        process.until(process.waits)
        times.set(change.timestamp() - time.time() - LENGTH_S / 2)
        process.until(process.over)
        process.end()
    took = {name: process.over[name] - process.waits[name] for name in NAMES}
    assert {name: took_s for name, took_s in took.items() if not LENGTH_S - earliest_s(name) <= took_s <= LENGTH_S + BUSY_S} == {}


@STORES
def test_a_clock_that_is_set_back_between_two_processes_makes_a_wait_its_own_length_longer_at_most(store: str, times: Times) -> None:
    """The first is killed in all its waits; the stored times are an hour away for the second."""
    # What is only in memory is forgotten: a caller, the breaker of a dependency, the failed attempts of a read that has not parked.
    names = tuple(name for name in NAMES if name.startswith(("sleep", "ask")) or ("parked" in name and "dependency" not in name))
    with life(store, times, LENGTH_S) as first:
        first.all_wait()
    times.set(-HOUR_S)
    with life(store, times, LENGTH_S, "again") as second:
        second.until(second.over, names)
        second.end()
    for name in names:
        assert second.over[name] >= first.waits[name] + LENGTH_S - earliest_s(name), name
        assert second.over[name] <= second.began + LENGTH_S + BUSY_S, name


def test_a_service_gives_its_heartbeats_whatever_its_clock_says(times: Times, tmp_path: Path) -> None:
    """Its service manager would restart one that gives none: set back, set ahead, and stopped with its machine."""
    (tmp_path / "app.py").write_text(SERVICE)
    command = [sys.executable, "-c", "from holdfast.console.cli.app import main; main()", "run", "app:runtime", "--no-socket"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(20.0)
        manager_of = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": str(2_000_000), "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, cwd=tmp_path, env=times.environment | manager_of) as process:
            try:
                while b"READY=1" not in manager.recv(4096):
                    pass
                for ahead_s in (-HOUR_S, HOUR_S, WEEK_S):
                    process.send_signal(signal.SIGSTOP)
                    times.set(ahead_s)
                    process.send_signal(signal.SIGCONT)
                    began = time.monotonic()
                    for _ in range(3):
                        while b"WATCHDOG=1" not in manager.recv(4096):
                            pass
                    assert time.monotonic() - began < 3 * 2 + BUSY_S
                process.terminate()
                assert process.wait() == 0
            finally:
                process.kill()
                sweep(process.pid)
