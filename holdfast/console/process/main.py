"""`holdfast run`: a Runtime as a plain long-lived process.

The first SIGTERM or SIGINT drains: steps in flight end, open turns stay in the journal, the exit code is 0. A second one ends the process
at once; acknowledged work is not lost then either. SIGHUP reloads the limits. Signals set an event; they cancel no task.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import anyio
import msgspec

from holdfast import redact
from holdfast.calls.tools import threads
from holdfast.console.process import loader
from holdfast.console.process.keeper import Keeper, complain, say
from holdfast.console.process.notify import Notifier
from holdfast.console.process.settings import Settings, Source
from holdfast.console.reading.amounts import number
from holdfast.console.reading.values import legible
from holdfast.console.wire import identity
from holdfast.errors import ConfigError, SchemaTooNew, StoreError, SupervisorGaveUp
from holdfast.events import Event, Observer, SessionParked
from holdfast.stores import open_store
from holdfast.stores.records import ASKS_A_PERSON
from holdfast.supervisors import Backoff, ChildSpec, Supervisor
from holdfast.supervisors.events import ChildCrashed, SupervisionEvent
from holdfast.telemetry.logs import to_json

if TYPE_CHECKING:
    from holdfast.runtime.runtime import Runtime

GAVE_UP, REFUSED, NO_STORE = 1, 2, 3
_LAST_S = 1.0
_log = logging.getLogger("holdfast.run")


Reach = Callable[["Runtime"], AbstractContextManager[str | None]]
"""Opens the control API of a Runtime, and yields its address."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a Runtime is run.

    Attributes:
        store: the URL of a store to use instead of the Runtime's own.
        drain_s: how long steps in flight may take at the end, in seconds; default that in the file of limits, or the Runtime's own.
        feeds: "module:attr" of async functions that run next to the sessions and get the Runtime. A feed that crashes is restarted.
        config: the file of limits; default holdfast.toml in the current folder, if it is there.
        socket: where the control API listens; default the Runtime's `control`, else that of the environment, else one that follows from the
            store.
        control: whether there is a control API at all.
        log: "text" for warnings as lines of text, "json" for events as JSON (docs/telemetry.md), both on stderr.
    """

    store: str | None = None
    drain_s: float | None = None
    feeds: Sequence[str] = ()
    config: str | None = None
    socket: str | None = None
    control: bool = True
    log: Literal["text", "json"] = "text"


def run(target: str, options: Options) -> int:
    """Load a Runtime ("module:attr", or a function that returns one) and run it until a signal. Returns the exit code.

    Raises:
        ConfigError: there is no such Runtime, feed or store, or it cannot listen at its control socket.
        SchemaTooNew: the store was written by a newer holdfast.
    """
    found = loader.load(target)
    feeds = [(name, loader.feed_of(name)) for name in options.feeds]
    reach = _controlled(options.socket) if options.control else _uncontrolled
    observer = to_json() if options.log == "json" else _log_to_stderr()
    notifier = Notifier.from_environment()
    tune()

    async def main() -> int:
        runtime = await loader.runtime_of(found, target)
        if options.store is not None:
            runtime.store = open_store(options.store)
        runtime.observe(observer)
        return await _run(runtime, options, feeds, notifier, reach)

    try:
        return asyncio.run(main())
    except SchemaTooNew:
        raise
    except StoreError as error:
        complain(error)
        return NO_STORE


def _controlled(socket: str | None) -> Reach:
    from holdfast.console.api.server import controlled  # the import takes a while, so it happens before there is a loop to block

    return partial(controlled, path=socket)


def _uncontrolled(runtime: Runtime) -> AbstractContextManager[str | None]:
    runtime.control = False  # so that the Runtime does not open one itself
    return nullcontext()


def tune() -> None:
    """Prepare the process to run sessions: less work for the garbage collector gives a tenth more turns a second.

    Imported modules stay for good, so the collector need not scan them again. Turns and records are created by the thousand and have no
    cycles: with a lower limit, it would look at those of a few hundred turns under way, for nothing.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _run(runtime: Runtime, options: Options, feeds: Sequence[tuple[str, loader.Feed]], notifier: Notifier, reach: Reach) -> int:
    source, reload = Source(options.config, runtime.check), asyncio.Event()
    with ExitStack() as stack:
        # Before the file is read: a SIGHUP after a later change reloads it.
        stop = stack.enter_context(_signals(reload))
        try:
            settings = source.read()
            if settings is not None:
                runtime.reconfigure(settings.limits)
        except ConfigError as error:
            complain(error)
            return REFUSED
        keeper = Keeper(runtime, notifier, source, settings or Settings(), reload)
        stack.enter_context(keeper.watching())
        try:
            with reach(runtime) as socket:
                code = await serve(runtime, stop, keeper, drain_s=options.drain_s, feeds=feeds, socket=socket)
        except BaseExceptionGroup as group:
            given_up, others = group.split(SupervisorGaveUp)
            if given_up is None or others is not None:
                raise
            _say_why(given_up)
            code = GAVE_UP
        await _leave_behind(code)
        return code


async def _leave_behind(code: int) -> None:
    """Exit here if tasks or threads that do not end would block the exit for ever: the store is closed, so no work is lost."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=_LAST_S)
    if left or threads.abandoned():
        say(f"left behind: {number(len(left), 'task')} and {number(threads.abandoned(), 'thread')} that do not end")
        sys.stderr.flush()
        os._exit(code)


async def serve(
    runtime: Runtime,
    stop: asyncio.Event,
    keeper: Keeper,
    *,
    drain_s: float | None,
    feeds: Sequence[tuple[str, loader.Feed]] = (),
    socket: str | None = None,
) -> int:
    """Run until `stop` is set, then drain. Returns 0, or GAVE_UP if a feed crashed too often.

    Raises:
        ExceptionGroup: of SupervisorGaveUp: the runtime's own supervisor gave up.
        StoreError: the store cannot be opened.
    """
    code = 0
    async with runtime:
        recovering = number(runtime.statistics()["recovering"], "session")
        say(f"ready: {recovering} recovering, store {identity.url_of(runtime.store)}, pid {os.getpid()}")
        if socket is not None:
            say(f"control socket: {socket}")
        async with anyio.create_task_group() as group:
            # Until the drain is over: a process that drains for long must still ping the watchdog.
            group.start_soon(keeper.keep)
            try:
                await _until(stop, runtime, feeds)
            except* SupervisorGaveUp as gave_up:
                _say_why(gave_up)
                code = GAVE_UP
            keeper.draining()
            say("draining: steps in flight end, open turns resume at the next start; a second signal exits at once")
            if not await runtime.drain(drain_s):
                say("some steps took longer than the drain may take and were cut off; the next start resolves them")
            group.cancel_scope.cancel()
    say("drained")
    return code


async def _until(stop: asyncio.Event, runtime: Runtime, feeds: Sequence[tuple[str, loader.Feed]]) -> None:
    """Run the feeds, under a supervisor, until `stop` is set."""
    async with anyio.create_task_group() as group:
        if feeds:
            children = [ChildSpec(name, _fed(feed, runtime), restart="transient") for name, feed in feeds]
            group.start_soon(Supervisor("feeds", children, backoff=Backoff(base_s=0.5), on_event=_note).run)
        await stop.wait()
        group.cancel_scope.cancel()


def _fed(feed: loader.Feed, runtime: Runtime) -> Callable[[], Any]:
    async def child() -> None:
        await feed(runtime)

    return child


def _note(event: SupervisionEvent) -> None:
    if isinstance(event, ChildCrashed):
        _log.error("%s crashed: %s", event.child, event.error, exc_info=event.exception)


def _say_why(group: BaseExceptionGroup[SupervisorGaveUp]) -> None:
    for error in _leaves(group):
        complain(f"{loader.one_line(error)}; everything acknowledged is safe")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


# ---------------------------------------------------------------- signals and logs


@contextmanager
def _signals(reload: asyncio.Event) -> Iterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second one ends the process. SIGHUP sets `reload`.

    Plain signal handlers, not the loop's: those run in a callback, and a blocked loop would not let the second signal through.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        loop.call_soon_threadsafe(stop.set)

    def hang_up(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(reload.set)

    handlers = {signal.SIGTERM: handle, signal.SIGINT: handle, signal.SIGHUP: hang_up}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Redacting(logging.Formatter):
    """A log line, traceback included, without secrets and control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return legible(redact.text(super().format(record)))


def _log_to_stderr() -> Observer:
    """Log warnings, and the verbs of people, to stderr, unless the program has set up logging itself. Returns an observer that warns of
    sessions that need a person."""
    logging.getLogger("holdfast.audit").setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
    return _tell


def _tell(event: Event) -> None:
    if isinstance(event, SessionParked) and event.reason in ASKS_A_PERSON:
        _log.warning("session %s needs a person (%s): %s", redact.text(event.session), event.reason, event.text)
