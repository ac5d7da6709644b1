"""Never two processes that write to one SQLite file, in whatever order they start, die, fork, and lose their lock file."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from holdfast.errors import StoreError, StoreLocked, StoreLost
from holdfast.stores.sqlite import holder as sqlite_holder
from holdfast.stores.sqlite import lock as sqlite_lock
from holdfast.stores.sqlite.holder import Holder, State, here, locker, parse, state
from holdfast.stores.sqlite.lock import holder, identity, take_lock
from tests.unit.stores.lock_model import Model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of files are made and removed."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def play(folder: Path, rounds: int, first: int, *, both: bool) -> Counter[str]:
    """Play rounds of random events, each with a new database; what happened in all of them."""
    total: Counter[str] = Counter()
    for seed in range(first, first + rounds):
        with pytest.MonkeyPatch.context() as patch:
            path = folder / f"{seed}.db"
            model = Model(path, Random(seed), patch, both=both)
            try:
                for _ in range(14):
                    model.event()
                model.end()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
            total += Counter(taken=model.taken, refused=model.refused, written=model.written, lost=model.lost)
        for left in folder.iterdir():
            left.unlink()
    return total


BOTH = pytest.mark.parametrize("both", [True, False], ids=["both locks", "the lock file alone"])


@BOTH
def test_random_orders_never_have_two_writers(folder: Path, both: bool) -> None:
    """Also where the file system cannot lock the database beside SQLite. Starts, refusals, writes and losses all occur often."""
    happened = play(folder, 1000, 0, both=both)
    assert min(happened[each] for each in ("taken", "refused", "written", "lost")) > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
@BOTH
def test_ten_thousand_random_orders_never_have_two_writers(folder: Path, both: bool) -> None:
    """As above, with other orders."""
    play(folder, 5000, 1_000_000, both=both)


# ---------------------------------------------------------------- one at a time


def test_a_removed_lock_file_lets_nobody_in_and_is_made_again(path: Path) -> None:
    """The lock is of the database itself, too. The second process is told about the first one."""
    name = path.with_name("s.db.lock")
    own = take_lock(str(path))
    name.unlink()
    with pytest.raises(StoreLocked):
        take_lock(str(path))
    own.check()
    assert parse(name.read_bytes()) == here()
    with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}: stop it first"):
        take_lock(str(path))
    own.close()
    take_lock(str(path)).close()


@pytest.mark.parametrize("text", [None, b"1", Holder(1).text()], ids=["removed", "replaced by an old one", "replaced"])
def test_a_refusal_names_the_holder_whatever_became_of_its_lock_file(path: Path, text: bytes | None) -> None:
    """A person would stop the process that it names."""
    own, name = take_lock(str(path)), path.with_name("s.db.lock")
    if locker(own.identity) != os.getpid():
        pytest.skip("the list of locks is not there, or has other devices than the file system")
    name.unlink()
    if text is not None:
        path.with_name("other").write_bytes(text)
        path.with_name("other").rename(name)
    with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}: stop it first"):
        take_lock(str(path))
    own.close()


def test_a_lock_that_the_kernel_does_not_list_has_no_known_holder(path: Path) -> None:
    """A file without one, and none at all."""
    path.touch()
    assert locker(identity(str(path))) == 0
    assert locker(None) == 0


def test_a_lock_file_that_another_process_holds_ends_this_one(path: Path) -> None:
    """An earlier version locks the lock file alone."""
    name = path.with_name("s.db.lock")
    own = take_lock(str(path))
    name.unlink()
    with name.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreLost, match=r"lock file of .* was removed or replaced"):
            own.check()
    own.close()


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_two_names_of_one_database_are_one_lock(path: Path, kind: str) -> None:
    """SQLite has one WAL for a symbolic link and its target, but two for hard links, which would damage the file."""
    own = take_lock(str(path))
    other = path.with_name("other.db")
    other.symlink_to(path) if kind == "symbolic" else other.hardlink_to(path)
    with pytest.raises(StoreLocked):
        take_lock(str(other))
    own.close()


def test_a_lock_file_that_is_a_link_is_not_followed(path: Path) -> None:
    """Someone else could choose the file that is overwritten."""
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.with_name("s.db.lock").symlink_to(victim)
    with pytest.raises(StoreError, match="is a link and stays as it is"):
        take_lock(str(path))
    assert victim.read_text() == "precious"


def test_a_lock_file_is_for_its_owner_and_not_for_programs_that_it_starts(path: Path) -> None:
    """A program started by a tool would hold the lock after its parent."""
    own = take_lock(str(path))
    assert path.with_name("s.db.lock").stat().st_mode & 0o777 == 0o600
    inherited = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if "s.db" in os.readlink(f"/proc/self/fd/{descriptor}") and os.get_inheritable(int(descriptor)):
                inherited.append(descriptor)
        except FileNotFoundError:
            pass  # that of listdir itself
    assert not inherited
    own.close()


def test_a_reader_asks_the_lock_and_not_the_number(path: Path) -> None:
    """The file of a process that has ended names it still; the lock has ended with it."""
    assert holder(str(path)) is None
    own = take_lock(str(path), "/run/app.sock")
    assert holder(str(path)) == here().at("/run/app.sock")
    own.close()
    assert parse(path.with_name("s.db.lock").read_bytes()).pid == os.getpid()
    assert holder(str(path)) is None


def test_a_lock_file_that_cannot_be_read_is_not_taken_for_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may hold it."""

    def refuse(name: str, *args: int) -> int:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "open", refuse)
    for ask in (holder, take_lock):
        with pytest.raises(StoreError, match="Permission denied"):
            ask(str(path))


# ---------------------------------------------------------------- who holds it


def ended() -> int:
    """The number of a process that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_process_is_told_from_others_with_its_number() -> None:
    """By its start time, its boot, and the machine or container in which the number counts."""
    own = here()
    assert state(own) is State.RUNS
    assert state(Holder(own.pid)) is State.RUNS  # as an earlier version names it
    assert own.started is not None
    assert state(Holder(own.pid, own.started + 1, own.boot, own.space, own.host)) is State.REUSED
    assert state(Holder(own.pid, own.started, "another boot", own.space, own.host)) is State.ENDED
    assert state(Holder(own.pid, own.started, own.boot, "pid:[1]", own.host)) is State.ELSEWHERE
    assert state(Holder(own.pid, own.started, own.boot, own.space, "elsewhere")) is State.ELSEWHERE
    assert state(Holder(ended())) is State.ENDED
    assert [state(parse(text)) for text in (b"", b"junk", b"[1]", b'{"pid": "x"}', b"-1")] == [State.UNKNOWN] * 5
    assert parse(own.at("a.sock").text()) == own.at("a.sock")


def test_a_zombie_has_ended() -> None:
    """`kill -0` answers for it all the same."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.kill(pid, 0)
    assert state(Holder(pid)) is State.ZOMBIE
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (State.RUNS, "by process 77: stop it first"),
        (State.ELSEWHERE, "by process 77 on box, another machine or container than .*: stop it there first"),
        (State.ENDED, "process 77 has ended, but a process that it forked holds the lock: stop that one first"),
        (State.ZOMBIE, r"process 77 has ended \(a zombie\), but a process that it forked"),
        (State.REUSED, "process 77 has ended, and another program has its number, but a process that it forked"),
        (State.UNKNOWN, "by another process: stop it first"),
    ],
)
def test_a_refusal_says_who_holds_it_and_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch, found: State, says: str) -> None:
    """Whatever the number means by now."""
    own = take_lock(str(path))
    path.with_name("s.db.lock").write_bytes(Holder(77, host="box").text())
    monkeypatch.setattr(sqlite_lock, "state", lambda holder: found)
    with pytest.raises(StoreLocked, match=says):
        take_lock(str(path))
    reads = holder(str(path))
    assert (reads is not None) == (found in (State.RUNS, State.ELSEWHERE))
    own.close()


def test_a_process_that_proc_hides_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with hidepid, or under another user; and where there is no /proc."""
    monkeypatch.setattr(sqlite_holder, "_stat", lambda pid: None)
    assert state(Holder(os.getpid())) is State.RUNS

    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert state(Holder(1)) is State.RUNS
