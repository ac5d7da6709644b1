"""Processes on one database, simulated in one process: real files and real locks of the kernel, and orders that no machine would show.

A lock of `flock` belongs to an open file description, not to a process, so processes are told apart by their descriptors alone: a fork is a
`dup`, a kill closes what the process has open. Before each call that the lock makes to the system, other processes may do something.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.errors import StoreError, StoreLost
from holdfast.stores.sqlite import holder as sqlite_holder
from holdfast.stores.sqlite import lock as sqlite_lock
from holdfast.stores.sqlite.lock import FileLock, identity, take_lock

PROCESSES = 4
NOTHING_MORE = 10
"""The depth at which nothing happens before a call to the system."""


class Process:
    """A simulated process.

    Attributes:
        lock: the lock that it believes to hold.
        held, left: what it remembers of the databases that it has open.
        copies: descriptors of its parent that a fork gave it and that it has not closed yet.
        starting: whether it is in the middle of taking the lock.
    """

    def __init__(self) -> None:
        self.lock: FileLock | None = None
        self.held: dict[Any, FileLock] = {}
        self.left: dict[Any, str] = {}
        self.copies: list[int] = []
        self.starting = False

    def may_write(self, model: Model) -> bool:
        """What the store asks before each transaction: the database is that which was opened, and the lock is ours."""
        if self.lock is None:
            return False
        try:
            if identity(str(model.path)) != self.lock.identity:
                raise StoreLost("replaced")
            with model.inside(self):
                self.lock.check()
        except StoreLost:
            self.die(model)
            return False
        return True

    def die(self, model: Model) -> None:
        """As at SIGKILL: every descriptor is closed, nothing else happens."""
        if self.lock is not None:
            with model.inside(self):
                self.lock.close()
        for copy in self.copies:
            os.close(copy)
        self.__init__()  # type: ignore[misc]


class Model:
    """The file system, the processes and the random order in which things happen."""

    def __init__(self, path: Path, random: Random, monkeypatch: pytest.MonkeyPatch, *, both: bool) -> None:
        self.path, self.random, self.both = path, random, both
        self.processes = [Process() for _ in range(PROCESSES)]
        self.taken = self.refused = self.written = self.lost = 0
        self._depth = 0
        self._patch = monkeypatch
        self._install()

    def _install(self) -> None:
        def lockf(descriptor: int, *args: Any) -> None:
            if not self.both:
                raise OSError("this file system has one kind of lock")
            fcntl.lockf(descriptor, *args)

        self._patch.setattr(sqlite_lock, "log", logging.getLogger("model"))
        self._patch.setattr(sqlite_lock, "state", lambda holder: sqlite_holder.State.UNKNOWN)

        names = {name: getattr(fcntl, name) for name in dir(fcntl) if name.startswith("LOCK_")}
        self._patch.setattr(
            sqlite_lock, "fcntl", SimpleNamespace(**names, flock=self._meanwhile(fcntl.flock), lockf=self._meanwhile(lockf))
        )
        calls = {**vars(os), **{name: self._meanwhile(getattr(os, name)) for name in ("open", "stat", "fstat", "pwrite", "ftruncate")}}
        self._patch.setattr(sqlite_lock, "os", SimpleNamespace(**calls))
        self._patch.setattr(sqlite_lock, "time", SimpleNamespace(sleep=lambda pause_s: None))

    def _meanwhile(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            if self._depth < 3 and self.random.random() < 0.08:
                self._depth += 1
                outer = sqlite_lock._held, sqlite_lock._left
                try:
                    self.event()
                finally:
                    sqlite_lock._held, sqlite_lock._left = outer
                    self._depth -= 1
            return call(*args, **options)

        return called

    @contextmanager
    def inside(self, process: Process) -> Iterator[None]:
        """What runs now has the memory of this process."""
        outer = sqlite_lock._held, sqlite_lock._left
        sqlite_lock._held, sqlite_lock._left = process.held, process.left
        try:
            yield
        finally:
            sqlite_lock._held, sqlite_lock._left = outer

    def event(self) -> None:
        """One thing happens."""
        (act,) = self.random.choices(
            [self.start, self.write, self.kill, self.fork, self.child_runs, self.remove_lock, self.replace_lock, self.move],
            [30, 30, 12, 8, 6, 8, 4, 3],
        )
        act()

    def _one(self, ready: Callable[[Process], bool]) -> Process | None:
        found = [process for process in self.processes if not process.starting and ready(process)]
        return self.random.choice(found) if found else None

    def start(self) -> None:
        process = self._one(lambda one: one.lock is None)
        if process is None:
            return
        process.starting = True
        try:
            with self.inside(process):
                process.lock = take_lock(str(self.path))
            self.taken += 1
        except StoreError:
            self.refused += 1
        finally:
            process.starting = False

    def write(self) -> None:
        """A transaction: if it may begin, no other process may be able to write to this file from then until the next event."""
        process = self._one(lambda one: one.lock is not None)
        if process is None:
            return
        process.starting = True
        try:
            allowed = process.may_write(self)
        finally:
            process.starting = False
        self.written += allowed
        self.lost += not allowed
        if allowed:
            self._depth += NOTHING_MORE
            others = [one.lock for one in self.processes if one is not process and not one.starting and one.may_write(self)]
            self._depth -= NOTHING_MORE
            # Where another file took the place of the database meanwhile, this one is written under its new name, by one process.
            assert process.lock is not None
            assert process.lock.identity not in [lock.identity for lock in others if lock is not None], "two processes write to one file"

    def kill(self) -> None:
        process = self._one(lambda one: one.lock is not None or bool(one.copies))
        if process is not None:
            process.die(self)

    def fork(self) -> None:
        """A child has the descriptors of its parent, until the first of its own code runs."""
        parent, child = self._one(lambda one: one.lock is not None), self._one(lambda one: one.lock is None and not one.copies)
        if parent is None or child is None or parent.lock is None:
            return
        child.copies = [os.dup(parent.lock.database), os.dup(parent.lock._lock)]
        child.left = {parent.lock.identity: "was forked", **parent.left}

    def child_runs(self) -> None:
        """The handler of the fork: it closes the copies."""
        child = self._one(lambda one: bool(one.copies))
        if child is not None:
            for copy in child.copies:
                os.close(copy)
            child.copies = []

    def remove_lock(self) -> None:
        Path(f"{self.path}.lock").unlink(missing_ok=True)

    def replace_lock(self) -> None:
        other = self.path.with_name("other.lock")
        other.write_text("1")
        other.rename(f"{self.path}.lock")

    def move(self) -> None:
        """The database is renamed, or another one takes its place."""
        if self.random.random() < 0.5:
            if self.path.exists():
                self.path.rename(self.path.with_name("moved.db"))
        else:
            other = self.path.with_name("other.db")
            other.touch()
            other.rename(self.path)

    def end(self) -> None:
        """Every process dies; then nothing may be left that keeps the next one out."""
        self._depth += NOTHING_MORE
        for process in self.processes:
            process.die(self)
        with self.inside(Process()):
            take_lock(str(self.path)).close()
