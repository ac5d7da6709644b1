"""The tables, as migrations that run forward. A database newer than this list is refused untouched."""

from __future__ import annotations

import sqlite3

from holdfast.errors import SchemaTooNew, StoreError
from holdfast.stores.rows import reason_of, turn_of

APPLICATION_ID = 0x686F6C64  # "hold", in the file's header: tells our file from any other SQLite database

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE schema_version (version INTEGER NOT NULL);
    INSERT INTO schema_version VALUES (0);
    CREATE TABLE nodes (id INTEGER PRIMARY KEY, clean INTEGER NOT NULL);
    CREATE TABLE sessions (
        num INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        agent TEXT NOT NULL,
        tenant TEXT NOT NULL,
        user TEXT NOT NULL,
        status TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        pending INTEGER NOT NULL,
        budget BLOB NOT NULL,
        usage BLOB NOT NULL,
        seed BLOB NOT NULL,
        parent TEXT,
        parent_at BLOB,
        detached INTEGER NOT NULL,
        park BLOB,
        wake_at REAL,
        gates BLOB NOT NULL,
        notes BLOB NOT NULL,
        result BLOB,
        crashes INTEGER NOT NULL,
        crash_mark INTEGER NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL
    );
    CREATE INDEX sessions_by_status ON sessions (status, updated);
    CREATE INDEX sessions_pending ON sessions (num) WHERE pending > 0;
    CREATE INDEX sessions_by_parent ON sessions (parent) WHERE parent IS NOT NULL;
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        session TEXT NOT NULL,
        id TEXT NOT NULL,
        body BLOB NOT NULL,
        digest BLOB NOT NULL,
        kind TEXT NOT NULL,
        reply_to BLOB,
        state INTEGER NOT NULL,
        reply BLOB,
        created REAL NOT NULL,
        done REAL,
        UNIQUE (session, id)
    );
    CREATE INDEX messages_queued ON messages (session, seq) WHERE state = 1;
    CREATE TABLE steps (
        session TEXT NOT NULL,
        turn INTEGER NOT NULL,
        key BLOB NOT NULL,
        state INTEGER NOT NULL,
        body BLOB NOT NULL,
        UNIQUE (session, turn, key)
    );
    CREATE TABLE turns (
        session TEXT NOT NULL,
        turn INTEGER NOT NULL,
        state BLOB NOT NULL,
        version INTEGER NOT NULL,
        message TEXT,
        started REAL NOT NULL,
        ended REAL NOT NULL,
        usage BLOB NOT NULL,
        UNIQUE (session, turn)
    );
    CREATE TABLE dead_letters (
        session TEXT NOT NULL,
        message TEXT NOT NULL,
        turn INTEGER NOT NULL,
        cause TEXT NOT NULL,
        effects BLOB NOT NULL,
        created REAL NOT NULL,
        UNIQUE (session, turn)
    );
    """,
    # `rank` is records.rank, computed from the row and stored in the index alone, so that a list for people reads no more rows than it
    # shows. The index also covers counts(). A new park reason that asks a person needs a migration of it.
    """
    ALTER TABLE nodes ADD COLUMN touched INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN context TEXT NOT NULL DEFAULT '';
    ALTER TABLE sessions ADD COLUMN reason TEXT;
    UPDATE sessions SET reason = park_reason(park) WHERE park IS NOT NULL;
    ALTER TABLE sessions ADD COLUMN rank INTEGER AS (
        CASE status
            WHEN 'failed' THEN 0
            WHEN 'parked' THEN
                CASE WHEN reason IN ('doubt', 'budget', 'drift', 'unclaimed', 'state', 'crashes') THEN 1 ELSE 2 END
            WHEN 'idle' THEN CASE WHEN pending > 0 THEN 3 ELSE 5 END
            WHEN 'unfinished' THEN CASE WHEN pending > 0 THEN 3 ELSE 4 END
            ELSE 6
        END
    ) VIRTUAL;
    DROP INDEX sessions_by_status;
    CREATE INDEX sessions_for_people ON sessions (rank, updated DESC, num DESC, status);
    """,
    # An ended session that left a doubt behind ranks with the parked ones that need a person. A virtual column takes no room in the rows,
    # so making it anew rewrites none.
    """
    DROP INDEX sessions_for_people;
    ALTER TABLE sessions DROP COLUMN rank;
    ALTER TABLE sessions ADD COLUMN rank INTEGER AS (
        CASE status
            WHEN 'failed' THEN 0
            WHEN 'parked' THEN
                CASE WHEN reason IN ('doubt', 'budget', 'drift', 'unclaimed', 'state', 'crashes') THEN 1 ELSE 2 END
            WHEN 'idle' THEN CASE WHEN pending > 0 THEN 3 ELSE 5 END
            WHEN 'unfinished' THEN CASE WHEN pending > 0 THEN 3 ELSE 4 END
            ELSE CASE WHEN reason = 'doubt' THEN 1 ELSE 6 END
        END
    ) VIRTUAL;
    CREATE INDEX sessions_for_people ON sessions (rank, updated DESC, num DESC, status);
    ALTER TABLE sessions ADD COLUMN parent_turn INTEGER;
    UPDATE sessions SET parent_turn = parent_turn(parent_at) WHERE parent_at IS NOT NULL;
    ALTER TABLE dead_letters ADD COLUMN in_doubt BLOB NOT NULL DEFAULT x'90';
    ALTER TABLE dead_letters ADD COLUMN failed BLOB NOT NULL DEFAULT x'90';
    ALTER TABLE turns ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX turns_dropped ON turns (session, turn) WHERE dropped;
    """,
    # An empty records.Returns. Budget returned to a session that had ended before this version stays there.
    """
    ALTER TABLE sessions ADD COLUMN returns BLOB NOT NULL DEFAULT x'80';
    """,
    # The steps become a log (log.py).
    """
    ALTER TABLE nodes ADD COLUMN steps_from INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sessions ADD COLUMN last_step INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE turns ADD COLUMN last_step INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE log (
        num INTEGER PRIMARY KEY,
        session TEXT NOT NULL,
        turn INTEGER NOT NULL,
        key BLOB NOT NULL,
        state INTEGER NOT NULL,
        body BLOB NOT NULL,
        prev INTEGER NOT NULL
    );
    INSERT INTO log
        SELECT rowid, session, turn, key, state, body, ifnull(lag(rowid) OVER (PARTITION BY session, turn ORDER BY rowid), 0) FROM steps;
    UPDATE turns SET last_step = ifnull((SELECT max(rowid) FROM steps s WHERE s.session = turns.session AND s.turn = turns.turn), 0);
    UPDATE sessions SET last_step = ifnull((SELECT max(rowid) FROM steps s WHERE s.session = id AND s.turn = sessions.turn + 1), 0);
    UPDATE nodes SET steps_from = ifnull((SELECT max(num) FROM log), 0);
    DROP TABLE steps;
    ALTER TABLE log RENAME TO steps;
    """,
    # The other steps that wait for the answer to a message: they asked with its id.
    """
    ALTER TABLE messages ADD COLUMN also BLOB;
    """,
    # A session whose dependency a person has to repair needs a person.
    """
    DROP INDEX sessions_for_people;
    ALTER TABLE sessions DROP COLUMN rank;
    ALTER TABLE sessions ADD COLUMN rank INTEGER AS (
        CASE status
            WHEN 'failed' THEN 0
            WHEN 'parked' THEN
                CASE WHEN reason IN ('doubt', 'budget', 'drift', 'unclaimed', 'state', 'crashes', 'repair') THEN 1 ELSE 2 END
            WHEN 'idle' THEN CASE WHEN pending > 0 THEN 3 ELSE 5 END
            WHEN 'unfinished' THEN CASE WHEN pending > 0 THEN 3 ELSE 4 END
            ELSE CASE WHEN reason = 'doubt' THEN 1 ELSE 6 END
        END
    ) VIRTUAL;
    CREATE INDEX sessions_for_people ON sessions (rank, updated DESC, num DESC, status);
    """,
    # The fingerprint of the state's type; 0 is one that is not known.
    """
    ALTER TABLE turns ADD COLUMN fingerprint INTEGER NOT NULL DEFAULT 0;
    """,
)


def check(connection: sqlite3.Connection, path: str) -> int:
    """The file's schema version; 0 for an empty file.

    Raises:
        SchemaTooNew: written by a newer holdfast.
        StoreError: not a holdfast database.
    """
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error  # rights, the disk, a lock
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is not a SQLite database ({error}): name another file") from error
    if not tables and application in (0, APPLICATION_ID):
        return 0
    if application != APPLICATION_ID or "schema_version" not in tables:
        raise StoreError(f"{path} is a database of another program: name another file")
    version: int = connection.execute("SELECT version FROM schema_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"{path} was written by a newer holdfast (schema {version}, this one knows {len(MIGRATIONS)}): upgrade holdfast; "
            "the file was left untouched"
        )
    return version


def check_readable(connection: sqlite3.Connection, path: str) -> None:
    """Check that the file can be read without a migration. Raises as `check`, and StoreError where it needs a migration first."""
    version = check(connection, path)
    if version < len(MIGRATIONS):
        raise StoreError(
            f"{path} cannot be read yet (schema {version}, this holdfast reads {len(MIGRATIONS)}): start it once with holdfast run"
        )


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the schema up to date, each migration in a transaction of its own. Raises as `check`."""
    version = check(connection, path)
    connection.create_function("park_reason", 1, reason_of, deterministic=True)
    connection.create_function("parent_turn", 1, turn_of, deterministic=True)
    for number in range(version, len(MIGRATIONS)):
        script = MIGRATIONS[number]
        finish = f"UPDATE schema_version SET version = {number + 1}; PRAGMA application_id = {APPLICATION_ID};"
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {script} {finish} COMMIT;")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.rollback()
            raise StoreError(f"migration {number + 1} of {path} failed, nothing was changed: {error}") from error
