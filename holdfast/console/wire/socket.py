"""The control socket as a file: its path, its permissions, and the lock that protects the socket of a running process.

A socket file outlives its process, so its existence proves nothing. A process that listens holds a lock on a file next to it, which the
kernel releases when the process ends in any way, and it accepts connections. A socket file with neither is stale and is replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import IO, NamedTuple

from holdfast import forks
from holdfast.errors import ConfigError

MAX_BYTES = 107
"""The most bytes of a path in `sockaddr_un`, without its final 0."""

VARIABLE = "HOLDFAST_SOCKET"
_CREDENTIALS = struct.Struct("3i")
_CONNECT_S = 1.0


class Peer(NamedTuple):
    """The process at the other end of a connection, by the kernel."""

    pid: int
    uid: int


def peer(connection: socket.socket) -> Peer:
    """The process at the other end; for a client's connection, the process that listens."""
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(pid, uid)


# ---------------------------------------------------------------- where


def chosen(path: str | None) -> str | None:
    """The path by option or environment; None if it follows from the store."""
    return path or os.environ.get(VARIABLE) or None


def default_path(identity: str) -> str:
    """The default path at which the process that runs a store listens. `identity` names the store (see wire.identity)."""
    return next(candidates(identity))


def candidates(identity: str) -> Iterator[str]:
    """The paths at which such a process may listen, the most likely first: it may have been started without the environment of a login."""
    name = f"{blake2b(identity.encode(errors='surrogateescape'), digest_size=8).hexdigest()}.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    login = f"/run/user/{os.geteuid()}"
    for folder in dict.fromkeys((runtime, login)):
        if os.path.isabs(folder) and os.path.isdir(folder) and os.access(folder, os.W_OK):
            yield os.path.join(folder, "holdfast", name)
    yield os.path.join(tempfile.gettempdir(), f"holdfast-{os.geteuid()}", name)


def check_path(path: str) -> str:
    """`path`, absolute. Raises ConfigError if it is too long for a socket."""
    path = os.path.abspath(path)
    length = len(os.fsencode(path))
    if length > MAX_BYTES:
        raise ConfigError(f"the socket's path takes {length} bytes, {MAX_BYTES} at most: give a shorter one with --socket ({path})")
    return path


def check_folder(folder: str) -> None:
    """Raises ConfigError if other users could put a socket into `folder`, or remove ours."""
    try:
        found = os.lstat(folder)
    except OSError as error:
        raise ConfigError(f"the socket's folder {folder} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"the socket's folder {folder} is no folder: name another place with --socket")
    if found.st_uid != os.geteuid():
        raise ConfigError(f"the socket's folder {folder} belongs to uid {found.st_uid}, not to {os.geteuid()}: name another with --socket")
    if found.st_mode & 0o077:
        raise ConfigError(f"the socket's folder {folder} is open to others: chmod 700 it, or name another place with --socket")


# ---------------------------------------------------------------- the listener


class ControlSocket:
    """A listening socket of this process, until `close`.

    Attributes:
        path: the path of its file.
        listener: the socket.
    """

    def __init__(self, path: str, listener: socket.socket, lock: IO[str]) -> None:
        self.path, self.listener = path, listener
        self._lock = lock
        self._file = _identity(path)
        self._forked = False
        forks.register(self)

    def forked(self) -> None:
        """In a forked child: close its copies. Else clients would wait for the child to accept them after its parent has ended."""
        self._forked = True
        self.listener.close()
        self._lock.close()

    def close(self) -> None:
        """Stop listening, and remove the file if it is still the one that this process created."""
        if self._forked:
            return
        self.listener.close()
        try:
            if _identity(self.path) == self._file:
                os.unlink(self.path)
            os.unlink(self._lock.name)  # under the lock: a process that opened the file meanwhile notices that, and creates a new one
        except OSError:
            pass  # the file is already removed
        self._lock.close()


def listen(path: str) -> ControlSocket:
    """Listen at `path`. Only this user can access the file and its folder.

    Raises:
        ConfigError: the path is too long, its folder is open to other users, another process listens there, or the file is no socket.
    """
    path = check_path(path)
    folder = os.path.dirname(path)
    before = os.umask(0o077)
    try:
        _make(folder)
        check_folder(folder)
        lock = _lock(path)
        try:
            _clear(path)
            listener = _bind(path)
        except BaseException:
            lock.close()
            raise
        return ControlSocket(path, listener, lock)
    except OSError as error:
        raise ConfigError(f"cannot listen at {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)


def _make(folder: str) -> None:
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass  # check_folder decides whether it is usable


def _lock(path: str) -> IO[str]:
    name = f"{path}.lock"
    while True:
        lock = _open(name)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _identity(name) == _identity(lock.fileno()):
                break
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise _in_use(path, holder) from None
        except FileNotFoundError:
            pass
        lock.close()  # its owner removed it between the two calls
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _open(name: str) -> IO[str]:
    try:
        return open(name, "a+", opener=_itself)  # stays open as long as the socket
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ConfigError(f"{name} is a link and stays as it is: name another place with --socket") from error


def _itself(name: str, flags: int) -> int:
    """Open the file of that name and never the target of a link: their identities would never be equal."""
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)


def _clear(path: str) -> None:
    """Remove the socket of a process that has ended; under the lock, so that no other process of ours is about to listen there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path} is no socket and stays as it is: name another place with --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_S)
        try:
            client.connect(path)
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                raise _in_use(path, "unknown") from error  # such as a full backlog: a process listens
        else:
            raise _in_use(path, str(peer(client).pid))
    os.unlink(path)


def _bind(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)  # accessible for this user only, by the umask
        os.chmod(path, 0o600)
        listener.listen(128)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _in_use(path: str, pid: str) -> ConfigError:
    return ConfigError(f"the control socket {path} is in use by process {pid}: stop it first, or name another with --socket")


def _identity(file: str | int) -> tuple[int, int]:
    found = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    return found.st_dev, found.st_ino


def exists(path: str) -> bool:
    """Whether there is a socket file in a folder of this user only. Only a connection shows whether a process listens."""
    try:
        check_folder(str(Path(path).parent))
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except (ConfigError, OSError):
        return False
