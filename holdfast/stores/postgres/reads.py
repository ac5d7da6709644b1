"""The reads of the Postgres store, one statement each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from holdfast.stores.excerpt import brief_step
from holdfast.stores.listed import ALL, Filter, Listed, Place
from holdfast.stores.postgres import rows
from holdfast.stores.postgres.rows import columns, letter_of
from holdfast.stores.postgres.schema import quoted
from holdfast.stores.records import RANK_ENDED, Checkpoint, DeadLetter, Message, Owner, Runnable, Session, Step
from holdfast.stores.returns import Account
from holdfast.stores.rows import (
    ACCOUNT,
    MESSAGE,
    SESSION,
    STEP,
    account_of,
    brief_checkpoint_of,
    brief_checkpoints,
    brief_message_of,
    brief_messages,
    charges,
    listed_columns,
    listed_of,
    listed_stand_in,
    message_of,
    runnable_of,
    session_of,
    step_of,
    turn_of,
)

_WORKING = 3  # its rank (records.rank)
_ENDED = "('finished', 'cancelled', 'killed')"
_EMPTY_ARRAY, _EMPTY_MAP = r"'\x90'::bytea", r"'\x80'::bytea"
_RECORD = 4096  # bytes of a usual record beyond its values
_AT_ONCE = 1 << 22  # bytes of large records that are read at once
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
        self._listed_rows = f"SELECT {listed_columns(_EMPTY_ARRAY, _EMPTY_MAP)} FROM {self._sessions}"
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

    async def sessions(self, which: Filter = ALL, *, limit: int = 1000, after: Place | None = None) -> list[Listed]:
        """Sessions for people, those that need a person first."""
        values: list[Any] = [limit]

        def given(value: Any) -> str:
            values.append(value)
            return f"${len(values)}"

        condition = "".join(f" AND {column} = {given(value)}" for column, value in which.columns().items())
        # One query for each span of ranks, so that each follows the index: a query over several spans would sort all their rows.
        queries = []
        for first, last, rest in which.spans(after):
            beyond = f" AND (updated, num) < ({given(rest[0])}::float8, {given(rest[1])}::bigint)" if rest is not None else ""
            queries.append(f"{self._listed_rows} WHERE rank BETWEEN {first} AND {last}{beyond}{condition} {_FOR_PEOPLE}")
        if not queries:
            return []
        sql = queries[0] if len(queries) == 1 else f"({') UNION ALL ('.join(queries)}) {_FOR_PEOPLE}"
        return await self._listed(sql, *values)

    async def _listed(self, sql: str, *values: Any) -> list[Listed]:
        rows = await self._fetch(sql, *values)
        entries = [(row, listed_of(row)) for row in rows]
        damaged = [row[0] for row, entry in entries if entry is None]
        whole: dict[int, Any] = {}
        if damaged:
            found = await self._fetch(f"SELECT num, {columns(SESSION)} FROM {self._sessions} WHERE num = ANY ($1::bigint[])", damaged)
            whole = {num: row for num, *row in found}
        return [listed_stand_in(whole[row[0]], row) if entry is None else entry for row, entry in entries]

    async def family(self, session: str, *, limit: int = 1000) -> list[Account]:
        """The accounts of a session and of all below it that are not detached."""
        tree = (
            f"WITH RECURSIVE tree(num, id, parent, depth) AS (SELECT num, id, '' COLLATE \"C\", 0 FROM {self._sessions} WHERE id = $1"
            f" UNION ALL SELECT child.num, child.id, child.parent, tree.depth + 1 FROM tree JOIN {self._sessions} child"
            " ON child.parent = tree.id WHERE NOT child.detached), few AS (SELECT * FROM tree LIMIT $2)"
        )
        sql = f"{tree} SELECT few.id, few.parent, depth, {ACCOUNT} FROM few JOIN {self._sessions} USING (num) ORDER BY depth, num"
        return [account_of(row) for row in await self._fetch(sql, session, limit)]

    async def counts(self) -> dict[str, int]:
        """How many sessions there are of each status that people see."""
        found = await self._fetch(
            f"SELECT CASE rank WHEN {_WORKING} THEN 'working' ELSE status END, count(*) FROM {self._sessions} GROUP BY 1"
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
        """The journals of the open turns of these sessions, without values; without those that have no record."""
        journals: dict[str, list[Step]] = {}
        wanted = f"FROM {self._sessions} s JOIN {self._steps} t ON t.session = s.id AND t.turn = s.turn + 1 WHERE s.id = ANY ($1::text[])"
        for session, step in await self._briefly(0, f"{wanted} ORDER BY t.num", list(sessions)):
            journals.setdefault(session, []).append(step)
        return journals

    async def _briefly(self, most: int, which: str, *values: Any) -> list[tuple[str, Step]]:
        """Steps `t` with their sessions, without values over `most` bytes: large records are read a few at a time, and not kept."""
        small = 2 * most + _RECORD
        sql = f"SELECT t.session, t.turn, t.key, t.state, CASE WHEN length(t.body) <= {small} THEN t.body END, length(t.body) {which}"
        sizes = await self._fetch(sql, *values)
        found = {(row[0], row[1], row[2]): brief_step(step_of(*row[1:5]), most) for row in sizes if row[4] is not None}
        for some in _groups([row for row in sizes if row[4] is None]):
            sql = (
                f"SELECT t.session, t.turn, t.key, t.state, t.body FROM unnest($1::text[], $2::bigint[], $3::bytea[])"
                f" w(session, turn, key) JOIN {self._steps} t USING (session, turn, key)"
            )
            for row in await self._fetch(sql, *(list(column) for column in zip(*(row[:3] for row in some), strict=True))):
                found[row[0], row[1], row[2]] = brief_step(step_of(*row[1:]), most)
        # One that is gone was dropped between two statements.
        places = [(row[0], row[1], row[2]) for row in sizes]
        return [(place[0], found[place]) for place in places if place in found]

    async def similar(self, text: str, *, limit: int = 3) -> list[str]:
        """Ids of sessions that contain `text`, the earliest made first."""
        found = await self._fetch(f"SELECT id FROM {self._sessions} WHERE strpos(id, $1) > 0 ORDER BY num LIMIT $2", text, limit)
        return [row[0] for row in found]

    async def message(self, session: str, id: str) -> Message | None:
        """The message, or None."""
        found = await self._fetch(f"{self._message_rows} WHERE session = $1 AND id = $2", session, id)
        return message_of(found[0]) if found else None

    async def messages(
        self, session: str, *, limit: int = 1000, after: int = 0, queued: bool = False, most: int | None = None
    ) -> list[Message]:
        """A session's messages in order of arrival, a page at a time."""
        waiting = " AND state = 1" if queued else ""
        found = await self._fetch(
            f"SELECT {brief_messages(most)} FROM {self._messages} WHERE session = $1 AND seq > $2{waiting} ORDER BY seq LIMIT $3",
            *(session, after, limit),
        )
        return [brief_message_of(row) for row in found]

    async def steps(
        self, session: str, turn: int, *, limit: int | None = None, before: bytes | None = None, most: int | None = None
    ) -> list[Step]:
        """The journal of one turn, in the order the records were first written, or the end of it."""
        earlier = f"AND t.num < (SELECT num FROM {self._steps} WHERE session = $1 AND turn = $2 AND key = $4)"
        which = (
            f"FROM {self._steps} t WHERE t.session = $1 AND t.turn = $2 {'' if before is None else earlier} ORDER BY t.num DESC LIMIT $3"
        )
        values = (session, turn, limit, *(() if before is None else (before,)))
        if most is None:
            return [step_of(*row) for row in reversed(await self._fetch(f"SELECT {columns(STEP, 't')} {which}", *values))]
        return [step for _, step in reversed(await self._briefly(most, which, *values))]

    async def checkpoints(self, session: str, *, first: int = 0, last: int | None = None, most: int | None = None) -> list[Checkpoint]:
        """The states after the turns from `first` to `last`, in order."""
        found = await self._fetch(
            f"SELECT {brief_checkpoints(most)} FROM {self._turns} WHERE session = $1 AND turn >= $2"
            " AND ($3::bigint IS NULL OR turn <= $3) ORDER BY turn",
            *(session, first, last),
        )
        return [brief_checkpoint_of(row) for row in found]

    async def dead_letters(
        self, session: str | None = None, *, limit: int = 1000, after: tuple[float, str] | None = None
    ) -> list[DeadLetter]:
        """Dead letters that were neither retried nor dropped, oldest first, a page at a time; of all sessions if None."""
        created, last = after or (None, None)
        found = await self._fetch(
            f"SELECT {columns(rows.LETTERS)} FROM {self._letters} WHERE ($2::text IS NULL OR session = $2)"
            ' AND ($3::float8 IS NULL OR (created, session) > ($3, $4::text COLLATE "C")) ORDER BY created, session LIMIT $1',
            *(limit, session, created, last),
        )
        return [letter_of(row) for row in found]

    async def blocking_letters(self, sessions: Sequence[str]) -> dict[str, DeadLetter]:
        """The dead letters of the open turns of these sessions, by session."""
        found = await self._fetch(
            f"SELECT {columns(rows.LETTERS, 'l')} FROM {self._sessions} s JOIN {self._letters} l"
            " ON l.session = s.id AND l.turn = s.turn + 1 WHERE s.id = ANY ($1::text[])",
            list(sessions),
        )
        return {letter.session: letter for letter in map(letter_of, found)}

    async def children(self, session: str, *, limit: int = 1000, after: int = 0) -> list[Listed]:
        """The sessions whose parent it is, in the order they were created, a page at a time."""
        return await self._listed(f"{self._listed_rows} WHERE parent = $1 AND num > $2 ORDER BY num LIMIT $3", session, after, limit)

    async def living_children(self, session: str, *, turn: int | None = None) -> list[Listed]:
        """Its children that are not detached and have not ended, in the order they were created."""
        living = f"parent = $1 AND NOT detached AND status NOT IN {_ENDED}"
        if turn is None:
            return await self._listed(f"{self._listed_rows} WHERE {living} ORDER BY num", session)
        made = await self._fetch(f"SELECT num, parent_at FROM {self._sessions} WHERE {living}", session)
        nums = [num for num, address in made if turn_of(address) == turn]
        return await self._listed(f"{self._listed_rows} WHERE num = ANY ($1::bigint[]) ORDER BY num", nums)

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
            f" WHERE rank = {_WORKING} OR (rank IN (1, 2) AND status = 'parked' AND wake_at IS NOT NULL) ORDER BY num"
        )
        return [runnable_of(row) for row in found]


def _groups(large: Sequence[Any]) -> Iterator[list[Any]]:
    """Rows that end with their size, in groups of at most `_AT_ONCE` bytes; a larger one is alone."""
    some: list[Any] = []
    size = 0
    for row in large:
        if some and size + row[-1] > _AT_ONCE:
            yield some
            some, size = [], 0
        some.append(row)
        size += row[-1]
    if some:
        yield some
