"""The database file as a file: whether it is one of ours, and whether it is still the one that this process opened."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
import zlib
from typing import NoReturn
from urllib.parse import quote

import aiosqlite

from holdfast import forks
from holdfast.errors import SchemaTooNew, StoreError, StoreLost
from holdfast.stores.sqlite import schema
from holdfast.stores.sqlite.lock import FileLock, Identity, identity

WAL_LIMIT = 67108864
"""SQLite cuts a longer WAL to this many bytes when it starts the WAL anew, and never to fewer."""

_SOUND_S = 2.0
"""How long a check of a whole database may take, in seconds: writes wait meanwhile."""

_HEADER, _CHUNK = 100, 1 << 20
_MAGIC, _WAL_MAGIC = b"SQLite format 3\0", (0x377F0682, 0x377F0683)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Files:
    """The database and its WAL as this process opened them. For the database thread, between transactions.

    Only this process writes to them, so it stops at each change that it did not make: a later start may not find what it would write.
    SQLite itself notices none of this while the pages are in its cache.

    Args:
        lock: the lock of the database.
        connection: the open connection, after its first write: its WAL exists.

    Attributes:
        lost: why this process cannot write any more; None while it can.
        sound: whether SQLite may close the database: it writes the rest of its WAL into the file then, and removes the WAL.
    """

    def __init__(self, lock: FileLock, connection: sqlite3.Connection) -> None:
        self._lock, self._connection = lock, connection
        self.path, self._real, self._wal = lock.path, lock.real, f"{lock.real}-wal"
        self._index: Identity | None = identity(f"{lock.real}-shm")
        self._wal_identity = identity(self._wal)
        self._size = self._wal_size = 0
        self._page = self._head()[16:18]
        self._version = self._data_version()
        self._seen: tuple[object, object] | None = None
        self._wal_sum: int | None = None
        self._writes = self._looked = 0
        self.lost: str | None = None
        self.sound = True

    def note(self, error: Exception) -> None:
        """Raises StoreLost if SQLite found the file damaged: what it writes there may not be found again."""
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            self._lose(f"is damaged ({error})", cause=error)

    def check(self) -> None:
        """Compare the files with those that were opened: before each transaction, inside of it. It costs a call of `stat` for each file.

        Raises:
            StoreLost: one was removed, replaced or truncated.
        """
        self._writes += 1
        self._compare()

    def _compare(self) -> None:
        if self.lost is not None:
            raise StoreLost(self.lost)
        try:
            found = os.stat(self._real)
            if (found.st_dev, found.st_ino) != self._lock.identity:
                self._lose("was removed or replaced")
            if found.st_size < self._size:
                self._lose("was truncated")
            self._size = found.st_size
            if self._wal_identity is not None:
                found = os.stat(self._wal)
                if (found.st_dev, found.st_ino) != self._wal_identity:
                    self._lose("has a WAL that was replaced")
                if found.st_size < self._wal_size and found.st_size < WAL_LIMIT:
                    self._lose("has a WAL that was truncated")
                self._wal_size = found.st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            # SQLite's close still writes the rest of a removed WAL into the database.
            self._lose("was removed or replaced" if error.filename == self._real else "has a WAL that was removed", sound=True)
        if not self._lock.both:
            self._check_lock()

    def _check_lock(self) -> None:
        try:
            self._lock.check()
        except StoreLost as error:
            self.lost = str(error)
            raise

    def look(self) -> None:
        """Look for damage, too; for now and then.

        Raises:
            StoreLost: as `check`, or a file is damaged, or another program wrote to it.
            StoreError, sqlite3.Error: a file cannot be read.
        """
        quiet, self._looked = self._writes == self._looked, self._writes
        self._compare()
        self._check_lock()
        try:
            self._look_inside(quiet)
        except OSError as error:
            self._compare()  # it may have been removed just now
            raise StoreError(f"{self.path} cannot be checked: {error}") from error

    def _look_inside(self, quiet: bool) -> None:
        if self._index is not None and identity(f"{self._real}-shm") != self._index:
            self._lose("has an index of its WAL (-shm) that was removed or replaced", sound=True)
        head = self._head()
        if len(head) < _HEADER or head[:16] != _MAGIC or head[16:18] != self._page:
            self._lose("is damaged (its header)")
        if self._wal_identity is not None and not self._wal_head():
            self._lose("has a damaged WAL (its header)")
        self._compare_times(quiet)
        if self._data_version() != self._version:
            self._lose("was written by another program")

    def _compare_times(self, quiet: bool) -> None:
        """Another program changed a file whose time of change is another one, although this process wrote nothing since the last look.

        A changed time alone is no harm: a person touched the file, or the file system sets the time later.
        """
        before, self._seen = self._seen, (_changed(self._real), _changed(self._wal) if self._wal_identity is not None else None)
        if not quiet or before is None:
            self._wal_sum = None
            return
        if before[0] != self._seen[0] and not self._is_sound():
            self._lose("is damaged")
        if self._wal_identity is not None and (self._wal_sum is None or before[1] != self._seen[1]):
            known, self._wal_sum = self._wal_sum, _checksum(self._wal)
            if known not in (None, self._wal_sum):
                self._lose("has a WAL that another program changed")

    def _is_sound(self) -> bool:
        """Whether the file itself is a well-formed database, as far as `_SOUND_S` allows; our connection would answer from its cache."""
        try:
            reader = sqlite3.connect(read_only(self._real), uri=True)
        except (StoreError, sqlite3.Error):
            return False
        until = time.monotonic() + _SOUND_S
        reader.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            return bool(reader.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        except sqlite3.DatabaseError as error:
            return error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT
        finally:
            reader.close()

    def _head(self) -> bytes:
        # By the descriptor of the lock: to close another one would end SQLite's locks.
        return os.pread(self._lock.database, _HEADER, 0)

    def _wal_head(self) -> bool:
        # SQLite locks no byte of the WAL, so this file may be opened and closed.
        with open(self._wal, "rb") as file:
            return int.from_bytes(file.read(4), "big") in _WAL_MAGIC

    def _data_version(self) -> int:
        """A number that changes when another connection has written."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _lose(self, what: str, *, sound: bool = False, cause: Exception | None = None) -> NoReturn:
        self.sound = sound
        self.lost = f"{self.path} {what} while this process ran it: this process cannot write any more; start it again"
        raise StoreLost(self.lost) from cause


def _changed(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size


def _checksum(path: str) -> int:
    total = 0
    with open(path, "rb") as file:
        while part := file.read(_CHUNK):
            total = zlib.crc32(part, total)
    return total


def read_only(path: str) -> str:
    """The name under which SQLite opens the file without writing to it, recovering it or checkpointing it.

    Raises:
        StoreError: there is no such file, or this user may not read it.
    """
    try:
        # Not opened here: a process that closes a file ends the locks that it has on it.
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_file = False
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    if not is_file:
        raise StoreError(f"there is no database {path}: name the file with --db path.db")
    if not os.access(path, os.R_OK):
        raise StoreError(f"cannot open {path}: this user may not read it")
    return f"file:{quote(os.path.abspath(path))}?mode=ro"


async def abandon(connection: aiosqlite.Connection) -> None:
    """End the thread of a connection without closing it: SQLite would write what it knows of the old file into the one that is there."""
    forks.keep_for_ever(connection._connection)
    connection._connection = None
    stopped = connection.stop()
    if stopped is not None:
        await stopped


def is_database(path: str) -> bool:
    """Whether the file is a holdfast database, of any version. Its header has no mark before the first checkpoint of the WAL.

    Raises:
        StoreError: this user may not read it.
    """
    try:
        connection = sqlite3.connect(read_only(path), uri=True)
    except sqlite3.Error:
        return False
    try:
        return schema.check(connection, path) > 0
    except SchemaTooNew:
        return True
    except (StoreError, sqlite3.Error):
        return False
    finally:
        connection.close()


def passes(error: Exception) -> bool:
    """Whether a write failed because of the file or the disk, so that the same write may succeed later.

    False where an op is at fault (a value that SQLite cannot hold), and where the file is damaged.
    """
    if isinstance(error, sqlite3.OperationalError):
        # SQLITE_ERROR is a fault in the statement: it fails again. An error without a code is not SQLite's: a text that is no UTF-8.
        return getattr(error, "sqlite_errorcode", None) not in (None, sqlite3.SQLITE_ERROR)
    return isinstance(error, (OSError, MemoryError))
