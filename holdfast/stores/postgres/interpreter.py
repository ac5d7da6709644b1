"""The interpreter of ops on Postgres: a batch is one statement that writes, after those that read the rows it needs.

The statement that writes locks the node's row `FOR SHARE`, and writes nothing where the row has a newer incarnation. It is one statement,
not a transaction of several: it commits or fails without the client, and never waits for a client that is gone. Only through a pooler it
is a transaction, which the server ends after postgres.link.IDLE_S without its client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.stores import ops
from holdfast.stores.ops import DONE, FENCED, Op, Result
from holdfast.stores.postgres import rows
from holdfast.stores.postgres.rows import columns, type_of
from holdfast.stores.postgres.schema import quoted
from holdfast.stores.postgres.slice import Needs, Slice
from holdfast.stores.rows import CHECKPOINT, MESSAGE, SESSION

if TYPE_CHECKING:
    import asyncpg

_MAX_KNOWN = 100_000
_PER_INCARNATION = 40
"""Row numbers are `incarnation << 40 | count`, so that they grow over all owners without a read."""


class Statements:
    """The SQL of one schema."""

    def __init__(self, schema: str) -> None:
        self._schema, self._parameters = quoted(schema), 0
        # FOR SHARE: the next owner waits for this statement, and a statement after the change of owner finds another incarnation.
        # An acknowledged write is durable under any default of the server; a setting stricter than `on` stays.
        self._own = (
            "own AS (SELECT CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END"
            f" FROM {self._schema}.nodes WHERE id = 1 AND incarnation = $1 FOR SHARE)"
        )
        self.read = self._read()
        self.write = self._write()
        self.write_steps = self._steps_only()

    # ------------------------------------------------------------ reads

    def _read(self) -> str:
        s = self._schema
        session = f"SELECT ROW(s.num, s.crash_mark, {columns(SESSION, 's')}) FROM {s}.sessions s"
        message = columns(MESSAGE, "m")
        step = f"SELECT ROW({columns(rows.STEPS, 't')}) FROM"
        open_turns = f"{s}.sessions s JOIN {s}.steps t ON t.session = s.id AND t.turn > s.turn"
        letters = f"{s}.sessions s JOIN {s}.dead_letters l ON l.session = s.id AND l.turn > s.turn"
        parts = (
            f"{session} WHERE s.id = ANY ($1::text[])",
            f"SELECT ROW(id, epoch, turn + 1) FROM {s}.sessions WHERE id = ANY ($2::text[])",
            f"SELECT ROW({message}) FROM unnest($3::text[], $4::text[]) w(session, id) JOIN {s}.messages m USING (session, id)",
            f"SELECT ROW({message}) FROM {s}.messages m WHERE m.session = ANY ($5::text[]) AND m.state = 1",
            f"SELECT ROW({columns(rows.LETTERS, 'l')}) FROM {letters} WHERE s.id = ANY ($6::text[])",
            f"SELECT ROW({message}) FROM {letters} JOIN {s}.messages m ON m.session = l.session AND m.id = l.message"
            " WHERE s.id = ANY ($6::text[])",
            f"SELECT ROW(t.session, {columns(CHECKPOINT, 't')}) FROM {s}.sessions s"
            f" JOIN {s}.turns t ON t.session = s.id AND t.turn = s.turn WHERE s.id = ANY ($7::text[])",
            f"{step} {open_turns} WHERE s.id = ANY ($8::text[])",
            f"{step} unnest($9::text[], $10::bytea[]) w(session, key) JOIN {open_turns} ON s.id = w.session AND t.key = w.key",
            f"{step} unnest($11::text[], $12::bigint[], $13::bytea[]) w(session, turn, key) JOIN {s}.steps t USING (session, turn, key)",
        )
        return "SELECT " + ", ".join(f"ARRAY({part})" for part in parts)

    @staticmethod
    def read_arguments(needs: Needs) -> list[list[Any]]:
        """The arguments of `read`."""
        return [
            list(needs.sessions),
            list(needs.open),
            *_turned(needs.messages, 2),
            list(needs.queued),
            list(needs.letters),
            list(needs.checkpoints),
            list(needs.journals),
            *_turned(needs.open_steps, 2),
            *_turned(needs.steps, 3),
        ]

    # ------------------------------------------------------------ writes

    def _rows(self, table: str, names: Sequence[str]) -> str:
        """Rows from one array for each column, if this process still owns the store."""
        arrays = []
        for name in names:
            self._parameters += 1
            arrays.append(f"${self._parameters}::{type_of(table, name)}[]")
        return f"unnest({', '.join(arrays)}) AS r({columns(names)}), own"

    def _upsert(self, table: str, names: Sequence[str], key: Sequence[str], kept: Sequence[str] = ()) -> str:
        changed = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in key and name not in kept)
        return (
            f"INSERT INTO {self._schema}.{table} ({columns(names)}) SELECT {columns(names, 'r')} FROM {self._rows(table, names)}"
            f" ON CONFLICT ({columns(key)}) DO UPDATE SET {changed}"
        )

    def _delete(self, table: str, names: Sequence[str]) -> str:
        same = " AND ".join(f'd."{name}" = r."{name}"' for name in names)
        return f"DELETE FROM {self._schema}.{table} d USING {self._rows(table, names)} WHERE {same}"

    def _steps(self) -> str:
        # A record keeps the number of its first write.
        return self._upsert("steps", rows.STEPS, ("session", "turn", "key"), kept=("num",))

    def _steps_only(self) -> str:
        self._parameters = 1
        return f"WITH {self._own}, written AS ({self._steps()}) SELECT count(*) FROM own"

    def _write(self) -> str:
        self._parameters = 1
        key = ("session", "turn", "key")
        fixed = ("num", "agent", "tenant", "user", "seed", "parent", "parent_at", "detached", "created")
        parts = (
            self._upsert("sessions", rows.SESSIONS, ("id",), kept=fixed),
            self._upsert(
                "messages", rows.MESSAGES, ("session", "id"), kept=("seq", "body", "digest", "kind", "reply_to", "created", "context")
            ),
            self._steps(),
            f"UPDATE {self._schema}.steps d SET num = r.num, state = r.state, body = r.body FROM {self._rows('steps', rows.STEPS)}"
            " WHERE d.session = r.session AND d.turn = r.turn AND d.key = r.key",
            self._delete("steps", key),
            self._upsert("turns", rows.TURNS, ("session", "turn")),
            self._upsert("dead_letters", rows.LETTERS, ("session", "turn")),
            self._delete("dead_letters", ("session", "turn")),
        )
        written = ", ".join(f"w{number} AS ({part})" for number, part in enumerate(parts))
        return f"WITH {self._own}, {written} SELECT count(*) FROM own"


_WIDTHS = (len(rows.SESSIONS), len(rows.MESSAGES), len(rows.STEPS), len(rows.STEPS), 3, len(rows.TURNS), len(rows.LETTERS), 2)


def _turned(lines: Sequence[tuple[Any, ...]] | set[Any], width: int) -> list[list[Any]]:
    """Rows as columns."""
    if not lines:
        return [[] for _ in range(width)]
    return [list(column) for column in zip(*lines, strict=True)]


class Interpreter:
    """Applies ops as the owner at one incarnation.

    It caches the epoch and the open turn of sessions: this process makes every write, so the cache is right.

    Args:
        statements: the SQL.
        incarnation: the incarnation that the node's row must have for a write to take effect.
        arrivals: the `seq` of the last stored message.
    """

    def __init__(self, statements: Statements, incarnation: int, arrivals: int) -> None:
        self.incarnation = incarnation
        self._sql = statements
        self._arrivals, self._firsts = arrivals, incarnation << _PER_INCARNATION
        self._known: dict[str, tuple[int, int]] = {}

    def release(self, session: str) -> None:
        """Drop a passivated session from the cache, to save memory."""
        self._known.pop(session, None)

    def forget(self) -> None:
        """Clear the cache after a batch that failed: it may differ from the database."""
        self._known.clear()

    async def prepare(self, connection: asyncpg.Connection, batch: Sequence[Op]) -> Write:
        """Interpret a batch, reading the rows it needs; writes nothing yet. A malformed op raises any exception."""
        steps = self._only_steps(batch)
        if steps is not None:
            return steps
        needs = Needs.of(batch, self._known)
        part = Slice(self._arrivals, self._firsts)
        await self._load(connection, needs, part)
        if needs.ending or needs.messages:
            more = needs.of_answers(batch, part)
            if more.sessions or more.steps:
                await self._load(connection, more, part)
        while needs.settled and (more := needs.ancestors(part)).sessions:
            await self._load(connection, more, part)
        part.open = {**self._known_of(batch), **part.open}
        results = [part.do(op) for op in batch]
        changes = part.changes()
        arguments: list[list[Any]] = []
        for lines, width in zip(changes.lists(), _WIDTHS, strict=True):
            arguments += _turned(lines, width)
        return Write(self, self._sql.write, arguments, results, part)

    async def _load(self, connection: asyncpg.Connection, needs: Needs, part: Slice) -> None:
        part.load(needs.sessions, await connection.fetchrow(self._sql.read, *self._sql.read_arguments(needs)))

    def _known_of(self, batch: Sequence[Op]) -> dict[str, tuple[int, int]]:
        known = self._known
        return {op.session: known[op.session] for op in batch if type(op) is ops.WriteStep and op.session in known}

    def _only_steps(self, batch: Sequence[Op]) -> Write | None:
        """The usual batch: only step writes, of sessions whose epoch and open turn are known. It reads no row."""
        known, count = self._known, self._firsts
        lines: dict[tuple[str, int, bytes], tuple[int, int, bytes]] = {}
        results = []
        for op in batch:
            if type(op) is not ops.WriteStep or op.outbox:
                return None
            there = known.get(op.session)
            if there is None:
                return None
            if there != (op.epoch, op.turn):
                results.append(FENCED)
                continue
            key = (op.session, op.turn, op.key)
            count += 1
            # The first of two writes gives the number, the last of them the rest.
            lines[key] = (lines[key][0] if key in lines else count, int(op.state), op.body)
            results.append(DONE)
        numbers, states, bodies = _turned(list(lines.values()), 3)
        sessions, turns, keys = _turned(list(lines), 3)
        self._firsts = count
        return Write(self, self._sql.write_steps, [numbers, sessions, turns, keys, states, bodies], results, None)

    def written(self, part: Slice | None) -> None:
        """Cache the epochs and open turns that an acknowledged batch read and wrote."""
        if part is None:
            return
        self._arrivals, self._firsts = part.counters
        if len(self._known) + len(part.sessions) + len(part.open) > _MAX_KNOWN:
            self._known.clear()
        self._known.update(part.open)
        self._known.update((id, (session.epoch, session.turn + 1)) for id, session in part.sessions.items())


class Write:
    """An interpreted batch, ready to send.

    Attributes:
        results: one for each op, once it is written.
    """

    def __init__(self, interpreter: Interpreter, sql: str, arguments: list[list[Any]], results: list[Result], part: Slice | None) -> None:
        self._interpreter, self._sql, self._arguments, self._part = interpreter, sql, arguments, part
        self.results = results

    async def send(self, connection: asyncpg.Connection) -> bool:
        """Write it all; False, with nothing written, where this process lost ownership of the store."""
        if await connection.fetchval(self._sql, self._interpreter.incarnation, *self._arguments) != 1:
            return False
        self._interpreter.written(self._part)
        return True
