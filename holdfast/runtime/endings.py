"""The end of sessions: fenced first, then everybody answered, what runs cancelled, the children ended in reverse order."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from holdfast import events
from holdfast.errors import ConfigError, StoreError
from holdfast.runtime.actor import Actor
from holdfast.runtime.failures import describe
from holdfast.stores.ops import EndSession, Result, Status
from holdfast.stores.records import ENDED, Failure, Message, Outcome, SessionStatus

if TYPE_CHECKING:
    from holdfast.runtime.sessions import Sessions


class Endings:
    """Ends sessions of one registry."""

    __slots__ = ("_sessions",)

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def end(self, id: str, status: SessionStatus, reason: str) -> bool:
        """Cancel or kill, its children too; False if it had ended before. If cancelled, it may have ended."""
        sessions, node = self._sessions, self._sessions.node
        actor = await sessions.actor(id)
        outcome = node.encode(Outcome(failure=Failure("SessionEnded", "", status, reason)))
        op = EndSession(id, status, outcome, node.clock.time(), actor.unspent())
        result = await node.group.submit(op, partial(self._fenced, actor, op))
        if actor.task is not None and actor.task is not asyncio.current_task():
            await asyncio.wait((actor.task,))
        if sessions.live.get(id) is actor:
            del sessions.live[id]  # its epoch is over; who looks at it again reads it anew
        await self.end_children(id)
        return result.status is Status.DONE

    def _fenced(self, actor: Actor, op: EndSession, result: Result) -> None:
        if result.status is Status.DONE:
            actor = self._sessions.live.get(op.session, actor)
            self._sessions.dispatch(op.outbox, result.outbox)
            actor.status = op.status
            actor.interrupt("ended")
            self.ended(actor.id, op.status, result.value.answered)

    def ended(self, id: str, status: str, answered: list[Message]) -> None:
        """It takes no more messages; everybody who still waited was answered."""
        sessions = self._sessions
        for message in answered:
            if message.reply_to is not None and message.reply is not None:
                sessions.deliver(message.reply_to, message.reply)
            sessions.replied(id, message.id, message.reply or b"")
        sessions.waits_on.pop(id, None)
        sessions.alarms.cancel(id)  # it may have parked while its end was written
        sessions.node.emit(events.SessionEndedEvent(id, status))
        if status == "finished":
            sessions.in_background(self.end_children(id))

    def condemn(self, actor: Actor, reason: str) -> None:
        """Kill a session from within its own step."""
        if not actor.condemned:
            actor.condemned = True
            self._sessions.in_background(self._execute(actor, reason))

    async def _execute(self, actor: Actor, reason: str) -> None:
        try:
            await self.end(actor.id, "killed", reason)
        except BaseException:
            actor.condemned = False  # not written: its next failing step has it killed again
            raise

    def dropped(self, id: str, turn: int) -> None:
        """A turn was given up for good: nobody knows the children that it made."""
        self._sessions.in_background(self.end_children(id, turn))

    async def end_children(self, parent: str, turn: int | None = None) -> None:
        """Cancel the children that live, the last made first; only those that `turn` made, if it is given."""
        for child in reversed(await self._sessions.node.store.children(parent)):
            made = child.parent is not None and (turn is None or child.parent.turn == turn)
            if made and not child.detached and child.status not in ENDED:
                try:
                    await self.end(child.id, "cancelled", f"its parent {parent!r} has ended")
                except (StoreError, ConfigError) as error:
                    events.log.warning("child %s of %s is ended at the next start: %s", child.id, parent, describe(error))
