"""The Postgres server of the tests: one for the session, from the wheel; a schema of its own for each test."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from holdfast.stores.postgres.dev import DevServer
from holdfast.stores.postgres.link import Address
from holdfast.stores.postgres.schema import quoted
from holdfast.stores.postgres.store import LOCK_CLASS

TABLES = ["dead_letters", "messages", "nodes", "schema_version", "sessions", "steps", "turns"]

_numbers = itertools.count(1)
_used: list[str] = []


@contextmanager
def folder_for_server() -> Iterator[Path]:
    """A folder that a server can get to, whoever it runs as. Not below pytest's own, which each run of pytest closes to others again."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """An empty folder for a server of one test alone."""
    with folder_for_server() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_dev_server() -> Iterator[DevServer]:
    """A server that lives as long as the test session. Its data need not outlive the machine, so it never syncs."""
    with folder_for_server() as folder:
        server = DevServer(folder, settings={"fsync": "off", "max_connections": "60", "shared_buffers": "64MB"}, idle_s=1.0)
        try:
            server.start_now()
            yield server
        finally:
            server.leave()
            server.stop_now()


@pytest.fixture
def postgres_url(postgres_dev_server: DevServer) -> Iterator[str]:
    """The URL of an empty store, which is gone after the test.

    Its tables are those of an earlier test, emptied, where there was one: making them takes longer than most tests.
    """
    schema = _used.pop() if _used else f"test_{os.getpid()}_{next(_numbers)}"
    url = f"{postgres_dev_server.start_now()}&schema={schema}"
    yield url
    if asyncio.run(empty_store(url)):
        _used.append(schema)


async def empty_store(url: str) -> bool:
    """Make a store what it was before anybody opened it, but for its tables being there already.

    Returns:
        Whether that is what it is now: not where somebody still holds it, or a test that failed left something behind.
    """
    address = Address(url)
    connection = await address.connect("test")
    try:
        await connection.execute("SET lock_timeout = '2s'")
        tables = await connection.fetchval(
            "SELECT ARRAY(SELECT tablename::text FROM pg_tables WHERE schemaname = $1 ORDER BY 1)", address.schema
        )
        held = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1 AND objid::bigint = $2)",
            *(LOCK_CLASS, zlib.crc32(address.schema.encode())),
        )
        if held or tables not in ([], TABLES):
            return False
        if tables:
            schema = quoted(address.schema)
            emptied = [f"DELETE FROM {schema}.{table}" for table in tables if table not in ("nodes", "schema_version")]
            again = f"UPDATE {schema}.nodes SET incarnation = 0, token = '', process = 0, host = '', clean = true"
            await connection.execute("; ".join([*emptied, again]))
        return True
    except asyncpg.PostgresError:
        return False
    finally:
        await connection.close()
