"""The state that the turns of one process share: the store's writer, the clock, deadlines, breakers of dependencies, observers."""

from __future__ import annotations

import asyncio
import random as _random
from typing import Any

import msgspec

from holdfast.calls.models.client import ModelClient
from holdfast.clock import Clock, SteadyClock
from holdfast.events import Event, Observers
from holdfast.policies.breaker import Breaker
from holdfast.runtime.agents.settings import Settings
from holdfast.runtime.turns.deadlines import Deadlines
from holdfast.runtime.turns.peers import Peers
from holdfast.stores.group import GroupCommit
from holdfast.stores.protocol import Store
from holdfast.stores.records import StepRecord, StepState

Place = tuple[str, int, bytes]
"""A step among those of all sessions: session, turn, key."""

Known = tuple[StepState, StepRecord] | None
"""A record that may not be in the store, with its state; None: its attempt certainly did not begin, or its effect did not happen."""


class Node:
    """A running Runtime, as its turns see it.

    Attributes:
        peers: the other sessions.
        clock: the time of this process; it is not set with the wall clock.
        in_hand: what is known of steps whose last write has an unknown outcome, by session and turn, then by key: the next activation
            writes it.
        remains: threads that their steps left and that may still take effect, by step.
        stuck: tasks and threads that did not end when they were cancelled or timed out.
    """

    __slots__ = (
        "breakers", "clients", "clock", "deadlines", "encode", "group", "in_hand", "loop", "observers", "peers", "random", "reconciles",
        "remains", "settings", "store", "stuck",
    )  # fmt: skip

    peers: Peers

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
        self.store, self.group, self.clock, self.random = store, group, SteadyClock(clock), random
        self.observers, self.clients = observers, clients
        self.deadlines = Deadlines(self.loop, self.clock.monotonic)
        self.settings = settings
        self.reconciles = asyncio.Semaphore(settings.reconciles)
        self.stuck: set[asyncio.Future[Any]] = set()
        self.in_hand: dict[tuple[str, int], dict[bytes, Known]] = {}
        self.remains: dict[Place, asyncio.Task[None]] = {}
        self.encode = msgspec.msgpack.Encoder().encode
        self.breakers: dict[str, Breaker] = {}

    def breaker(self, dependency: str) -> Breaker:
        """The breaker that all calls to `dependency` share."""
        breaker = self.breakers.get(dependency)
        if breaker is None:
            breaker = self.breakers[dependency] = Breaker(self.settings.breaker, dependency)
        return breaker

    def reconfigure(self, settings: Settings) -> None:
        """Use new settings; an attempt under way keeps those it began with."""
        before, self.settings = self.settings, settings
        if settings.reconciles != before.reconciles:
            self.reconciles = asyncio.Semaphore(settings.reconciles)
        if settings.breaker != before.breaker:
            now = self.clock.time()
            self.breakers = {name: Breaker.restore(settings.breaker, old.snapshot(), name, now) for name, old in self.breakers.items()}

    def mark_stuck(self, task: asyncio.Future[Any]) -> None:
        """Count a task that did not end when it was cancelled as stuck, for as long as it runs."""
        self.stuck.add(task)
        task.add_done_callback(self.stuck.discard)

    def emit(self, event: Event) -> None:
        """Emit an event to the observers."""
        if self.observers:
            self.observers.emit(event)
