"""What the tests of supervision share: a loop in virtual time, a recorder of events, and children with one habit each."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import msgspec

from holdfast.supervisors import DynamicSupervisor, SupervisionEvent, Supervisor


class _JumpingSelector(selectors.DefaultSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("every task waits for another one: a deadlock")
        self.loop.turns += 1
        if self.loop.at_turn is not None and self.loop.turns >= self.loop.at_turn[0]:
            self.loop.call_soon(self.loop.at_turn[1])
            self.loop.at_turn, timeout = None, 0.0
        # A loop that is never idle (a task that swallows its cancellation) still sees time pass.
        self.loop.now += max(timeout, 1e-6)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer. At a chosen turn of it, `at_turn`, it calls something."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self.at_turn: tuple[int, Callable[[], None]] | None = None
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class LoopClock:
    """The time of the running loop, as a `Clock`; 0 outside one."""

    def monotonic(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return 0.0

    time = monotonic


class Recorder:
    """An observer: `seen` holds "EventName child" or "EventName" in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._changed = anyio.Event()

    def __call__(self, event: SupervisionEvent) -> None:
        name = type(event).__name__.removeprefix("Child")
        child = msgspec.structs.asdict(event).get("child")
        self.seen.append(f"{name} {child}" if child else name)
        self._changed.set()

    async def until(self, text: str, times: int = 1) -> None:
        """Wait until something was seen so many times."""
        while self.seen.count(text) < times:
            self._changed = anyio.Event()
            await self._changed.wait()

    def only(self, *names: str) -> list[str]:
        """What was seen of these events."""
        return [text for text in self.seen if text.split()[0] in names]


class Crash(Exception):
    """What children in these tests raise."""


class Switch:
    """Children that live until they are told to crash or to return, by id."""

    def __init__(self) -> None:
        self._orders: dict[str, tuple[anyio.Event, BaseException | None]] = {}
        self.alive: list[str] = []
        self.lives = 0

    def child(self, id: str) -> Callable[[], Any]:
        async def live() -> None:
            self.lives += 1
            order = anyio.Event()
            self._orders[id] = order, None
            self.alive.append(id)
            try:
                await order.wait()
                error = self._orders[id][1]
                if error is not None:
                    raise error
            finally:
                self.alive.remove(id)

        return live

    def end(self, id: str, error: BaseException | None = None) -> None:
        order, _ = self._orders[id]
        self._orders[id] = order, error
        order.set()

    def crash(self, id: str) -> None:
        self.end(id, Crash(id))


class Outcome:
    """How a supervisor's run ended."""

    error: BaseException | None = None
    over = False


@asynccontextmanager
async def running(supervisor: Supervisor | DynamicSupervisor) -> AsyncIterator[Outcome]:
    """A supervisor that runs in the background, started when the block begins, cancelled and over when it has ended."""
    outcome = Outcome()
    begun = anyio.Event()

    class Begun:
        def started(self, value: None = None) -> None:
            begun.set()

    async def run() -> None:
        try:
            await supervisor.run(task_status=cast(Any, Begun()))
        except Exception as error:
            outcome.error = error
        finally:
            outcome.over = True
            begun.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await begun.wait()
        yield outcome
        group.cancel_scope.cancel()


def other_tasks() -> set[asyncio.Task[Any]]:
    """Every task but this one."""
    return asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())}


async def forever() -> None:
    """A child that lives until it is cancelled."""
    await anyio.sleep_forever()


async def deaf() -> None:
    """A child that shields itself from its cancellation."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep_forever()


async def stubborn() -> None:
    """A child that swallows its cancellation, whatever it is."""
    while True:
        try:
            await anyio.sleep(1000)
        except BaseException:
            continue
