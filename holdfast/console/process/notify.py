"""Messages to the service manager: the protocol of sd_notify(3), datagrams of assignments to the socket in NOTIFY_SOCKET.

Without that variable no message is sent. A datagram never waits: if the manager does not take it at once, the caller sends it again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

from holdfast import redact

_LONGEST = 1000
"""The most characters of a status line: `systemctl status` prints one line."""

_log = logging.getLogger("holdfast.notify")


class Notifier:
    """Sends to one service manager.

    Args:
        address: the address of its socket: a path, or "@name" for an abstract one; None sends no messages.
        watchdog_s: how long it waits for a ping before it ends the process, in seconds; None is for ever.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self.address, self.watchdog_s = address, watchdog_s
        self._lost = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] | None = None) -> Notifier:
        """The service manager that started this process. Its variables are removed from the environment: child processes must not send
        messages for this one."""
        environment = os.environ if environment is None else environment
        address = environment.pop("NOTIFY_SOCKET", "") or None
        usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        if address is not None and address[0] not in "/@":
            _log.warning(
                "NOTIFY_SOCKET is %r: a path or an abstract name (@...) is understood; the service manager gets no messages", address
            )
            address = None
        if address is None or not usec or (pid and pid != str(os.getpid())):
            return cls(address)
        if not usec.isascii() or not usec.isdigit() or int(usec) == 0:
            _log.warning("WATCHDOG_USEC is %r: give microseconds; there is no watchdog", usec)
            return cls(address)
        return cls(address, int(usec) / 1e6)

    def ready(self, status: str) -> bool:
        """Report that the process is ready, or has finished a reload."""
        return self.send("READY=1", _status(status))

    def reloading(self) -> bool:
        """Report that it reloads its settings; `ready` follows."""
        return self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> bool:
        """Report that it is stopping on purpose."""
        return self.send("STOPPING=1", _status(status))

    def alive(self, status: str) -> bool:
        """Ping the watchdog."""
        return self.send("WATCHDOG=1", _status(status))

    def status(self, status: str) -> bool:
        """Send a status text for people."""
        return self.send(_status(status))

    def send(self, *assignments: str) -> bool:
        """Send one datagram. Returns False if it was not taken: send it again. If the manager is gone, that is logged once."""
        if self.address is None:
            return True
        # Abstract names begin with a zero byte. A new socket each time: the manager may have created its own anew.
        address = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
                sender.connect(address)
                sender.send("\n".join(assignments).encode())
        except OSError as error:
            if not self._lost:
                _log.warning("cannot send %s to the service manager at %s: %s", assignments[0], self.address, error)
            self._lost = True
            return False
        self._lost = False
        return True


def _status(text: str) -> str:
    """One line, since a newline would begin another assignment, and without secrets."""
    return f"STATUS={redact.text(' '.join(text.split()))[:_LONGEST]}"
