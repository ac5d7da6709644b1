"""The messages of a SQLite store: their arrival, their end, and the answers to the steps that wait for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec

from holdfast.stores import ops
from holdfast.stores.ops import DONE, Result, Status
from holdfast.stores.records import ENDED, Address, Message, MessageState, Session, StepState
from holdfast.stores.rows import MESSAGE, decode_outcome, encode, message_of
from holdfast.stores.sqlite.log import StepLog
from holdfast.stores.unreadable import UNREADABLE, read_step

_CONFLICT = Result(Status.REFUSED, "conflict")


class Mailbox:
    """Applies what concerns messages to one connection, inside the caller's transaction.

    Args:
        db: the connection.
        log: the log of steps.
        session: reads a session's row.
        readable: whether a session's row decodes.
        waiting: the row of a step in the log, if the step waits.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        log: StepLog,
        session: Callable[[str], Session | None],
        readable: Callable[[str], bool],
        waiting: Callable[[Address], int | None],
    ) -> None:
        self._db, self._log, self._session, self._readable, self._waiting = db, log, session, readable, waiting

    def enqueue(self, op: ops.Enqueue) -> Result:
        """Apply an Enqueue."""
        row = self._db.execute("SELECT status, pending FROM sessions WHERE id = ?", (op.session,)).fetchone()
        if row is None:
            return Result(Status.REFUSED, "unknown")
        stored = self._db.execute(f"SELECT {MESSAGE} FROM messages WHERE session = ? AND id = ?", (op.session, op.id)).fetchone()
        if stored is not None:
            message = message_of(stored)
            return Result(Status.DUPLICATE, self._asked_again(op, message)) if message.digest == op.digest else _CONFLICT
        if row[0] in ENDED:
            return Result(Status.REFUSED, ("ended", self._session(op.session)))
        if not isinstance(row[1], int) or not self._readable(op.session):
            return Result(Status.REFUSED, UNREADABLE)
        counted = op.kind == "message"
        if counted and op.limit is not None and row[1] >= op.limit:
            return Result(Status.REFUSED, "full")
        self._db.execute(
            "INSERT INTO messages (session, id, body, digest, kind, reply_to, state, created, context) VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?)",
            (op.session, op.id, op.body, op.digest, op.kind, None if op.reply_to is None else encode(op.reply_to), op.now, op.context),
        )
        if counted:
            self._db.execute("UPDATE sessions SET pending = pending + 1, updated = ? WHERE id = ?", (op.now, op.session))
        return DONE

    def _asked_again(self, op: ops.Enqueue, message: Message) -> Message:
        """The message, with the step that asks for its answer too, where that has not come; without those that wait no more."""
        to = op.reply_to
        if to is None or message.state is not MessageState.QUEUED or message.unreadable or to in (message.reply_to, *message.also):
            return message
        also = (*(each for each in message.also if self._waiting(each) is not None), to)
        self._db.execute("UPDATE messages SET also = ? WHERE seq = ?", (encode(also), message.seq))
        return msgspec.structs.replace(message, also=also)

    def settle(self, op: ops.CommitTurn | ops.FailTurn, state: MessageState) -> tuple[int, list[Message]]:
        """Give a turn's message its reply. A message that is not queued keeps its reply.

        Returns:
            By how much `pending` falls, and the message once for each step that was answered with it, without the first that asked.
        """
        row = self._db.execute(
            f"SELECT {MESSAGE} FROM messages WHERE session = ? AND id = ? AND also IS NOT NULL AND state = 1 AND kind = 'message'",
            (op.session, op.message),
        ).fetchone()
        settled = self._db.execute(
            "UPDATE messages SET state = ?, reply = ?, done = ?, also = NULL WHERE session = ? AND id = ? AND state = 1"
            " AND kind = 'message'",
            (state, op.reply, op.now, op.session, op.message),
        ).rowcount
        if row is None:
            return settled, []
        message = message_of(row)
        done = msgspec.structs.replace(message, state=state, reply=op.reply, done=op.now, also=())
        return settled, self._answered(done, message.also, op.reply, op.now)

    def _answered(self, done: Message, also: tuple[Address, ...], reply: bytes, now: float) -> list[Message]:
        """Answer the other steps that wait for a message; the message once for each that did."""
        return [msgspec.structs.replace(done, reply_to=to) for to in also if self.reply(ops.Reply(to, reply, now)) is DONE]

    def answer_all(self, session: str, rest: bytes | None, watch: bytes | None, now: float) -> list[Message]:
        """Answer everything still queued in a session that has ended; returns the messages as they are now."""
        queued = self._db.execute(f"SELECT {MESSAGE} FROM messages WHERE session = ? AND state = 1 ORDER BY seq", (session,)).fetchall()
        answered: list[Message] = []
        for row in queued:
            message = message_of(row)
            state, reply = (MessageState.DONE, watch) if message.kind == "watch" else (MessageState.DEAD, rest)
            self._db.execute(
                "UPDATE messages SET state = ?, reply = ?, done = ?, also = NULL WHERE seq = ?", (int(state), reply, now, message.seq)
            )
            if (to := message.reply_to) is not None and reply is not None and self.reply(ops.Reply(to, reply, now)) is not DONE:
                to = None  # its step waits no more: it wakes no session
            done = msgspec.structs.replace(message, state=state, reply=reply, done=now, reply_to=to, also=())
            answered.append(done)
            if message.also and reply is not None:
                answered += self._answered(done, message.also, reply, now)
        self._db.execute("UPDATE sessions SET pending = 0 WHERE id = ?", (session,))
        return answered

    def reply(self, op: ops.Reply) -> Result:
        """Apply a Reply."""
        to, outcome = op.to, decode_outcome(op.outcome)
        num = self._waiting(to)
        if num is None:
            return Result(Status.DUPLICATE)
        row = self._db.execute("SELECT body FROM steps WHERE num = ?", (num,)).fetchone()
        waiting = read_step(to.key, StepState.WAITING, row[0], to.turn)
        if not waiting.unreadable:  # else it stays: when the row is restored, the step asks again and gets its answer
            record = msgspec.structs.replace(waiting.record, outcome=outcome, closed=op.now)
            state = StepState.CLOSED if outcome.failure is None else StepState.FAILED
            self._log.append(to.session, to.turn, to.key, int(state), encode(record))
        self._db.execute("UPDATE sessions SET wake_at = ? WHERE id = ? AND status = 'parked' AND reason = 'wait'", (op.now, to.session))
        return DONE
