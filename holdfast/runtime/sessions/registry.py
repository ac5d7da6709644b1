"""The registry of one process's live sessions: it finds, loads, wakes, passivates and drains them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from holdfast import events
from holdfast.errors import ConfigError, SessionError, SessionNotFound, WriteRefused
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.agents.settings import Settings
from holdfast.runtime.sessions.actor import Actor
from holdfast.runtime.sessions.alarms import Alarms
from holdfast.runtime.sessions.delivery import Delivery
from holdfast.runtime.sessions.endings import Endings
from holdfast.runtime.sessions.graph import WaitGraph
from holdfast.runtime.sessions.life import Signal
from holdfast.runtime.sessions.recovery import Recovery
from holdfast.runtime.sessions.unwritten import write_in_hand, write_rest
from holdfast.runtime.sessions.waiters import END, Waiters
from holdfast.runtime.turns import tasks
from holdfast.runtime.turns.failures import describe
from holdfast.runtime.turns.node import Node
from holdfast.stores.ops import Activate, Op, Result, Status, UpdateSession, concerns
from holdfast.stores.records import ENDED, Message
from holdfast.stores.unreadable import cannot_load

_AGAIN_S, _FAULT_S = 0.5, 5.0  # the pause before a session is read again: after the store failed, after a bug of holdfast


class Sessions:
    """The registry. It implements the protocols of actors, turns, delivery and endings (Host, Peers, Residents, Registry).

    Attributes:
        live: the sessions in memory, by id.
        held: the sessions that must not run yet: see `Recovery`.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        node.peers = self
        self.live: dict[str, Actor] = {}
        self.draining = False
        self.waits = WaitGraph(self._waits_of)
        self.waiters = Waiters(node.loop)
        self.delivery = Delivery(node, self, self.waits, self.waiters)
        self.endings = Endings(node, self, self.delivery, self.in_background)
        self.alarms = Alarms(node.loop, node.clock, self._rung, node.random.uniform)
        self.recovery = Recovery(node.loop, self._admitted, self._places, self._progress, self._passed)
        self.held = self.recovery.held
        self._loading: dict[str, asyncio.Future[Actor]] = {}
        self._unsure: set[str] = set()
        self._due: set[str] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ start and stop

    async def recover(self, *, unclean: bool) -> int:
        """Resume every session that has work, a few at a time; returns how many there are."""
        rows = await self.node.store.runnable()
        self.waits.parked.update((row.id, row.waits_on) for row in rows if row.waits_on)
        orphans = await self.node.store.orphans()
        for row, at in self.recovery.queue(rows, self.node.clock.time(), unclean=unclean):
            self.alarms.set(row.id, at)
        total = len(self.recovery)
        for orphan in orphans:
            self.in_background(self.endings.end(orphan, "cancelled", "its parent has ended"))
        self.recovery.more()
        self._sweep = self.node.loop.call_later(self.node.settings.idle_s, self._passivate_idle)
        return total

    def reconfigure(self, settings: Settings) -> None:
        """Use other limits: waits timed by the old ones begin anew."""
        self.node.reconfigure(settings)
        for actor in self.live.values():
            if actor.owner.known:
                actor.owner.redefine(settings.agents[actor.agent.name])
        if self._sweep is not None and not self.draining:
            self._sweep.cancel()
            self._passivate_idle()
        self.recovery.more()

    async def drain(self, deadline_s: float) -> bool:
        """Let every step in flight end; the open turns stay in the journal. False if some steps had to be cut at the deadline."""
        self.draining = True
        self.recovery.close()
        self.alarms.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for actor in list(self.live.values()):
            actor.signal(Signal.DRAIN)
        working = [actor.task for actor in self.live.values() if actor.task is not None] + list(self._background)
        late = (await asyncio.wait(working, timeout=deadline_s))[1] if working else set()
        for actor in list(self.live.values()):
            actor.signal(Signal.STOP)
        ending = [tasks.end(task, self.node.settings.quarantine_s) for task in (*late, *self._background)]
        await asyncio.gather(*ending)
        await write_in_hand(self.node, self.actor)
        return not late

    def in_background(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a follow-up that no code waits for; it ends with the runtime at the latest."""
        task = tasks.start(work, "follow-up")
        self._background.add(task)
        task.add_done_callback(self._done_in_background)

    def _done_in_background(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            events.log.error("a follow-up failed and is made again at the next start: %s", describe(error))

    # ------------------------------------------------------------ finding and loading

    def find(self, id: str) -> Actor | None:
        """The session if it is in memory."""
        return self.live.get(id)

    async def actor(self, id: str, *, known: bool = True) -> Actor:
        """The live session, loaded if needed; `known`: only if this Runtime has its agent.

        Raises:
            SessionNotFound: no session has this id.
            ConfigError: this Runtime does not have its agent.
            StoreError: it could not be read.
        """
        actor = self.live.get(id)
        if actor is None:
            # Several callers may wait for the same future: a cancelled one must not cancel it for the others.
            loading = self._load(id)
            await asyncio.wait((loading,))
            actor = loading.result()
        if known and not actor.owner.known:
            raise missing_agent(id, actor.row.agent)
        return actor

    def _load(self, id: str) -> asyncio.Future[Actor]:
        loading = self._loading.get(id)
        if loading is None:
            loading = self._loading[id] = self.node.loop.create_future()
            self.recovery.loading(id)
            charge = None if id in self.held else self.recovery.charge(id)
            op = Activate(id, self.node.clock.time(), charge is not None, bool(charge))
            write = self.node.group.submit(op, partial(self._loaded, id))
            write.add_done_callback(partial(self._not_loaded, id))
        return loading

    def _loaded(self, id: str, result: Result) -> None:
        loading = self._loading.pop(id)
        due = id in self._due
        self._due.discard(id)
        if result.status is not Status.DONE:
            self._unloadable(id, loading, str(result.value))
            return
        agent = self.node.settings.agents.get(result.value.session.agent)
        try:
            actor = self.live[id] = Actor(self.node, self, agent, result.value)
        except Exception as fault:  # stored data that no check knows can raise any error
            self._unloadable(id, loading, f"its rows cannot be loaded ({describe(fault)})")
            return
        if self.node.observers:
            self.node.emit(events.Resumed(id, actor.owner.epoch, len(actor.journal.records)))
        loading.set_result(actor)
        if id in self._unsure:
            self._catch_up(actor)
        actor.kick(due=due)
        self.recovery.loaded(id)
        if actor.task is None:
            self.recovery.settles(id)
            self._set_alarm(actor)

    def _unloadable(self, id: str, loading: asyncio.Future[Actor], why: str) -> None:
        """The session cannot be loaded, also not again: its callers get the reason, and no other session waits for it."""
        error = _not_there(id, why)
        if not loading.done():
            loading.set_exception(error)
            loading.exception()
        self.unanswerable(id, error)
        self.recovery.settles(id)

    def _not_loaded(self, id: str, write: asyncio.Future[Result]) -> None:
        """The read failed: its callers get the error, and the read is tried again until the store answers."""
        error = write.exception()
        if error is None:
            return
        loading = self._loading.pop(id, None)
        if isinstance(error, WriteRefused):
            self._due.discard(id)
            if loading is not None:
                self._unloadable(id, loading, describe(error))
            return
        if loading is not None and not loading.done():
            loading.set_exception(error)
            loading.exception()
        again = self.recovery.admit if self.recovery.not_loaded(id) else self.wake
        if not self.draining:
            self.node.loop.call_later(_AGAIN_S * self.node.random.uniform(1.0, 2.0), again, id)

    def reread(self, actor: Actor, at_once: bool = True) -> None:
        """This actor's memory may differ from the store: drop it and read it again."""
        if self.live.get(actor.id) is actor:
            del self.live[actor.id]
            if not self.draining and actor.status not in ENDED:
                self.wake(actor.id) if at_once else self.node.loop.call_later(_FAULT_S, self.wake, actor.id)

    def unsure(self, ops: Sequence[Op]) -> None:
        """The outcome of these ops is unknown: every session that they concern is read again."""
        self._read_again({id for op in ops for id in concerns(op)})

    def _read_again(self, concerned: set[str]) -> None:
        """Read these sessions again, and those that wait for them."""
        concerned |= self.waits.waiting_for(concerned)
        concerned |= {actor.id for actor in self.live.values() if concerned.intersection(self._waits_of(actor.id))}
        self._unsure |= concerned
        for id in sorted(concerned):
            known = self.live.get(id)
            if known is None:
                self.resume(id)
            else:
                known.signal(Signal.UNSURE)

    def _catch_up(self, actor: Actor) -> None:
        """A session was read again: callers get the answers of writes whose outcome was unknown."""
        self._unsure.discard(actor.id)
        for message in self.waiters.of(actor.id):
            if message != END:
                self.in_background(self._look_up(actor.id, message))
        if actor.status in ENDED:
            if actor.row.result is not None:
                self.replied(actor.id, END, actor.row.result)
            if actor.owner.parent is not None:  # its account may have changed: this session, or a child of it, may have returned budget
                self._read_again({actor.owner.parent})
            self.in_background(self.endings.end_children(actor.id))
            self.in_background(self.write_rest(actor))

    async def _look_up(self, session: str, message: str) -> None:
        stored = await self.node.store.message(session, message)
        if stored is not None and stored.reply is not None:
            self.replied(session, message, stored.reply)

    def wake(self, id: str) -> None:
        """Wake a session at once: a message has arrived, or its memory is needed."""
        if self.draining:
            return
        actor = self.live.get(id)
        if actor is None:
            self._load(id)
        else:
            actor.kick()

    def _rung(self, id: str) -> None:
        """The wait that it is parked for is over, by the time that has passed in this process."""
        actor = self.live.get(id)
        if actor is not None:
            actor.kick(due=True)
        elif not self.draining:
            self._due.add(id)
            self.recovery.admit(id)

    def resume(self, id: str) -> None:
        """Wake a session when there is a place for it: it was answered, or it is to be read again."""
        if id in self.live:
            self.wake(id)
        elif not self.draining:
            self.recovery.admit(id)

    # ------------------------------------------------------------ as the queue of sessions that resume sees it

    def _places(self) -> int:
        return 0 if self.draining else self.node.settings.max_recovering

    def _admitted(self, id: str) -> None:
        """A session has its place."""
        actor = self.live.get(id)
        if actor is not None and actor.task is None and self.recovery.charge(id) is not None:
            self.forget(actor)  # a caller had it loaded while it was held: only an activation charges it
        if id not in self.live:
            self._load(id)
            return
        self.wake(id)
        self.recovery.loaded(id)
        self.recovery.settles(id)

    def _progress(self, id: str) -> object:
        actor = self.live.get(id)
        return None if actor is None else (actor.owner.turn, len(actor.journal.records))

    def _passed(self, id: str) -> None:
        actor = self.live.get(id)
        if actor is not None:
            self.node.group.submit(UpdateSession(id, actor.owner.epoch, self.node.clock.time(), passed=True))

    # ------------------------------------------------------------ idle and parked

    def idle(self, actor: Actor) -> None:
        """Its task has ended: it is idle, parked, failed or ended."""
        if actor.status == "parked" and actor.park is not None and actor.park.reason == "crashes":
            self.recovery.found(actor.id)
        self.recovery.settles(actor.id)
        self.unschedule(actor.id)  # an earlier wait may have timed out
        if actor.status == "parked":
            self._set_alarm(actor)
        if actor.status == "parked" or actor.status in ENDED:
            self.forget(actor)

    def unschedule(self, id: str) -> None:
        """The session waits no more: forget its alarm and its waits."""
        self.waits.forget(id)
        self.alarms.cancel(id)

    def _set_alarm(self, actor: Actor) -> None:
        if actor.status == "parked" and actor.park is not None:
            if actor.park.waits_on:
                self.waits.parked[actor.id] = actor.park.waits_on
            if actor.park.reason == "reserved":
                self.waits.short.add(actor.id)
            at, before = actor.park.due(self.node.clock.time()), self.alarms.at(actor.id)
            if at is not None:
                self.alarms.set(actor.id, at if before is None else min(at, before))

    def forget(self, actor: Actor) -> None:
        """Passivate it: the next message activates it again."""
        if self.live.get(actor.id) is actor and actor.task is None:
            del self.live[actor.id]
            self.node.store.release(actor.id)

    def _passivate_idle(self) -> None:
        before = self.node.clock.monotonic() - self.node.settings.idle_s
        idle = [a for a in self.live.values() if a.task is None and a.touched <= before]
        for actor in idle:
            self.forget(actor)
        if len(idle) > len(self.live):
            self.live, self._loading = dict(self.live), dict(self._loading)  # a dict keeps its table when it shrinks
        self._sweep = self.node.loop.call_later(max(self.node.settings.idle_s / 4, 0.05), self._passivate_idle)

    # ------------------------------------------------------------ as turns and actors see it

    def agent_of(self, session: str) -> Agent | None:
        """The agent of a session that is in memory."""
        actor = self.live.get(session)
        return None if actor is None or not actor.owner.known else actor.agent

    def cycle(self, asker: str, target: str) -> list[str] | None:
        """The sessions through which `target` already waits for `asker`, if it does."""
        return self.waits.cycle(asker, target)

    def _waits_of(self, id: str) -> tuple[str, ...]:
        actor = self.live.get(id)
        if actor is None or actor.current is None:
            return ()
        waits = actor.current.waits
        return (*waits.asking, *(target for park in waits.parks() for target in park.waits_on))

    def dispatch(self, ops: Sequence[Op], results: Iterable[Result]) -> None:
        """The ops that left with a write are durable."""
        self.delivery.dispatch(ops, results)

    def replied(self, session: str, message: str, outcome: bytes, also: Iterable[Message] = ()) -> None:
        """A message is done or dead; `also` has it once for each step that was answered with it too."""
        self.delivery.answered(also)
        self.delivery.replied(session, message, outcome)

    async def write_rest(self, actor: Actor) -> None:
        """It was cancelled or killed: what is known of its effects is still to be written."""
        await write_rest(actor, self.in_background)

    def unanswerable(self, session: str, error: SessionError) -> None:
        """The session can answer none of its messages for now."""
        self.waiters.refuse(session, error)

    def recovered(self, session: str) -> None:
        """A session has replayed its records."""
        self.recovery.done(session)

    def culprit(self, session: str) -> bool:
        """Whether its crash limit applies: nothing but this session explains the last unclean end."""
        return session in self.recovery.culprits

    def condemn(self, session: str, reason: str) -> None:
        """Kill a session from within one of its own steps."""
        self.endings.condemn(session, reason)

    def ended(self, session: str, status: str, result: bytes, answered: list[Message]) -> None:
        """It takes no more messages; its waiting messages were answered."""
        self.endings.ended(session, status, result, answered)


def _not_there(id: str, why: str) -> SessionError:
    """The error where a session cannot be loaded."""
    if why == "unknown":
        return SessionNotFound(id, f"no session {id!r}: check the id, or spawn it")
    events.log.error("session %s cannot be loaded: %s", id, why)
    return cannot_load(id, why)


def missing_agent(session: str, agent: str) -> ConfigError:
    """The error where a session cannot run here."""
    return ConfigError(f"session {session!r} runs agent {agent!r}, which this Runtime does not have: add it to agents=")
