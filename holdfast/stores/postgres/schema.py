"""The tables in Postgres, as migrations that run forward. A database newer than this list is refused untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import SchemaTooNew, StoreError

if TYPE_CHECKING:
    import asyncpg

# Searched text compares as bytes (COLLATE "C"): faster, and the same on every server. `sessions.rank` is records.rank, so that an index
# gives the order for people. The writing process assigns `num` and `steps.num`: they grow, with gaps.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE {schema}.nodes (
        id smallint PRIMARY KEY,
        incarnation bigint NOT NULL,
        token bytea NOT NULL,
        process bigint NOT NULL,
        host text NOT NULL,
        clean boolean NOT NULL
    );
    INSERT INTO {schema}.nodes VALUES (1, 0, '', 0, '', true);
    CREATE TABLE {schema}.sessions (
        num bigint NOT NULL,
        id text COLLATE "C" PRIMARY KEY,
        agent text NOT NULL,
        tenant text NOT NULL,
        "user" text NOT NULL,
        status text NOT NULL,
        epoch bigint NOT NULL,
        turn bigint NOT NULL,
        pending bigint NOT NULL,
        budget bytea NOT NULL,
        usage bytea NOT NULL,
        seed bytea NOT NULL,
        parent text COLLATE "C",
        parent_at bytea,
        detached boolean NOT NULL,
        park bytea,
        reason text,
        wake_at double precision,
        gates bytea NOT NULL,
        notes bytea NOT NULL,
        result bytea,
        crashes bigint NOT NULL,
        crash_mark bigint,
        created double precision NOT NULL,
        updated double precision NOT NULL,
        rank smallint NOT NULL
    );
    CREATE INDEX sessions_for_people ON {schema}.sessions (rank, updated DESC, num DESC) INCLUDE (status);
    CREATE INDEX sessions_by_parent ON {schema}.sessions (parent, num) WHERE parent IS NOT NULL;
    CREATE TABLE {schema}.messages (
        seq bigint NOT NULL UNIQUE,
        session text COLLATE "C" NOT NULL,
        id text COLLATE "C" NOT NULL,
        body bytea NOT NULL,
        digest bytea NOT NULL,
        kind text NOT NULL,
        reply_to bytea,
        state smallint NOT NULL,
        reply bytea,
        created double precision NOT NULL,
        done double precision,
        context text NOT NULL,
        PRIMARY KEY (session, id)
    );
    CREATE INDEX messages_queued ON {schema}.messages (session) WHERE state = 1;
    CREATE TABLE {schema}.steps (
        num bigint NOT NULL,
        session text COLLATE "C" NOT NULL,
        turn bigint NOT NULL,
        key bytea NOT NULL,
        state smallint NOT NULL,
        body bytea NOT NULL,
        UNIQUE (session, turn, key)
    );
    CREATE TABLE {schema}.turns (
        session text COLLATE "C" NOT NULL,
        turn bigint NOT NULL,
        state bytea NOT NULL,
        version bigint NOT NULL,
        message text,
        started double precision NOT NULL,
        ended double precision NOT NULL,
        usage bytea NOT NULL,
        PRIMARY KEY (session, turn)
    );
    CREATE TABLE {schema}.dead_letters (
        session text COLLATE "C" NOT NULL,
        turn bigint NOT NULL,
        message text COLLATE "C" NOT NULL,
        cause bytea NOT NULL,
        effects bytea NOT NULL,
        created double precision NOT NULL,
        PRIMARY KEY (session, turn)
    );
    """,
    # `rank` needs no change: before this version no ended session was parked.
    """
    ALTER TABLE {schema}.dead_letters ADD COLUMN in_doubt bytea NOT NULL DEFAULT '\\x90', ADD COLUMN failed bytea NOT NULL DEFAULT '\\x90';
    ALTER TABLE {schema}.turns ADD COLUMN dropped boolean NOT NULL DEFAULT false;
    CREATE INDEX turns_dropped ON {schema}.turns (session) WHERE dropped;
    """,
    # An empty records.Returns. Budget returned to a session that had ended before this version stays there.
    """
    ALTER TABLE {schema}.sessions ADD COLUMN returns bytea NOT NULL DEFAULT '\\x80';
    """,
    # The other steps that wait for the answer to a message: they asked with its id.
    """
    ALTER TABLE {schema}.messages ADD COLUMN also bytea;
    """,
    # The fingerprint of the state's type; 0 is one that is not known.
    """
    ALTER TABLE {schema}.turns ADD COLUMN fingerprint bigint NOT NULL DEFAULT 0;
    """,
)


def quoted(name: str) -> str:
    """A name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


async def version_of(connection: asyncpg.Connection, schema: str, where: str) -> int:
    """The version of the tables; 0 where there are none.

    Raises:
        SchemaTooNew: written by a newer holdfast.
        StoreError: the schema holds the tables of something else.
    """
    tables: list[str] = await connection.fetchval(
        "SELECT ARRAY(SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = $1)", schema
    )
    if "schema_version" not in tables:
        if "sessions" in tables:
            raise StoreError(f"{where} is of another program: name another schema (?schema=NAME)")
        return 0
    version: int = await connection.fetchval(f"SELECT version FROM {quoted(schema)}.schema_version")
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"{where} was written by a newer holdfast (schema {version}, this one knows {len(MIGRATIONS)}): upgrade holdfast; "
            "the database was left untouched"
        )
    return version


async def migrate(connection: asyncpg.Connection, schema: str, where: str) -> None:
    """Bring the tables up to date, each migration in a transaction of its own. For the holder of the lock. Raises as `version_of`."""
    version = await version_of(connection, schema, where)
    if version == 0:
        # Not CREATE ... IF NOT EXISTS alone: a role that owns its schema needs no right to create others.
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)", schema):
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        versions = f"{quoted(schema)}.schema_version"
        await connection.execute(f"CREATE TABLE {versions} (version integer NOT NULL); INSERT INTO {versions} VALUES (0)")
    for number in range(version, len(MIGRATIONS)):
        script = MIGRATIONS[number].replace("{schema}", quoted(schema))
        await connection.execute(f"BEGIN; {script} UPDATE {quoted(schema)}.schema_version SET version = {number + 1}; COMMIT")
