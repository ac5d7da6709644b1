"""The tasks of a long-lived process next to its sessions: report its state to the service manager, watch its own loop, reload its
limits."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from holdfast import redact
from holdfast.console.process.notify import Notifier
from holdfast.console.process.settings import Settings, Source
from holdfast.console.reading.amounts import number
from holdfast.console.reading.values import legible
from holdfast.errors import ConfigError
from holdfast.supervisors.watchdog import Blocked, Frame, Watchdog

if TYPE_CHECKING:
    from holdfast.runtime.runtime import Runtime

STUCK = 70
"""The exit code of a process whose loop is blocked for good, or whose database does not return: sessions resume at the next start."""

_STATUS_S, _LOOK_S, _AGAIN_S, _TRIES = 5.0, 0.05, 0.1, 50
_HEALTH_CHECK = 0.8  # of the time between two pings of the watchdog: a check that takes longer has failed, so that the next one is in time
_FRAMES = 8
_log = logging.getLogger("holdfast.run")


class Keeper:
    """Connects one running Runtime with the service manager, the file of limits and the watchdog of its loop.

    Args:
        runtime: the Runtime, not yet open.
        notifier: the service manager.
        source: the file of limits.
        settings: the content of the file at the start.
        reload: set it to reload the file.
    """

    def __init__(self, runtime: Runtime, notifier: Notifier, source: Source, settings: Settings, reload: asyncio.Event) -> None:
        self._reload_asked = reload
        self._runtime, self._notifier, self._source, self._settings = runtime, notifier, source, settings
        self._doing, self._note = "starting", ""
        self._watchdog: Watchdog | None = None

    async def keep(self) -> None:
        """Send READY once the sessions are recovered, ping the watchdog, and reload the limits on request. Runs until cancelled."""
        async with anyio.create_task_group() as group:
            if self._notifier.address is not None:
                group.start_soon(self._pulse)
            await self._recovered()
            if self._doing == "running":
                await self._insist(lambda: self._notifier.ready(self._status()))
            while True:
                await self._reload_asked.wait()
                self._reload_asked.clear()
                if self._doing == "running":
                    await self._reload()

    def draining(self) -> None:
        """From now on reloads are ignored; the watchdog is still pinged."""
        self._doing = "draining"
        self._notifier.stopping(self._status())

    # ------------------------------------------------------------ the service manager

    async def _recovered(self) -> None:
        """Wait until recovery (replay) is complete, at most `recovery_s`: a handler may replay for any time."""
        self._doing, reported = "recovering", 0
        first = self._runtime.statistics()["recovering"]
        with anyio.move_on_after(self._settings.process.recovery_s) as limit:
            while (left := self._runtime.statistics()["recovering"]) and self._doing == "recovering":
                if left != reported:
                    self._notifier.status(f"recovering: {left} of {first} sessions are still replaying")
                reported = left
                await anyio.sleep(_LOOK_S)
        if limit.cancelled_caught:
            _log.warning(
                "%d of %d sessions are recovering after %g s: READY all the same", reported, first, self._settings.process.recovery_s
            )
        if self._doing == "recovering":
            self._doing = "running"

    async def _pulse(self) -> None:
        """Ping the watchdog at twice its rate, each time only if the loop and the database respond."""
        watchdog_s = self._notifier.watchdog_s
        period_s = _STATUS_S if watchdog_s is None else watchdog_s / 2
        well = True
        while True:
            began = anyio.current_time()
            try:
                if watchdog_s is not None:
                    await self._runtime.check_health(period_s * _HEALTH_CHECK)
            except Exception as error:
                # Any exception of the health check withholds the ping; the service manager acts on that.
                if well:
                    _log.error("the watchdog is not pinged: %s", error)
                well = False
                self._notifier.status(f"not healthy: {error}")
            else:
                if not well:
                    _log.warning("the watchdog is pinged again: the database answers")
                well = True
                (self._notifier.status if watchdog_s is None else self._notifier.alive)(self._status())
            await anyio.sleep(max(began + period_s - anyio.current_time(), 0.0))

    async def _insist(self, send: Callable[[], bool]) -> None:
        """Send a message that must arrive: repeat it if the service manager did not take it, for a limited time."""
        for _ in range(_TRIES):
            if send():
                return
            await anyio.sleep(_AGAIN_S)

    def _status(self) -> str:
        counts = self._runtime.statistics()
        live, steps = number(counts["live"], "session"), number(counts["steps_in_flight"], "step")
        text = f"{self._doing}: {live} live, {counts['working']} running, {steps} in flight"
        more = {
            "recovering": "recovering",
            "stuck": "attempts stuck",
            "threads_abandoned": "threads stuck",
            "threads_waiting": "waiting for a thread",
        }
        return ", ".join([text, *(f"{counts[name]} {words}" for name, words in more.items() if counts[name])]) + self._note

    # ------------------------------------------------------------ limits

    async def _reload(self) -> None:
        """Reload the file. A file with faults changes no limit."""
        await self._insist(self._notifier.reloading)
        try:
            settings = self._source.read()
            self._runtime.reconfigure((settings or Settings()).limits)
        except ConfigError as error:
            complain(error)
            complain(f"the limits stay as they were before {self._source.name} was read again")
            self._note = f"; faults in {self._source.name}: {len(str(error).splitlines())}, so it was not taken"
        else:
            self._settings, self._note = settings or Settings(), ""
            self._heed()
            say(f"reloaded: the limits are those of {'the code' if settings is None else self._source.name}")
        await self._insist(lambda: self._notifier.ready(self._status()))

    def _heed(self) -> None:
        if self._watchdog is not None:
            self._watchdog.blocked_s, self._watchdog.stuck_s = self._settings.process.blocked_s, self._settings.process.stuck_s

    # ------------------------------------------------------------ the loop

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Log the code that blocks the loop, and exit if it stays blocked; use it on the loop."""
        loop = asyncio.get_running_loop()

        def blocked(report: Blocked) -> None:
            _log.error("%s", _named(loop, report))

        def stuck(report: Blocked) -> None:
            _log.critical("%s: the process exits; open turns resume at the next start", _named(loop, report))
            os._exit(STUCK)

        self._watchdog = Watchdog(loop.call_soon_threadsafe, blocked, on_free=_free, on_stuck=stuck, thread=threading.get_ident())
        self._heed()
        self._watchdog.start()
        try:
            yield
        finally:
            self._watchdog.stop()


def _named(loop: asyncio.AbstractEventLoop, report: Blocked) -> str:
    """The code that blocks the loop, on one line: the task, whose name has the session's id, and the place of its code."""
    task = asyncio.current_task(loop)
    frames = []
    for frame in report.frames:
        if frame.function == "Handle._run":
            break  # the frames below are those of the loop itself
        frames.append(frame)
    text = " < ".join(_line_of(frame) for frame in frames[:_FRAMES])
    return redact.text(
        f"the loop has been blocked for over {report.seconds:.1f} s by {'a callback' if task is None else task.get_name()}: {text}"
    )


def _line_of(frame: Frame) -> str:
    return f"{frame.function} ({frame.file}:{frame.line})"


def _free(seconds: float) -> None:
    _log.warning("the loop runs again, after over %.1f s", seconds)


# ---------------------------------------------------------------- words for people


def say(line: str) -> None:
    """Print one line on stdout."""
    print(legible(redact.text(line)), flush=True)


def complain(what: object) -> None:
    """Print a fault on stderr, each of its lines as one line."""
    for line in str(what).splitlines():
        print(legible(redact.text(f"holdfast: {line}")), file=sys.stderr, flush=True)
