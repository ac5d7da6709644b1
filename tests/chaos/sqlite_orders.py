"""A program that test_orders_sqlite runs: processes on one SQLite file do what they are told, in random orders, against a model.

    python -m tests.chaos.sqlite_orders FOLDER FIRST ROUNDS

One thing happens after the other, so the model knows who may own the file. tests/unit/stores/lock_model.py has what happens in the middle
of taking a lock, and sqlite_rivals.py what happens at the same time. Prints one JSON line: how often each thing happened. A round that
went wrong ends it, with its seed and its orders.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import select
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from random import Random

import msgspec

from holdfast.errors import StoreError
from holdfast.stores.ops import Touch
from holdfast.stores.sqlite.holder import Holder, here, locker, parse
from holdfast.stores.sqlite.lock import identity, take_lock
from tests.chaos.sqlite_rivals import CountedStore

SLOTS, EVENTS = 4, 24
SUFFIXES = ("", "-wal", "-shm")
_SUBREAPER = 36
"""prctl(2): children of a process that died become children of this one, which waits for them."""


# ---------------------------------------------------------------- one process


class Pipes:
    """How one process gets its orders, and answers. All processes have the pipes of all, so that one can fork the next."""

    def __init__(self) -> None:
        self.orders, self._order = os.pipe()
        self._answers, self._answer = os.pipe()

    def ask(self, order: str) -> str:
        """The answer to an order, which is one line."""
        os.write(self._order, f"{order}\n".encode())
        return _line(self._answers)

    def heard(self) -> str:
        """Whatever is said without being asked: the number of a process that was forked."""
        return _line(self._answers)

    def say(self, answer: str) -> None:
        os.write(self._answer, f"{answer}\n".encode())


def _line(pipe: int) -> str:
    text = b""
    while not text.endswith(b"\n"):
        part = os.read(pipe, 1)
        assert part, "the other end is closed"
        text += part
    return text.decode().strip()


class Worker:
    """A process that does what it is told with one store."""

    def __init__(self, path: Path, pipes: list[Pipes], slot: int, store: CountedStore | None = None) -> None:
        self._path, self._pipes, self._slot, self._store = path, pipes, slot, store
        self._runner = asyncio.Runner()

    def serve(self) -> None:
        """Until it is killed."""
        own = self._pipes[self._slot]
        own.say(str(os.getpid()))
        while True:
            order, _, rest = _line(own.orders).partition(" ")
            if order == "fork":
                self._fork(int(rest))
                own.say("forked")
            else:
                try:
                    own.say(self._runner.run(getattr(self, order)(rest)))
                except StoreError as error:
                    own.say(f"{type(error).__name__}: {error}")

    async def open(self, name: str) -> str:
        store = CountedStore(self._path.with_name(name), os.open(os.devnull, os.O_WRONLY))
        await store.open()
        self._store = store
        return "open"

    async def write(self, _: str) -> str:
        assert self._store is not None
        before = self._store._last
        await self._store.apply([Touch()])
        return "written" if self._store._last == before + 1 else f"another process wrote: {before} became {self._store._last}"

    async def look(self, _: str) -> str:
        assert self._store is not None
        await self._store.check()
        return "looked"

    async def close(self, _: str) -> str:
        assert self._store is not None
        store, self._store = self._store, None
        await store.close()
        return "closed"

    def _fork(self, slot: int) -> None:
        if os.fork() == 0:
            life(self._path, self._pipes, slot, self._store)


def life(path: Path, pipes: list[Pipes], slot: int, store: CountedStore | None = None) -> None:
    """The life of a forked process, which does not return."""
    try:
        Worker(path, pipes, slot, store).serve()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


# ---------------------------------------------------------------- the model


class Known:
    """What the model knows of a process.

    Attributes:
        file: the database that it has open; None where it has none.
        forked: it has the store of its parent.
        tainted: it, or the process that it was forked from, has had a database open that it may not open again.
    """

    def __init__(self, pid: int, *, forked: bool = False, tainted: bool = False) -> None:
        self.pid, self.forked, self.tainted = pid, forked, tainted
        self.file: tuple[int, int] | None = None


class Model:
    """The processes of one round, and the orders that they got."""

    def __init__(self, path: Path, random: Random, happened: Counter[str]) -> None:
        self._path, self._random, self._happened = path, random, happened
        self._lock = Path(f"{path}.lock")
        self._pipes = [Pipes() for _ in range(SLOTS)]
        self._known: list[Known | None] = [None] * SLOTS
        self._unreaped: list[int] = []
        self.orders: list[str] = []

    def event(self) -> None:
        """One thing happens."""
        acts = {
            self._begin: 14, self._open: 24, self._write: 30, self._look: 8, self._close: 8, self._kill: 10, self._fork: 8,
            self._remove_lock: 8, self._replace_lock: 6, self._reuse: 4, self._move: 3, self._remove: 1, self._replace: 1,
            self._remove_wal: 2,
        }  # fmt: skip
        (act,) = self._random.choices(list(acts), list(acts.values()))
        act()

    def _note(self, what: str) -> None:
        self.orders.append(what)
        self._happened[what.split()[0]] += 1

    def _ask(self, slot: int, order: str) -> str:
        answer = self._pipes[slot].ask(order)
        self._note(f"{order} {slot} -> {answer}")
        return answer

    def _slot(self, wanted: str) -> int | None:
        """A slot of that kind: free, or of a process that has no store, has one open, or is alive."""

        def fits(one: Known | None) -> bool:
            if one is None:
                return wanted == "free"
            return (
                wanted == "alive"
                or (wanted == "shut" and one.file is None and not one.forked)
                or (wanted == "open" and one.file is not None)
            )

        found = [slot for slot, one in enumerate(self._known) if fits(one)]
        return self._random.choice(found) if found else None

    def _of(self, slot: int) -> Known:
        known = self._known[slot]
        assert known is not None
        return known

    def _owners(self) -> list[Known]:
        return [one for one in self._known if one is not None and one.file is not None]

    # ------------------------------------------------------------ what processes do

    def _begin(self) -> None:
        slot = self._slot("free")
        if slot is not None:
            if os.fork() == 0:
                life(self._path, self._pipes, slot)
            self._known[slot] = Known(int(self._pipes[slot].heard()))
            self._note(f"begin {slot}")

    def _open(self) -> None:
        slot = self._slot("shut")
        if slot is None:
            return
        name = self._random.choice((self._path.name, self._path.name, "link.db"))
        owners, known = self._owners(), self._of(slot)
        answer = self._ask(slot, f"open {name}")
        if answer == "open":
            known.file = identity(str(self._path))
            assert known.file not in [other.file for other in owners], "two processes have one file open"
            self._happened["opened"] += 1
        elif answer.startswith("StoreLocked"):
            self._happened["refused"] += 1
            assert owners, f"refused, and nobody has it: {answer}"
            pids = [other.pid for other in owners]
            assert any(f"in use by process {pid}:" in answer for pid in pids), f"{answer}: it is one of {pids}"
        else:
            assert known.tainted, answer

    def _write(self) -> None:
        slot = self._slot("open")
        if slot is None or not self._lands(slot):
            return
        if self._random.random() < 0.3:
            own = self._of(slot).file
            others = [
                other for other, one in enumerate(self._known) if other != slot and one is not None and (one.file == own or one.forked)
            ]
            assert not [other for other in others if self._lands(other)], "two processes write to one file"

    def _lands(self, slot: int) -> bool:
        answer = self._ask(slot, "write")
        assert "another process wrote" not in answer, answer
        known = self._of(slot)
        if answer == "written":
            assert known.file == identity(str(self._path)), "it writes to a file that is another one by now"
            self._happened["written"] += 1
            return True
        self._happened["lost"] += not known.forked
        return False

    def _look(self) -> None:
        slot = self._slot("open")
        if slot is not None and self._ask(slot, "look") == "looked":
            assert parse(self._lock.read_bytes()).pid == self._of(slot).pid, "its lock file names another process"

    def _close(self) -> None:
        slot = self._slot("open")
        if slot is not None:
            self._ask(slot, "close")
            known = self._of(slot)
            known.file, known.tainted = None, True

    def _kill(self) -> None:
        """With SIGKILL; some stay behind as zombies."""
        slot = self._slot("alive")
        if slot is None:
            return
        pid = self._of(slot).pid
        end = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([end], [], [])
        os.close(end)
        self._known[slot] = None
        self._unreaped.append(pid)
        self._note(f"kill {slot}")
        if self._random.random() < 0.5:
            self._reap()

    def _fork(self) -> None:
        """A process forks one that lives on, with all that its parent had open."""
        slot, free = self._slot("alive"), self._slot("free")
        if slot is not None and free is not None:
            parent = self._of(slot)
            self._ask(slot, f"fork {free}")
            forked = parent.forked or parent.file is not None
            self._known[free] = Known(int(self._pipes[free].heard()), forked=forked, tainted=True)

    # ------------------------------------------------------------ what others do to the files

    def _remove_lock(self) -> None:
        self._lock.unlink(missing_ok=True)
        self._note("remove_lock")

    def _replace_lock(self) -> None:
        """By junk, or by one that names a process: this one, an old version's, one that has ended."""
        texts = (b"junk", b"1", Holder(1).text(), here().text(), Holder(2**22 - 1).text())
        other = self._path.with_name("other.lock")
        other.write_bytes(self._random.choice(texts))
        other.rename(self._lock)
        self._note("replace_lock")

    def _reuse(self) -> None:
        """The process that the lock file names has ended, and another one has its number."""
        living = self._slot("alive")
        if not self._owners() and living is not None and self._lock.exists():
            named = msgspec.structs.replace(here(), pid=self._of(living).pid, started=1)
            self._lock.write_bytes(named.text())
            self._note("reuse")

    def _move(self) -> None:
        """With what belongs to it."""
        for suffix in SUFFIXES:
            if os.path.exists(f"{self._path}{suffix}"):
                os.rename(f"{self._path}{suffix}", f"{self._path}.moved{suffix}")
        self._note("move")

    def _remove(self) -> None:
        for suffix in SUFFIXES:
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._note("remove")

    def _replace(self) -> None:
        """By an empty one, without a WAL."""
        self._remove()
        self._path.touch()
        self._note("replace")

    def _remove_wal(self) -> None:
        Path(f"{self._path}-wal").unlink(missing_ok=True)
        self._note("remove_wal")

    # ------------------------------------------------------------ the end

    def _reap(self) -> None:
        """The children of those that died are waited for, too; what a living parent has not waited for stays a zombie."""
        left = []
        for pid in self._unreaped:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                left.append(pid)
        self._unreaped = left

    def end(self) -> None:
        """Every process dies; then nothing may be left that keeps the next one out."""
        self.kill_all()
        assert not self._unreaped
        take_lock(str(self._path)).close()
        assert locker(identity(str(self._path))) == 0

    def kill_all(self) -> None:
        """Kill what is alive."""
        while self._slot("alive") is not None:
            self._kill()
        self._reap()

    def close(self) -> None:
        """Close the pipes, once all who have them are dead."""
        self.kill_all()
        for pipes in self._pipes:
            for descriptor in (pipes.orders, pipes._order, pipes._answers, pipes._answer):
                os.close(descriptor)


def play(folder: Path, seed: int, happened: Counter[str]) -> None:
    """One round, on a database of its own."""
    path = folder / "s.db"
    path.with_name("link.db").symlink_to(path)
    model = Model(path, Random(seed), happened)
    try:
        for _ in range(EVENTS):
            model.event()
        model.end()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}\n" + "\n".join(model.orders)) from error
    finally:
        model.close()
        for left in folder.iterdir():
            left.unlink()


def main(folder: str, first: int, rounds: int) -> None:
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    happened: Counter[str] = Counter()
    for seed in range(first, first + rounds):
        play(Path(folder), seed, happened)
    print(json.dumps(happened))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
