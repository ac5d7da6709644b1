"""The holder of a lock file: how a process is named so that it is not taken for another one with its number."""

from __future__ import annotations

import os
import socket as sockets
from enum import StrEnum
from functools import lru_cache

import msgspec

_LOOKS = 5
"""How often the kernel's list of locks is read: one that is long misses lines where other locks come and go meanwhile."""


class State(StrEnum):
    """What is known of the process that a lock file names.

    RUNS: it is that process. ENDED: no process has its number. ZOMBIE: it has ended and its parent has not asked for its exit code.
    REUSED: another process has its number. ELSEWHERE: it is of another machine or container, where its number means another process.
    UNKNOWN: the lock file names none.
    """

    RUNS = "runs"
    ENDED = "ended"
    ZOMBIE = "zombie"
    REUSED = "reused"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"


class Holder(msgspec.Struct, frozen=True, omit_defaults=True):
    """A process, as a lock file names it.

    Attributes:
        pid: its number; 0 if it is not known.
        started: when it started, in clock ticks since the machine was booted; None if the system does not say.
        boot: the id of that boot; "" if the system does not say.
        space: the namespace in which `pid` is its number; "" if the system does not say.
        host: the name of its machine or container; "" in lock files of earlier versions.
        socket: the path of its control socket; "" if it has none.
    """

    pid: int
    started: int | None = None
    boot: str = ""
    space: str = ""
    host: str = ""
    socket: str = ""

    def at(self, socket: str) -> Holder:
        return msgspec.structs.replace(self, socket=socket)

    def text(self) -> bytes:
        return msgspec.json.encode(self) + b"\n"


def here() -> Holder:
    """This process."""
    return _process(os.getpid())


@lru_cache(1)
def _process(pid: int) -> Holder:
    """This process, whose number is `pid`: a forked child is another one."""
    found = _stat(pid)
    return Holder(pid, None if found is None else found[1], _boot(), _space(), sockets.gethostname())


def parse(text: bytes) -> Holder:
    """The holder that a lock file names; a lock file of an earlier version has the number alone."""
    try:
        if text.strip().isdigit():
            return Holder(int(text))
        return msgspec.json.decode(text, type=Holder)
    except (msgspec.MsgspecError, ValueError):
        return Holder(0)


def state(holder: Holder) -> State:
    """What has become of that process, as far as this one can tell."""
    if holder.pid <= 0:
        return State.UNKNOWN
    own = here()
    if holder.host and (holder.host, holder.space) != (own.host, own.space):
        return State.ELSEWHERE
    if holder.boot != own.boot and holder.boot:
        return State.ENDED
    found = _stat(holder.pid)
    if found is None:
        return State.RUNS if _answers(holder.pid) else State.ENDED
    status, started = found
    if holder.started not in (None, started):
        return State.REUSED
    return State.ZOMBIE if status in "ZX" else State.RUNS


def locker(file: tuple[int, int] | None) -> int:
    """The number of the process that locked (`flock`) the file of this device and number; 0 where the kernel's list does not have it.

    The list is of Linux, without processes of other containers; some file systems have another device there.
    """
    if file is None:
        return 0
    device, number = file
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{number}".encode()
    for _ in range(_LOOKS):
        try:
            with open("/proc/locks", "rb") as lines:
                for line in lines:
                    fields = line.split()
                    if place in fields and b"FLOCK" in fields and b"->" not in fields:  # an arrow: it waits for the lock
                        return int(fields[4])
        except (OSError, IndexError, ValueError):
            break  # no such list
    return 0


def _stat(pid: int) -> tuple[str, int] | None:
    """Status and start time of a process, from /proc; None if there is none, or no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the program's name in brackets, which may contain anything.
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def _answers(pid: int) -> bool:
    """Whether there is such a process, where /proc does not show it."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # under another user
    except (OSError, OverflowError):
        return False
    return True


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
