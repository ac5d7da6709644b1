"""The activation of sessions, in bulk: at a start there are thousands, and each would take seven statements by itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from holdfast.stores import marks
from holdfast.stores.ops import Activate, Result, Status
from holdfast.stores.records import Loaded, Message
from holdfast.stores.rows import CHECKPOINT, MESSAGE, SESSION, checkpoint_of, message_of, qualified, session_of
from holdfast.stores.sqlite.log import StepLog, Tail, as_json, journals

_WANTED = "FROM json_each(?) AS wanted CROSS JOIN"
_SESSIONS = f"SELECT {qualified(SESSION, 's')}, s.id, s.crash_mark, s.last_step {_WANTED} sessions s ON s.id = wanted.value"
_CHECKPOINTS = (
    f"SELECT s.id, {qualified(CHECKPOINT, 't')} {_WANTED} sessions s ON s.id = wanted.value"
    " CROSS JOIN turns t ON t.session = s.id AND t.turn = s.turn"
)
_QUEUED = (
    f"SELECT {qualified(MESSAGE, 'm')} {_WANTED} messages m ON m.session = wanted.value"
    " WHERE m.state = 1 AND m.kind = 'message' ORDER BY m.seq"
)


def activate(db: sqlite3.Connection, log: StepLog, waking: Sequence[Activate]) -> list[Result]:
    """Apply Activate ops of different sessions, inside the caller's transaction."""
    ids = as_json(op.session for op in waking)
    rows = {row[-3]: row for row in db.execute(_SESSIONS, (ids,)).fetchall()}
    for id, row in rows.items():
        if isinstance(row[-1], int):
            log.found(id, row[-1])
    sessions = {id: session_of(row) for id, row in rows.items()}
    tails = [Tail(id, session.turn + 1, log.tails[id]) for id, session in sessions.items() if id in log.tails]
    steps = journals(db, tails) if tails else {}
    checkpoints = {id: checkpoint_of(row) for id, *row in db.execute(_CHECKPOINTS, (ids,)).fetchall()}
    queued: dict[str, list[Message]] = {}
    for row in db.execute(_QUEUED, (ids,)).fetchall():
        queued.setdefault(row[1], []).append(message_of(row))
    results, changed = [], []
    for op in waking:
        id = op.session
        session = sessions.get(id)
        if session is None or session.unreadable:  # its row stays as it is
            results.append(Result(Status.REFUSED, "unknown" if session is None else session.unreadable))
            continue
        if not isinstance(rows[id][-1], int):
            results.append(Result(Status.REFUSED, f"its row does not decode: last_step ({rows[id][-1]!r})"))
            continue
        if id not in checkpoints:
            results.append(Result(Status.REFUSED, f"the row of its turn {session.turn} is missing"))
            continue
        journal, mark, crashes = steps.get(id, []), rows[id][-2], session.crashes
        if op.count_crash:
            crashes, mark = marks.charge(crashes, mark, len(journal), op.alone)
        session = msgspec.structs.replace(session, epoch=session.epoch + 1, crashes=crashes)
        changed.append((session.epoch, crashes, mark, id))
        results.append(Result(Status.DONE, Loaded(session, checkpoints[id], queued.get(id, []), journal)))
    db.executemany("UPDATE sessions SET epoch = ?, crashes = ?, crash_mark = ? WHERE id = ?", changed)
    return results
