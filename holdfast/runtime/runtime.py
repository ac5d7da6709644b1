"""The Runtime: what a user opens. It owns the store, the supervision tree and the live sessions of this process."""

from __future__ import annotations

import os
import random as _random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import anyio
from anyio.abc import TaskGroup

from holdfast import errors, events
from holdfast.calls import threads
from holdfast.calls.clients import ModelClient
from holdfast.calls.prices import Prices
from holdfast.clock import Clock, SystemClock
from holdfast.policies._faults import Faults
from holdfast.policies.breaker import BreakerSpec, BreakerView
from holdfast.policies.budget import Budget
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.agents.limits import Limits
from holdfast.runtime.agents.settings import Settings
from holdfast.runtime.gateway import LocalGateway
from holdfast.runtime.handle import Handle
from holdfast.runtime.live import Live, live, under_way
from holdfast.runtime.sessions.registry import Sessions
from holdfast.runtime.turns.node import Node
from holdfast.stores import open_store
from holdfast.stores.group import GroupCommit
from holdfast.stores.ops import Touch
from holdfast.stores.protocol import Store
from holdfast.supervisors import Backoff, ChildSpec, Supervisor, SupervisorView
from holdfast.telemetry.telemetry import Telemetry


class Runtime:
    """One node: runs sessions of the given agents, durably.

    Use it as `async with runtime:` in a program of your own, or give it to `holdfast run module:runtime`.

    Args:
        store: "sqlite:///path.db", "memory:" (nothing survives the process), or a Store.
        agents: the agents whose sessions it runs.
        clients: model clients by name, such as {"openai": AsyncOpenAI()}; handlers get them as `session.clients.openai`.
        prices: what models cost; default the list that comes with genai-prices.
        breaker: of each dependency (a client, or what tools name as theirs); default BreakerSpec().
        idle_s: a session without work is put away after this long.
        drain_s: how long steps in flight may take at the end.
        quarantine_s: how long a cancelled handler may take to end before it is left behind.
        max_recovering: unfinished sessions that replay at once after a start.
        reconciles: probes of effects in doubt that run at once.
        telemetry: what makes spans of turns and steps; default what the environment asks for (see Telemetry.from_environment), False
            for none.
        clock, random: for tests in virtual time.
    """

    def __init__(
        self,
        store: str | Store,
        agents: Sequence[Agent],
        *,
        clients: Mapping[str, Any] | None = None,
        prices: Prices | None = None,
        breaker: BreakerSpec | None = None,
        idle_s: float = 60.0,
        drain_s: float = 30.0,
        quarantine_s: float = 1.0,
        max_recovering: int = 256,
        reconciles: int = 32,
        telemetry: Telemetry | Literal[False] | None = None,
        clock: Clock | None = None,
        random: _random.Random | None = None,
    ) -> None:
        faults = Faults("Runtime")
        for label, value in (("max_recovering", max_recovering), ("reconciles", reconciles)):
            faults.whole(label, value, 1)
        faults.number("idle_s", idle_s, positive=True)
        faults.number("drain_s", drain_s)
        faults.number("quarantine_s", quarantine_s)
        if not isinstance(store, str) and not callable(getattr(store, "apply", None)):
            faults.add(f"store is {store!r}: give a URL such as sqlite:///sessions.db, or a Store")
        if telemetry not in (None, False) and not isinstance(telemetry, Telemetry):
            faults.add(f"telemetry is {telemetry!r}: give a Telemetry, or False for none")
        faults.check()
        self.observers = events.Observers()
        self.store = open_store(store) if isinstance(store, str) else store
        self._prices = prices or Prices()
        self._clients = _prepared(clients or {}, self._prices)
        # As the code has it, and with what was laid over it from outside.
        self._own = self._settings = Settings(
            agents=_by_name(agents),
            breaker=breaker or BreakerSpec(),
            idle_s=idle_s,
            drain_s=drain_s,
            quarantine_s=quarantine_s,
            max_recovering=max_recovering,
            reconciles=reconciles,
        )
        self._clock = clock or SystemClock()
        self._random = random or _random.Random()
        self._node: Node | None = None
        self._sessions: Sessions | None = None
        self._gateway: LocalGateway | None = None
        self._group: TaskGroup | None = None
        self._tree: Supervisor | None = None
        self._services: list[ChildSpec] = []
        self._given_telemetry = telemetry
        self._telemetry: Telemetry | None = None

    # ------------------------------------------------------------ start and stop

    async def __aenter__(self) -> Self:
        """Open the store, start the tree, go on with every unfinished session.

        Raises:
            StoreLocked, SchemaTooNew, StoreError: the store cannot be opened; nothing was changed.
        """
        if self._node is not None:
            raise errors.RuntimeStopped("this Runtime is open already")
        telemetry = Telemetry.from_environment() if self._given_telemetry is None else self._given_telemetry
        if self._clients:
            self._prices.load()  # it takes 0.2 s, once: not in the middle of the first model call
        await self.store.open()
        try:
            commit = GroupCommit(self.store, fatal=_exit_now, unknown=lambda ops: sessions.unsure(ops))
            node = self._node = Node(
                store=self.store,
                group=commit,
                clock=self._clock,
                random=self._random,
                observers=self.observers,
                clients=self._clients,
                settings=self._settings,
            )
            sessions = self._sessions = Sessions(node)
            self._gateway = LocalGateway(node, sessions)
            services = Supervisor("services", self._started(telemetry or None), backoff=Backoff(base_s=0.2, max_s=5.0), clock=self._clock)
            children = [ChildSpec("writer", commit.run, stop_s=60.0), ChildSpec("services", services)]
            self._tree = Supervisor("holdfast", children, strategy="rest_for_one", clock=self._clock)
            self._group = anyio.create_task_group()
            await self._group.__aenter__()
            await self._group.start(self._tree.run)
            await sessions.recover(unclean=self.store.unclean)
        except BaseException:
            # Whatever went wrong, cancellation included: the store must not stay open (its thread would hold up the exit).
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Drain: steps in flight end, open turns stay in the journal for the next start."""
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + self._settings.drain_s + 60.0):
            # Shielded, within a deadline: a cancelled program still puts its sessions down cleanly. Where the tree gave up, nothing that a
            # step brings can be written any more: there is nothing to wait for.
            gave_up = self._group is not None and self._group.cancel_scope.cancel_called
            await self.drain(0.0 if gave_up else None)
        await self._close()

    async def drain(self, deadline_s: float | None = None) -> bool:
        """Accept nothing more and let steps in flight end; False if some had to be cut off. Leave the `async with` block after it."""
        return await self._open_sessions().drain(self._settings.drain_s if deadline_s is None else deadline_s)

    async def _close(self) -> None:
        node, sessions, group, telemetry = self._node, self._sessions, self._group, self._telemetry
        self._node = self._sessions = self._gateway = self._group = self._tree = self._telemetry = None
        if node is not None:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + 60.0):
                # Shielded, within a deadline: what was accepted for writing is written.
                await node.group.flush()
            node.deadlines.close()
        try:
            if group is not None:
                group.cancel_scope.cancel()
                await group.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + 60.0):
                # Shielded, within a deadline: an open connection would hold up the exit of the interpreter.
                await self.store.close()
            if telemetry is not None:
                self.observers.remove(telemetry.observer)
            if node is not None and sessions is not None:
                stopped = errors.RuntimeStopped("the runtime has stopped: ask again with the same id where it runs")
                sessions.waiters.close(node.group.lost or stopped)

    def _started(self, telemetry: Telemetry | None) -> list[ChildSpec]:
        """What runs beside the sessions, telemetry first: it ends last, and sees what the others do at their end."""
        self._telemetry = telemetry
        if telemetry is None:
            return self._services
        self.observers.add(telemetry.observer)
        return [ChildSpec("telemetry", telemetry.run, stop_s=telemetry.stop_s), *self._services]

    @property
    def telemetry(self) -> Telemetry | None:
        """What makes spans of what its sessions do, while it runs; None if nothing does."""
        return self._telemetry

    @property
    def agents(self) -> Mapping[str, Agent]:
        """The agents whose sessions it runs, by name, as they were given."""
        return self._own.agents

    def check(self, limits: Limits) -> list[str]:
        """Everything that is wrong with these limits for this Runtime, each beginning with its key; empty if nothing is."""
        return self._own.faults(limits)

    def reconfigure(self, limits: Limits) -> None:
        """Lay these limits over those of the code, in place of any that were laid over them before; also while it runs.

        What is read at each use changes at once; the breaker, repetition watch and intensity of a session change when it is next read
        in, and budgets are those of sessions that are spawned from then on: a person raises the others.

        Raises:
            ConfigError: what `check` finds; nothing is changed then.
        """
        wrong = self.check(limits)
        if wrong:
            raise errors.ConfigError("; ".join(wrong))
        self._settings = self._own.under(limits)
        if self._node is not None:
            self._open_sessions().reconfigure(self._settings)

    def supervise(self, *services: ChildSpec) -> None:
        """Run these beside the sessions, each restarted when it crashes: they start after the store's writer and stop before it.

        Raises:
            RuntimeStopped: it is open already: name them before `async with`.
        """
        if self._node is not None:
            raise errors.RuntimeStopped("this Runtime is open already: name what it supervises before `async with`")
        self._services += services

    # ------------------------------------------------------------ sessions

    async def spawn(
        self,
        agent: Agent,
        *,
        id: str | None = None,
        tenant: str = "default",
        user: str = "",
        state: Any = None,
        budget: Budget | None = None,
    ) -> Handle:
        """Get or create the session `id`: the caller's id is its identity. When this returns, it is durable.

        Args:
            id: default a new one.
            state: what it starts with, if it is new; default the agent's own.
            budget: its limits, if it is new; default the agent's.

        Raises:
            SessionConflict: the id belongs to a session of another agent or tenant.
            NotJournalable: `state` cannot be stored.
        If cancelled, the session may have been made; spawn it again with the same id.
        """
        if self._own.agents.get(agent.name) is not agent:
            raise errors.ConfigError(f"this Runtime does not have the agent {agent.name!r}: add it to agents=")
        wanted = uuid.uuid4().hex if id is None else id
        row = await self._open_gateway().spawn(self._settings.agents[agent.name], wanted, tenant, user, state, budget)
        return Handle(self._open_gateway(), row.id)

    def session(self, id: str) -> Handle:
        """A handle on a session that is there already; what it is asked raises SessionNotFound if it is not."""
        return Handle(self._open_gateway(), id)

    # ------------------------------------------------------------ what is going on

    def observe(self, observer: events.Observer) -> None:
        """Call `observer` with every event (holdfast.events), synchronously, on the loop."""
        self.observers.add(observer)

    def statistics(self) -> dict[str, int]:
        """Counts, as of now: live and working sessions, those still recovering, steps in flight, stuck handlers, writes.

        `ready` is 0 while it drains, or after a write that failed. With an exporter process of telemetry, its spans too.
        """
        node, sessions = self._running(), self._open_sessions()
        live = sessions.live
        return {
            "live": len(live),
            "working": sum(1 for actor in live.values() if actor.task is not None),
            "recovering": len(sessions.recovery),
            "steps_in_flight": len(node.deadlines),
            "threads_abandoned": threads.abandoned(),
            "stuck": sum(1 for task in node.stuck if not task.done()),
            "ready": int(node.group.healthy and not sessions.draining),
            "transactions": node.group.batches,
            "ops": node.group.ops,
            **({} if self._telemetry is None else self._telemetry.statistics()),
        }

    def live(self, ids: Iterable[str] | None = None) -> dict[str, Live]:
        """What sessions are doing right now, by id; those of `ids` that are in memory, all that are if it is None."""
        node, process = self._running(), os.getpid()
        running = under_way(node)
        there = self._open_sessions().live
        wanted = list(there) if ids is None else [id for id in ids if id in there]
        return {id: live(there[id], running.get(id, []), process) for id in wanted}

    def breakers(self) -> dict[str, BreakerView]:
        """The breakers of dependencies, by name; those that were asked at least once since the start."""
        return {name: breaker.view() for name, breaker in sorted(self._running().breakers.items())}

    async def probe(self, deadline_s: float = 5.0) -> None:
        """Find out whether the loop and the database answer; after a write that failed, whether one succeeds now.

        Raises:
            StoreError: a read or that write fails, or they take longer than `deadline_s`.
            RuntimeStopped: it is not running.
        If cancelled, nothing was changed.
        """
        node = self._running()
        try:
            with anyio.fail_after(deadline_s):
                await node.store.owner()
                if not node.group.healthy:
                    await node.group.submit(Touch())
        except TimeoutError:
            raise errors.StoreError(f"the database has not answered within {deadline_s:g} s") from None

    def tree(self) -> SupervisorView:
        """The supervision tree of this process, for people: each child with its state and its restarts."""
        self._running()
        assert self._tree is not None
        return self._tree.tree()

    def _running(self) -> Node:
        if self._node is None:
            raise errors.RuntimeStopped("the runtime is not running: use `async with runtime:`")
        return self._node

    def _open_sessions(self) -> Sessions:
        self._running()
        assert self._sessions is not None
        return self._sessions

    def _open_gateway(self) -> LocalGateway:
        self._running()
        assert self._gateway is not None
        return self._gateway


def _by_name(agents: Sequence[object]) -> dict[str, Agent]:
    faults: list[str] = []
    by_name: dict[str, Agent] = {}
    for agent in agents:
        if not isinstance(agent, Agent):
            faults.append(f"{agent!r} is not an agent: decorate its handler with @agent")
        elif agent.name in by_name:
            faults.append(f"two agents are called {agent.name!r}: give one of them another name=")
        else:
            by_name[agent.name] = agent
    if not agents:
        faults.append("there is no agent: Runtime(store, agents=[...])")
    if faults:
        raise errors.ConfigError("; ".join(faults))
    return by_name


def _prepared(clients: Mapping[str, Any], prices: Prices) -> dict[str, ModelClient]:
    faults: list[str] = []
    prepared: dict[str, ModelClient] = {}
    for name, client in clients.items():
        try:
            prepared[name] = client if isinstance(client, ModelClient) else ModelClient(name, client, prices=prices)
        except errors.ConfigError as error:
            faults.append(str(error))
    if faults:
        raise errors.ConfigError("; ".join(faults))
    return prepared


def _exit_now(cause: str) -> None:
    """The database did not return: no more can be promised, and what is open is safe in it. The next start goes on."""
    events.log.critical("holdfast exits: %s", cause)
    os._exit(70)
