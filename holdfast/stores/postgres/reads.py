"""The reads of the Postgres store, one statement each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.stores.postgres import rows
from holdfast.stores.postgres.rows import columns, letter_of
from holdfast.stores.postgres.schema import quoted
from holdfast.stores.records import RANK_ENDED, RANK_PERSON, Checkpoint, DeadLetter, Message, Owner, Runnable, Session, Step
from holdfast.stores.rows import (
    CHECKPOINT,
    MESSAGE,
    SESSION,
    STEP,
    charges,
    checkpoint_of,
    message_of,
    runnable_of,
    session_of,
    step_of,
    turn_of,
)

# The ranks (records.rank) that each status has in lists for people.
_RANKS = {"failed": (0, 0), "parked": (1, 2), "working": (3, 3), "unfinished": (4, 4), "idle": (5, 5)}
_ENDED = "('finished', 'cancelled', 'killed')"
_FOR_PEOPLE = "ORDER BY rank, updated DESC, num DESC LIMIT $1"


class Reads:
    """The reads of a store; a subclass gives the `_fetch` that runs them.

    Args:
        schema: the schema of the tables.
        lock_class, lock_key: the advisory lock of the writing process.
    """

    def __init__(self, schema: str, lock_class: int, lock_key: int) -> None:
        s = quoted(schema)
        self._lock_key = lock_key
        self._sessions, self._messages, self._steps = f"{s}.sessions", f"{s}.messages", f"{s}.steps"
        self._turns, self._letters = f"{s}.turns", f"{s}.dead_letters"
        self._session_rows = f"SELECT {columns(SESSION)} FROM {self._sessions}"
        self._message_rows = f"SELECT {columns(MESSAGE)} FROM {self._messages}"
        self._owner_sql = (
            "SELECT process, host, clean, EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            f" AND classid::bigint = {lock_class} AND objid::bigint = {lock_key}) FROM {s}.nodes WHERE id = 1"
        )

    async def _fetch(self, sql: str, *values: Any) -> list[Any]:
        raise NotImplementedError

    @staticmethod
    def _owner_of(found: list[Any]) -> Owner:
        process, host, clean, alive = found[0]
        return Owner(process if alive else None, host, clean)

    async def session(self, id: str) -> Session | None:
        """The session's row, or None."""
        found = await self._fetch(f"{self._session_rows} WHERE id = $1", id)
        return session_of(found[0]) if found else None

    async def sessions(
        self, *, limit: int = 1000, status: str | None = None, ended: bool = True, agent: str | None = None, tenant: str | None = None
    ) -> list[Session]:
        """Rows for people, those that need a person first."""
        if status is None:
            places = [(0, RANK_ENDED if ended else RANK_ENDED - 1)]
        else:
            places = [_RANKS[status]] if status in _RANKS else [(RANK_PERSON, RANK_PERSON), (RANK_ENDED, RANK_ENDED)]
        values: list[Any] = [limit]
        where = ""
        only = status if status == "parked" or status not in _RANKS else None
        for column, value in (("status", only), ("agent", agent), ("tenant", tenant)):
            if value is not None:
                values.append(value)
                where += f" AND {column} = ${len(values)}"
        # One query for each range of ranks, so that each follows the index: a query over several ranges would sort all their rows.
        queries = [
            f"SELECT {columns(SESSION)}, rank, num FROM {self._sessions} WHERE rank BETWEEN {first} AND {last}{where} {_FOR_PEOPLE}"
            for first, last in places
        ]
        sql = queries[0] if len(queries) == 1 else f"({') UNION ALL ('.join(queries)}) {_FOR_PEOPLE}"
        return [session_of(row) for row in await self._fetch(sql, *values)]

    async def counts(self) -> dict[str, int]:
        """How many sessions there are of each status that people see."""
        found = await self._fetch(
            f"SELECT CASE rank WHEN {_RANKS['working'][0]} THEN 'working' ELSE status END, count(*) FROM {self._sessions} GROUP BY 1"
        )
        return {status: count for status, count in found}  # noqa: C416 — rows are no pairs to mypy

    async def agents(self) -> dict[str, int]:
        """How many sessions of each agent have not ended."""
        not_ended = f"rank < {RANK_ENDED} AND status NOT IN {_ENDED}"
        found = await self._fetch(
            f'SELECT agent, count(*) FROM {self._sessions} WHERE {not_ended} GROUP BY agent ORDER BY agent COLLATE "C"'
        )
        return {agent: count for agent, count in found}  # noqa: C416 — rows are no pairs to mypy

    async def open_steps(self, sessions: Sequence[str]) -> dict[str, list[Step]]:
        """The journals of the open turns of these sessions; without those that have no record."""
        found = await self._fetch(
            f"SELECT t.session, {columns(STEP, 't')} FROM {self._sessions} s"
            f" JOIN {self._steps} t ON t.session = s.id AND t.turn = s.turn + 1 WHERE s.id = ANY ($1::text[]) ORDER BY t.num",
            list(sessions),
        )
        journals: dict[str, list[Step]] = {}
        for session, *row in found:
            journals.setdefault(session, []).append(step_of(row))
        return journals

    async def similar(self, text: str, *, limit: int = 3) -> list[str]:
        """Ids of sessions that contain `text`, the earliest made first."""
        found = await self._fetch(f"SELECT id FROM {self._sessions} WHERE strpos(id, $1) > 0 ORDER BY num LIMIT $2", text, limit)
        return [row[0] for row in found]

    async def message(self, session: str, id: str) -> Message | None:
        """The message, or None."""
        found = await self._fetch(f"{self._message_rows} WHERE session = $1 AND id = $2", session, id)
        return message_of(found[0]) if found else None

    async def messages(self, session: str, *, limit: int = 1000) -> list[Message]:
        """A session's messages in order of arrival, the latest `limit` of them."""
        found = await self._fetch(f"{self._message_rows} WHERE session = $1 ORDER BY seq DESC LIMIT $2", session, limit)
        return [message_of(row) for row in reversed(found)]

    async def steps(self, session: str, turn: int) -> list[Step]:
        """The journal of one turn, in the order the records were first written."""
        found = await self._fetch(f"SELECT {columns(STEP)} FROM {self._steps} WHERE session = $1 AND turn = $2 ORDER BY num", session, turn)
        return [step_of(row) for row in found]

    async def checkpoints(self, session: str, *, first: int = 0, last: int | None = None) -> list[Checkpoint]:
        """The states after the turns from `first` to `last`, in order."""
        found = await self._fetch(
            f"SELECT {columns(CHECKPOINT)} FROM {self._turns} WHERE session = $1 AND turn >= $2"
            " AND ($3::bigint IS NULL OR turn <= $3) ORDER BY turn",
            *(session, first, last),
        )
        return [checkpoint_of(row) for row in found]

    async def dead_letters(self, session: str | None = None) -> list[DeadLetter]:
        """Dead letters that were neither retried nor dropped, oldest first; of all sessions if None."""
        where, values = ("", ()) if session is None else ("WHERE session = $1", (session,))
        found = await self._fetch(
            f'SELECT {columns(rows.LETTERS)} FROM {self._letters} {where} ORDER BY created, session COLLATE "C"', *values
        )
        return [letter_of(row) for row in found]

    async def children(self, session: str) -> list[Session]:
        """The sessions whose parent it is, in the order they were created."""
        return [session_of(row) for row in await self._fetch(f"{self._session_rows} WHERE parent = $1 ORDER BY num", session)]

    async def orphans(self) -> list[str]:
        """Sessions that are not detached and have not ended, though their parent has, or the turn that made them was dropped."""
        found = await self._fetch(
            f"SELECT child.id, child.parent_at, parent.status IN {_ENDED}, dropped.turns FROM {self._sessions} child"
            f" JOIN {self._sessions} parent ON parent.id = child.parent CROSS JOIN LATERAL"
            f" (SELECT ARRAY(SELECT turn FROM {self._turns} WHERE session = child.parent AND dropped) AS turns) dropped"
            f" WHERE NOT child.detached AND child.status NOT IN {_ENDED}"
            f" AND (parent.status IN {_ENDED} OR cardinality(dropped.turns) > 0) ORDER BY child.num"
        )
        return [id for id, made, over, dropped in found if over or turn_of(made) in dropped]

    async def runnable(self) -> list[Runnable]:
        """Every session with something to do, in the order they were created."""
        found = await self._fetch(
            f"SELECT id, wake_at, park, {charges(self._steps)} FROM {self._sessions} s"
            f" WHERE rank = {_RANKS['working'][0]} OR (rank IN (1, 2) AND status = 'parked' AND wake_at IS NOT NULL) ORDER BY num"
        )
        return [runnable_of(row) for row in found]
