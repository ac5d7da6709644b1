"""Rows of the Postgres tables: columns, their types, and functions from records to rows; stores.rows has those from rows to records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.stores.records import Checkpoint, DeadLetter, Message, Session, rank
from holdfast.stores.rows import encode
from holdfast.stores.rows import letter_of as read_letter
from holdfast.stores.tables import StepRow

_TYPES = {
    "text": ("id", "session", "agent", "tenant", "user", "status", "parent", "reason", "kind", "context", "message"),
    "bytea": (
        *("budget", "usage", "seed", "parent_at", "park", "gates", "notes", "result", "body", "digest", "reply_to", "reply"),
        *("key", "cause", "effects", "in_doubt", "failed", "returns", "also"),
    ),
    "bigint": ("num", "epoch", "turn", "pending", "crashes", "crash_mark", "seq", "version", "fingerprint"),
    "smallint": ("rank",),
    "boolean": ("detached", "dropped"),
    "double precision": ("wake_at", "created", "updated", "done", "started", "ended"),
}
_TYPE_OF = {column: type for type, columns in _TYPES.items() for column in columns}

SESSIONS = (
    *("num", "id", "agent", "tenant", "user", "status", "epoch", "turn", "pending", "budget", "usage", "seed", "parent", "parent_at"),
    *("detached", "park", "reason", "wake_at", "gates", "notes", "result", "crashes", "crash_mark", "created", "updated", "rank"),
    "returns",
)
MESSAGES = ("seq", "session", "id", "body", "digest", "kind", "reply_to", "state", "reply", "created", "done", "context", "also")
STEPS = ("num", "session", "turn", "key", "state", "body")
TURNS = ("session", "turn", "state", "version", "message", "started", "ended", "usage", "dropped", "fingerprint")
LETTERS = ("session", "turn", "message", "cause", "effects", "created", "in_doubt", "failed")

Values = tuple[Any, ...]


def type_of(table: str, column: str) -> str:
    """The SQL type of a column; `state` is a number of a message and a step, and bytes of a turn."""
    if column == "state":
        return "bytea" if table == "turns" else "smallint"
    return _TYPE_OF[column]


def columns(names: str | Sequence[str], table: str = "") -> str:
    """Column names quoted for SQL (`user` is a reserved word), each qualified with `table` if given."""
    split = names.split(", ") if isinstance(names, str) else names
    return ", ".join(f'{table}."{name}"' if table else f'"{name}"' for name in split)


def session_values(session: Session, num: int, crash_mark: int | None) -> Values:
    park, parent = session.park or session.unresolved, session.parent
    return (
        num,
        session.id,
        session.agent,
        session.tenant,
        session.user,
        session.status,
        session.epoch,
        session.turn,
        session.pending,
        encode(session.budget),
        encode(session.usage),
        session.seed,
        None if parent is None else parent.session,
        None if parent is None else encode(parent),
        session.detached,
        None if park is None else encode(park),
        None if park is None else park.reason,
        None if park is None else park.until,
        session.gates,
        encode(session.notes),
        session.result,
        session.crashes,
        crash_mark,
        session.created,
        session.updated,
        rank(session),
        encode(session.returns),
    )


def message_values(message: Message) -> Values:
    return (
        message.seq,
        message.session,
        message.id,
        message.body,
        message.digest,
        message.kind,
        None if message.reply_to is None else encode(message.reply_to),
        int(message.state),
        message.reply,
        message.created,
        message.done,
        message.context,
        encode(message.also) if message.also else None,
    )


def step_values(session: str, turn: int, key: bytes, row: StepRow) -> Values:
    return row.order, session, turn, key, int(row.state), row.body


def checkpoint_values(session: str, made: Checkpoint) -> Values:
    return (
        session,
        made.turn,
        made.state,
        made.version,
        made.message,
        made.started,
        made.ended,
        encode(made.usage),
        made.dropped,
        made.fingerprint,
    )


def letter_values(letter: DeadLetter) -> Values:
    # The cause is an exception's text, which may hold what a Postgres text cannot (a zero byte).
    return (
        letter.session,
        letter.turn,
        letter.message,
        letter.cause.encode(errors="replace"),
        encode(letter.effects),
        letter.created,
        encode(letter.in_doubt),
        encode(letter.failed),
    )


def letter_of(row: Sequence[Any]) -> DeadLetter:
    session, turn, message, cause, effects, created, in_doubt, failed = row
    return read_letter((session, message, turn, cause.decode(errors="replace"), effects, created, in_doubt, failed))
