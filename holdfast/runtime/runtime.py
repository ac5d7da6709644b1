"""The Runtime, which users open: it owns the store, the supervision tree and the live sessions of this process."""

from __future__ import annotations

import os
import random as _random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Literal, Self

import anyio

from holdfast import errors, events
from holdfast.calls.models.prices import Prices
from holdfast.calls.tools import threads
from holdfast.clock import Clock, SystemClock
from holdfast.policies._faults import Faults
from holdfast.policies.breaker import BreakerSpec, BreakerView
from holdfast.policies.budget import Budget
from holdfast.runtime import arguments
from holdfast.runtime.agents.definition import Agent, check_agent
from holdfast.runtime.agents.ids import new_id
from holdfast.runtime.agents.limits import Limits
from holdfast.runtime.agents.settings import Settings
from holdfast.runtime.handle import Handle
from holdfast.runtime.lifecycle import OwnTask, check_loop, sole
from holdfast.runtime.live import Live, live, under_way
from holdfast.runtime.running import Running
from holdfast.stores import open_store
from holdfast.stores.ops import Touch
from holdfast.stores.protocol import Store
from holdfast.supervisors import ChildSpec, SupervisorView
from holdfast.telemetry.telemetry import Telemetry


class Runtime:
    """One node: runs sessions of the given agents, durably.

    In your own program use `async with runtime:`, or `start()` and `stop()`; or give it to `holdfast run module:runtime`. One task may
    open it and another one close it, on the same event loop.

    Args:
        store: "sqlite:///path.db", "memory:" (all data is lost with the process), or a Store.
        agents: the agents whose sessions it runs.
        clients: model clients by name, such as {"openai": AsyncOpenAI()}; handlers get them as `session.clients.openai`.
        prices: the prices of models; default the list that comes with genai-prices.
        breaker: the breaker of each dependency (a client, or a dependency that a tool names); default BreakerSpec().
        idle_s: seconds after which an idle session is evicted from memory (passivated).
        drain_s: seconds that steps in flight may take at the end.
        quarantine_s: seconds that a cancelled handler may take to end before it counts as stuck.
        max_recovering: most unfinished sessions that replay at once.
        reconciles: most calls of `reconcile` that run at once.
        telemetry: the maker of spans of turns and steps; default as the environment asks for (see Telemetry.from_environment), False for
            none.
        control: whether it opens its control socket itself, for `holdfast ps` and `holdfast.connect()`. True: at the path where they find
            it by the store. A path: there, and they need to be given that path. `holdfast run` overrides this.
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
        control: arguments.Control = False,
        clock: Clock | None = None,
        random: _random.Random | None = None,
    ) -> None:
        faults = Faults("Runtime")
        faults.whole("max_recovering", max_recovering, 1)
        faults.whole("reconciles", reconciles, 1)
        faults.number("idle_s", idle_s, positive=True)
        faults.number("drain_s", drain_s)
        faults.number("quarantine_s", quarantine_s)
        faults.found += arguments.other_faults(store, telemetry, control)
        faults.check()
        self.observers = events.Observers()
        self.store = open_store(store) if isinstance(store, str) else store
        self._prices = prices or Prices()
        self._clients = arguments.prepared(clients or {}, self._prices)
        # The settings of the code, and those overridden from outside.
        self._own = self._settings = Settings(
            agents=arguments.agents_by_name(agents),
            breaker=breaker or BreakerSpec(),
            idle_s=idle_s,
            drain_s=drain_s,
            quarantine_s=quarantine_s,
            max_recovering=max_recovering,
            reconciles=reconciles,
            clients=tuple(self._clients),
        )
        self._clock = clock or SystemClock()
        self._random = random or _random.Random()
        self._life: OwnTask | None = None
        self._now: Running | None = None
        self._services: list[ChildSpec] = []
        self._given_telemetry = telemetry
        self.control = control
        self._control = arguments.service("control") if control else None  # here, since its slow import would block a loop

    # ------------------------------------------------------------ start and stop

    async def __aenter__(self) -> Self:
        """As `start`. Where the supervision tree gives up, the task in the block is cancelled, and the block's exit raises the cause."""
        await self._start(hold=True)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """As `stop`.

        Raises:
            ExceptionGroup: of SupervisorGaveUp, as from a task group.
        """
        failure = await self._stop()
        if failure is not None:
            raise failure

    async def start(self) -> None:
        """Open the store, start the supervision tree, resume every unfinished session. End it with `stop`, in any task.

        Raises:
            StoreLocked, SchemaTooNew, StoreError: the store cannot be opened; nothing was changed.
            ConfigError: it cannot listen at its control socket.
            RuntimeStopped: it is open already.
        If cancelled, it has been closed again.
        """
        await self._start(hold=False)

    async def stop(self) -> None:
        """Drain, then close: steps in flight end, within `drain_s`; open turns stay in the journal for the next start.

        It may be called when the Runtime is closed or closing: every caller returns when it has closed. A handler or a service of this
        Runtime must not wait for it: it would wait for its own end, until its deadline.

        Raises:
            SupervisorGaveUp: its supervision tree gave up while it ran; the cause has the reason, such as StoreLost. The store is closed.
            RuntimeStopped: it is open on another event loop.
        If cancelled, it still closes completely, and raises the cancellation after that.
        """
        if (failure := await self._stop()) is not None:
            raise sole(failure)

    async def wait_closed(self) -> None:
        """Wait until it has closed: by `stop`, or because its supervision tree gave up. Returns at once if it is not open.

        Raises:
            SupervisorGaveUp: as `stop`, until `stop` was called too.
        If cancelled, only the wait ends.
        """
        if self._life is not None and (failure := await self._life.wait()) is not None:
            raise sole(failure)

    async def _start(self, *, hold: bool) -> None:
        if self._is_open:
            raise errors.RuntimeStopped("this Runtime is open already")
        life = self._life = OwnTask(self._opened(), "the runtime")
        try:
            await life.open(hold=hold)
        except BaseException:
            self._life = None  # its opener has the error
            raise

    async def _stop(self) -> BaseException | None:
        life = self._life
        if life is None:
            return None
        try:
            return await life.close()
        finally:
            if life.ended and self._life is life:
                self._life = None

    @property
    def _is_open(self) -> bool:
        return self._life is not None and not self._life.ended

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """The resources that are open while it runs. One task enters and leaves them, since a task group requires that."""
        telemetry = Telemetry.from_environment() if self._given_telemetry is None else self._given_telemetry
        if self._clients:
            self._prices.load()  # it takes 0.2 s, once: not in the middle of the first model call
        await self.store.open()
        with ExitStack() as stack:
            running = self._now = Running(
                self.store,
                clock=self._clock,
                random=self._random,
                observers=self.observers,
                clients=self._clients,
                settings=self._settings,
                telemetry=telemetry or None,
            )
            try:
                await running.start([*self._services, *self._controlled(stack)])
                drain_s: float | None = 0.0
                try:
                    yield
                    drain_s = None
                finally:
                    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + self._settings.drain_s + 60.0):
                        # Shielded, within a deadline. Where the tree gave up, this is cancelled: no outcome of a step can be written
                        # then, so a wait would be useless.
                        await self.drain(drain_s)
            finally:
                # After any error, also a cancellation: the store must not stay open (its thread would block the exit).
                self._now = None
                await running.end()

    async def drain(self, deadline_s: float | None = None) -> bool:
        """Stop accepting work and let steps in flight end; False if some had to be cut. After it, leave the block or call `stop`.

        Args:
            deadline_s: seconds that the steps may take; default `drain_s`.

        Raises:
            RuntimeStopped: it is not open.
        If cancelled, it accepts no more work, and the steps under way were not cut: drain again, or call `stop`.
        """
        running = self._running()
        check_loop(running.node.loop)
        return await running.sessions.drain(self._settings.drain_s if deadline_s is None else deadline_s)

    def _controlled(self, stack: ExitStack) -> list[ChildSpec]:
        """The control API, where this Runtime opens it; the socket is open as long as `stack`."""
        if self._control is None or not self.control:
            return []
        path = None if self.control is True else os.fspath(self.control)
        return [stack.enter_context(self._control(self, path))]

    @property
    def telemetry(self) -> Telemetry | None:
        """The maker of spans while it runs; None for none."""
        return None if self._now is None else self._now.telemetry

    @property
    def agents(self) -> Mapping[str, Agent]:
        """The agents whose sessions it runs, by name, without overrides."""
        return self._own.agents

    def check(self, limits: Limits) -> list[str]:
        """The faults of these limits for this Runtime, each beginning with its key; empty if there are none."""
        return self._own.faults(limits)

    def reconfigure(self, limits: Limits) -> None:
        """Override the limits of the code by these, instead of any earlier override; also while it runs.

        Limits that are read at each use change at once. The breaker, repetition watch and intensity of a session change at its next
        activation. New budgets apply to new sessions: raise existing ones with `Handle.raise_budget`.

        Raises:
            ConfigError: `check` finds faults; nothing is changed then.
        """
        wrong = self.check(limits)
        if wrong:
            raise errors.ConfigError("; ".join(wrong))
        self._settings = self._own.under(limits)
        if self._now is not None:
            self._now.sessions.reconfigure(self._settings)

    def supervise(self, *services: ChildSpec) -> None:
        """Run these next to the sessions, each restarted when it crashes: they start after the store's writer and stop before it.

        Raises:
            RuntimeStopped: it is open already: add them before it opens.
        """
        if self._is_open:
            raise errors.RuntimeStopped("this Runtime is open already: name what it supervises before it is opened")
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
            id: its id; default a new one.
            state: its first state, if it is new; default the agent's own.
            budget: its limits, if it is new; each that is not given is that of the agent.

        Raises:
            ConfigError: this Runtime does not have the agent.
            SessionConflict: the id belongs to a session of another agent or tenant.
            NotJournalable: `state` cannot be stored.
        If cancelled, the session may have been made; spawn it again with the same id.
        """
        check_agent(agent, self._own.agents, same=True)
        wanted = new_id() if id is None else id
        row = await self._running().gateway.spawn(self._settings.agents[agent.name], wanted, tenant, user, state, budget)
        return Handle(self._running().gateway, row.id)

    def session(self, id: str) -> Handle:
        """A handle on an existing session; its methods raise SessionNotFound if there is no such session."""
        return Handle(self._running().gateway, id)

    # ------------------------------------------------------------ observation

    def observe(self, observer: events.Observer) -> None:
        """Call `observer` with every event (holdfast.events), synchronously, on the loop."""
        self.observers.add(observer)

    def statistics(self) -> dict[str, int]:
        """Counts, as of now: live and working sessions, those still recovering, steps in flight, stuck handlers, writes.

        Those `held` are `recovering`; others are tried first, since the process died. `delayed` ones wait outside a step before the end of
        their records. `ready` is 0 while it drains, or after a write that failed. With an exporter process of telemetry, its spans too.
        """
        node, sessions = self._running().node, self._running().sessions
        return {
            "live": len(sessions.live),
            "working": sum(1 for actor in sessions.live.values() if actor.task is not None),
            **sessions.recovery.counts(),
            "steps_in_flight": len(node.deadlines),
            **threads.statistics(),
            "stuck": sum(1 for task in node.stuck if not task.done()),
            "ready": int(node.group.healthy and not sessions.draining),
            "transactions": node.group.batches,
            "ops": node.group.ops,
            **({} if self.telemetry is None else self.telemetry.statistics()),
        }

    def time(self) -> float:
        """Store time, in seconds since the epoch: the clock of all stored times, which does not move when the wall clock is set."""
        return self._clock.time() if self._now is None else self._now.node.clock.time()

    def live(self, ids: Iterable[str] | None = None) -> dict[str, Live]:
        """The steps and waits of sessions right now, by id: of those in `ids` that are in memory; of all in memory if `ids` is None."""
        node, process = self._running().node, os.getpid()
        running = under_way(node)
        there = self._running().sessions.live
        wanted = list(there) if ids is None else [id for id in ids if id in there]
        return {id: live(there[id], running.get(id, []), process) for id in wanted}

    def breakers(self) -> dict[str, BreakerView]:
        """The breakers of dependencies, by name; only dependencies that were called since the start."""
        return {name: breaker.view() for name, breaker in sorted(self._running().node.breakers.items())}

    async def check_health(self, deadline_s: float = 5.0) -> None:
        """Check that the loop and the database respond. After a failed write, check also that a write succeeds.

        Args:
            deadline_s: how long the check may take, in seconds.

        Raises:
            StoreError: the read or the write fails, or takes longer than `deadline_s`.
            RuntimeStopped: the Runtime is not running.
        If cancelled, nothing has changed.
        """
        node = self._running().node
        try:
            with anyio.fail_after(deadline_s):
                await node.store.owner()
                if not node.group.healthy:
                    await node.group.submit(Touch())
        except TimeoutError:
            raise errors.StoreError(f"the database has not answered within {deadline_s:g} s") from None

    def tree(self) -> SupervisorView:
        """The supervision tree of this process, for people: each child with its state and its restarts."""
        tree = self._running().tree
        assert tree is not None
        return tree.tree()

    def _running(self) -> Running:
        if self._now is not None:
            return self._now
        failure = None if self._life is None else self._life.failure
        if failure is not None:
            raise errors.RuntimeStopped(f"the runtime has ended: {sole(failure)}") from failure
        raise errors.RuntimeStopped("the runtime is not running: use `async with runtime:`, or await runtime.start()")
