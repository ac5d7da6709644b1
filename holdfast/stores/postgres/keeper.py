"""The keeper of a development server: a small process that stops the server after a while without users.

It is run by its path, with the standard library alone: it lives as long as the server, and should take little memory. Each user of the
server holds a shared lock on a file, which the kernel releases when the process ends, also after a kill.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from typing import IO


def locked(path: str, how: int) -> IO[str] | None:
    """The file, locked; None where another process holds it and `how` has LOCK_NB."""
    file = open(path, "a")  # noqa: SIM115 — held open for as long as it is locked
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        file.close()
        return None
    return file


def stop(pg_ctl: str, data: str, user: int | None) -> None:
    """Stop the server of a data folder, if it runs; it disconnects its clients."""
    command = [pg_ctl, "stop", "--pgdata", data, "--mode", "fast", "--wait", "--timeout", "20", "--silent"]
    quiet = subprocess.DEVNULL
    if user is None:
        subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet)
    else:
        subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/", user=user, group=user, extra_groups=[])


def main(folder: str, pg_ctl: str, data: str, user: int | None, idle_s: float) -> None:
    """Wait until the server has had no users for `idle_s` seconds; then stop it."""
    here = locked(os.path.join(folder, "keeper"), fcntl.LOCK_EX | fcntl.LOCK_NB)
    if here is None:
        return
    users = os.path.join(folder, "users")
    while os.path.exists(users):
        alone = locked(users, fcntl.LOCK_EX)
        assert alone is not None
        alone.close()
        time.sleep(idle_s)
        if not os.path.exists(users):
            break
        alone = locked(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if alone is not None:
            stop(pg_ctl, data, user)
            # In this order: the next user finds no keeper, and starts one.
            here.close()
            alone.close()
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if sys.argv[4] else None, float(sys.argv[5]))
