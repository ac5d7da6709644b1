"""The end of sessions. The session is fenced first; then all waiters are answered, its turn is cancelled, and its children are ended in
reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

from holdfast import events
from holdfast.errors import ConfigError, SessionError, StoreError
from holdfast.runtime.sessions import conclusion
from holdfast.runtime.sessions.actor import Actor
from holdfast.runtime.sessions.delivery import Delivery
from holdfast.runtime.sessions.life import Signal
from holdfast.runtime.sessions.waiters import END
from holdfast.runtime.turns.failures import describe
from holdfast.runtime.turns.node import Node
from holdfast.stores.ops import EndSession, Result, Status
from holdfast.stores.records import Failure, Message, Outcome, SessionStatus


class Registry(Protocol):
    """The registry of sessions, as endings use it."""

    async def actor(self, id: str, *, known: bool = True) -> Actor: ...
    def find(self, id: str) -> Actor | None: ...
    def forget(self, actor: Actor) -> None: ...
    def unschedule(self, id: str) -> None: ...
    async def write_rest(self, actor: Actor) -> None: ...


class Endings:
    """Ends sessions of one registry. `in_background` runs a follow-up that no code waits for."""

    __slots__ = ("_condemned", "_delivery", "_in_background", "_node", "_registry")

    def __init__(
        self, node: Node, registry: Registry, delivery: Delivery, in_background: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._node, self._registry, self._delivery, self._in_background = node, registry, delivery, in_background
        self._condemned: set[str] = set()

    async def end(self, id: str, status: SessionStatus, reason: str) -> bool:
        """Cancel or kill a session and its children; False if it had ended before. A kill does not wait for running code; a cancel waits
        for code that ends soon.

        If cancelled, the session may have ended.
        """
        done = await self._end(id, status, reason)
        await self.end_children(id)
        return done

    async def _end(self, id: str, status: SessionStatus, reason: str) -> bool:
        actor = await self._registry.actor(id, known=False)
        outcome = self._node.encode(Outcome(failure=Failure("SessionEnded", "", status, reason)))
        park, outbox = conclusion.doubt_left(actor.journal), actor.owner.unspent()
        op = EndSession(id, status, outcome, self._node.clock.time(), outbox, park=park)
        with nullcontext() if actor.current is None else actor.current.about_to_end():
            result = await self._node.group.submit(op, partial(self._fenced, actor, op))
        if status == "cancelled" and actor.task is not None and actor.task is not asyncio.current_task():
            await asyncio.wait((actor.task,), timeout=self._node.settings.quarantine_s)
        return result.status is Status.DONE

    def _fenced(self, actor: Actor, op: EndSession, result: Result) -> None:
        if result.status is not Status.DONE:
            return
        actor = self._registry.find(op.session) or actor
        self._delivery.dispatch(op.outbox, result.outbox)
        # Only this process writes under the new epoch: the outcomes of the steps that are cut now.
        actor.owner.epoch, actor.status, actor.park = result.value.epoch, op.status, op.park
        actor.signal(Signal.END)
        self.ended(actor.id, op.status, op.outcome, result.value.answered)
        if actor.task is None:
            self._registry.forget(actor)
            if op.park is not None:
                self._in_background(self._registry.write_rest(actor))

    def ended(self, id: str, status: str, result: bytes, answered: list[Message]) -> None:
        """It takes no more messages. Its waiting messages were answered; now those that wait for its `result` get it."""
        self._delivery.answered(answered)
        for message in answered:
            self._delivery.replied(id, message.id, message.reply or b"")
        self._delivery.replied(id, END, result)
        self._registry.unschedule(id)  # it may have parked during the write of its end
        self._node.emit(events.SessionEndedEvent(id, status))
        if status == "finished":
            self._in_background(self.end_children(id))

    def condemn(self, id: str, reason: str) -> None:
        """Kill a session from within its own step."""
        if id not in self._condemned:
            self._condemned.add(id)
            self._in_background(self._execute(id, reason))

    async def _execute(self, id: str, reason: str) -> None:
        try:
            await self.end(id, "killed", reason)
        finally:
            self._condemned.discard(id)  # where the write failed, its next failing step kills it again

    def dropped(self, id: str, turn: int) -> None:
        """A turn was given up for good: the children that it made have no use any more."""
        self._in_background(self.end_children(id, turn))

    async def end_children(self, parent: str, turn: int | None = None) -> None:
        """Cancel the children that live and theirs, the last made first; only those that `turn` made, if it is given."""
        waiting = await self._living(parent, turn)
        while waiting:  # not by recursion: a chain of children may be longer than the stack
            child, above = waiting.pop()
            try:
                await self._end(child, "cancelled", f"its parent {above!r} has ended")
                waiting += await self._living(child)
            except (StoreError, ConfigError, SessionError) as error:
                events.log.warning("child %s of %s is ended at the next start: %s", child, above, describe(error))

    async def _living(self, parent: str, turn: int | None = None) -> list[tuple[str, str]]:
        """The children that have not ended, in the order in which they were made, each with its parent."""
        return [(child.id, parent) for child in await self._node.store.living_children(parent, turn=turn)]
