"""The interpreter of ops on plain dicts: one method an op, all synchronous, with an undo log for a batch that fails half-way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from holdfast.stores import marks, ops
from holdfast.stores.ops import DONE, FENCED, EpochOp, Result, Status, TurnOp
from holdfast.stores.records import ENDED, Address, Checkpoint, DeadLetter, Loaded, Message, MessageState, Outcome, Session, Step, StepState
from holdfast.stores.returns import opened, settle
from holdfast.stores.unreadable import UNREADABLE, read_step

_ABSENT: Any = object()
_replace = msgspec.structs.replace
_encode = msgspec.msgpack.Encoder().encode
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


class StepRow(msgspec.Struct, frozen=True):
    """A step as it is kept: `order` is that of the first writes, and a body is bytes as on a disk."""

    order: int
    state: StepState
    body: bytes


class Tables:
    """All rows of one store. Values are frozen, so a row that was handed out never changes."""

    def __init__(self) -> None:
        # No session and no message is ever deleted: the order of these dicts is that of creation and of arrival.
        self.sessions: dict[str, Session] = {}
        self.messages: dict[str, dict[str, Message]] = {}
        self.steps: dict[tuple[str, int], dict[bytes, StepRow]] = {}
        self.checkpoints: dict[str, dict[int, Checkpoint]] = {}
        self.letters: dict[tuple[str, int], DeadLetter] = {}
        self.crash_marks: dict[str, int] = {}
        # Stand-ins of sessions whose own row does not decode; such a session is in none of the tables, and its row stays as it is.
        self.unreadable: dict[str, Session] = {}
        self._arrivals = 0
        self._firsts = 0
        # The undo log of the batch under way: (table, key, old value).
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []

    def apply(self, batch: Sequence[ops.Op]) -> list[Result]:
        """One result an op, in order. If it raises, no op of the batch has taken effect."""
        counters = self._arrivals, self._firsts
        try:
            return [self._do(op) for op in batch]
        except BaseException:
            # After any error, also a KeyboardInterrupt: half a batch must not stay.
            for table, key, old in reversed(self._undo):
                if old is _ABSENT:
                    del table[key]
                else:
                    table[key] = old
            self._arrivals, self._firsts = counters
            raise
        finally:
            self._undo.clear()

    def _do(self, op: ops.Op) -> Result:
        result, outbox = _APPLY[type(op)](self, op), getattr(op, "outbox", ())
        if outbox and result.status is Status.DONE:
            return Result(Status.DONE, result.value, tuple(self._do(sent) for sent in outbox))
        return result

    def _put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._undo.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    def _drop(self, table: dict[Any, Any], key: Any) -> None:
        if key in table:
            self._undo.append((table, key, table.pop(key)))

    def _owned(self, op: EpochOp) -> Session | None:
        session = self.sessions.get(op.session)
        return session if session is not None and session.epoch == op.epoch else None

    def _owned_turn(self, op: TurnOp) -> Session | None:
        session = self._owned(op)
        return session if session is not None and session.turn + 1 == op.turn else None

    # ------------------------------------------------------------ sessions

    def _create(self, op: ops.CreateSession) -> Result:
        existing = self.sessions.get(op.id) or self.unreadable.get(op.id)
        if existing is not None:
            return Result(Status.DUPLICATE, existing)
        session = Session(
            op.id, op.agent, op.tenant, op.user, status="idle", epoch=0, turn=0, pending=0, budget=op.budget, seed=op.seed,
            parent=op.parent, detached=op.detached, created=op.now, updated=op.now, returns=opened(op),
        )  # fmt: skip
        self._put(self.sessions, op.id, session)
        self._put(self.messages, op.id, {})
        self._put(
            self.checkpoints, op.id, {0: Checkpoint(0, op.state, op.version, started=op.now, ended=op.now, fingerprint=op.fingerprint)}
        )
        return Result(Status.DONE, session)

    def _activate(self, op: ops.Activate) -> Result:
        session = self.sessions.get(op.session) or self.unreadable.get(op.session)
        if session is None:
            return Result(Status.REFUSED, "unknown")
        if session.unreadable:
            return Result(Status.REFUSED, session.unreadable)
        if session.turn not in self.checkpoints[op.session]:
            return Result(Status.REFUSED, f"the row of its turn {session.turn} is missing")
        turn = session.turn + 1
        crashes = session.crashes
        if op.count_crash:
            records = len(self.steps.get((op.session, turn), ()))
            crashes, mark = marks.charge(crashes, self.crash_marks.get(op.session), records, op.alone)
            self._put(self.crash_marks, op.session, mark)
        session = _replace(session, epoch=session.epoch + 1, crashes=crashes)
        self._put(self.sessions, op.session, session)
        queued = [m for m in self._queued(op.session) if m.kind == "message"]
        return Result(
            Status.DONE,
            Loaded(session, self.checkpoints[op.session][session.turn], queued, self.journal(op.session, turn)),
        )

    def charges(self, session: Session) -> tuple[int, int, bool]:
        """`crashes`, `passes` and `alone` of a Runnable."""
        records = len(self.steps.get((session.id, session.turn + 1), ()))
        return marks.charges(session.crashes, self.crash_marks.get(session.id), records)

    def _update(self, op: ops.UpdateSession) -> Result:
        session = self._owned(op)
        if session is None:
            return FENCED
        if op.park is not None and op.park.keys:
            steps = self.steps.get((op.session, session.turn + 1), {})
            if any(key not in steps or steps[key].state is not StepState.WAITING for key in op.park.keys):
                return Result(Status.REFUSED, "answered")
        status = session.status if op.status is None else op.status
        park = (session.park or session.unresolved) if op.park is None else op.park
        if op.status is not None and op.status != "parked":
            park = None
        session = _replace(
            session,
            status=status,
            park=None if status in ENDED else park,
            unresolved=park if status in ENDED else None,
            budget=session.budget if op.budget is None else op.budget,
            gates=session.gates if op.gates is None else op.gates,
            crashes=0 if op.settled else session.crashes,
            updated=op.now,
        )
        self._put(self.sessions, op.session, session)
        if op.passed and op.session in self.crash_marks:
            self._put(self.crash_marks, op.session, marks.passed(self.crash_marks[op.session]))
        return DONE

    def _return_budget(self, op: ops.ReturnBudget) -> Result:
        def readable(id: str) -> Session | None:
            session = self.sessions.get(id)
            return None if session is None or session.unreadable else session

        return settle(op, readable, lambda session: self._put(self.sessions, session.id, session))

    def _end(self, op: ops.EndSession) -> Result:
        session = self.sessions.get(op.session)
        if session is None:
            return Result(Status.REFUSED, "unknown")
        if session.status in ENDED:
            return Result(Status.DUPLICATE)
        park = None if op.park is None else _replace(op.park, until=None)
        session = _replace(
            session, epoch=session.epoch + 1, status=op.status, park=None, unresolved=park, result=op.outcome, updated=op.now
        )
        self._put(self.sessions, op.session, session)
        answered = self._answer_rest(op.session, op.outcome, op.outcome, op.now)
        return Result(Status.DONE, ops.Ended(session.epoch, answered))

    # ------------------------------------------------------------ mailbox

    def _enqueue(self, op: ops.Enqueue) -> Result:
        session = self.sessions.get(op.session) or self.unreadable.get(op.session)
        if session is None:
            return Result(Status.REFUSED, "unknown")
        earlier = self.messages[op.session].get(op.id)
        if earlier is not None:
            same = earlier.digest == op.digest
            return Result(Status.DUPLICATE, self._asked_again(op, earlier)) if same else Result(Status.REFUSED, "conflict")
        if session.status in ENDED:
            return Result(Status.REFUSED, ("ended", session))
        if session.unreadable:
            return Result(Status.REFUSED, UNREADABLE)
        if op.kind == "message" and op.limit is not None and session.pending >= op.limit:
            return Result(Status.REFUSED, "full")
        self._arrivals += 1
        self._store_message(
            Message(op.session, op.id, op.body, op.digest, op.kind, op.reply_to, created=op.now, seq=self._arrivals, context=op.context),
            op.now,
        )
        return DONE

    def _asked_again(self, op: ops.Enqueue, message: Message) -> Message:
        """The message, with the step that asks for its answer too, where that has not come; without those that wait no more."""
        to = op.reply_to
        if to is None or message.state is not MessageState.QUEUED or message.unreadable or to in (message.reply_to, *message.also):
            return message
        message = _replace(message, also=(*filter(self._waiting, message.also), to))
        self._store_message(message, op.now)
        return message

    def _queued(self, session: str) -> list[Message]:
        return [m for m in self.messages[session].values() if m.state is MessageState.QUEUED]

    def _store_message(self, message: Message, now: float) -> None:
        """The one place where `pending` changes: it follows the message's old and new state."""
        mailbox = self.messages[message.session]
        before = mailbox.get(message.id)
        self._put(mailbox, message.id, message)
        change = _counts(message) - (0 if before is None else _counts(before))
        if change:
            session = self.sessions[message.session]
            self._put(self.sessions, message.session, _replace(session, pending=session.pending + change, updated=now))

    def _settle_message(self, session: str, id: str, state: MessageState, reply: bytes, now: float) -> list[Message]:
        """Give a message its reply; returns it once for each step that was answered with it, without the first that asked."""
        message = self.messages[session].get(id)
        if message is None or not _counts(message):
            return []
        done = _replace(message, state=state, reply=reply, done=now, also=())
        self._store_message(done, now)
        return self._answered(done, message.also, reply, now)

    def _answered(self, done: Message, also: Sequence[Address], reply: bytes, now: float) -> list[Message]:
        return [_replace(done, reply_to=to) for to in also if self._reply(ops.Reply(to, reply, now)) is DONE]

    def _answer_rest(self, session: str, to_messages: bytes | None, to_watches: bytes | None, now: float) -> list[Message]:
        answered: list[Message] = []
        for queued in self._queued(session):
            watch = queued.kind == "watch"
            reply = to_watches if watch else to_messages
            message = _replace(queued, state=MessageState.DONE if watch else MessageState.DEAD, reply=reply, done=now, also=())
            self._store_message(message, now)
            if message.reply_to is not None and reply is not None and self._reply(ops.Reply(message.reply_to, reply, now)) is not DONE:
                message = _replace(message, reply_to=None)  # its step waits no more: it wakes no session
            answered.append(message)
            if queued.also and reply is not None:
                answered += self._answered(message, queued.also, reply, now)
        return answered

    # ------------------------------------------------------------ steps

    def _write_step(self, op: ops.WriteStep) -> Result:
        if self._owned_turn(op) is None:
            return FENCED
        steps = self.steps.setdefault((op.session, op.turn), {})
        first = steps.get(op.key)
        if first is None:
            self._firsts += 1
        self._put(steps, op.key, StepRow(self._firsts if first is None else first.order, op.state, op.body))
        return DONE

    def _drop_steps(self, op: ops.DropSteps) -> Result:
        session = self._owned_turn(op)
        if session is None:
            return FENCED
        steps = self.steps.get((op.session, op.turn), {})
        there = [key for key in op.keys if key in steps]
        for key in there:
            self._drop(steps, key)
        if op.charge and there:
            self._put(self.sessions, op.session, _replace(session, usage=session.usage + op.charge))
        return DONE

    def _reply(self, op: ops.Reply) -> Result:
        to, outcome = op.to, _decode_outcome(op.outcome)
        steps = self.steps.get((to.session, to.turn), {})
        if not self._waiting(to):
            return Result(Status.DUPLICATE)
        row = steps[to.key]
        waiting = read_step(to.key, row.state, row.body, to.turn)
        if not waiting.unreadable:  # else it stays: when the row is restored, the step asks again and gets its answer
            record = _replace(waiting.record, outcome=outcome, closed=op.now)
            state = StepState.CLOSED if outcome.failure is None else StepState.FAILED
            self._put(steps, to.key, StepRow(row.order, state, _encode(record)))
        session = self.sessions.get(to.session)  # none where its row does not decode
        if session is not None and session.status == "parked" and session.park is not None and session.park.reason == "wait":
            self._put(self.sessions, to.session, _replace(session, park=_replace(session.park, until=op.now)))
        return DONE

    def _waiting(self, to: Address) -> bool:
        """Whether a step of the open turn waits."""
        session = self.sessions.get(to.session) or self.unreadable.get(to.session)
        row = self.steps.get((to.session, to.turn), {}).get(to.key) if session is not None and session.turn + 1 == to.turn else None
        return row is not None and row.state is StepState.WAITING

    def journal(self, session: str, turn: int) -> list[Step]:
        rows = sorted(self.steps.get((session, turn), {}).items(), key=lambda item: item[1].order)
        return [read_step(key, row.state, row.body, turn) for key, row in rows]

    # ------------------------------------------------------------ turns

    def _commit_turn(self, op: ops.CommitTurn) -> Result:
        session = self._owned(op)
        if session is None:
            return FENCED
        session = _replace(
            session, status=op.status, turn=op.turn, usage=session.usage + op.usage, park=None, unresolved=None, gates=op.gates, notes=(),
            result=op.result, crashes=0, updated=op.now,
        )  # fmt: skip
        self._put(self.sessions, op.session, session)
        made = Checkpoint(op.turn, op.state, op.version, op.message, op.started, op.now, op.usage, fingerprint=op.fingerprint)
        self._put(self.checkpoints[op.session], op.turn, made)
        answered = self._settle_message(op.session, op.message, MessageState.DONE, op.reply, op.now)
        if op.status not in ENDED:
            return Result(Status.DONE, answered) if answered else DONE
        return Result(Status.DONE, answered + self._answer_rest(op.session, op.rest, op.result, op.now))

    def _fail_turn(self, op: ops.FailTurn) -> Result:
        session = self._owned(op)
        if session is None:
            return FENCED
        if session.status in ENDED:
            failed = _replace(session, updated=op.now)
        else:
            failed = _replace(session, status="failed", park=None, unresolved=None, updated=op.now)
        self._put(self.sessions, op.session, failed)
        answered = self._settle_message(op.session, op.message, MessageState.DEAD, op.reply, op.now)
        letter = DeadLetter(op.session, op.message, op.turn, op.cause, op.effects, op.now, op.in_doubt, op.failed)
        self._put(self.letters, (op.session, op.turn), letter)
        return Result(Status.DONE, answered) if answered else DONE

    def _retry_letter(self, op: ops.RetryLetter) -> Result:
        session = self._owned(op)
        if session is None:
            return FENCED
        letter = self.letters.get((op.session, session.turn + 1))
        if letter is None or session.status in ENDED:
            return Result(Status.REFUSED, "none")
        self._drop(self.letters, (op.session, letter.turn))
        self._put(self.sessions, op.session, _replace(session, status="idle", park=None, unresolved=None, updated=op.now))
        message = _replace(self.messages[op.session][letter.message], state=MessageState.QUEUED, reply=None, done=None)
        self._store_message(message, op.now)
        return Result(Status.DONE, message)

    def _drop_letter(self, op: ops.DropLetter) -> Result:
        session = self._owned(op)
        if session is None:
            return FENCED
        turn = session.turn + 1
        letter = self.letters.get((op.session, turn))
        if letter is None or session.status in ENDED:
            return Result(Status.REFUSED, "none")
        self._drop(self.letters, (op.session, turn))
        made = self.checkpoints[op.session][session.turn]
        made = _replace(made, turn=turn, message=letter.message, started=op.now, ended=op.now, usage=op.usage, dropped=True)
        self._put(self.checkpoints[op.session], turn, made)
        spent, notes = session.usage + op.usage, letter.effects
        session = _replace(session, status="idle", park=None, turn=turn, usage=spent, notes=notes, crashes=0, updated=op.now)
        self._put(self.sessions, op.session, session)
        return DONE

    def _rewind(self, op: ops.Rewind) -> Result:
        session = self._owned_turn(op)
        if session is None:
            return FENCED
        made = Checkpoint(op.turn, op.state, op.version, started=op.now, ended=op.now, fingerprint=op.fingerprint)
        self._put(self.checkpoints[op.session], op.turn, made)
        session = _replace(session, status=op.status, park=op.park, turn=op.turn, notes=op.effects, crashes=0, updated=op.now)
        self._put(self.sessions, op.session, session)
        return DONE


def _counts(message: Message) -> int:
    return int(message.kind == "message" and message.state is MessageState.QUEUED)


_APPLY: dict[type[Any], Callable[[Tables, Any], Result]] = {
    ops.CreateSession: Tables._create,
    ops.Enqueue: Tables._enqueue,
    ops.Activate: Tables._activate,
    ops.WriteStep: Tables._write_step,
    ops.DropSteps: Tables._drop_steps,
    ops.CommitTurn: Tables._commit_turn,
    ops.FailTurn: Tables._fail_turn,
    ops.RetryLetter: Tables._retry_letter,
    ops.DropLetter: Tables._drop_letter,
    ops.Rewind: Tables._rewind,
    ops.UpdateSession: Tables._update,
    ops.Reply: Tables._reply,
    ops.ReturnBudget: Tables._return_budget,
    ops.EndSession: Tables._end,
    ops.Touch: lambda tables, op: DONE,
}
