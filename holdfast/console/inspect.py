"""Reads a SQLite database while a process runs it, and after that process died.

A connection of its own, read-only: it makes no write and no checkpoint. Each command is one short read transaction, so that what it shows
belongs together and the WAL is not held up.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from holdfast.console import views
from holdfast.console.values import clean
from holdfast.errors import ConfigError, SchemaTooNew, SessionNotFound, StoreError
from holdfast.stores import sqlite_schema as schema
from holdfast.stores.records import ENDED, DeadLetter, Message, Session, Step
from holdfast.stores.sqlite_rows import (
    CHECKPOINT,
    LETTER,
    MESSAGE,
    SESSION,
    STEP,
    checkpoint_of,
    decode_park,
    letter_of,
    message_of,
    session_of,
    step_of,
)

T = TypeVar("T")

_ENDED = ", ".join(f"'{status}'" for status in sorted(ENDED))
_SUFFIXES = (".db", ".sqlite", ".sqlite3")
STATUSES = ("failed", "parked", "working", "unfinished", "idle", *sorted(ENDED))

# As `views.line` names it: whoever has a message and may handle it is at work.
_STATUS = "CASE WHEN status IN ('idle', 'unfinished') AND pending > 0 THEN 'working' ELSE status END"
# Who needs a person comes first, who waits for something else next, then who works, rests, has ended.
_RANK = (
    f"CASE {_STATUS} WHEN 'failed' THEN 0 WHEN 'parked' THEN 2 - asks_a_person(park) WHEN 'working' THEN 3"
    " WHEN 'unfinished' THEN 4 WHEN 'idle' THEN 5 ELSE 6 END"
)


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What `ps` shows. `process` is the id of the process that runs the database, None if none does."""

    store: str
    process: int | None
    clean: bool
    counts: dict[str, int]
    sessions: list[views.Line]


def database(path: str | None, url: str | None) -> str:
    """The file to look into: the one given, that of a URL, or the only holdfast database of the current folder.

    Raises:
        ConfigError: both were given, the URL is not of a file, or the folder has none or more than one.
    """
    if path is not None and url is not None:
        raise ConfigError("give --db or --store, not both")
    if path is not None:
        return path
    if url is None:
        return _only_one(Path.cwd())
    if not url.startswith("sqlite:///") or url == "sqlite:///":
        raise ConfigError(f"{url!r} cannot be looked into from outside: use sqlite:///path.db, or --db path.db")
    return url.removeprefix("sqlite:///")


def _only_one(folder: Path) -> str:
    found = [path.name for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES and path.is_file() and _is_ours(path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"this folder has {len(found)} databases ({', '.join(found)}): name one with --db")
    raise ConfigError("this folder has no holdfast database: name one with --db path.db")


def _is_ours(path: Path) -> bool:
    try:
        with _reading(str(path)):
            return True
    except SchemaTooNew:
        return True
    except StoreError:
        return False


@contextmanager
def _reading(path: str) -> Iterator[sqlite3.Connection]:
    """One read transaction on the file.

    Raises:
        SchemaTooNew: a newer holdfast wrote it.
        StoreError: it is not there, not readable, or not a holdfast database.
    """
    if not os.path.isfile(path):
        raise StoreError(f"there is no database {path}: name the file with --db path.db")
    try:
        connection = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be opened: {error}") from error
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.create_function("asks_a_person", 1, _asks_a_person, deterministic=True)
        connection.execute("BEGIN")
        version = schema.check(connection, path)
        if version < len(schema.MIGRATIONS):
            known = len(schema.MIGRATIONS)
            raise StoreError(
                f"{path} has nothing that can be shown yet (schema {version}, this holdfast reads {known}): start it once with holdfast run"
            )
        yield connection
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    except msgspec.MsgspecError as error:
        raise StoreError(f"{path} holds a row that does not decode: {error}") from error
    finally:
        connection.close()


def _asks_a_person(park: bytes | None) -> int:
    return int(park is not None and decode_park(park).reason in views.ASKS_A_PERSON)


def overview(path: str, *, ended: bool = False, status: str | None = None, limit: int = 200, now: float | None = None) -> Overview:
    """The sessions, those that need a person first.

    Args:
        ended: show those that have ended too.
        status: only these; one of STATUSES.
        limit: how many at most.
        now: store time, seconds since the epoch; default that of this machine.

    Raises:
        ConfigError: there is no such status.
        StoreError: the file cannot be read as a holdfast database.
    """
    if status is not None and status not in STATUSES:
        raise ConfigError(f"there is no status {status!r}: use one of {', '.join(STATUSES)}")
    now = time.time() if now is None else now
    with _reading(path) as db:
        where, values = (
            f"{_STATUS} = ?" if status is not None else "1" if ended else f"status NOT IN ({_ENDED})",
            [status] if status else [],
        )
        rows = db.execute(
            f"SELECT {SESSION} FROM sessions WHERE {where} ORDER BY {_RANK}, updated DESC, num LIMIT ?", (*values, limit)
        ).fetchall()
        counts = dict(db.execute(f"SELECT {_STATUS} AS s, count(*) FROM sessions GROUP BY s").fetchall())
        process, put_down = _process(db, path)
        lines = [_line(db, session_of(row), alive=process is not None, now=now) for row in rows]
    return Overview(
        store=path, process=process, clean=put_down, counts={name: counts[name] for name in STATUSES if name in counts}, sessions=lines
    )


def detail(path: str, id: str, *, turn: int | None = None, turns: int = 10, now: float | None = None) -> views.Detail:
    """One session, with its last turns.

    Args:
        turn: only this one.
        turns: how many at most, the last ones.

    Raises:
        SessionNotFound: there is no such session, or no such turn in it.
        StoreError: the file cannot be read as a holdfast database.
    """
    now = time.time() if now is None else now
    with _reading(path) as db:
        row = db.execute(f"SELECT {SESSION} FROM sessions WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise SessionNotFound(id, f"no session {id!r} in {path}: holdfast ps --all lists them{_alike(db, id)}")
        session = session_of(row)
        alive = _process(db, path)[0] is not None
        shown = _turns(db, session, turn, turns)
        if turn is not None and not shown:
            raise SessionNotFound(id, f"session {id!r} has no turn {turn}: it has 1 to {session.turn}{_and_open(db, session)}")
        queued = _all(db, MESSAGE, "messages WHERE session = ? AND state = 1 ORDER BY seq", message_of, id)
        letters = _all(db, LETTER, "dead_letters WHERE session = ? ORDER BY turn", letter_of, id)
        children = _all(db, SESSION, "sessions WHERE parent = ? ORDER BY num", session_of, id)
        return views.Detail(
            line=_line(db, session, alive=alive, now=now),
            user=clean(session.user),
            epoch=session.epoch,
            crashes=session.crashes,
            parent=None if session.parent is None else clean(session.parent.session),
            created=session.created,
            result=None if session.result is None else views.result(session.result)[0],
            notes=[clean(note) for note in session.notes],
            mailbox=[views.message_view(message, now) for message in queued],
            earlier_turns=0 if turn is not None else max(session.turn - sum(not view.open for view in shown), 0),
            turns=shown,
            dead_letters=[views.letter_view(letter, now) for letter in letters],
            children=[_line(db, child, alive=alive, now=now) for child in children],
        )


def _line(db: sqlite3.Connection, session: Session, *, alive: bool, now: float) -> views.Line:
    letter = _letter(db, session) if session.status == "failed" else None
    return views.line(session, _steps(db, session.id, session.turn + 1), letter, alive=alive, now=now)


def _turns(db: sqlite3.Connection, session: Session, only: int | None, limit: int) -> list[views.TurnView]:
    first, last = (only, only) if only is not None else (max(session.turn - limit + 1, 1), session.turn)
    found: list[views.TurnView] = []
    for point in _all(
        db, CHECKPOINT, "turns WHERE session = ? AND turn BETWEEN ? AND ? ORDER BY turn", checkpoint_of, session.id, first, last
    ):
        if point.turn > 0:
            message = _message(db, session.id, point.message)
            found.append(views.done_turn(point, message, _steps(db, session.id, point.turn)))
    if only is None or only == session.turn + 1:
        steps, message = _steps(db, session.id, session.turn + 1), _open_message(db, session)
        if steps or (message is not None and session.status not in ENDED):
            found.append(views.open_turn(session.turn + 1, message, steps))
    return found


def _open_message(db: sqlite3.Connection, session: Session) -> Message | None:
    letter = _letter(db, session)
    if letter is not None:
        return _message(db, session.id, letter.message)
    head = _all(db, MESSAGE, "messages WHERE session = ? AND state = 1 AND kind = 'message' ORDER BY seq LIMIT 1", message_of, session.id)
    return head[0] if head else None


def _letter(db: sqlite3.Connection, session: Session) -> DeadLetter | None:
    found = _all(db, LETTER, "dead_letters WHERE session = ? AND turn = ?", letter_of, session.id, session.turn + 1)
    return found[0] if found else None


def _message(db: sqlite3.Connection, session: str, id: str | None) -> Message | None:
    found = _all(db, MESSAGE, "messages WHERE session = ? AND id = ?", message_of, session, id)
    return found[0] if found else None


def _steps(db: sqlite3.Connection, session: str, turn: int) -> list[Step]:
    return _all(db, STEP, "steps WHERE session = ? AND turn = ? ORDER BY rowid", step_of, session, turn)


def _all(db: sqlite3.Connection, columns: str, rest: str, make: Callable[[Any], T], *values: Any) -> list[T]:
    return [make(row) for row in db.execute(f"SELECT {columns} FROM {rest}", values)]


def _alike(db: sqlite3.Connection, id: str) -> str:
    pattern = f"%{id.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"
    found = [row[0] for row in db.execute("SELECT id FROM sessions WHERE id LIKE ? ESCAPE '!' ORDER BY num LIMIT 3", (pattern,))]
    return f" (did you mean {', '.join(clean(other) for other in found)}?)" if found else ""


def _and_open(db: sqlite3.Connection, session: Session) -> str:
    return f", and {session.turn + 1} is open" if _steps(db, session.id, session.turn + 1) else ""


def _process(db: sqlite3.Connection, path: str) -> tuple[int | None, bool]:
    """Which process runs the database, by its lock file (the lock itself is left alone), and whether the last one put it down cleanly."""
    row = db.execute("SELECT clean FROM nodes WHERE id = 1").fetchone()
    if row is None or row[0]:
        return None, True
    try:
        pid = int(Path(f"{path}.lock").read_text().strip())
        os.kill(pid, 0)
    except PermissionError:
        return pid, False  # it is there, and is somebody else's
    except (OSError, ValueError):
        return None, False
    return pid, False
