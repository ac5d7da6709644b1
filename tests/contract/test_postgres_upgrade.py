"""Tables in Postgres as each earlier schema left them."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.errors import StoreError
from holdfast.policies.budget import Budget, Usage
from holdfast.stores.postgres.link import Address
from holdfast.stores.postgres.schema import MIGRATIONS
from holdfast.stores.postgres.store import PostgresStore
from holdfast.stores.records import Outcome, Park, SessionStatus, rank
from tests.contract.old_rows import BAD, ODD_BUDGETS, PLACES, check_odd_rows, check_sound_rows

pytestmark = pytest.mark.anyio

VERSIONS = pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
encode = msgspec.msgpack.encode

SESSION = (
    'INSERT INTO {s}.sessions (num, id, agent, tenant, "user", status, epoch, turn, pending, budget, usage, seed, detached, park, reason,'
    " gates, notes, crashes, created, updated, rank)"
    " VALUES ($1, $2, 'agent', 'acme', 'ann', $3, 1, 0, $4, $5, $6, '', false, $7, $8, '', '\\x90', 0, 1.0, 2.0, $9)"
)
TURN = "INSERT INTO {s}.turns (session, turn, state, version, started, ended, usage) VALUES ($1, 0, '\\x01', 1, 1.0, 1.0, '\\x80')"
MESSAGE = (
    "INSERT INTO {s}.messages (seq, session, id, body, digest, kind, state, reply, created, context)"
    " VALUES (1, 'works', 'm', '\\x02', '\\x03', 'message', 1, $1, 2.0, '')"
)
LETTER = "INSERT INTO {s}.dead_letters (session, turn, message, cause, effects, created) VALUES ('failed', 1, 'm', 'a bug'::bytea, $1, 2.0)"


class Ranked(msgspec.Struct):
    """What `rank` looks at."""

    status: SessionStatus
    pending: int
    park: Park | None
    unresolved: Park | None = None


async def make_version(url: str, version: int, *, odd: bool) -> None:
    """Tables as a process of an earlier version left them when it was killed.

    Args:
        odd: with limits, parks and addresses that are refused, or do not decode, today.
    """
    address = Address(url)
    connection = await address.connect("test")

    async def run(sql: str, *values: object) -> None:
        await connection.execute(sql.replace("{s}", f'"{address.schema}"').replace("{schema}", f'"{address.schema}"'), *values)

    await run("DROP SCHEMA IF EXISTS {s} CASCADE")
    await run("CREATE SCHEMA {s}")
    await run("CREATE TABLE {s}.schema_version (version integer NOT NULL)")
    await run("INSERT INTO {s}.schema_version VALUES ($1)", version)
    for script in MIGRATIONS[:version]:
        await run(script)
    await run("UPDATE {s}.nodes SET incarnation = 1, clean = false")
    rows = [(*place, encode(Budget())) for place in PLACES]
    rows += [(id, "idle", None, 0, encode(limits)) for id, limits in ODD_BUDGETS.items()] if odd else []
    for num, (id, status, park, pending, budget) in enumerate(rows, 1):
        cells = (None, None) if park is None else (encode(park), park.reason)
        await run(SESSION, num, id, status, pending, budget, encode(Usage()), *cells, rank(Ranked(status, pending, park)))
        await run(TURN, id)
    await run(MESSAGE, encode(Outcome()))
    await run(LETTER, encode(["refund"]))
    if odd:
        await run("UPDATE {s}.sessions SET park = $1 WHERE id = 'waits'", BAD)
        await run("UPDATE {s}.sessions SET parent = 'works', parent_at = $1 WHERE id = 'rests'", BAD)
    await connection.close()


@VERSIONS
async def test_tables_of_every_schema_are_brought_forward_with_their_data(postgres_url: str, version: int) -> None:
    """The rows keep what they say; a reader is told to wait for the process that brings them forward."""
    await make_version(postgres_url, version, odd=False)
    reader = PostgresStore(postgres_url, readonly=True)
    if version < len(MIGRATIONS):
        with pytest.raises(StoreError, match=f"schema {version}"):
            await reader.open()
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        await check_sound_rows(store)
    finally:
        await store.close()
    await reader.open()
    assert len(await reader.sessions()) == len(PLACES)
    await reader.close()


@VERSIONS
async def test_tables_of_every_schema_open_with_rows_that_are_refused_today(postgres_url: str, version: int) -> None:
    """Those that are sound hold as they are; one that is not concerns its own session alone."""
    await make_version(postgres_url, version, odd=True)
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        await check_odd_rows(store)
    finally:
        await store.close()
