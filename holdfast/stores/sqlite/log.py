"""The log of steps: rows are appended, and never changed or removed.

A log has no index by session, since its upkeep cost two fifths of a step: in each transaction it changed a page for every session. Instead
each row has the number of the row before it in its turn (`prev`), and the turn's row has the number of its last one. So a turn is read
from its last row back. Of two rows for the same step the later one counts; one with the state DROPPED takes the step out.

For an open turn, the last number is in memory, and in the session's row as of row `nodes.steps_from` of the log. The log after that is
scanned: at a start, and by reads of an open turn. It has WINDOW rows, or a few for each session with an open turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from holdfast.stores.excerpt import brief_step
from holdfast.stores.records import Step, StepState
from holdfast.stores.rows import STEP, step_of
from holdfast.stores.unreadable import missing_step

DROPPED = 0
"""The state of a row that takes its step out of the journal."""

WINDOW = 20_000
"""Rows of the log after which the sessions' rows get the last numbers of their open turns."""

_PER_SESSION = 4
_MAX_TAILS = 100_000
_WAITING = int(StepState.WAITING)

APPEND = "INSERT INTO steps (num, session, turn, key, state, body, prev) VALUES (?, ?, ?, ?, ?, ?, ?)"
Row = tuple[int, str, int, bytes, int, bytes, int]

# Each number is lower than the one after it in the turn, so that damaged links end, too. A row that is gone has only its number.
_CHAINS = (
    "WITH RECURSIVE chain (at, num) AS (SELECT key, value FROM json_each(?)"
    " UNION ALL SELECT at, prev FROM chain CROSS JOIN steps USING (num) WHERE prev > 0 AND prev < num)"
    f" SELECT at, num, prev, session, {STEP} FROM chain LEFT JOIN steps USING (num) ORDER BY num"
)
# A damaged `steps_from` is no number of the log: all of it is scanned.
_FROM = (
    "ifnull((SELECT steps_from FROM nodes WHERE id = 1 AND typeof(steps_from) = 'integer'"
    " AND steps_from <= (SELECT max(num) FROM steps)), 0)"
)
_TAILS = f"SELECT session, turn, max(num) AS num FROM steps WHERE num > {_FROM} GROUP BY session, turn"
_LAST = (
    "SELECT max(last) FROM (SELECT last_step AS last FROM turns WHERE session = ?1 AND turn = ?2"
    " UNION ALL SELECT last_step FROM sessions WHERE id = ?1 AND turn + 1 = ?2"
    f" UNION ALL SELECT max(num) FROM steps WHERE num > {_FROM} AND session = ?1 AND turn = ?2)"
)
_NUM = (
    "SELECT max(ifnull((SELECT max(num) FROM steps), 0),"
    " ifnull((SELECT steps_from FROM nodes WHERE id = 1 AND typeof(steps_from) = 'integer'), 0))"
)
_OPEN_TAILS = (
    f"WITH tails AS MATERIALIZED ({_TAILS})"
    " SELECT s.id, s.turn + 1, max(s.last_step, ifnull(t.num, 0)) FROM json_each(?) AS wanted CROSS JOIN sessions s ON s.id = wanted.value"
    " LEFT JOIN tails t ON t.session = s.id AND t.turn = s.turn + 1"
)


def as_json(values: Iterable[Any]) -> str:
    """A list as a parameter for json_each."""
    return msgspec.json.encode(list(values)).decode()


def last_of(db: sqlite3.Connection, session: str, turn: int) -> int:
    """The number of the last row of a turn; 0 where it has none."""
    last: int = db.execute(_LAST, (session, turn)).fetchone()[0] or 0
    return last


class Tail(NamedTuple):
    """A turn, and the number of its last row."""

    session: str
    turn: int
    last: int


def open_tails(db: sqlite3.Connection, sessions: Iterable[str]) -> list[Tail]:
    """The open turn of each session, without those that have no row."""
    rows = db.execute(_OPEN_TAILS, (as_json(sessions),)).fetchall()
    return [Tail(*row) for row in rows if row[2]]


def journals(
    db: sqlite3.Connection, tails: Sequence[Tail], *, most: int | None = None, only: Container[bytes] | None = None
) -> dict[str, list[Step]]:
    """The records of turns of different sessions, by session, in the order in which they were first written.

    Where a row is gone, or a link leads elsewhere, a stand-in has its place: what came before it is unknown.

    Args:
        most: leave values over so many bytes out (stores.excerpt); None leaves nothing out.
        only: the steps with these keys; None: all.
    """
    cursor = db.execute(_CHAINS, (as_json(tail.last for tail in tails),))
    try:
        return _journals(cursor, tails, most, only)
    finally:
        cursor.close()  # one that was left half-way would keep the snapshot


def page(db: sqlite3.Connection, tail: Tail, limit: int | None, before: bytes | None, most: int | None) -> list[Step]:
    """The last `limit` records of a turn before the one with the key `before`; as `journals`."""
    if limit is None and before is None:
        return journals(db, [tail], most=most)[tail.session]
    keys = [step.key for step in journals(db, [tail], most=0)[tail.session]]
    if before is not None:
        keys = keys[: keys.index(before) if before in keys else 0]
    return journals(db, [tail], most=most, only=frozenset(keys[-limit if limit else 0 :]))[tail.session]


def _journals(rows: Iterable[Any], tails: Sequence[Tail], most: int | None, only: Container[bytes] | None) -> dict[str, list[Step]]:
    found: list[dict[Any, Step]] = [{} for _ in tails]
    before = [0] * len(tails)
    for at, num, prev, session, turn, key, state, body in rows:
        journal, tail = found[at], tails[at]
        ours = session == tail.session and turn == tail.turn
        if not ours or prev != before[at]:
            missing = missing_step(prev if ours else num)
            if only is None or missing.key in only:
                journal[num, "before"] = missing
        before[at] = num
        if not ours:
            continue
        if state == DROPPED:
            journal.pop(key, None)
        elif only is None or key in only:
            step = step_of(turn, key, state, body)
            journal[key] = step if most is None else brief_step(step, most)
    return {tail.session: list(journal.values()) for tail, journal in zip(tails, found, strict=True)}


class StepLog:
    """The end of the log, for the connection that writes it.

    It keeps the last number of each open turn that has one after `steps_from`; those of other sessions are in their rows.

    Attributes:
        num: the number of the last row.
        tails: the number of the last row of open turns, by session. What is here is right; what is not here is in the session's row.
        stale: a transaction failed, so that memory may differ from the database: `load` comes first.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.stale = True
        self.num = self._saved = 0
        self.tails: dict[str, int] = {}
        self._waiting: dict[str, dict[Any, int]] = {}

    def forget(self) -> None:
        """A transaction did not commit."""
        self.stale = True
        self.tails.clear()
        self._waiting.clear()

    def load(self) -> None:
        """Give the sessions' rows the last numbers that only the log has; inside a transaction."""
        # Where rows were removed, the number in a session's row stays: its turn is not taken for a shorter one.
        self._db.execute(
            f"UPDATE sessions SET last_step = max(last_step, t.num) FROM ({_TAILS}) AS t"
            " WHERE id = t.session AND sessions.turn + 1 = t.turn"
        )
        self.num = self._db.execute(_NUM).fetchone()[0]
        self._move_start()
        self.stale = False

    @property
    def full(self) -> bool:
        """Whether `save` is due: the log has grown by a window."""
        size = len(self.tails)
        return self.num - self._saved > max(WINDOW, _PER_SESSION * size) or size > _MAX_TAILS

    def save(self, live: Container[str]) -> None:
        """Give the sessions' rows the last numbers of their open turns; inside a transaction.

        Args:
            live: the sessions whose numbers stay in memory.
        """
        if self.stale:
            self.load()
        late = [(last, session) for session, last in self.tails.items() if last > self._saved]
        self._db.executemany("UPDATE sessions SET last_step = ? WHERE id = ?", late)
        self._move_start()
        self.tails = {session: last for session, last in self.tails.items() if session in live}
        self._waiting = {session: waiting for session, waiting in self._waiting.items() if session in live}

    def _move_start(self) -> None:
        self._db.execute("UPDATE nodes SET steps_from = ? WHERE id = 1", (self.num,))
        self._saved = self.num

    # ------------------------------------------------------------ rows

    def row(self, session: str, turn: int, key: bytes, state: int, body: bytes) -> Row:
        """The next row, to append at once."""
        self.num = num = self.num + 1
        row = (num, session, turn, key, state, body, self.tails.get(session, 0))
        self.tails[session] = num
        if self._waiting and session in self._waiting:
            self._note(session, key, state, num)
        return row

    def append(self, session: str, turn: int, key: bytes, state: int, body: bytes) -> None:
        """Append one row."""
        self._db.execute(APPEND, self.row(session, turn, key, state, body))

    def found(self, session: str, last: int) -> None:
        """Take the last number from a session's row, where memory has none."""
        if last and session not in self.tails:
            self.tails[session] = last

    def _note(self, session: str, key: bytes, state: int, num: int) -> None:
        if state == _WAITING:
            self._waiting[session][key] = num
        else:
            self._waiting[session].pop(key, None)

    def end_turn(self, session: str) -> int:
        """The open turn has ended: the number of its last row, for the turn's row."""
        self._waiting.pop(session, None)
        return self.tails.pop(session, 0)

    # ------------------------------------------------------------ the open turn

    def steps(self, session: str, turn: int) -> list[Step]:
        """The records of the open turn."""
        last = self.tails.get(session, 0)
        return journals(self._db, [Tail(session, turn, last)])[session] if last else []

    def waiting(self, session: str) -> dict[Any, int]:
        """The steps of the open turn that wait: the number of the row, by key."""
        waiting = self._waiting.get(session)
        if waiting is None:
            waiting = self._waiting[session] = {}
            last = self.tails.get(session, 0)
            rows = self._db.execute(_CHAINS, (f"[{last}]",)).fetchall() if last else ()
            for _, num, _, of, _, key, state, _ in rows:
                if of == session:
                    self._note(session, key, state, num)
        return waiting
