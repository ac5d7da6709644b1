"""Rows of the SQLite tables as records: the columns to select, and functions from rows to records."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from holdfast.policies.budget import ZERO, Budget, Usage
from holdfast.stores import marks
from holdfast.stores.records import (
    ENDED,
    Address,
    Checkpoint,
    DeadLetter,
    Message,
    MessageState,
    Outcome,
    Park,
    Returns,
    Runnable,
    Session,
    Step,
)
from holdfast.stores.unreadable import read, read_step

encode = msgspec.msgpack.Encoder().encode
decode_usage = msgspec.msgpack.Decoder(Usage).decode
decode_budget = lru_cache(1024)(msgspec.msgpack.Decoder(Budget).decode)  # it checks its limits, and most sessions have those of their agent
decode_address = msgspec.msgpack.Decoder(Address).decode
decode_returns = msgspec.msgpack.Decoder(Returns).decode
decode_park = msgspec.msgpack.Decoder(Park).decode
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
decode_texts = msgspec.msgpack.Decoder(tuple[str, ...]).decode

_NO_RETURNS = Returns()  # that of most sessions
_NONE = encode(_NO_RETURNS)

SESSION = (
    "id, agent, tenant, user, status, epoch, turn, pending, budget, usage, seed, parent_at, detached, park, wake_at, gates, notes, "
    "result, crashes, created, updated, returns"
)
MESSAGE = "seq, session, id, body, digest, kind, reply_to, state, reply, created, done, context"
STEP = "turn, key, state, body"
CHECKPOINT = "turn, state, version, message, started, ended, usage, dropped"
LETTER = "session, message, turn, cause, effects, created, in_doubt, failed"


def charges(steps: str) -> str:
    """The last columns of a Runnable, of a session in a table `s`; `steps` is the table of steps."""
    return f"crashes, crash_mark, CASE WHEN crashes > 0 THEN (SELECT count(*) FROM {steps} WHERE session = s.id AND turn = s.turn + 1) END"


def session_of(row: Sequence[Any]) -> Session:
    park: Park | None = None
    if row[13] is not None:
        park = msgspec.structs.replace(decode_park(row[13]), until=row[14])
    return Session(
        id=row[0],
        agent=row[1],
        tenant=row[2],
        user=row[3],
        status=row[4],
        epoch=row[5],
        turn=row[6],
        pending=row[7],
        budget=decode_budget(row[8]),
        usage=decode_usage(row[9]),
        seed=row[10],
        parent=None if row[11] is None else decode_address(row[11]),
        detached=bool(row[12]),
        park=None if row[4] in ENDED else park,
        gates=row[15],
        notes=decode_texts(row[16]),
        result=row[17],
        crashes=row[18],
        created=row[19],
        updated=row[20],
        unresolved=park if row[4] in ENDED else None,
        returns=_NO_RETURNS if row[21] == _NONE else decode_returns(row[21]),
    )


def runnable_of(row: Sequence[Any]) -> Runnable:
    id, wake_at, stored, crashes, mark, records = row
    park = Park("", "")
    if stored is not None:
        park, _ = read(lambda: decode_park(stored), park)  # the activation reports a park that does not decode
    return Runnable(id, wake_at, park.waits_on, park.since, *(marks.charges(crashes, mark, records) if crashes else ()))


def message_of(row: Sequence[Any]) -> Message:
    reply_to, unreadable = (None, "") if row[6] is None else read(lambda: decode_address(row[6]), None)
    return Message(
        seq=row[0],
        session=row[1],
        id=row[2],
        body=row[3],
        digest=row[4],
        kind=row[5],
        reply_to=reply_to,
        state=MessageState(row[7]),
        reply=row[8],
        created=row[9],
        done=row[10],
        context=row[11],
        unreadable=unreadable,
    )


def step_of(row: Sequence[Any]) -> Step:
    return read_step(row[1], row[2], row[3], row[0])


def checkpoint_of(row: Sequence[Any]) -> Checkpoint:
    turn, state, version, message, started, ended, usage, dropped = row
    used, unreadable = read(lambda: decode_usage(usage), ZERO)
    return Checkpoint(turn, state, version, message, started, ended, used, bool(dropped), unreadable)


def letter_of(row: Sequence[Any]) -> DeadLetter:
    session, message, turn, cause, effects, created, in_doubt, failed = row
    return DeadLetter(session, message, turn, cause, decode_texts(effects), created, decode_texts(in_doubt), decode_texts(failed))
