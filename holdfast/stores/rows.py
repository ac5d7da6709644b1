"""Rows of SQL tables as records, for every SQL store: the columns to select, and functions from rows to records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import inf, isfinite
from typing import Any

import msgspec

from holdfast.policies import stored
from holdfast.policies.budget import ZERO, Budget, Usage
from holdfast.policies.culprit import SUSPECT_FROM
from holdfast.stores import marks
from holdfast.stores.excerpt import left_out, outcome_left_out
from holdfast.stores.listed import MAX_ENDING, Listed, Place, listed
from holdfast.stores.records import (
    ENDED,
    Address,
    Checkpoint,
    DeadLetter,
    Message,
    MessageKind,
    MessageState,
    Outcome,
    Park,
    Returns,
    Runnable,
    Session,
    SessionStatus,
    Step,
)
from holdfast.stores.returns import Account
from holdfast.stores.unreadable import FAULTS, read, read_step

encode = msgspec.msgpack.Encoder().encode
decode_usage = msgspec.msgpack.Decoder(Usage).decode
decode_budget = lru_cache(1024)(stored.decode_budget)  # most sessions have the limits of their agent
decode_address = msgspec.msgpack.Decoder(Address).decode
decode_returns = msgspec.msgpack.Decoder(Returns).decode
decode_park = msgspec.msgpack.Decoder(Park).decode
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
decode_addresses = msgspec.msgpack.Decoder(tuple[Address, ...]).decode
decode_texts = msgspec.msgpack.Decoder(tuple[str, ...]).decode

_NO_RETURNS = Returns()  # that of most sessions
_NONE = encode(_NO_RETURNS)
_NO_BUDGET = Budget()

SESSION = (
    "id, agent, tenant, user, status, epoch, turn, pending, budget, usage, seed, parent_at, detached, park, wake_at, gates, notes, "
    "result, crashes, created, updated, returns"
)
_NAMES = SESSION.split(", ")
MESSAGE = "seq, session, id, body, digest, kind, reply_to, state, reply, created, done, context, also"
STEP = "turn, key, state, body"
CHECKPOINT = "turn, state, version, message, started, ended, usage, dropped, fingerprint"
LETTER = "session, message, turn, cause, effects, created, in_doubt, failed"


def qualified(columns: str, table: str) -> str:
    """Columns with the name of their table."""
    return ", ".join(f"{table}.{column}" for column in columns.split(", "))


_convert = msgspec.convert


def listed_columns(empty_array: str, empty_map: str) -> str:
    """The columns of a Listed, in the SQL of a store that spells these two MessagePack values so. The last ones are only checked."""
    ending = f"CASE WHEN status IN ('cancelled', 'killed') AND length(result) <= {MAX_ENDING} THEN result END"
    checked = f"parent_at, CASE WHEN notes <> {empty_array} THEN notes END, CASE WHEN returns <> {empty_map} THEN returns END"
    return f"num, id, agent, tenant, status, turn, pending, budget, usage, park, wake_at, updated, rank, {ending}, {checked}"


def _checked(*types: Any) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """The cells of a row, checked against the types of its columns. It raises ValidationError where one is of another type.

    msgspec works out a tuple type again for each row (10 µs for a session's), and a Struct once.
    """
    cells = msgspec.defstruct("Cells", [(f"cell_{at}", type_) for at, type_ in enumerate(types)], array_like=True, gc=False)
    return lambda row: msgspec.structs.astuple(_convert(tuple(row), cells))


_SESSION_TYPES: Any = (
    str, str, str, str, SessionStatus, int, int, int, bytes, bytes, bytes, bytes | None, int | bool, bytes | None, float | None, bytes,
    bytes, bytes | None, int, float, float, bytes,
)  # fmt: skip
_session_cells = _checked(*_SESSION_TYPES)


def charges(steps: str) -> str:
    """The last columns of a Runnable, of a session in a table `s`; `steps` is the table of steps."""
    records = f"SELECT count(*) FROM {steps} WHERE session = s.id AND turn = s.turn + 1"
    return f"crashes, crash_mark, CASE WHEN crashes >= {SUSPECT_FROM} THEN ({records}) END"


def session_of(row: Sequence[Any]) -> Session:
    """A session's row; one with columns that do not decode as a stand-in with the reason."""
    try:
        return _session(_session_cells(row[: len(_NAMES)]))  # a list may select more
    except FAULTS:
        return _stand_in(row)


def _session(row: Sequence[Any]) -> Session:
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
        usage=_usage(row[9]),
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


_listed_cells = _checked(
    int, str, str, str, SessionStatus, int, int, bytes, bytes, bytes | None, float | None, float, int, bytes | None, bytes | None,
    bytes | None, bytes | None,
)  # fmt: skip


def listed_of(row: Sequence[Any]) -> Listed | None:
    """A row of `listed_columns`; None where one of them does not decode: the whole row has the reason, see `listed_stand_in`."""
    try:
        (
            num, id, agent, tenant, status, turn, pending, budget, usage, parked, wake_at, updated, rank, ending, parent, notes, returns,
        ) = _listed_cells(row)  # fmt: skip
        park = None if parked is None else msgspec.structs.replace(decode_park(parked), until=wake_at)
        if parent is not None:
            decode_address(parent)
        if notes is not None:
            decode_texts(notes)
        if returns is not None:
            decode_returns(returns)
        over = status in ENDED
        return Listed(
            id, agent, tenant, status, turn, pending, decode_budget(budget), _usage(usage),
            None if over else park, park if over else None, updated, ending, Place(rank, updated, num),
        )  # fmt: skip
    except FAULTS:
        return None


def listed_stand_in(whole: Sequence[Any], row: Sequence[Any]) -> Listed:
    """The row of a list where `row` does not decode, from the columns SESSION of the `whole` row."""
    updated = row[11] if isinstance(row[11], float) else inf  # SQLite sorts what is no number as the latest
    return listed(session_of(whole), Place(row[12], updated, row[0]))


def _stand_in(row: Sequence[Any]) -> Session:
    """A row of which some columns do not decode: each by itself, with an empty value where it does not."""
    bad: list[str] = []

    def cell(at: int, decode: Callable[[Any], Any], instead: Any) -> Any:
        value, why = read(lambda: decode(_convert(row[at], _SESSION_TYPES[at])), instead)
        if why:
            bad.append(f"{_NAMES[at]} ({why})")
        return value

    def optional(at: int, decode: Callable[[bytes], Any]) -> Any:
        return cell(at, lambda value: None if value is None else decode(value), None)

    status = cell(4, _same, "parked")
    session = Session(
        id=cell(0, _same, repr(row[0])),
        agent=cell(1, _same, ""),
        tenant=cell(2, _same, ""),
        user=cell(3, _same, ""),
        status=status,
        epoch=cell(5, _same, 0),
        turn=cell(6, _same, 0),
        pending=cell(7, _same, 0),
        budget=cell(8, decode_budget, _NO_BUDGET),
        usage=cell(9, _usage, ZERO),
        seed=cell(10, _same, b""),
        parent=optional(11, decode_address),
        detached=cell(12, bool, True),
        gates=cell(15, _same, b""),
        notes=cell(16, decode_texts, ()),
        result=cell(17, _same, None),
        crashes=cell(18, _same, 0),
        created=cell(19, _same, 0.0),
        updated=cell(20, _same, 0.0),
        returns=cell(21, decode_returns, _NO_RETURNS),
    )
    optional(13, decode_park)
    cell(14, _same, None)
    why = f"its row does not decode: {', '.join(bad)}"
    park = Park("state", f"{why}; restore it from a backup, then start again")
    if status in ENDED:
        return msgspec.structs.replace(session, unreadable=why, unresolved=park)
    return msgspec.structs.replace(session, unreadable=why, status="parked", park=park)


def _same(value: Any) -> Any:
    return value


def _usage(data: bytes) -> Usage:
    usage = decode_usage(data)
    if not isfinite(usage.seconds):
        raise ValueError(f"seconds is {usage.seconds}")
    return usage


def turn_of(address: bytes) -> int | None:
    """The turn of an address; None where it does not decode."""
    return read(lambda: decode_address(address).turn, None)[0]


def reason_of(park: bytes) -> str:
    """The reason of a park; "state" where it does not decode."""
    return read(lambda: decode_park(park).reason, "state")[0]


def runnable_of(row: Sequence[Any]) -> Runnable:
    id, wake_at, parked, crashes, mark, records = row
    if not isinstance(wake_at, int | float) or not isfinite(wake_at):
        wake_at = None
    park = Park("", "")
    if parked is not None:
        park, _ = read(lambda: decode_park(parked), park)  # the activation reports a park that does not decode
    return Runnable(id, wake_at, park.waits_on, park.since, *marks.charges(crashes, mark, records))


_MESSAGE_TYPES: Any = (
    int, str, str, bytes, bytes, MessageKind, bytes | None, MessageState, bytes | None, float, float | None, str, bytes | None,
)  # fmt: skip
_message_cells = _checked(*_MESSAGE_TYPES)


def message_of(row: Sequence[Any]) -> Message:
    """A message's row; one with a column that does not decode as a stand-in with the reason."""
    try:
        cells = _message_cells(row)
    except FAULTS as error:
        state = row[7] if row[7] in set(MessageState) else MessageState.QUEUED
        seq = row[0] if isinstance(row[0], int) else 0
        cells = (seq, str(row[1]), str(row[2]), b"", b"", "message", None, state, None, 0.0, None, "", None)
        why = str(error)
    else:
        why = ""
    reply_to, unreadable = (None, why) if cells[6] is None else read(lambda: decode_address(cells[6]), None)
    none: tuple[Address, ...] = ()
    also, odd = (none, "") if cells[12] is None else read(lambda: decode_addresses(cells[12]), none)
    return Message(
        seq=cells[0],
        session=cells[1],
        id=cells[2],
        body=cells[3],
        digest=cells[4],
        kind=cells[5],
        reply_to=reply_to,
        state=MessageState(cells[7]),
        reply=cells[8],
        created=cells[9],
        done=cells[10],
        context=cells[11],
        unreadable=unreadable or odd,
        also=also,
    )


ACCOUNT = "budget, usage, returns"


def account_of(row: Sequence[Any]) -> Account:
    """The account of a session from id, parent, depth and ACCOUNT; a cell that does not decode counts nothing."""
    id, parent, depth, budget, usage, returns = row
    limits, _ = read(lambda: decode_budget(budget), _NO_BUDGET)
    used, _ = read(lambda: _usage(usage), ZERO)
    back, _ = read(lambda: decode_returns(returns), _NO_RETURNS)
    return Account(str(id), str(parent), depth, limits, used, back)


def brief_messages(most: int | None) -> str:
    """The columns of `brief_message_of`, without values over `most` bytes; None is no limit."""
    return f"{MESSAGE.replace(' body,', _within('body', most)).replace(' reply,', _within('reply', most))}, length(body), length(reply)"


def brief_message_of(row: Sequence[Any]) -> Message:
    """As `message_of`; what stands for a value that was left out in its place."""
    *cells, body, reply = row
    if cells[3] is None and body is not None:
        cells[3] = left_out(body)
    if cells[8] is None and reply is not None:
        cells[8] = outcome_left_out(reply)
    return message_of(cells)


def _within(column: str, most: int | None) -> str:
    return f" CASE WHEN length({column}) <= {most} THEN {column} END," if most is not None else f" {column},"


def step_of(turn: int, key: Any, state: int, body: bytes) -> Step:
    """The columns of a step's row."""
    return read_step(key if isinstance(key, bytes) else str(key).encode(errors="replace"), state, body, turn)


_checkpoint_cells = _checked(int, bytes, int, str | None, float, float, bytes, int | bool, int)


def checkpoint_of(row: Sequence[Any]) -> Checkpoint:
    """The row of a turn; one with a column that does not decode as a stand-in with the reason."""
    try:
        turn, state, version, message, started, ended, usage, dropped, fingerprint = _checkpoint_cells(row)
    except FAULTS as error:
        return Checkpoint(row[0], b"", 0, unreadable=str(error))
    used, unreadable = read(lambda: _usage(usage), ZERO)
    return Checkpoint(turn, state, version, message, started, ended, used, bool(dropped), unreadable, fingerprint)


def brief_checkpoints(most: int | None) -> str:
    """The columns of `brief_checkpoint_of`, without states over `most` bytes; None is no limit."""
    return f"{CHECKPOINT.replace(' state,', _within('state', most))}, length(state)"


def brief_checkpoint_of(row: Sequence[Any]) -> Checkpoint:
    """As `checkpoint_of`; what stands for a state that was left out in its place."""
    *cells, size = row
    if cells[1] is None and size is not None:
        cells[1] = left_out(size)
    return checkpoint_of(cells)


def letter_of(row: Sequence[Any]) -> DeadLetter:
    session, message, turn, cause, effects, created, in_doubt, failed = row
    none: tuple[str, ...] = ()
    lists, why = read(lambda: (decode_texts(effects), decode_texts(in_doubt), decode_texts(failed)), (none, none, none))
    cause = f"{cause} (the lists of its effects do not decode: {why})" if why else str(cause)
    created = created if isinstance(created, int | float) else 0.0
    return DeadLetter(session, message, turn, cause, lists[0], created, lists[1], lists[2])
