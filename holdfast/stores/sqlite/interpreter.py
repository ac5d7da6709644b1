"""The interpreter of ops on a SQLite connection: one method an op, all synchronous, all inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.policies.budget import Usage
from holdfast.stores import marks, ops
from holdfast.stores.ops import DONE, FENCED, Result, Status
from holdfast.stores.records import ENDED, Address, MessageState, Session
from holdfast.stores.returns import opened, settle
from holdfast.stores.rows import (
    MESSAGE,
    SESSION,
    decode_texts,
    decode_usage,
    encode,
    message_of,
    session_of,
)
from holdfast.stores.sqlite.activation import activate
from holdfast.stores.sqlite.log import APPEND, DROPPED, Row, StepLog
from holdfast.stores.sqlite.mailbox import Mailbox

_MAX_KNOWN = 100_000
_NO_SESSION = (-1, -1)
_LIVES_ON = "status NOT IN ('finished', 'cancelled', 'killed')"


class Interpreter:
    """Applies ops to one connection.

    It caches the epoch and the open turn of sessions: this process makes every write, so the cache is right.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.db = connection
        self.log = StepLog(connection)
        self._known: dict[str, tuple[int, int]] = {}
        self._mailbox = Mailbox(
            connection, self.log, self.session, lambda id: id in self._known or self._readable(id) is not None, self._waiting
        )
        self._by_type: dict[type, Callable[[Any], Result]] = {
            ops.CreateSession: self._create,
            ops.Enqueue: self._mailbox.enqueue,
            ops.Activate: lambda op: self._activate([op])[0],
            ops.WriteStep: self._write_step,
            ops.DropSteps: self._drop_steps,
            ops.CommitTurn: self._commit_turn,
            ops.FailTurn: self._fail_turn,
            ops.RetryLetter: self._retry_letter,
            ops.DropLetter: self._drop_letter,
            ops.Rewind: self._rewind,
            ops.UpdateSession: self._update_session,
            ops.Reply: self._mailbox.reply,
            ops.ReturnBudget: self._return_budget,
            ops.EndSession: self._end_session,
            ops.Touch: self._touch,
        }

    def forget(self) -> None:
        """Clear the cache after a transaction that did not commit: it may differ from the database."""
        self._known.clear()
        self.log.forget()

    def apply(self, batch: Sequence[ops.Op]) -> list[Result]:
        """One result an op, in order. Runs of plain step writes, the bulk of all ops, go as one `executemany`; so do activations."""
        results: list[Result] = []
        rows: list[Row] = []
        waking: dict[str, ops.Activate] = {}
        known, log = self._known, self.log
        if log.stale:
            log.load()
        for op in batch:
            if waking and (type(op) is not ops.Activate or op.session in waking):
                results += self._activate(list(waking.values()))
                waking.clear()
            if type(op) is ops.WriteStep and not op.outbox:
                if (known.get(op.session) or self._open(op.session)) == (op.epoch, op.turn):
                    rows.append(log.row(op.session, op.turn, op.key, int(op.state), op.body))  # an enum would go through sqlite3's adapters
                    results.append(DONE)
                else:
                    results.append(FENCED)
                continue
            if rows:
                self.db.executemany(APPEND, rows)
                rows.clear()
            if type(op) is ops.Activate:
                waking[op.session] = op
            else:
                results.append(self._by_type[type(op)](op))
        if rows:
            self.db.executemany(APPEND, rows)
        if waking:
            results += self._activate(list(waking.values()))
        if log.full:
            log.save(self._known)  # not `known`: `release` may have begun another dict meanwhile
        return results

    def _open(self, session: str) -> tuple[int, int]:
        """The epoch and the open turn of a session."""
        known = self._known.get(session)
        if known is None:
            row = self.db.execute("SELECT epoch, turn + 1, last_step FROM sessions WHERE id = ?", (session,)).fetchone()
            if row is None:
                known = _NO_SESSION
            else:
                known = row[0], row[1]
                self.log.found(session, row[2])
            self._remember(session, *known)
        return known

    def _epoch(self, session: str) -> int:
        return self._open(session)[0]

    def release(self, session: str) -> None:
        """Drop a passivated session from the cache, to save memory."""
        self._known.pop(session, None)
        if not self._known:
            self._known = {}  # an emptied dict keeps its table

    def _remember(self, session: str, epoch: int, open_turn: int) -> None:
        """Cache a session of which the log knows the open turn: `_open` came before, or the turn has no rows."""
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[session] = epoch, open_turn

    def _outbox(self, outbox: tuple[ops.Op, ...]) -> tuple[Result, ...]:
        return tuple(self._by_type[type(op)](op) for op in outbox)

    # ------------------------------------------------------------ sessions and messages

    def session(self, id: str) -> Session | None:
        row = self.db.execute(f"SELECT {SESSION} FROM sessions WHERE id = ?", (id,)).fetchone()
        return None if row is None else session_of(row)

    def _readable(self, id: str) -> Session | None:
        session = self.session(id)
        return None if session is None or session.unreadable else session

    def _create(self, op: ops.CreateSession) -> Result:
        there = self.session(op.id)
        if there is not None:
            return Result(Status.DUPLICATE, there)
        parent = op.parent
        made = (None, None, None) if parent is None else (parent.session, encode(parent), parent.turn)
        self.db.execute(
            "INSERT INTO sessions (id, agent, tenant, user, status, epoch, turn, pending, budget, usage, seed, parent, parent_at,"
            " parent_turn, detached, gates, notes, crashes, crash_mark, created, updated, returns)"
            " VALUES (?, ?, ?, ?, 'idle', 0, 0, 0, ?, ?, ?, ?, ?, ?, ?, x'', ?, 0, 0, ?, ?, ?)",
            (
                op.id, op.agent, op.tenant, op.user, encode(op.budget), encode(Usage()), op.seed, *made, op.detached,
                encode(()), op.now, op.now, encode(opened(op)),
            ),
        )  # fmt: skip
        self.db.execute(
            "INSERT INTO turns (session, turn, state, version, message, started, ended, usage, fingerprint)"
            " VALUES (?, 0, ?, ?, NULL, ?, ?, ?, ?)",
            (op.id, op.state, op.version, op.now, op.now, encode(Usage()), op.fingerprint),
        )
        self._known.pop(op.id, None)  # an earlier lookup may have cached that there is no such session
        return Result(
            Status.DONE,
            Session(
                id=op.id, agent=op.agent, tenant=op.tenant, user=op.user, status="idle", epoch=0, turn=0, pending=0, budget=op.budget,
                seed=op.seed, parent=op.parent, detached=op.detached, created=op.now, updated=op.now, returns=opened(op),
            ),
        )  # fmt: skip

    def _activate(self, waking: list[ops.Activate]) -> list[Result]:
        results = activate(self.db, self.log, waking)
        for op, result in zip(waking, results, strict=True):
            if result.status is Status.DONE:
                session = result.value.session
                self._remember(op.session, session.epoch, session.turn + 1)
        return results

    def _update_session(self, op: ops.UpdateSession) -> Result:
        if self._epoch(op.session) != op.epoch:
            return FENCED
        if op.park is not None and op.park.keys and not self._all_waiting(op.session, op.park.keys):
            return Result(Status.REFUSED, "answered")
        sets, values = ["updated = ?"], [op.now]
        if op.status is not None:
            sets.append("status = ?")
            values.append(op.status)  # type: ignore[arg-type]
            if op.status != "parked":
                sets.append("park = NULL, reason = NULL, wake_at = NULL")
        if op.park is not None and op.status in (None, "parked"):
            sets.append("park = ?, reason = ?, wake_at = ?")
            values += [encode(op.park), op.park.reason, op.park.until]  # type: ignore[list-item]
        if op.budget is not None:
            sets.append("budget = ?")
            values.append(encode(op.budget))  # type: ignore[arg-type]
        if op.gates is not None:
            sets.append("gates = ?")
            values.append(op.gates)  # type: ignore[arg-type]
        if op.settled or op.passed:
            sets.append("crashes = 0, crash_mark = 0" if op.settled else marks.PASSED)
        self.db.execute(f"UPDATE sessions SET {', '.join(sets)} WHERE id = ?", (*values, op.session))
        return DONE

    # ------------------------------------------------------------ steps

    def _write_step(self, op: ops.WriteStep) -> Result:
        if self._open(op.session) != (op.epoch, op.turn):
            return FENCED
        self.log.append(op.session, op.turn, op.key, int(op.state), op.body)
        return Result(Status.DONE, None, self._outbox(op.outbox))

    def _drop_steps(self, op: ops.DropSteps) -> Result:
        if self._open(op.session) != (op.epoch, op.turn):
            return FENCED
        there = {step.key for step in self.log.steps(op.session, op.turn)}
        dropped = there.intersection(op.keys)
        for key in dropped:
            self.log.append(op.session, op.turn, key, DROPPED, b"")
        if op.charge and dropped:
            self.db.execute("UPDATE sessions SET usage = ? WHERE id = ?", (self._total(op.session, op.charge), op.session))
        return DONE

    def _touch(self, op: ops.Touch) -> Result:
        self.db.execute("UPDATE nodes SET touched = touched + 1 WHERE id = 1")  # the same value again would not be written
        return DONE

    def _total(self, session: str, charge: Usage) -> bytes:
        row = self.db.execute("SELECT usage FROM sessions WHERE id = ?", (session,)).fetchone()
        return encode(charge if row is None else decode_usage(row[0]) + charge)

    def _return_budget(self, op: ops.ReturnBudget) -> Result:
        return settle(op, self._readable, self._put_returns)

    def _put_returns(self, row: Session) -> None:
        self.db.execute("UPDATE sessions SET usage = ?, returns = ? WHERE id = ?", (encode(row.usage), encode(row.returns), row.id))

    def _all_waiting(self, session: str, keys: tuple[bytes, ...]) -> bool:
        waiting = self.log.waiting(session)
        return all(key in waiting for key in keys)

    def _waiting(self, to: Address) -> int | None:
        """The row of a step in the log, if the step waits."""
        return self.log.waiting(to.session).get(to.key) if self._open(to.session)[1] == to.turn else None

    # ------------------------------------------------------------ turns

    def _commit_turn(self, op: ops.CommitTurn) -> Result:
        if self._epoch(op.session) != op.epoch:
            return FENCED
        usage = encode(op.usage)
        self.db.execute(
            "INSERT OR REPLACE INTO turns (session, turn, state, version, message, started, ended, usage, last_step, fingerprint)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                op.session,
                op.turn,
                op.state,
                op.version,
                op.message,
                op.started,
                op.now,
                usage,
                self.log.end_turn(op.session),
                op.fingerprint,
            ),
        )
        self._remember(op.session, op.epoch, op.turn + 1)
        settled, answered = self._mailbox.settle(op, MessageState.DONE)
        self.db.execute(
            "UPDATE sessions SET status = ?, turn = ?, pending = pending - ?, usage = ?, gates = ?, notes = x'90', result = ?, park = NULL,"
            " reason = NULL, wake_at = NULL, crashes = 0, crash_mark = 0, last_step = 0, updated = ? WHERE id = ?",
            (op.status, op.turn, settled, self._total(op.session, op.usage), op.gates, op.result, op.now, op.session),
        )
        if op.status in ENDED:
            answered += self._mailbox.answer_all(op.session, op.rest, op.result, op.now)
        return Result(Status.DONE, answered if op.status in ENDED else answered or None, self._outbox(op.outbox))

    def _end_session(self, op: ops.EndSession) -> Result:
        row = self.db.execute("SELECT status FROM sessions WHERE id = ?", (op.session,)).fetchone()
        if row is None:
            return Result(Status.REFUSED, "unknown")
        if row[0] in ENDED:
            return Result(Status.DUPLICATE)
        epoch, open_turn = self._open(op.session)
        epoch += 1
        self._remember(op.session, epoch, open_turn)
        park, reason = (None, None) if op.park is None else (encode(op.park), op.park.reason)
        self.db.execute(
            "UPDATE sessions SET status = ?, epoch = ?, result = ?, park = ?, reason = ?, wake_at = NULL, updated = ? WHERE id = ?",
            (op.status, epoch, op.outcome, park, reason, op.now, op.session),
        )
        answered = self._mailbox.answer_all(op.session, op.outcome, op.outcome, op.now)
        return Result(Status.DONE, ops.Ended(epoch, answered), self._outbox(op.outbox))

    def _fail_turn(self, op: ops.FailTurn) -> Result:
        if self._epoch(op.session) != op.epoch:
            return FENCED
        self.db.execute(
            "INSERT OR REPLACE INTO dead_letters (session, message, turn, cause, effects, created, in_doubt, failed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (op.session, op.message, op.turn, op.cause, encode(op.effects), op.now, encode(op.in_doubt), encode(op.failed)),
        )
        settled, answered = self._mailbox.settle(op, MessageState.DEAD)
        self.db.execute("UPDATE sessions SET pending = pending - ?, updated = ? WHERE id = ?", (settled, op.now, op.session))
        self.db.execute(
            f"UPDATE sessions SET status = 'failed', park = NULL, reason = NULL, wake_at = NULL WHERE id = ? AND {_LIVES_ON}",
            (op.session,),
        )
        return Result(Status.DONE, answered or None, self._outbox(op.outbox))

    def _letter(self, session: str) -> tuple[str, int, tuple[str, ...]] | None:
        """Message, turn and effects of the dead letter that blocks the session."""
        row = self.db.execute(
            "SELECT message, dead_letters.turn, effects FROM dead_letters JOIN sessions ON sessions.id = session"
            f" WHERE session = ? AND dead_letters.turn = sessions.turn + 1 AND {_LIVES_ON}",
            (session,),
        ).fetchone()
        return None if row is None else (row[0], row[1], decode_texts(row[2]))

    def _retry_letter(self, op: ops.RetryLetter) -> Result:
        if self._epoch(op.session) != op.epoch:
            return FENCED
        letter = self._letter(op.session)
        if letter is None:
            return Result(Status.REFUSED, "none")
        message, turn, _ = letter
        self.db.execute("DELETE FROM dead_letters WHERE session = ? AND turn = ?", (op.session, turn))
        self.db.execute("UPDATE messages SET state = 1, reply = NULL, done = NULL WHERE session = ? AND id = ?", (op.session, message))
        self.db.execute(
            "UPDATE sessions SET status = 'idle', park = NULL, reason = NULL, wake_at = NULL, pending = pending + 1, updated = ?"
            " WHERE id = ?",
            (op.now, op.session),
        )
        row = self.db.execute(f"SELECT {MESSAGE} FROM messages WHERE session = ? AND id = ?", (op.session, message)).fetchone()
        return Result(Status.DONE, message_of(row))

    def _rewind(self, op: ops.Rewind) -> Result:
        epoch, turn = self._open(op.session)
        if epoch != op.epoch or turn != op.turn:
            return FENCED
        self.db.execute(
            "INSERT INTO turns (session, turn, state, version, fingerprint, message, started, ended, usage, last_step)"
            " VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)",
            (op.session, turn, op.state, op.version, op.fingerprint, op.now, op.now, encode(Usage()), self.log.end_turn(op.session)),
        )
        park = op.park
        self.db.execute(
            "UPDATE sessions SET status = ?, park = ?, reason = ?, wake_at = ?, turn = ?, notes = ?, crashes = 0, crash_mark = 0,"
            " last_step = 0, updated = ? WHERE id = ?",
            (
                op.status, None if park is None else encode(park), None if park is None else park.reason,
                None if park is None else park.until, turn, encode(op.effects), op.now, op.session,
            ),
        )  # fmt: skip
        self._remember(op.session, op.epoch, turn + 1)
        return DONE

    def _drop_letter(self, op: ops.DropLetter) -> Result:
        if self._epoch(op.session) != op.epoch:
            return FENCED
        letter = self._letter(op.session)
        if letter is None:
            return Result(Status.REFUSED, "none")
        message, turn, effects = letter
        self.db.execute("DELETE FROM dead_letters WHERE session = ? AND turn = ?", (op.session, turn))
        self.db.execute(
            "INSERT INTO turns (session, turn, state, version, fingerprint, message, started, ended, usage, dropped, last_step)"
            " SELECT session, turn + 1, state, version, fingerprint, ?, ?, ?, ?, 1, ? FROM turns WHERE session = ? AND turn = ?",
            (message, op.now, op.now, encode(op.usage), self.log.end_turn(op.session), op.session, turn - 1),
        )
        self.db.execute(
            "UPDATE sessions SET status = 'idle', park = NULL, reason = NULL, wake_at = NULL, turn = ?, usage = ?, notes = ?, crashes = 0,"
            " crash_mark = 0, last_step = 0, updated = ? WHERE id = ?",
            (turn, self._total(op.session, op.usage), encode(effects), op.now, op.session),
        )
        self._remember(op.session, op.epoch, turn + 1)
        return DONE
