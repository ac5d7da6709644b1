"""Delivery of acknowledged writes to sessions and callers: the one way from a write back into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from holdfast import events
from holdfast.policies.budget import Usage
from holdfast.runtime.sessions.actor import Actor
from holdfast.runtime.sessions.graph import WaitGraph
from holdfast.runtime.sessions.life import Signal
from holdfast.runtime.sessions.waiters import Waiters
from holdfast.runtime.turns.node import Node
from holdfast.stores.ops import CreateSession, Enqueue, Op, Reply, Result, ReturnBudget, Status
from holdfast.stores.records import Address, Message, Outcome

_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


class Residents(Protocol):
    """The sessions in memory."""

    def find(self, id: str) -> Actor | None: ...
    def wake(self, id: str) -> None: ...
    def resume(self, id: str) -> None: ...
    def reread(self, actor: Actor, at_once: bool = True) -> None: ...


class Delivery:
    """Delivers acknowledged ops to sessions, and to the callers that wait outside any session."""

    def __init__(self, node: Node, residents: Residents, waits: WaitGraph, waiters: Waiters) -> None:
        self._node, self._residents, self._waits, self._waiters = node, residents, waits, waiters

    def dispatch(self, ops: Sequence[Op], results: Iterable[Result]) -> None:
        """Deliver the ops that left with a durable write."""
        for op, result in zip(ops, results, strict=True):
            if result.status is not Status.DONE:
                if isinstance(op, Enqueue) and result.status is Status.REFUSED and op.reply_to is None:
                    self._undelivered(op, result)
                continue
            match op:
                case Enqueue():
                    self._arrived(op)
                case Reply():
                    self.deliver(op.to, op.outcome)
                case ReturnBudget():
                    for id, unspent in result.value:
                        self._credit(id, unspent)
                case CreateSession() if self._node.observers:
                    self._node.emit(events.Spawned(op.id, op.agent))

    def _credit(self, id: str, unspent: Usage) -> None:
        """A child returned budget: its parent may be waiting for that."""
        parent = self._residents.find(id)
        if parent is None:
            if id in self._waits.short:
                self._residents.wake(id)
            return
        parent.owner.credit(unspent)
        if parent.current is not None and parent.current.interruption is not None:
            parent.signal(Signal.ANSWER)

    def _undelivered(self, op: Enqueue, result: Result) -> None:
        """A tell that passed its check when it was called, and could not be delivered when its turn committed."""
        why = result.value if isinstance(result.value, str) else "the session has ended"
        events.log.warning("message %s to session %s was not delivered: %s", op.id, op.session, why)
        self._node.emit(events.Undelivered(op.session, op.id, why))

    def _arrived(self, op: Enqueue) -> None:
        """A message is in the mailbox."""
        if op.kind != "message":
            return
        actor = self._residents.find(op.session)
        if actor is None:
            self._residents.wake(op.session)
            return
        actor.push(Message(op.session, op.id, op.body, op.digest, reply_to=op.reply_to, created=op.now, context=op.context))

    def deliver(self, to: Address, outcome: bytes) -> None:
        """A waiting step was answered."""
        self._waits.parked.pop(to.session, None)
        actor = self._residents.find(to.session)
        if actor is None:
            self._residents.resume(to.session)
        elif actor.current is not None and actor.current.number == to.turn:
            actor.current.answered(to.key, _decode_outcome(outcome))
            if actor.current.interruption is not None:
                actor.signal(Signal.ANSWER)
        elif actor.park is not None and actor.park.reason == "wait":
            self._residents.reread(actor)

    def answered(self, messages: Iterable[Message]) -> None:
        """These messages were answered, each at the step that its `reply_to` names."""
        for message in messages:
            if message.reply_to is not None and message.reply is not None:
                self.deliver(message.reply_to, message.reply)

    def replied(self, session: str, message: str, outcome: bytes) -> None:
        """A message is done or dead: the callers outside any session that asked get the answer."""
        if (session, message) in self._waiters:
            self._waiters.answer(session, message, _decode_outcome(outcome))
