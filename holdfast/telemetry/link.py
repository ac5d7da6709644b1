"""This process's end of the pipe to the exporter: starts and watches the exporter, and never waits for it.

Batches that do not fit into the pipe wait in memory up to a limit; batches over it are dropped and counted. An exporter that dies is
started again, each time after a longer delay.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from holdfast import events, redact
from holdfast.telemetry import wire

PENDING_BYTES = 8 * 1024 * 1024
"""The most bytes of batches that wait for the pipe."""
RESTART_S, MAX_RESTART_S = 0.5, 60.0
_LOG_EVERY_S = 60.0
_PIPE_BYTES = 1 << 20
_EXPORTER = "holdfast.telemetry.exporter"
_INHERITED = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "SYSTEMROOT", "TMPDIR")


class Link:
    """Hands batches to an exporter process.

    Args:
        program: the command to run; the number of a file descriptor is appended. Default: this package's exporter.

    Attributes:
        last: called before the end, to send the batch that is being gathered.
    """

    def __init__(self, config: wire.Config, program: tuple[str, ...] = (sys.executable, "-P", "-m", _EXPORTER)) -> None:
        self._config, self._program = config, program
        self._pending: deque[tuple[memoryview, int]] = deque()
        self._bytes, self._before = 0, (0, 0)
        self._given = 0
        self._counted = asyncio.Event()  # set, and replaced, when the counts have changed
        self._sent = 0  # spans that the present exporter got
        self._seen = wire.Report(0, 0, "")
        self._lost = 0
        self.last: Callable[[], None] = _nothing
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[Any] | None = None
        self._over: asyncio.Event | None = None
        self._starting: asyncio.Event | None = None  # set once the first exporter runs, or has failed to start
        self._drained = asyncio.Event()
        self._writing = self._ending = False
        self._trouble = ""
        self._logged, self._logged_at = 0, -_LOG_EVERY_S

    @property
    def pid(self) -> int | None:
        """The process id of the exporter; None if there is none."""
        return None if self._process is None else self._process.pid

    @property
    def delivered(self) -> int:
        """Spans that the collector accepted."""
        return self._before[0] + self._seen.delivered

    @property
    def dropped(self) -> int:
        """Spans that are lost: they will not be delivered."""
        return self._before[1] + self._seen.dropped + self._lost

    @property
    def trouble(self) -> str:
        """The known fault of the exporter or the collector, without secrets; "" if there is none."""
        return redact.text(self._trouble or self._seen.trouble)

    def send(self, frame: bytes, spans: int) -> None:
        """Send a batch with so many spans, now or as soon as the pipe takes it; never waits."""
        self._given += spans
        if self._bytes + len(frame) > PENDING_BYTES or self._ending:
            self._lost += spans
            return
        self._pending.append((memoryview(frame), spans))
        self._bytes += len(frame)
        if self._socket is not None and not self._writing:
            self._write()

    async def run(self) -> None:
        """Keep an exporter running until cancelled; then send the pending batches and give the exporter its time to post them."""
        delay_s = RESTART_S / 2
        self._ending, self._starting, self._counted = False, asyncio.Event(), asyncio.Event()
        try:
            while not self._is_ending():
                began = anyio.current_time()
                if await self._start():
                    assert self._over is not None
                    await self._over.wait()
                    self._trouble = "" if self._is_ending() else "the exporter process died"
                await self._reap(1.0)
                if self._is_ending():
                    break
                delay_s = RESTART_S if anyio.current_time() - began > MAX_RESTART_S else min(delay_s * 2, MAX_RESTART_S)
                events.log.warning("telemetry: %s; it is started again in %g s", self.trouble, delay_s)
                await anyio.sleep(delay_s)
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + self._config.flush_s + 3.0):
                # Shielded, within a deadline: the last spans are those of the drain.
                self.last()
                if self._pending and self._socket is None and not self._ending and not self._trouble:
                    await self._start()  # it was cancelled before it began
                self._starting.set()
                await self.end(self._config.flush_s + 1.0)

    async def flush(self, within_s: float) -> bool:
        """Wait until all spans so far are delivered or dropped, at most `within_s` seconds. Returns whether they are."""
        self.last()
        given = self._given
        with anyio.move_on_after(within_s):
            while self.delivered + self.dropped < given:
                await self._counted.wait()
        return self.delivered + self.dropped >= given

    def _tell(self) -> None:
        changed, self._counted = self._counted, asyncio.Event()
        changed.set()

    async def end(self, within_s: float) -> None:
        """Send the pending batches and wait until the exporter has posted them, at most `within_s` seconds; then the exporter has ended."""
        self.last()
        if self._starting is not None:
            with anyio.move_on_after(within_s):
                await self._starting.wait()
        if self._over is not None and self._socket is not None:
            with anyio.move_on_after(within_s):
                await self._drained.wait()
                self._ending = True
                if self._socket is not None:
                    self._socket.shutdown(socket.SHUT_WR)
                await self._over.wait()
        self._ending = True
        await self._reap(1.0)
        self._lost += sum(spans for _, spans in self._pending)
        self._pending.clear()
        self._bytes = 0
        self._tell()

    def _is_ending(self) -> bool:
        return self._ending

    def log_drops(self, now: float) -> None:
        """Log one line about dropped spans, at most once a minute."""
        if self.dropped > self._logged and now - self._logged_at >= _LOG_EVERY_S:
            why = f" ({self.trouble})" if self.trouble else ""
            events.log.warning("telemetry: %d spans dropped so far%s", self.dropped, why)
            self._logged, self._logged_at = self.dropped, now

    # ------------------------------------------------------------ the process

    async def _start(self) -> bool:
        try:
            await self._spawn()
        except OSError as error:
            self._trouble = f"the exporter process did not start: {error}"
            return False
        finally:
            if self._starting is not None:
                self._starting.set()
        return True

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES)
            ours.settimeout(1.0)
            ours.sendall(wire.frame(self._config))  # the pipe is empty, so this does not wait
            ours.setblocking(False)
            descriptor = theirs.fileno()
            self._process = await anyio.to_thread.run_sync(
                partial(
                    subprocess.Popen, [*self._program, str(descriptor)], pass_fds=(descriptor,), stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, env=_environment(), start_new_session=True,
                )
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._before = (self.delivered, self.dropped - self._lost)
        self._seen, self._sent, self._trouble = wire.Report(0, 0, ""), 0, ""
        self._socket, self._over, self._drained = ours, asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().add_reader(ours, self._read, ours, wire.Frames())
        self._write()

    def _read(self, pipe: socket.socket, frames: wire.Frames) -> None:
        try:
            data = pipe.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for body in frames.feed(data):
            self._seen = wire.read_report(body)
            self._tell()
        if not data:
            self._gone()

    def _write(self) -> None:
        """Send as much as the pipe takes; the loop calls this again when it takes more."""
        pipe = self._socket
        if pipe is None:
            return
        try:
            while self._pending:
                data, spans = self._pending[0]
                taken = pipe.send(data)
                self._bytes -= taken
                if taken < len(data):
                    self._pending[0] = (data[taken:], spans)
                else:
                    self._pending.popleft()
                    self._sent += spans
        except BlockingIOError:
            pass
        except OSError:
            return self._gone()
        (self._drained.clear if self._pending else self._drained.set)()
        if bool(self._pending) != self._writing:
            self._writing = not self._writing
            loop = asyncio.get_running_loop()
            if self._writing:
                loop.add_writer(pipe, self._write)
            else:
                loop.remove_writer(pipe)

    def _gone(self) -> None:
        """The exporter has closed its end: spans that it did not report are lost, and so is a frame that was sent in part."""
        pipe, self._socket = self._socket, None
        if pipe is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(pipe)
        loop.remove_writer(pipe)
        pipe.close()
        self._writing = False
        self._drained.set()
        if self._pending and len(self._pending[0][0]) < len(self._pending[0][0].obj):  # type: ignore[arg-type]
            data, spans = self._pending.popleft()
            self._bytes -= len(data)
            self._sent += spans
        self._lost += max(self._sent - self._seen.delivered - self._seen.dropped, 0)
        self._tell()
        assert self._over is not None
        self._over.set()

    async def _reap(self, within_s: float) -> None:
        """Wait for the exporter's end, and kill it after `within_s` seconds: no exporter outlives its link."""
        self._gone()
        process, self._process = self._process, None
        if process is not None:
            await anyio.to_thread.run_sync(_wait, process, within_s)


def _nothing() -> None:
    pass


def _wait(process: subprocess.Popen[Any], within_s: float) -> None:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """The variables that the exporter needs to run. It gets no others, since this process's environment can hold credentials."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return environment
