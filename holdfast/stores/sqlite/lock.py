"""The lock of a database file: which process has it open for writing.

Two locks of the kernel (`flock`), and the second is the stronger one. The lock file next to the database names its holder. The database
itself is locked too, so that a removed or replaced lock file lets no second process in: the lock belongs to the file, whatever its name.
SQLite's own locks are of another kind (`fcntl`) and do not meet these; where they do (NFS, BSD), the lock file alone decides, and is
compared by inode in every transaction.

`fcntl` locks of a file end when the process closes any descriptor of that file. So a database is never opened here while this process has
it open, and the descriptor that holds the lock is closed after SQLite's.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from holdfast import forks
from holdfast.errors import StoreError, StoreLocked, StoreLost
from holdfast.events import log
from holdfast.stores.sqlite.holder import Holder, State, here, locker, parse, state

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_TRIES, _PAUSE_S = 5, 0.01
"""A reader that asks who holds the lock holds it itself for some microseconds: a refusal has to last longer than that."""

_FAR = 1 << 62
"""A byte that SQLite never locks."""

Identity = tuple[int, int]

_held: dict[Identity, FileLock] = {}
"""The databases that this process holds, by identity."""

_left: dict[Identity, str] = {}
"""The databases to which this process has a connection that it can neither use nor close, and why: SQLite would share it with a new one."""


class FileLock:
    """A database that this process holds for writing, until `close`. Made by `take_lock`.

    Attributes:
        path: the database, as its user named it.
        real: its real path: the lock file and SQLite's WAL are next to it.
        database: a descriptor of the database.
        identity: which file the database is.
        both: whether the database itself is locked, so that the lock file may be made anew.
    """

    def __init__(self, path: str, real: str, lock: int, database: int, both: bool, socket: str) -> None:
        self.path, self.real, self.database, self.both = path, real, database, both
        self.identity = _of(database)
        self._lock, self._lock_identity = lock, _of(lock)
        self._holder = here().at(socket)
        self._forked = False
        self._write()

    def check(self) -> None:
        """Compare the lock file with the one that this process holds; make it anew where the database's own lock allows that.

        Raises:
            StoreLost: another process may hold the database.
        """
        if self._forked:
            raise StoreLost(f"{self.path} belongs to process {self._holder.pid}, from which this one was forked")
        if identity(_name(self.real)) == self._lock_identity:
            return
        if not self.both or not self._made_anew():
            raise StoreLost(
                f"the lock file of {self.path} was removed or replaced while this process ran it, so another process may run it:"
                " this process cannot write any more; start it again"
            )

    def check_database(self) -> None:
        """Before the first write: whether SQLite, which opens a file by its name, has opened the one that is locked.

        Raises:
            StoreError: it was removed or replaced since it was locked.
        """
        if identity(self.real) != self.identity:
            raise StoreError(f"{self.path} was removed or replaced while it was opened: start again")

    def name_socket(self, socket: str) -> None:
        """Name the control socket at which this process listens, for those that look for it."""
        self._holder = self._holder.at(socket)
        try:
            self._write()
        except OSError as error:
            log.warning("%s: the lock file cannot name the control socket: %s", self.path, error)

    def close(self, *, again: bool = True) -> None:
        """Give up both locks. Call it after SQLite has closed the file. Idempotent. `again`: whether this process may open it again."""
        if self._lock >= 0:
            if not again:
                _left[self.identity] = "was damaged while this process ran it"
            _held.pop(self.identity, None)
            os.close(self.database)
            os.close(self._lock)
            self.database = self._lock = -1

    def forked(self) -> None:
        """In a forked child: close its copies of the descriptors. The locks stay with the parent, since nothing unlocks them."""
        self._forked = True
        self.close()
        _left[self.identity] = "was open in the process from which this one was forked"

    def _made_anew(self) -> bool:
        """Whether this process holds the lock file again. The database's own lock has kept every other process out meanwhile."""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S)  # a process that is about to be refused may hold it
            try:
                lock = _open_lock(self.real)
            except (OSError, StoreError) as error:
                log.warning("the lock file of %s is missing and cannot be made: %s", self.path, error)
                return True
            if _lock_file(lock, self.real):
                os.close(self._lock)
                self._lock, self._lock_identity = lock, _of(lock)
                self._write()
                log.warning("the lock file of %s was removed; it has been made again", self.path)
                return True
            os.close(lock)
        return False

    def _write(self) -> None:
        text = self._holder.text()
        os.pwrite(self._lock, text, 0)
        os.ftruncate(self._lock, len(text))


def take_lock(path: str, socket: str = "") -> FileLock:
    """Lock a database for this process; the file and its folder are created if missing. It may block for 50 ms.

    Args:
        socket: the control socket of this process, if it has one.

    Raises:
        StoreLocked: another process holds it, or this one.
        StoreError: a file cannot be opened or locked, or this process has an old connection to the database.
    """
    real = os.path.realpath(path)
    try:
        os.makedirs(os.path.dirname(real), exist_ok=True)
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S)
            taken = _try(path, real, socket)
            if taken is not None:
                _held[taken.identity] = taken
                forks.register(taken)
                return taken
    except OSError as error:
        raise StoreError(f"cannot open {error.filename or path}: {error.strerror}") from error
    raise StoreLocked(f"{path} is in use by {_whom(real)}, or name another file")


def _try(path: str, real: str, socket: str) -> FileLock | None:
    """The lock; None where another process holds it, or a file was replaced meanwhile."""
    _check_kind(path, real)
    lock, database, taken = _open_lock(real), -1, None
    try:
        # A file whose name stands for another one by now protects nothing.
        if not _lock_file(lock, real) or (found := identity(real)) in _held:
            return None
        if found in _left:
            raise StoreError(f"{path} {_left[found]}: open it in a process that is started anew")
        database = os.open(real, _FLAGS, 0o600)  # only the owner may read it: it holds every conversation
        both = _lock_database(database)
        if both is not None and identity(real) == _of(database):
            taken = FileLock(path, real, lock, database, both, socket)
        return taken
    finally:
        if taken is None:
            os.close(lock)
            if database >= 0:
                os.close(database)


def _check_kind(path: str, real: str) -> None:
    try:
        regular = stat.S_ISREG(os.stat(real).st_mode)
    except FileNotFoundError:
        return
    if not regular:
        raise StoreError(f"cannot open {path}: it is not a file")


def _open_lock(real: str) -> int:
    """The lock file itself and never the target of a link: the person who made it would choose the file that is written."""
    name = _name(real)
    if os.path.islink(name):
        raise StoreError(f"{name} is a link and stays as it is: remove it")
    lock = os.open(name, _FLAGS | os.O_NOFOLLOW, 0o600)
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise StoreError(f"{name} is not a file and stays as it is: remove it")
    return lock


def _lock_file(lock: int, real: str) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return identity(_name(real)) == _of(lock)


def _lock_database(database: int) -> bool | None:
    """Lock the database itself. None: another process holds it; False: this file system cannot do that together with SQLite's own locks."""
    try:
        fcntl.flock(database, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    try:
        fcntl.lockf(database, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _FAR)
        fcntl.lockf(database, fcntl.LOCK_UN, 1, _FAR)
    except OSError:
        fcntl.flock(database, fcntl.LOCK_UN)  # SQLite would wait for this lock for ever
        return False
    return True


# ---------------------------------------------------------------- who holds it


def identity(path: str) -> Identity | None:
    """Which file the name stands for: its device and number; None if there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def holder(path: str) -> Holder | None:
    """The process that holds the database for writing; None if none does. It asks the lock itself, and holds it for a moment.

    Raises:
        StoreError: the lock file cannot be read.
    """
    real = os.path.realpath(path)
    try:
        found = _named(real)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {_name(real)}: {error.strerror}") from error
    return found if found is not None and state(found) in (State.RUNS, State.ELSEWHERE) else None


def _named(real: str) -> Holder | None:
    """The process that the lock file names; None where its lock is free: it is not the file of the holder then, or there is none."""
    lock = os.open(_name(real), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return parse(os.pread(lock, 4096, 0))
    finally:
        os.close(lock)
    return None


def _whom(real: str) -> str:
    """The holder for a person, and what to do. Where the lock file was removed or replaced, the kernel knows who locked the database."""
    try:
        found = _named(real)
    except OSError:
        found = None
    found = found or Holder(locker(identity(real)))
    match state(found):
        case State.RUNS:
            return f"process {found.pid}: stop it first"
        case State.ELSEWHERE:
            return f"process {found.pid} on {found.host}, another machine or container than {here().host}: stop it there first"
        case State.UNKNOWN:
            return "another process: stop it first"
        case State.ZOMBIE:
            ended = f"process {found.pid} has ended (a zombie)"
        case State.REUSED:
            ended = f"process {found.pid} has ended, and another program has its number"
        case State.ENDED:
            ended = f"process {found.pid} has ended"
    return f"a forked child: {ended}, but a process that it forked holds the lock: stop that one first (fuser {_name(real)} names it)"


def _name(real: str) -> str:
    return f"{real}.lock"


def _of(descriptor: int) -> Identity:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
