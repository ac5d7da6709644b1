"""The live sessions of one process: found or read in, told what arrived for them, woken, put away, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast import events
from holdfast.errors import ConfigError, SessionNotFound
from holdfast.runtime import tasks
from holdfast.runtime.actor import Actor
from holdfast.runtime.alarms import Alarms
from holdfast.runtime.endings import Endings
from holdfast.runtime.failures import describe
from holdfast.runtime.waiters import Waiters
from holdfast.stores.ops import Activate, CreateSession, Enqueue, Op, Reply, Result, ReturnBudget, Status, concerns
from holdfast.stores.records import ENDED, Address, Message, Outcome

if TYPE_CHECKING:
    from holdfast.runtime.node import Node

_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
_AGAIN_S, _FAULT_S = 0.5, 5.0  # how soon a session is read again: after the store failed, after a fault of our own


class Sessions:
    """The registry. Callbacks named after what happened (`arrived`, `replied`, ...) run when a write is acknowledged."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.live: dict[str, Actor] = {}
        self.draining = False
        self.waits_on: dict[str, tuple[str, ...]] = {}
        self._loading: dict[str, asyncio.Future[Actor]] = {}
        self.waiters = Waiters(node.loop)
        self.endings = Endings(self)
        self.alarms = Alarms(node.loop, node.clock, self.wake)
        self._to_recover: list[str] = []
        self._recovering: set[str] = set()
        self._suspects: set[str] = set()
        self._unsure: set[str] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ start and stop

    async def recover(self, *, unclean: bool) -> int:
        """Go on with every session that has something to do, some at a time; how many there are.

        Args:
            unclean: the last process did not put them down itself: what it had open counts as one crash of each.
        """
        now = self.node.clock.time()
        for row in await self.node.store.runnable():
            if row.waits_on:
                self.waits_on[row.id] = row.waits_on
            if row.wake_at is None or row.wake_at <= now:
                self._to_recover.append(row.id)
            else:
                self.alarms.set(row.id, row.wake_at)
        if unclean:
            self._suspects = set(self._to_recover)
        self._to_recover.reverse()
        total = len(self._to_recover)
        for orphan in await self.node.store.orphans():
            self.in_background(self.endings.end(orphan, "cancelled", "its parent has ended"))
        self._recover_more()
        self._sweep = self.node.loop.call_later(self.node.settings.idle_s, self._put_idle_away)
        return total

    def reconfigured(self) -> None:
        """The node goes by other limits: what waits by the old ones is begun anew."""
        if self._sweep is not None and not self.draining:
            self._sweep.cancel()
            self._put_idle_away()
        self._recover_more()

    def _recover_more(self) -> None:
        while self._to_recover and len(self._recovering) < self.node.settings.max_recovering and not self.draining:
            id = self._to_recover.pop()
            self._recovering.add(id)
            self.wake(id)

    def recovered(self, id: str) -> None:
        """A session is past what it had done before; the next one may come."""
        if self._recovering:
            self._recovering.discard(id)
            if self._to_recover:
                self._recover_more()

    @property
    def recovering(self) -> int:
        """Sessions that have not gone past their records yet."""
        return len(self._to_recover) + len(self._recovering)

    async def drain(self, deadline_s: float) -> bool:
        """Let every step in flight end, leave the turns as they are in the journal; False if some had to be cut off at the deadline."""
        self.draining = True
        self.alarms.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for actor in list(self.live.values()):
            actor.interrupt("drain")
        working = [actor.task for actor in self.live.values() if actor.task is not None] + list(self._background)
        if not working:
            return True
        _, late = await asyncio.wait(working, timeout=deadline_s)
        for actor in list(self.live.values()):
            actor.interrupt("ended")
        for task in (*late, *self._background):
            await tasks.end(task, self.node.settings.quarantine_s)
        return not late

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a follow-up that nobody waits for; ended with the runtime."""
        task = tasks.start(work, "follow-up")
        self._background.add(task)
        task.add_done_callback(self._done_in_background)

    def _done_in_background(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            events.log.error("a follow-up failed and is made again at the next start: %s", describe(task.exception()))  # type: ignore[arg-type]

    # ------------------------------------------------------------ finding and reading in

    async def actor(self, id: str) -> Actor:
        """The live session, read in if need be.

        Raises:
            SessionNotFound: no session has this id.
            ConfigError: its agent is not one of this Runtime's.
            StoreError: it could not be read.
        """
        actor = self.live.get(id)
        if actor is not None:
            return actor
        # Another may be waiting for the same future: one that gives up must not cancel it for all.
        loading = self._load(id)
        await asyncio.wait((loading,))
        return loading.result()

    def _load(self, id: str) -> asyncio.Future[Actor]:
        loading = self._loading.get(id)
        if loading is None:
            loading = self._loading[id] = self.node.loop.create_future()
            op = Activate(id, self.node.clock.time(), id in self._suspects)
            self._suspects.discard(id)
            write = self.node.group.submit(op, partial(self._loaded, id))
            write.add_done_callback(partial(self._not_loaded, id))
        return loading

    def _loaded(self, id: str, result: Result) -> None:
        loading = self._loading.pop(id)
        agent = None if result.status is not Status.DONE else self.node.settings.agents.get(result.value.session.agent)
        if agent is None:
            self.recovered(id)
            if result.status is not Status.DONE:
                loading.set_exception(SessionNotFound(id, f"no session {id!r}: check the id, or spawn it"))
            else:
                name = result.value.session.agent
                loading.set_exception(
                    ConfigError(f"session {id!r} runs agent {name!r}, which this Runtime does not have: add it to agents=")
                )
            loading.exception()
            return
        actor = self.live[id] = Actor(self.node, agent, result.value)
        if self.node.observers:
            self.node.emit(events.Resumed(id, actor.epoch, len(actor.journal.records)))
        loading.set_result(actor)
        if id in self._unsure:
            self._catch_up(actor)
        actor.kick()
        if actor.task is None:
            self.recovered(id)
            self._set_alarm(actor)

    def _not_loaded(self, id: str, write: asyncio.Future[Result]) -> None:
        """The read failed: whoever asked is told, and it is tried again until the store is back."""
        error = write.exception()
        if error is None:
            return
        loading = self._loading.pop(id, None)
        if loading is not None and not loading.done():
            loading.set_exception(error)
            loading.exception()
        if not self.draining:
            self.node.loop.call_later(_AGAIN_S, self.wake, id)

    def reread(self, actor: Actor, at_once: bool = True) -> None:
        """What this actor holds may not be what is stored."""
        if self.live.get(actor.id) is actor:
            del self.live[actor.id]
            if not self.draining and actor.status not in ENDED:
                self.wake(actor.id) if at_once else self.node.loop.call_later(_FAULT_S, self.wake, actor.id)

    def unsure(self, ops: Sequence[Op]) -> None:
        """Nobody knows whether these were written: every session that they concern is read again."""
        concerned = {id for op in ops for id in concerns(op)}
        concerned |= {id for id, targets in self.waits_on.items() if concerned.intersection(targets)}
        for actor in list(self.live.values()):
            waits = () if actor.current is None else actor.current.waits.parks()
            if any(concerned.intersection(park.waits_on) for park in waits):
                concerned.add(actor.id)
        self._unsure |= concerned
        for id in sorted(concerned):
            known = self.live.get(id)
            if known is None:
                self.wake(id)
            else:
                known.outdate()

    def _catch_up(self, actor: Actor) -> None:
        """It is read again: what was done unseen is told to those who wait for it."""
        self._unsure.discard(actor.id)
        for session, message in self.waiters.of(actor.id):
            self.in_background(self._look_up(session, message))
        if actor.status in ENDED:
            self.in_background(self.endings.end_children(actor.id))

    async def _look_up(self, session: str, message: str) -> None:
        stored = await self.node.store.message(session, message)
        if stored is not None and stored.reply is not None:
            self.replied(session, message, stored.reply)

    def wake(self, id: str) -> None:
        """Its time has come, or something is there for it."""
        if self.draining:
            return
        actor = self.live.get(id)
        if actor is None:
            self._load(id)
        else:
            actor.kick()

    def rested(self, actor: Actor) -> None:
        """It has nothing to do for now."""
        self.recovered(actor.id)
        self.waits_on.pop(actor.id, None)  # what it waited for before may have timed out
        self.alarms.cancel(actor.id)
        if actor.status == "parked":
            self._set_alarm(actor)
            self._forget(actor)

    def _set_alarm(self, actor: Actor) -> None:
        if actor.status == "parked" and actor.park is not None:
            if actor.park.waits_on:
                self.waits_on[actor.id] = actor.park.waits_on
            if actor.park.until is not None:
                self.alarms.set(actor.id, actor.park.until)

    def _forget(self, actor: Actor) -> None:
        if self.live.get(actor.id) is actor and actor.task is None:
            del self.live[actor.id]
            self.node.store.release(actor.id)

    def _put_idle_away(self) -> None:
        before = self.node.clock.monotonic() - self.node.settings.idle_s
        idle = [a for a in self.live.values() if a.task is None and a.touched <= before]
        for actor in idle:
            self._forget(actor)
        if len(idle) > len(self.live):
            self.live, self._loading = dict(self.live), dict(self._loading)  # a dict that was emptied keeps its table
        self._sweep = self.node.loop.call_later(max(self.node.settings.idle_s / 4, 0.05), self._put_idle_away)

    # ------------------------------------------------------------ what was written

    def dispatch(self, ops: Sequence[Op], results: Iterable[Result]) -> None:
        """Tell those concerned what left with an op that is now durable."""
        for op, result in zip(ops, results, strict=True):
            if result.status is not Status.DONE:
                if isinstance(op, Enqueue) and result.status is Status.REFUSED and op.reply_to is None:
                    self.undelivered(op, result)
                continue
            match op:
                case Enqueue():
                    self.arrived(op)
                case Reply():
                    self.deliver(op.to, op.outcome)
                case ReturnBudget():
                    parent = self.live.get(op.session)
                    if parent is not None:
                        parent.ledger.credit(op.unspent)
                case CreateSession() if self.node.observers:
                    self.node.emit(events.Spawned(op.id, op.agent))

    def mailbox_of(self, session: str) -> int | None:
        """How many messages may wait in a session's mailbox, as far as is known without reading it."""
        actor = self.live.get(session)
        return max((agent.mailbox for agent in self.node.settings.agents.values()), default=None) if actor is None else actor.agent.mailbox

    def undelivered(self, op: Enqueue, result: Result) -> None:
        """A message that was told could be sent when it was called, and could not when its turn committed."""
        why = result.value if isinstance(result.value, str) else "the session has ended"
        events.log.warning("message %s to session %s was not delivered: %s", op.id, op.session, why)
        self.node.emit(events.Undelivered(op.session, op.id, why))

    def arrived(self, op: Enqueue) -> None:
        """A message is in the mailbox."""
        if op.kind != "message":
            return
        actor = self.live.get(op.session)
        if actor is None:
            self._load(op.session)
            return
        actor.push(Message(op.session, op.id, op.body, op.digest, reply_to=op.reply_to, created=op.now, context=op.context))

    def deliver(self, to: Address, outcome: bytes) -> None:
        """A waiting step was answered."""
        self.waits_on.pop(to.session, None)
        actor = self.live.get(to.session)
        if actor is None:
            self.wake(to.session)
        elif actor.current is not None and actor.current.number == to.turn:
            actor.current.answered(to.key, _decode_outcome(outcome))
            actor.woken = actor.current.interruption is not None
        elif actor.park is not None and actor.park.reason == "wait":
            self.reread(actor)

    def replied(self, session: str, message: str, outcome: bytes) -> None:
        """A message is done or dead: whoever asked from outside gets the answer."""
        if (session, message) in self.waiters:
            self.waiters.answer(session, message, _decode_outcome(outcome))

    # ------------------------------------------------------------ who waits for whom

    def cycle(self, asker: str, target: str) -> list[str] | None:
        """The sessions through which `target` already waits for `asker`, if it does."""
        path, seen = [target], {target}

        def reach(id: str) -> bool:
            if id == asker:
                return True
            actor = self.live.get(id)
            now = self.waits_on.get(id, ())
            if actor is not None and actor.current is not None:
                now = (*actor.current.waits.asking, *(t for park in actor.current.waits.parks() for t in park.waits_on))
            for following in now:
                if following not in seen:
                    seen.add(following)
                    path.append(following)
                    if reach(following):
                        return True
                    path.pop()
            return False

        return path if reach(target) else None
