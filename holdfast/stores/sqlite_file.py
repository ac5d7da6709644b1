"""The database file as a file: who holds it for writing, and whether it is one of ours."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO
from urllib.parse import quote

from holdfast.errors import SchemaTooNew, StoreError, StoreLocked
from holdfast.stores import sqlite_schema as schema


def take_lock(path: str) -> IO[str]:
    """The lock file next to a database, held until it is closed.

    Raises:
        StoreLocked: another process holds it.
        StoreError: the file cannot be created.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(f"cannot open {path}: it is not a file")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Only the owner may read it: a database holds every conversation.
        lock = os.fdopen(os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a+")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise StoreLocked(f"{path} is in use by process {owner}: stop it first, or name another file") from None
    try:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except OSError as error:
        lock.close()
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    return lock


def identity(path: str) -> tuple[int, int] | None:
    """Which file the name stands for: its device and number; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def holder(path: str) -> int | None:
    """The process that the lock file names, if it lives. It does not try the lock: that could refuse an owner that is starting."""
    try:
        pid = int(Path(f"{path}.lock").read_text().strip())
        os.kill(pid, 0)
    except PermissionError:
        return pid  # it lives, under another user
    except (OSError, ValueError):
        return None
    return pid


def read_only(path: str) -> str:
    """The name under which SQLite opens the file without writing to it, recovering it or checkpointing it.

    Raises:
        StoreError: there is no such file.
    """
    if not os.path.isfile(path):
        raise StoreError(f"there is no database {path}: name the file with --db path.db")
    return f"file:{quote(os.path.abspath(path))}?mode=ro"


def is_database(path: str) -> bool:
    """Whether the file is a holdfast database, of any version. Its header has no mark before the first checkpoint of the WAL."""
    try:
        connection = sqlite3.connect(read_only(path), uri=True)
    except (StoreError, sqlite3.Error):
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
