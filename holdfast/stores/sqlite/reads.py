"""The reads of the SQLite store, one statement each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from holdfast.stores.records import RANK_ENDED, RANK_PERSON, Checkpoint, DeadLetter, Message, Runnable, Session, Step
from holdfast.stores.sqlite.log import journals, last_of, open_tails
from holdfast.stores.sqlite.rows import (
    CHECKPOINT,
    LETTER,
    MESSAGE,
    SESSION,
    checkpoint_of,
    letter_of,
    message_of,
    runnable_of,
    session_of,
)

T = TypeVar("T")
_FOR_PEOPLE = "ORDER BY rank, updated DESC, num DESC"
_RANKS = {"failed": (0, 0), "parked": (1, 2), "working": (3, 3), "unfinished": (4, 4), "idle": (5, 5)}
_NEWEST = 2**62


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

    async def sessions(
        self, *, limit: int = 1000, status: str | None = None, ended: bool = True, agent: str | None = None, tenant: str | None = None
    ) -> list[Session]:
        where: dict[str, Any] = {}
        if status in _RANKS:
            where = dict(zip(("rank >= ?", "rank <= ?"), _RANKS[status], strict=True))
        elif status is not None:
            where = {f"rank IN ({RANK_PERSON}, ?)": RANK_ENDED}
        elif not ended:
            where = {"rank < ?": RANK_ENDED}
        if status is not None and (status == "parked" or status not in _RANKS):
            where["status = ?"] = status
        if agent is not None:
            where["agent = ?"] = agent
        if tenant is not None:
            where["tenant = ?"] = tenant
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        return await self._all(session_of, f"SELECT {SESSION} FROM sessions {condition} {_FOR_PEOPLE} LIMIT ?", *where.values(), limit)

    async def counts(self) -> dict[str, int]:
        display = "CASE WHEN rank = 3 THEN 'working' ELSE status END AS display"
        return dict(await self._rows(f"SELECT {display}, count(*) FROM sessions INDEXED BY sessions_for_people GROUP BY display"))

    async def agents(self) -> dict[str, int]:
        not_ended = f"rank < {RANK_ENDED} AND status NOT IN ('finished', 'cancelled', 'killed')"
        return dict(await self._rows(f"SELECT agent, count(*) FROM sessions WHERE {not_ended} GROUP BY agent ORDER BY agent"))

    async def open_steps(self, sessions: Sequence[str]) -> dict[str, list[Step]]:
        def read(db: sqlite3.Connection) -> dict[str, list[Step]]:
            tails = open_tails(db, sessions)
            found = journals(db, tails.values())
            return {id: found[last] for id, last in tails.items()}

        return await self._read(read)

    async def similar(self, text: str, *, limit: int = 3) -> list[str]:
        rows = await self._rows("SELECT id FROM sessions WHERE instr(id, ?) > 0 ORDER BY num LIMIT ?", text, limit)
        return [row[0] for row in rows]

    async def message(self, session: str, id: str) -> Message | None:
        found = await self._all(message_of, f"SELECT {MESSAGE} FROM messages WHERE session = ? AND id = ?", session, id)
        return found[0] if found else None

    async def messages(self, session: str, *, limit: int = 1000) -> list[Message]:
        sql = f"SELECT {MESSAGE} FROM messages WHERE session = ? ORDER BY seq DESC LIMIT ?"
        return (await self._all(message_of, sql, session, limit))[::-1]

    async def steps(self, session: str, turn: int) -> list[Step]:
        def read(db: sqlite3.Connection) -> list[Step]:
            last = last_of(db, session, turn)
            return journals(db, [last])[last] if last else []

        return await self._read(read)

    async def checkpoints(self, session: str, *, first: int = 0, last: int | None = None) -> list[Checkpoint]:
        sql = f"SELECT {CHECKPOINT} FROM turns WHERE session = ? AND turn BETWEEN ? AND ? ORDER BY turn"
        return await self._all(checkpoint_of, sql, session, first, _NEWEST if last is None else last)

    async def dead_letters(self, session: str | None = None) -> list[DeadLetter]:
        where, values = ("", ()) if session is None else ("WHERE session = ?", (session,))
        return await self._all(letter_of, f"SELECT {LETTER} FROM dead_letters {where} ORDER BY created, session", *values)

    async def children(self, session: str) -> list[Session]:
        return await self._all(session_of, f"SELECT {SESSION} FROM sessions WHERE parent = ? ORDER BY num", session)

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
            tails = open_tails(db, charged) if (charged := [row[0] for row in rows if row[3]]) else {}
            found = journals(db, tails.values())
            return [runnable_of((*row, len(found.get(tails.get(row[0], 0), ())))) for row in rows]

        return await self._read(read)
