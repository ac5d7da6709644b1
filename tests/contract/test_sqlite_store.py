"""What only the SQLite store does: files of an earlier schema, and reading a file beside the process that runs it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from holdfast.errors import ConfigError, NotWritten, SchemaTooNew, StoreError, StoreLost
from holdfast.policies.budget import Budget, Usage
from holdfast.stores import open_store
from holdfast.stores.ops import Activate, CreateSession, Enqueue, Op, Status, Touch, UpdateSession
from holdfast.stores.records import Outcome, Park, SessionStatus
from holdfast.stores.sqlite import SqliteStore
from holdfast.stores.sqlite_schema import APPLICATION_ID, MIGRATIONS

pytestmark = pytest.mark.anyio

encode = msgspec.msgpack.encode


def create(id: str) -> list[Op]:
    return [CreateSession(id, "agent", "acme", "ann", 1, b"state", Budget(), b"seed", 1.0), Activate(id, 2.0)]


def park(id: str, reason: str, now: float) -> UpdateSession:
    return UpdateSession(id, 1, now, status="parked", park=Park(reason, "why", 70.0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def owner(path: Path) -> AsyncIterator[SqliteStore]:
    """The process that has the file open for writing, with one session."""
    store = SqliteStore(path)
    await store.open()
    await store.apply(create("a"))
    yield store
    await store.close()


# ---------------------------------------------------------------- schema


def make_version_1(path: Path) -> None:
    """A database as the first schema left it, put down uncleanly, with a session of each place in the list."""
    db = sqlite3.connect(path)
    db.executescript(f"PRAGMA journal_mode = WAL; {MIGRATIONS[0]} UPDATE schema_version SET version = 1;")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("INSERT INTO nodes VALUES (1, 0)")
    rows: list[tuple[str, SessionStatus, Park | None, int]] = [
        ("rests", "idle", None, 0),
        ("works", "idle", None, 1),
        ("waits", "parked", Park("wait", "waits for t", waits_on=("t",)), 0),
        ("doubts", "parked", Park("doubt", "it may have happened"), 1),
        ("failed", "failed", None, 0),
    ]
    for id, status, park, pending in rows:
        db.execute(
            "INSERT INTO sessions (id, agent, tenant, user, status, epoch, turn, pending, budget, usage, seed, detached, park, wake_at,"
            " gates, notes, crashes, crash_mark, created, updated)"
            " VALUES (?, 'agent', 'acme', 'ann', ?, 1, 0, ?, ?, ?, x'', 0, ?, NULL, x'', x'90', 0, 0, 1.0, 2.0)",
            (id, status, pending, encode(Budget()), encode(Usage()), None if park is None else encode(park)),
        )
        db.execute("INSERT INTO turns VALUES (?, 0, x'01', 1, NULL, 1.0, 1.0, ?)", (id, encode(Usage())))
    db.execute(
        "INSERT INTO messages (session, id, body, digest, kind, state, reply, created) "
        " VALUES ('works', 'm', x'02', x'03', 'message', 1, ?, 2.0)",
        (encode(Outcome()),),
    )
    db.commit()
    db.close()


async def test_a_database_of_the_first_schema_is_brought_forward_with_its_data(path: Path) -> None:
    """Parks keep their reason, sessions stand where they should in the list, and old messages have no trace."""
    make_version_1(path)
    store = SqliteStore(path)
    await store.open()
    try:
        assert store.unclean
        assert [s.id for s in await store.sessions()] == ["failed", "doubts", "waits", "works", "rests"]
        assert await store.counts() == {"failed": 1, "parked": 2, "working": 1, "idle": 1}
        (waits,) = [s for s in await store.sessions() if s.id == "waits"]
        assert waits.park == Park("wait", "waits for t", waits_on=("t",))
        assert [(m.id, m.body, m.context) for m in await store.messages("works")] == [("m", b"\x02", "")]
        await store.apply([Enqueue("works", "n", b"", b"", 3.0, context="trace"), UpdateSession("doubts", 1, 4.0, status="idle")])
        assert [m.context for m in await store.messages("works")] == ["", "trace"]
        assert [s.id for s in await store.sessions(status="working")] == ["doubts", "works"]
    finally:
        await store.close()


async def test_a_park_that_does_not_decode_stops_the_migration_and_changes_nothing(path: Path) -> None:
    """The file stays of the first schema, for whoever can repair it."""
    make_version_1(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE sessions SET park = x'c1' WHERE id = 'waits'")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match=r"migration 2 of .* failed, nothing was changed"):
        await SqliteStore(path).open()
    db = sqlite3.connect(path)
    assert db.execute("SELECT version FROM schema_version").fetchone() == (1,)
    assert "context" not in [row[1] for row in db.execute("PRAGMA table_info (messages)")]
    db.close()


# ---------------------------------------------------------------- reading beside


async def looking(path: Path) -> SqliteStore:
    store = SqliteStore(path, readonly=True)
    await store.open()
    return store


async def test_a_reader_sees_what_the_owner_wrote_and_whose_it_is(owner: SqliteStore, path: Path) -> None:
    """Without its lock; every read is of what is there by then."""
    reader = await looking(path)
    try:
        assert [s.id for s in await reader.sessions()] == ["a"]
        assert await reader.owner() == await owner.owner()
        assert (await reader.owner()).process == os.getpid()
        await owner.apply(create("b"))
        assert [s.id for s in await reader.sessions()] == ["b", "a"]
        await owner.close()
        assert ((await reader.owner()).process, (await reader.owner()).clean) == (None, True)
    finally:
        await reader.close()
        await reader.close()


async def test_reads_within_a_snapshot_are_of_one_moment(owner: SqliteStore, path: Path) -> None:
    """The owner writes on meanwhile, and the next read after it sees that."""
    reader = await looking(path)
    try:
        async with reader.snapshot():
            before = await reader.counts()
            await owner.apply([*create("b"), park("a", "doubt", 5.0)])
            assert (await reader.counts(), [s.id for s in await reader.sessions()]) == (before, ["a"])
        assert await reader.counts() == {"idle": 1, "parked": 1}
        with pytest.raises(StoreError, match="open for writing"):
            async with owner.snapshot():
                pass
    finally:
        await reader.close()


async def test_a_reader_writes_nothing(owner: SqliteStore, path: Path) -> None:
    """Ops are refused as not written, and the bytes of the file and its WAL stay as they are."""

    def digests() -> list[str]:
        return [hashlib.sha256(Path(f"{path}{suffix}").read_bytes()).hexdigest() for suffix in ("", "-wal")]

    before = digests()
    reader = await looking(path)
    with pytest.raises(NotWritten, match="open for reading only"):
        await reader.apply(create("b"))
    await reader.sessions()
    await reader.close()
    assert digests() == before
    assert not (await owner.owner()).clean


def make_unreadable(path: Path, kind: str) -> None:
    match kind:
        case "a folder":
            path.mkdir()
        case "text":
            path.write_text("no database " * 100)
        case "older":
            make_version_1(path)
        case "foreign" | "newer":
            db = sqlite3.connect(path)
            db.execute("CREATE TABLE schema_version (version)")
            if kind == "newer":
                db.executescript(f"INSERT INTO schema_version VALUES (99); PRAGMA application_id = {APPLICATION_ID};")
            db.close()
        case "empty":
            path.touch()


def contents(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "there is no database"),
        ("a folder", "there is no database"),
        ("text", "is not a SQLite database"),
        ("foreign", "is a database of another program"),
        ("empty", "start it once with holdfast run"),
        ("older", "start it once with holdfast run"),
        ("newer", "upgrade holdfast"),
    ],
)
async def test_a_file_that_cannot_be_read_is_refused_in_one_line(path: Path, kind: str, says: str) -> None:
    """It names the file and says what is wrong; nothing is made, migrated or locked."""
    make_unreadable(path, kind)
    before = contents(path)
    with pytest.raises(SchemaTooNew if kind == "newer" else StoreError, match=says) as refused:
        await looking(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (contents(path), contents(path.with_name("sessions.db.lock"))) == (before, None)


async def test_a_row_that_does_not_decode_is_an_error_of_the_store(owner: SqliteStore, path: Path) -> None:
    """A damaged row is no traceback from a decoder."""
    await owner.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE sessions SET budget = x'c1'")
    db.commit()
    db.close()
    reader = await looking(path)
    try:
        with pytest.raises(StoreError, match="does not decode"):
            await reader.sessions()
    finally:
        await reader.close()


async def test_a_url_can_be_opened_for_reading_only(owner: SqliteStore, path: Path) -> None:
    """Of a file; what lives in another process's memory cannot be looked into."""
    reader = open_store(f"sqlite:///{path}", readonly=True)
    await reader.open()
    assert [s.id for s in await reader.sessions()] == ["a"]
    await reader.close()
    with pytest.raises(ConfigError, match="cannot be looked into"):
        open_store("memory:", readonly=True)


def size_of_wal(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


async def test_a_touch_is_written_to_the_file(tmp_path: Path) -> None:
    """A write that SQLite can skip, since nothing changes, would call a full disk well."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    await store.open()
    try:
        before = size_of_wal(path)
        await store.apply([Touch()])
        assert size_of_wal(path) > before
    finally:
        await store.close()


async def test_a_file_that_is_removed_under_a_running_process_takes_no_write_any_more(tmp_path: Path) -> None:
    """What would be acknowledged into a file without a name would be gone with the process."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    await store.open()
    try:
        await store.apply([Touch()])
        path.unlink()
        with pytest.raises(StoreLost, match="removed or replaced"):
            await store.apply([Touch()])
    finally:
        await store.close()


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_a_new_database_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    """It holds every conversation; what SQLite keeps beside it takes after it."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    await store.open()
    try:
        await store.apply([Touch()])
        assert modes(tmp_path) == dict.fromkeys(("s.db", "s.db-wal", "s.db-shm", "s.db.lock"), 0o600)
    finally:
        await store.close()


async def test_reads_do_not_wait_for_a_write(owner: SqliteStore, path: Path) -> None:
    """A write that waits for the file's lock (another program holds it) keeps no list for people waiting, and a list no write."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    write = asyncio.ensure_future(owner.apply([Touch()]))
    await asyncio.sleep(0)
    assert [session.id for session in await owner.sessions()] == ["a"]
    assert (await owner.counts(), write.done()) == ({"idle": 1}, False)
    other.execute("ROLLBACK")
    assert [result.status for result in await write] == [Status.DONE]
    other.close()


async def test_reads_stay_fresh_after_a_row_that_did_not_decode(owner: SqliteStore, path: Path) -> None:
    """A list that fails half-way leaves no statement open, which would keep every later read at that moment."""
    for id in "bc":
        await owner.apply(create(id))
    other = sqlite3.connect(path)
    other.execute("UPDATE sessions SET seed = 'text', usage = x'c1' WHERE id = 'b'")
    other.commit()
    other.close()
    try:
        listed: object = await owner.sessions()
    except StoreError as error:
        listed = error  # kept, as a log or a debugger keeps it
    await owner.apply(create("d"))
    assert (await owner.session("d")) is not None, listed
