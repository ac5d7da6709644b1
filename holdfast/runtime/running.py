"""One node from its start to its end: the writer, the supervision tree and the sessions on an open store. Started and ended in one task."""

from __future__ import annotations

import os
import random as _random
from collections.abc import Sequence

import anyio
from anyio.abc import TaskGroup

from holdfast import errors, events
from holdfast.calls.models.client import ModelClient
from holdfast.clock import Clock
from holdfast.runtime.agents.settings import Settings
from holdfast.runtime.gateway import LocalGateway
from holdfast.runtime.sessions.registry import Sessions
from holdfast.runtime.turns.lineage import TaskFactory
from holdfast.runtime.turns.node import Node
from holdfast.stores.group import GroupCommit
from holdfast.stores.protocol import Store
from holdfast.supervisors import Backoff, ChildSpec, Supervisor
from holdfast.telemetry.telemetry import Telemetry

_CLOSE_S = 60.0
"""How long the last writes may take, and how long the store may take to close."""


class Running:
    """The parts of a Runtime while it runs.

    Attributes:
        node: the state that turns share.
        sessions: the registry.
        gateway: the gateway of handles.
        tree: the supervision tree.
        telemetry: the maker of spans; None for none.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        random: _random.Random,
        observers: events.Observers,
        clients: dict[str, ModelClient],
        settings: Settings,
        telemetry: Telemetry | None,
    ) -> None:
        commit = GroupCommit(store, fatal=_exit_now, unknown=lambda ops: self.sessions.unsure(ops))
        node = self.node = Node(
            store=store, group=commit, clock=clock, random=random, observers=observers, clients=clients, settings=settings
        )
        self.sessions = Sessions(node)
        self.gateway = LocalGateway(node, self.sessions)
        self.telemetry = telemetry
        self.tree: Supervisor | None = None
        self._group: TaskGroup | None = None

    async def start(self, services: Sequence[ChildSpec]) -> None:
        """Start the tree, resume every unfinished session. Call `end` after it, also where it raises or is cancelled.

        Args:
            services: children to run next to the sessions.
        """
        node, children = self.node, list(services)
        TaskFactory.install(node.loop)
        if self.telemetry is not None:
            # Telemetry first: it ends last, and sees the ends of the others.
            node.observers.add(self.telemetry.observer)
            children.insert(0, ChildSpec("telemetry", self.telemetry.run, stop_s=self.telemetry.stop_s))
        children = [
            ChildSpec("writer", node.group.run, stop_s=_CLOSE_S),
            ChildSpec("services", Supervisor("services", children, backoff=Backoff(base_s=0.2, max_s=5.0), clock=node.clock)),
        ]
        self.tree = Supervisor("holdfast", children, strategy="rest_for_one", clock=node.clock)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        await self._group.start(self.tree.run)
        await self.sessions.recover(unclean=node.store.unclean)

    async def end(self) -> None:
        """Stop the tree and close the store.

        Raises:
            ExceptionGroup: of SupervisorGaveUp: the tree gave up before.
        If cancelled, the store is still closed.
        """
        node = self.node
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _CLOSE_S):
                # Shielded, within a deadline: the queued ops must be written.
                await node.group.flush()
        finally:
            node.deadlines.close()
            try:
                if self._group is not None:
                    self._group.cancel_scope.cancel()
                    await self._group.__aexit__(None, None, None)
            finally:
                await self._closed()

    async def _closed(self) -> None:
        node = self.node
        TaskFactory.remove(node.loop)
        self.sessions.recovery.close()
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _CLOSE_S):
                # Shielded, within a deadline: an open connection would block the exit of the interpreter.
                await node.store.close()
        finally:
            if self.telemetry is not None:
                node.observers.remove(self.telemetry.observer)
            stopped = errors.RuntimeStopped("the runtime has stopped: ask again with the same id where it runs")
            self.sessions.waiters.close(node.group.lost or stopped)


def _exit_now(cause: str) -> None:
    """The database does not answer: the process ends now. The open turns are safe in the database, and resume at the next start."""
    events.log.critical("holdfast exits: %s", cause)
    os._exit(70)
