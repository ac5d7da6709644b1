"""The reads of the SQLite store, one statement each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from holdfast.stores import marks
from holdfast.stores.listed import ALL, Filter, Listed, Place
from holdfast.stores.records import RANK_ENDED, Checkpoint, DeadLetter, Message, Runnable, Session, Step
from holdfast.stores.returns import Account
from holdfast.stores.rows import (
    ACCOUNT,
    LETTER,
    MESSAGE,
    SESSION,
    account_of,
    brief_checkpoint_of,
    brief_checkpoints,
    brief_message_of,
    brief_messages,
    letter_of,
    listed_columns,
    listed_of,
    listed_stand_in,
    message_of,
    qualified,
    runnable_of,
    session_of,
)
from holdfast.stores.sqlite.log import Tail, as_json, journals, last_of, open_tails, page

T = TypeVar("T")

_FOR_PEOPLE = "ORDER BY rank, updated DESC, num DESC"
_ENDED = "('finished', 'cancelled', 'killed')"
_NEWEST = 2**62

# A column may hold a value of any type: those that a list does not show are checked here.
_TYPES = {
    "user": "'text'", "epoch": "'integer'", "seed": "'blob'", "detached": "'integer'", "gates": "'blob'", "notes": "'blob'",
    "result": "'blob', 'null'", "crashes": "'integer'", "created": "'real'", "returns": "'blob'",
}  # fmt: skip
_DAMAGED = " OR ".join(f"typeof({column}) NOT IN ({types})" for column, types in _TYPES.items())
_EMPTY_ARRAY, _EMPTY_MAP = "x'90'", "x'80'"
_LISTED = f"SELECT {listed_columns(_EMPTY_ARRAY, _EMPTY_MAP)}, {_DAMAGED} FROM sessions"


class Reads:
    """The reads of a store; a subclass gives the `_read` that runs them."""

    async def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def _rows(self, sql: str, *values: Any) -> list[Any]:
        return await self._read(lambda db: db.execute(sql, values).fetchall())

    async def _all(self, make: Callable[[Any], T], sql: str, *values: Any) -> list[T]:
        """Rows as records, made on the reader's thread: a long list does not block the loop.

        All rows are fetched first: a statement that is left half-way, by a row that does not decode, would keep the reader's snapshot.
        """
        return await self._read(lambda db: [make(row) for row in db.execute(sql, values).fetchall()])

    async def session(self, id: str) -> Session | None:
        found = await self._all(session_of, f"SELECT {SESSION} FROM sessions WHERE id = ?", id)
        return found[0] if found else None

    async def sessions(self, which: Filter = ALL, *, limit: int = 1000, after: Place | None = None) -> list[Listed]:
        where = which.columns()
        condition = "".join(f" AND {column} = ?" for column in where)

        def read(db: sqlite3.Connection) -> list[Listed]:
            found: list[Listed] = []
            for first, last, rest in which.spans(after):
                beyond, place = ("AND (updated, num) < (?, ?)", rest) if rest is not None else ("", ())
                ranks = "rank = ?2" if first == last else "rank BETWEEN ?1 AND ?2"
                sql = f"{_LISTED} WHERE {ranks} {beyond}{condition} {_FOR_PEOPLE} LIMIT ?"
                found += _listed(db, sql, first, last, *place, *where.values(), limit - len(found))
                if len(found) >= limit:
                    break
            return found

        return await self._read(read)

    async def family(self, session: str, *, limit: int = 1000) -> list[Account]:
        # No session is its own ancestor: a parent is there before its child.
        tree = (
            "WITH RECURSIVE tree(num, id, parent, depth) AS (SELECT num, id, '', 0 FROM sessions WHERE id = ?1 UNION ALL"
            " SELECT child.num, child.id, child.parent, tree.depth + 1 FROM tree CROSS JOIN sessions child ON child.parent = tree.id"
            " WHERE child.detached = 0 LIMIT ?2)"
        )
        sql = f"{tree} SELECT tree.id, tree.parent, depth, {ACCOUNT} FROM tree JOIN sessions USING (num) ORDER BY depth, num"
        return await self._all(account_of, sql, session, limit)

    async def counts(self) -> dict[str, int]:
        display = "CASE WHEN rank = 3 THEN 'working' ELSE status END AS display"
        return dict(await self._rows(f"SELECT {display}, count(*) FROM sessions INDEXED BY sessions_for_people GROUP BY display"))

    async def agents(self) -> dict[str, int]:
        not_ended = f"rank < {RANK_ENDED} AND status NOT IN ('finished', 'cancelled', 'killed')"
        return dict(await self._rows(f"SELECT agent, count(*) FROM sessions WHERE {not_ended} GROUP BY agent ORDER BY agent"))

    async def open_steps(self, sessions: Sequence[str]) -> dict[str, list[Step]]:
        def read(db: sqlite3.Connection) -> dict[str, list[Step]]:
            found = journals(db, open_tails(db, sessions), most=0)
            return {id: steps for id, steps in found.items() if steps}

        return await self._read(read)

    async def similar(self, text: str, *, limit: int = 3) -> list[str]:
        rows = await self._rows("SELECT id FROM sessions WHERE instr(id, ?) > 0 ORDER BY num LIMIT ?", text, limit)
        return [row[0] for row in rows]

    async def message(self, session: str, id: str) -> Message | None:
        found = await self._all(message_of, f"SELECT {MESSAGE} FROM messages WHERE session = ? AND id = ?", session, id)
        return found[0] if found else None

    async def messages(
        self, session: str, *, limit: int = 1000, after: int = 0, queued: bool = False, most: int | None = None
    ) -> list[Message]:
        waiting = " AND state = 1" if queued else ""
        sql = f"SELECT {brief_messages(most)} FROM messages WHERE session = ? AND seq > ?{waiting} ORDER BY seq LIMIT ?"
        return await self._all(brief_message_of, sql, session, after, limit)

    async def steps(
        self, session: str, turn: int, *, limit: int | None = None, before: bytes | None = None, most: int | None = None
    ) -> list[Step]:
        def read(db: sqlite3.Connection) -> list[Step]:
            last = last_of(db, session, turn)
            return page(db, Tail(session, turn, last), limit, before, most) if last else []

        return await self._read(read)

    async def checkpoints(self, session: str, *, first: int = 0, last: int | None = None, most: int | None = None) -> list[Checkpoint]:
        sql = f"SELECT {brief_checkpoints(most)} FROM turns WHERE session = ? AND turn BETWEEN ? AND ? ORDER BY turn"
        return await self._all(brief_checkpoint_of, sql, session, first, _NEWEST if last is None else last)

    async def dead_letters(
        self, session: str | None = None, *, limit: int = 1000, after: tuple[float, str] | None = None
    ) -> list[DeadLetter]:
        where = {"session = ?": () if session is None else (session,), "(created, session) > (?, ?)": after or ()}
        condition = " AND ".join(["1", *(test for test, values in where.items() if values)])
        values = [value for group in where.values() for value in group]
        return await self._all(
            letter_of, f"SELECT {LETTER} FROM dead_letters WHERE {condition} ORDER BY created, session LIMIT ?", *values, limit
        )

    async def blocking_letters(self, sessions: Sequence[str]) -> dict[str, DeadLetter]:
        sql = (
            f"SELECT {qualified(LETTER, 'letter')} FROM json_each(?) AS wanted CROSS JOIN sessions ON sessions.id = wanted.value"
            " CROSS JOIN dead_letters letter ON letter.session = sessions.id AND letter.turn = sessions.turn + 1"
        )
        return {letter.session: letter for letter in await self._all(letter_of, sql, as_json(sessions))}

    async def children(self, session: str, *, limit: int = 1000, after: int = 0) -> list[Listed]:
        sql = f"{_LISTED} WHERE parent = ? AND num > ? ORDER BY num LIMIT ?"
        return await self._read(lambda db: _listed(db, sql, session, after, limit))

    async def living_children(self, session: str, *, turn: int | None = None) -> list[Listed]:
        made = "" if turn is None else " AND parent_turn = ?2"
        sql = f"{_LISTED} WHERE parent = ?1 AND detached = 0 AND status NOT IN {_ENDED}{made} ORDER BY num"
        return await self._read(lambda db: _listed(db, sql, session, *(() if turn is None else (turn,))))

    async def orphans(self) -> list[str]:
        rows = await self._rows(
            "SELECT child.id FROM sessions child JOIN sessions parent ON parent.id = child.parent WHERE NOT child.detached"
            " AND child.status NOT IN ('finished', 'cancelled', 'killed') AND (parent.status IN ('finished', 'cancelled', 'killed')"
            " OR EXISTS (SELECT 1 FROM turns WHERE turns.session = child.parent AND turns.turn = child.parent_turn AND turns.dropped))"
            " ORDER BY child.num"
        )
        return [row[0] for row in rows]

    async def runnable(self) -> list[Runnable]:
        columns = "crashes, crash_mark"
        sql = (
            f"SELECT id, wake_at, park, {columns} FROM sessions s"
            " WHERE rank BETWEEN 1 AND 2 AND status = 'parked' AND wake_at IS NOT NULL"
            f" UNION ALL SELECT id, NULL, NULL, {columns} FROM sessions s WHERE pending > 0 AND status IN ('idle', 'unfinished')"
        )

        def read(db: sqlite3.Connection) -> list[Runnable]:
            rows = db.execute(sql).fetchall()
            crashed = [row[0] for row in rows if marks.counts(row[3])]
            steps = journals(db, open_tails(db, crashed)) if crashed else {}
            return [runnable_of((*row, len(steps.get(row[0], ())))) for row in rows]

        return await self._read(read)


def _listed(db: sqlite3.Connection, sql: str, *values: Any) -> list[Listed]:
    found: list[Listed] = []
    for *row, damaged in db.execute(sql, values).fetchall():
        entry = None if damaged else listed_of(row)
        if entry is None:
            entry = listed_stand_in(db.execute(f"SELECT {SESSION} FROM sessions WHERE num = ?", row[:1]).fetchone(), row)
        found.append(entry)
    return found
