"""What every session of one process shares: the store's writer, the clock, deadlines, the breakers of dependencies, observers."""

from __future__ import annotations

import asyncio
import random as _random
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.calls.clients import ModelClient
from holdfast.clock import Clock
from holdfast.events import Event, Observers
from holdfast.policies.breaker import Breaker
from holdfast.runtime.deadlines import Deadlines
from holdfast.stores.group import GroupCommit
from holdfast.stores.protocol import Store

if TYPE_CHECKING:
    from holdfast.runtime.sessions import Sessions
    from holdfast.runtime.settings import Settings


class Node:
    """One running Runtime, as its parts see it."""

    __slots__ = (
        "breakers",
        "clients",
        "clock",
        "deadlines",
        "encode",
        "group",
        "loop",
        "observers",
        "random",
        "reconciles",
        "sessions",
        "settings",
        "store",
        "stuck",
    )

    sessions: Sessions

    def __init__(
        self,
        *,
        store: Store,
        group: GroupCommit,
        clock: Clock,
        random: _random.Random,
        observers: Observers,
        clients: dict[str, ModelClient],
        settings: Settings,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.store, self.group, self.clock, self.random = store, group, clock, random
        self.observers, self.clients = observers, clients
        self.deadlines = Deadlines(self.loop)
        self.settings = settings
        self.reconciles = asyncio.Semaphore(settings.reconciles)
        self.stuck: set[asyncio.Task[Any]] = set()
        self.encode = msgspec.msgpack.Encoder().encode
        self.breakers: dict[str, Breaker] = {}

    def breaker(self, dependency: str) -> Breaker:
        """The breaker that all calls to `dependency` share."""
        breaker = self.breakers.get(dependency)
        if breaker is None:
            breaker = self.breakers[dependency] = Breaker(self.settings.breaker, dependency)
        return breaker

    def reconfigure(self, settings: Settings) -> None:
        """Go by these from now on; what is under way goes on under what it began with."""
        before, self.settings = self.settings, settings
        if settings.reconciles != before.reconciles:
            self.reconciles = asyncio.Semaphore(settings.reconciles)
        if settings.breaker != before.breaker:
            now = self.clock.time()
            self.breakers = {name: Breaker.restore(settings.breaker, old.snapshot(), name, now) for name, old in self.breakers.items()}
        for actor in self.sessions.live.values():
            actor.agent = settings.agents[actor.agent.name]
        self.sessions.reconfigured()

    def strand(self, task: asyncio.Task[Any]) -> None:
        """A handler that swallowed its cancellation is left behind: it counts as stuck for as long as it runs."""
        self.stuck.add(task)
        task.add_done_callback(self.stuck.discard)

    def emit(self, event: Event) -> None:
        """Tell the observers."""
        if self.observers:
            self.observers.emit(event)
