"""The log of steps in a SQLite file: it has no index, so a turn's rows are found from the last one back."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import NotWritten
from holdfast.policies.budget import Budget, Usage
from holdfast.stores.ops import Activate, CommitTurn, CreateSession, DropSteps, Enqueue, Op, Reply, Result, Status, UpdateSession, WriteStep
from holdfast.stores.records import Address, Outcome, Park, StepRecord, StepState
from holdfast.stores.rows import encode
from holdfast.stores.sqlite import log
from holdfast.stores.sqlite.schema import APPLICATION_ID, MIGRATIONS
from holdfast.stores.sqlite.store import SqliteStore

BODY = encode(StepRecord("step", "call", "", b"", 0, "read"))


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "WINDOW", 10)
    monkeypatch.setattr(log, "_PER_SESSION", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holdfast.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


def made(id: str) -> list[Op]:
    return [
        CreateSession(id, "agent", "acme", "ann", 1, b"\x01", Budget(), b"seed", 1.0),
        Enqueue(id, "m", b"\x01", b"digest", 1.0),
        Activate(id, 1.0),
    ]


def write(key: str, id: str = "s", state: StepState = StepState.CLOSED, *, turn: int = 1, epoch: int = 1) -> WriteStep:
    return WriteStep(id, epoch, turn, key.encode(), state, BODY)


def commit(id: str = "s", turn: int = 1) -> CommitTurn:
    return CommitTurn(id, 1, turn, "m", b"\x02", 1, encode(Outcome()), "idle", Usage(), 1.0, 2.0)


async def keys(store: SqliteStore, id: str = "s", turn: int = 1) -> list[str]:
    return [step.key.decode() for step in await store.steps(id, turn)]


async def after_kill(store: SqliteStore, path: Path) -> SqliteStore:
    """A store over the files as they are now, as after a kill -9."""
    copy = path.with_name("copy.db")
    for part in ("", "-wal"):
        shutil.copyfile(f"{path}{part}", f"{copy}{part}")
    found = SqliteStore(copy)
    await found.open()
    assert found.unclean
    return found


async def loaded(store: SqliteStore, *ids: str) -> list[Result]:
    return await store.apply([Activate(id, 3.0) for id in ids])


async def test_turns_that_interleave_are_read_apart_and_in_their_order(store: SqliteStore, path: Path) -> None:
    """While they are open, once they are committed, and after a kill; far more rows than a window."""
    await store.apply([*made("s"), *made("other")])
    for n in range(30):
        await store.apply([write(f"{n:02}"), write(f"o{n:02}", "other"), write(f"{n:02}", state=StepState.FAILED)])
    expected = [f"{n:02}" for n in range(30)]
    assert await keys(store) == expected
    assert {step.state for step in await store.steps("s", 1)} == {StepState.FAILED}  # of two rows the later one counts
    assert await keys(store, "other") == [f"o{n:02}" for n in range(30)]
    assert {id: len(steps) for id, steps in (await store.open_steps(["s", "other"])).items()} == {"s": 30, "other": 30}
    await store.apply([commit(), write("next", turn=2)])
    killed = await after_kill(store, path)
    try:
        for each in (store, killed):
            assert await keys(each) == expected
            assert await keys(each, turn=2) == ["next"]
        first, second = await loaded(killed, "s", "other")
        assert [step.key for step in first.value.steps] == [b"next"]
        assert len(second.value.steps) == 30
    finally:
        await killed.close()


async def test_a_session_that_leaves_memory_finds_its_open_turn_again(store: SqliteStore) -> None:
    """A parked one, passivated before and after the window moves past its rows, and a reply to it."""
    await store.apply([*made("s"), *made("busy"), write("a"), write("wait", state=StepState.WAITING)])
    await store.apply([UpdateSession("s", 1, 2.0, status="parked", park=Park("wait", "t", keys=(b"wait",)))])
    store.release("s")
    for n in range(40):
        await store.apply([write(f"{n}", "busy")])
    store.release("s")
    assert (await store.apply([Reply(Address("s", 1, b"wait"), encode(Outcome(b"\x07")), 3.0)]))[0].status is Status.DONE
    assert (await store.apply([Reply(Address("s", 1, b"wait"), encode(Outcome(b"\x08")), 3.0)]))[0].status is Status.DUPLICATE
    (found,) = await loaded(store, "s")
    assert [(step.key, step.state) for step in found.value.steps] == [(b"a", StepState.CLOSED), (b"wait", StepState.CLOSED)]
    assert found.value.steps[1].record.outcome == Outcome(b"\x07")


async def test_a_session_that_is_released_while_its_batch_is_applied_keeps_its_log(store: SqliteStore) -> None:
    """The loop passivates a session while the database thread writes for it, in the batch in which the window moves."""

    class Released(list[Op]):
        def __iter__(self) -> Iterator[Op]:
            store.release("s")
            return super().__iter__()

    await store.apply(made("s"))
    await store.apply(Released(write(f"{n:02}") for n in range(12)))
    await store.apply([write("next")])
    assert await keys(store) == [*(f"{n:02}" for n in range(12)), "next"]


async def test_steps_that_were_dropped_are_gone_and_can_come_again(store: SqliteStore) -> None:
    """A dropped step that is written again comes after those before it; only what was there is charged."""
    await store.apply([*made("s"), write("a"), write("b"), write("c")])
    await store.apply([DropSteps("s", 1, 1, (b"a", b"nothing"), Usage(steps=1)), DropSteps("s", 1, 1, (b"nothing",), Usage(steps=9))])
    assert await keys(store) == ["b", "c"]
    row = await store.session("s")
    assert row is not None
    assert row.usage == Usage(steps=1)
    await store.apply([write("a")])
    assert await keys(store) == ["b", "c", "a"]


async def test_a_transaction_that_fails_leaves_the_log_as_it_was(store: SqliteStore) -> None:
    """What memory knew of the batch is forgotten: the next rows follow those that were written."""
    await store.apply([*made("s"), write("a")])
    for _ in range(3):
        with pytest.raises(NotWritten):
            await store.apply([write("lost"), WriteStep("s", 1, 1, b"odd", StepState.CLOSED, object())])  # type: ignore[arg-type]
    await store.apply([write("b")])
    assert await keys(store) == ["a", "b"]
    await store.apply([commit()])
    assert await keys(store) == ["a", "b"]


async def test_a_clean_stop_leaves_nothing_to_scan(store: SqliteStore, path: Path) -> None:
    """Each open turn has its last number in its session's row."""
    await store.apply([*made("s"), write("a"), write("b")])
    await store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT last_step FROM sessions").fetchone() == db.execute("SELECT max(num) FROM steps").fetchone()
        assert db.execute("SELECT steps_from FROM nodes").fetchone() == db.execute("SELECT max(num) FROM steps").fetchone()
    db.close()


DAMAGE = {
    "a row in the middle is gone": "DELETE FROM steps WHERE key = CAST('b' AS BLOB)",
    "the last row is gone": "DELETE FROM steps WHERE key = CAST('d' AS BLOB)",
    "a link is no number": "UPDATE steps SET prev = 'x' WHERE key = CAST('c' AS BLOB)",
    "a link leads nowhere": "UPDATE steps SET prev = 99 WHERE key = CAST('c' AS BLOB)",
    "a link leads into another turn": "UPDATE steps SET prev = (SELECT max(num) FROM steps WHERE session = 'other') WHERE session = 's'",
    "a link leads into an earlier turn": (
        "UPDATE steps SET prev = (SELECT min(num) FROM steps WHERE session = 'other') WHERE key = CAST('c' AS BLOB)"
    ),
    "links in a circle": "UPDATE steps SET prev = (SELECT max(num) FROM steps WHERE session = 's') WHERE session = 's'",
    "the number in the session's row": "UPDATE sessions SET last_step = 'x' WHERE id = 's'",
    "the number of another session's row": (
        "UPDATE sessions SET last_step = (SELECT max(num) FROM steps WHERE session = 'other') WHERE id = 's'"
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_journal_that_is_damaged_is_never_taken_for_a_shorter_one(store: SqliteStore, path: Path, damage: str) -> None:
    """An effect would run again. The session cannot be loaded, or has a record that tells; the other one is as it was."""
    await store.apply([*made("s"), *made("other"), write("o", "other"), *[write(key) for key in "abcd"]])
    await store.close()
    with sqlite3.connect(path) as db:
        assert db.execute(damage).rowcount > 0
    db.close()
    await store.open()
    session, other = await loaded(store, "s", "other")
    assert [step.key for step in other.value.steps] == [b"o"]
    assert session.status is Status.REFUSED or any(step.unreadable for step in session.value.steps)
    assert any(step.unreadable for step in await store.steps("s", 1))


@pytest.mark.parametrize("value", ["'x'", "1000000", "-5"])
async def test_a_damaged_start_of_the_scan_costs_only_time(store: SqliteStore, path: Path, value: str) -> None:
    """All of the log is scanned."""
    await store.apply([*made("s"), write("a")])
    await store.apply([write("b")])
    killed = await after_kill(store, path)
    await killed.close()
    with sqlite3.connect(killed.path) as db:
        db.execute("UPDATE sessions SET last_step = 0")
        db.execute(f"UPDATE nodes SET steps_from = {value}")
    db.close()
    await killed.open()
    try:
        assert await keys(killed) == ["a", "b"]
    finally:
        await killed.close()


def before_the_log(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    """A database of the schema before the log, after an unclean end."""
    db = sqlite3.connect(path)
    for name in ("park_reason", "parent_turn"):
        db.create_function(name, 1, lambda value: None)
    for number, script in enumerate(MIGRATIONS[:4]):
        db.executescript(f"{script} UPDATE schema_version SET version = {number + 1};")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("INSERT INTO nodes (id, clean) VALUES (1, 0)")
    for id in ("s", "other", "without"):
        db.execute(
            "INSERT INTO sessions (id, agent, tenant, user, status, epoch, turn, pending, budget, usage, seed, detached, gates, notes,"
            " crashes, crash_mark, created, updated)"
            " VALUES (?, 'agent', 'acme', 'ann', 'idle', 1, 1, 0, ?, ?, x'', 0, x'', x'90', 0, 0, 1, 2)",
            (id, encode(Budget()), encode(Usage())),
        )
        for turn in (0, 1):
            db.execute(
                "INSERT INTO turns (session, turn, state, version, started, ended, usage) VALUES (?, ?, x'01', 1, 1, 1, x'80')", (id, turn)
            )
    db.executemany("INSERT INTO steps (session, turn, key, state, body) VALUES (?, ?, ?, ?, ?)", rows)
    db.commit()
    db.close()


async def test_the_steps_of_an_earlier_schema_become_a_log(store: SqliteStore, tmp_path: Path) -> None:
    """Those of ended turns and of open ones, in their order; new ones follow."""
    path = tmp_path / "earlier.db"
    rows = [(id, turn, f"{id}{turn}{n}".encode(), 2, BODY) for n in range(3) for turn in (1, 2) for id in ("s", "other")]
    before_the_log(path, rows)
    earlier = SqliteStore(path)
    await earlier.open()
    try:
        assert await keys(earlier, turn=1) == ["s10", "s11", "s12"]
        assert await keys(earlier, "without") == []
        (found,) = await loaded(earlier, "s")
        assert [step.key for step in found.value.steps] == [b"s20", b"s21", b"s22"]
        await earlier.apply([write("new", turn=2, epoch=2)])
        assert await keys(earlier, turn=2) == ["s20", "s21", "s22", "new"]
        assert await keys(earlier, "other", turn=2) == ["other20", "other21", "other22"]
    finally:
        await earlier.close()
