"""Two independent stores, the same ops: any sequence of batches gives the same results and leaves the same rows.

The memory store is the oracle. Sequences hold what a correct runtime would write, and also stale epochs, unknown sessions,
refusals, outboxes, and ops that no store can apply.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import NotWritten
from holdfast.policies.budget import Budget, Usage
from holdfast.stores.listed import Filter, Listed
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.ops import (
    Activate,
    CommitTurn,
    CreateSession,
    DropLetter,
    DropSteps,
    EndSession,
    Enqueue,
    FailTurn,
    Op,
    Reply,
    Result,
    RetryLetter,
    ReturnBudget,
    Rewind,
    UpdateSession,
    WriteStep,
)
from holdfast.stores.postgres.store import PostgresStore
from holdfast.stores.protocol import Store
from holdfast.stores.records import DISPLAY_STATUSES, ENDED, Address, Failure, Outcome, Park, Session, SessionStatus, StepRecord, StepState
from holdfast.stores.sqlite.store import SqliteStore
from tests.postgres_server import empty_store

pytestmark = pytest.mark.anyio

encode = msgspec.msgpack.encode
SESSIONS = ("a", "b", "c")
OUTCOMES = (encode(Outcome(encode(7))), encode(Outcome(failure=Failure("TurnFailed", "s", "T", "m"))), encode(Outcome()))
KEYS = (b"k0", b"k1", b"k2", b"k3")
USAGES = (Usage(), Usage(steps=1), Usage(2, 300, 45, 0.125, 1), Usage(seconds=3.5))
KEPT = (None, Park("doubt", "?", 60.0), Park("unclaimed", "?"), Park("doubt", "which?", None, (), (b"k0",)))
PARKS = (Park("wait", "waits"), Park("wait", "waits", 90.0, ("a",)), Park("doubt", "?"), Park("breaker", "open", 70.0))
BUDGETS = (Budget(), Budget(steps=3, seconds=1.5), Budget(usd="0.05"), Budget(tokens=9, tool_calls=0))  # type: ignore[arg-type]
STATUSES: tuple[SessionStatus, ...] = ("idle", "idle", "unfinished", "finished")
UPDATES: tuple[SessionStatus | None, ...] = (None, "parked", "idle", "parked")


class Draw(NamedTuple):
    """One op before it is known which epoch and turn are current. `lag` is how far behind its epoch is, `late` its turn."""

    kind: str
    session: str
    lag: int
    late: int
    x: int
    y: int
    outbox: tuple[Draw, ...] = ()


class View(NamedTuple):
    """What an op is built from: its draw, the session as it stood before the batch, its epoch by then, the time, its outbox."""

    draw: Draw
    epoch: int
    turn: int
    now: float
    status: SessionStatus
    outbox: tuple[Op, ...]

    @property
    def other(self) -> Address:
        """A step of the open turn, which may wait, of some session."""
        return Address(SESSIONS[self.draw.y % 2], 2 if self.draw.x == 3 else 1, KEYS[self.draw.y % 2])


def _record(view: View) -> bytes:
    x, y = view.draw.x, view.draw.y
    more: dict[str, Any] = {"cut": x == 1, "deadline": 2.5 * y, "strayed": y == 2}
    return encode(StepRecord("tool", f"t{x}", "", b"d", y, "once", opened=view.now, reserved=USAGES[x], **more))


def _create(v: View) -> Op:
    parent = v.other if v.draw.x else None
    state = b"state%d" % v.draw.x
    return CreateSession(v.draw.session, "agent", "t", "u", 1, state, BUDGETS[v.draw.y], b"seed", v.now, parent, v.draw.lag == 1)


def _enqueue(v: View) -> Op:
    x, y = v.draw.x, v.draw.y
    to = None if y == 0 else v.other
    return Enqueue(v.draw.session, f"m{x}", b"body", b"same" if y else b"d%d" % v.draw.lag, v.now, "message", to, (None, 9, 1, 2)[y])


def _commit(v: View) -> Op:
    x, y = v.draw.x, v.draw.y
    s, usage, result = v.draw.session, USAGES[y], OUTCOMES[y % 2] if STATUSES[x] == "finished" else None
    rest = OUTCOMES[1] if result else None
    message, state, version, gates = f"m{y}", b"state-%d" % x, 1 + y, b"g" * y
    return CommitTurn(
        s,
        v.epoch,
        v.turn,
        message,
        state,
        version,
        OUTCOMES[0],
        STATUSES[x],
        usage,
        v.now - 0.5,
        v.now,
        gates,
        result,
        rest,
        v.outbox,
    )


def _update(v: View) -> Op:
    x, y = v.draw.x, v.draw.y
    park = PARKS[y] if UPDATES[x] == "parked" or x == y else None
    budget, gates = (BUDGETS[y], None) if y > 1 else (None, b"gates")
    return UpdateSession(v.draw.session, v.epoch, v.now, UPDATES[x], park, budget, gates, settled=x == 3)


def _fail(v: View) -> Op:
    x, y = v.draw.x, v.draw.y
    effects, in_doubt, failed = ("e1", "e2")[:y], ("d1", "d2")[x:], ("f1",) * (y == 2)
    return FailTurn(v.draw.session, v.epoch, v.turn, f"m{x}", "cause", effects, OUTCOMES[1], v.now, v.outbox, in_doubt, failed)


BUILD: dict[str, Callable[[View], Op]] = {
    "create": _create,
    "enqueue": _enqueue,
    "watch": lambda v: Enqueue(v.draw.session, f"w{v.draw.x}", b"", b"", v.now, "watch", v.other),
    "activate": lambda v: Activate(v.draw.session, v.now, count_crash=v.draw.x > 1),
    "step": lambda v: WriteStep(
        v.draw.session, v.epoch, v.turn, KEYS[v.draw.x], StepState(1 + (v.draw.y + v.draw.x) % 5), _record(v), v.outbox
    ),
    "wait": lambda v: WriteStep(v.draw.session, v.epoch, v.turn, KEYS[v.draw.y % 2], StepState.WAITING, _record(v)),
    "drop steps": lambda v: DropSteps(v.draw.session, v.epoch, v.turn, KEYS[v.draw.x : v.draw.x + 2], USAGES[v.draw.y]),
    "commit": _commit,
    "fail": _fail,
    "retry": lambda v: RetryLetter(v.draw.session, v.epoch, v.now),
    "drop": lambda v: DropLetter(v.draw.session, v.epoch, USAGES[v.draw.y], v.now),
    "rewind": lambda v: Rewind(v.draw.session, v.epoch, v.turn, b"\x05", 1, v.draw.x, ("e1",) * v.draw.y, v.now),
    "update": _update,
    "reply": lambda v: Reply(v.other, OUTCOMES[v.draw.x % 3], v.now),
    "malformed": lambda v: Reply(v.other, b"\xc1", v.now),
    "return": lambda v: ReturnBudget(v.other.session, v.draw.session, USAGES[v.draw.x] - USAGES[v.draw.lag]),
    "end": lambda v: EndSession(
        v.draw.session, "killed" if v.draw.x else "cancelled", OUTCOMES[v.draw.y % 2], v.now, v.outbox, KEPT[v.draw.y]
    ),
    "settle": lambda v: UpdateSession(v.draw.session, v.epoch, v.now, v.status),
}
OF_THE_LIVING = ("commit", "retry", "rewind", "update")
OF_A_TURN = ("step", "wait", "drop steps")
SENT = ("enqueue", "watch", "create", "reply", "return", "step", "wait")
COMMON = (
    "enqueue",
    "activate",
    "step",
    "wait",
    "wait",
    "commit",
    "fail",
    "letter",
    "update",
    "reply",
    "again",
    "asked twice",
    "dropped child",
    "line",
)


def _draws(kinds: st.SearchStrategy[str], outboxes: st.SearchStrategy[tuple[Draw, ...]]) -> st.SearchStrategy[Draw]:
    lags = st.sampled_from((0, 0, 0, 0, 0, 1, -1))
    lates = st.sampled_from((0, 0, 0, 0, 0, 0, 1, -1))
    small = st.integers(0, 3)
    return st.builds(Draw, kinds, st.sampled_from(SESSIONS), lags, lates, small, small, outboxes)


sent = st.lists(_draws(st.sampled_from(SENT), st.just(())), max_size=2).map(tuple)
draws = _draws(st.sampled_from((*BUILD, *COMMON, *COMMON)), sent)


def _spelled_out(draw: Draw) -> tuple[Draw, ...]:
    """What chance seldom puts together: a message, its failure, perhaps once more, and what becomes of its letter and of a child."""
    kinds: tuple[str, ...]
    if draw.kind == "letter":
        kinds = ("create", "enqueue", "activate", "fail", ("retry", "drop")[draw.x % 2])
    elif draw.kind == "again":
        kinds = ("create", "enqueue", "activate", "fail", *("end",) * (draw.y == 3), "activate", "fail")
    elif draw.kind == "asked twice":
        plain = draw._replace(lag=0, late=0, outbox=())
        waits = tuple(plain._replace(kind="wait", session=SESSIONS[y % 2], x=0, y=y) for y in (2, 1))
        asks = tuple(plain._replace(kind="enqueue", y=y) for y in (2, 1, 3)[: 2 + draw.y % 2])
        kind = ("commit", "fail", "end", "enqueue")[draw.y]
        return (plain._replace(kind="create"), plain._replace(kind="activate"), *waits, *asks, plain._replace(kind=kind, y=draw.x))
    elif draw.kind == "dropped child":
        kinds = ("create", "enqueue", "activate", "fail", "drop")
        child = draw._replace(kind="create", session=f"{draw.session}-child", lag=0, late=0, x=1, outbox=())
        return (child, *(draw._replace(kind=kind, lag=0, late=0) for kind in kinds))
    elif draw.kind == "line":
        child = draw._replace(kind="create", session="c", lag=0, x=1, y=1, outbox=())
        back = tuple(draw._replace(kind="return", session=id, y=at, outbox=()) for at, id in enumerate("bc"))
        ends = [each._replace(kind="end", lag=0, outbox=(each,)) for each in back]
        return (child, *(ends if draw.x % 2 else reversed(ends)), *back[: draw.y % 2])
    else:
        return (draw,)
    return tuple(draw._replace(kind=kind, lag=0, late=0) for kind in kinds)


batches = st.lists(st.lists(draws, min_size=1, max_size=7), min_size=6, max_size=16)


class Builder:
    """Turns draws into ops that name the epoch and the turn that are current, but for their lag."""

    def __init__(self, sessions: list[Session], messages: set[tuple[str, str]], letters: dict[str, str], number: int) -> None:
        self.letters = letters
        self.epochs = {s.id: s.epoch for s in sessions}
        self.turns = {s.id: s.turn + 1 for s in sessions}
        self.statuses = {s.id: s.status for s in sessions}
        self.messages = messages
        self.ticks = itertools.count(8 * number)

    def op(self, draw: Draw) -> Op:
        outbox = tuple(self.op(sent) for sent in draw.outbox)
        # Times are equal now and then, as they are on a coarse clock.
        now = 10.0 + next(self.ticks) // 2
        epoch = self.epochs.get(draw.session, 0)
        if draw.kind == "activate":
            self.epochs[draw.session] = epoch + 1
        if draw.kind == "end" and self.statuses.get(draw.session) not in ENDED:
            self.epochs[draw.session], self.statuses[draw.session] = epoch + 1, "killed"
        if draw.kind == "enqueue":
            self.messages.add((draw.session, f"m{draw.x}"))
        if draw.kind == "fail" and (draw.session, f"m{draw.x}") not in self.messages:
            # No turn without a message: a letter of a message that never arrived is nothing that could be retried.
            draw = draw._replace(kind="enqueue")
        if draw.kind == "fail" and self.letters.setdefault(draw.session, f"m{draw.x}") != f"m{draw.x}":
            draw = draw._replace(kind="enqueue")  # a session with a letter handles no other message before that is retried or dropped
        if draw.kind == "commit" and draw.session in self.letters:
            draw = draw._replace(kind="settle")
        if draw.kind in OF_THE_LIVING and self.statuses.get(draw.session) in ENDED:
            draw = draw._replace(kind="settle")  # its owner knows that it has ended: nothing brings it back
        if draw.kind == "commit" and STATUSES[draw.x] in ENDED:
            self.statuses[draw.session] = STATUSES[draw.x]
        turn = abs(self.turns.get(draw.session, 1) - draw.late) if draw.kind in OF_A_TURN else self.turns.get(draw.session, 1)
        status = self.statuses.get(draw.session, "idle")
        return BUILD[draw.kind](View(draw, abs(epoch - draw.lag), turn, now, status, outbox))


async def _rows(store: Store) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "sessions": _unnumbered(await store.sessions()),
        "living or in doubt": _unnumbered(await store.sessions(Filter(ended=False))),
        "by status": [_unnumbered(await store.sessions(Filter(status=status), limit=2)) for status in DISPLAY_STATUSES],
        "page by page": _unnumbered(await _paged(store)),
        "counts": await store.counts(),
        "orphans": await store.orphans(),
        "letters": await store.dead_letters(),
        "runnable": sorted(await store.runnable(), key=lambda r: r.id),
    }
    for session in await store.sessions():
        id = session.id
        rows[f"{id} messages"] = await store.messages(id)
        rows[f"{id} row"] = await store.session(id)
        rows[f"{id} queued"] = await store.messages(id, limit=2, queued=True, most=3)
        rows[f"{id} checkpoints"] = await store.checkpoints(id)
        rows[f"{id} children"] = _unnumbered(await store.children(id))
        rows[f"{id} living children"] = [_unnumbered(await store.living_children(id, turn=turn)) for turn in (None, 0, 1, 2)]
        for turn in range(max(session.turn, 1), session.turn + 2):
            rows[f"{id} steps of {turn}"] = await store.steps(id, turn)
            rows[f"{id} last steps of {turn}"] = await store.steps(id, turn, limit=2, most=1)
    rows["open steps"] = await store.open_steps([session.id for session in await store.sessions()])
    rows["blocking letters"] = await store.blocking_letters([session.id for session in await store.sessions()])
    return rows


def _unnumbered(rows: list[Listed]) -> list[Listed]:
    """Each store numbers sessions in its own way."""
    return [msgspec.structs.replace(row, place=msgspec.structs.replace(row.place, num=0)) for row in rows]


async def _paged(store: Store) -> list[Listed]:
    found: list[Listed] = []
    while page := await store.sessions(limit=2, after=found[-1].place if found else None):
        found += page
    return found


async def _apply(store: Store, ops: list[Op]) -> list[Result] | type[NotWritten]:
    try:
        return await store.apply(ops)
    except NotWritten:
        return NotWritten


async def _compare(store: Store, batches: list[list[Draw]]) -> None:
    """After each batch, whatever it holds, results and reads of the store are those of the oracle, `seq` included."""
    oracle = MemoryStore()
    await oracle.open()
    await store.open()
    try:
        opening = [Draw("create", "a", 0, 0, 0, 0), Draw("activate", "a", 0, 0, 0, 0), Draw("create", "b", 0, 0, 1, 0)]
        for number, batch in enumerate([opening, *batches]):
            sessions = [row for listed in await oracle.sessions() if (row := await oracle.session(listed.id)) is not None]
            messages = {(s.id, m.id) for s in sessions for m in await oracle.messages(s.id)}
            letters = {letter.session: letter.message for letter in await oracle.dead_letters()}
            builder = Builder(sessions, messages, letters, number)
            ops = [builder.op(part) for draw in batch for part in _spelled_out(draw)]
            assert await _apply(store, ops) == await _apply(oracle, ops)
            assert await _rows(store) == await _rows(oracle)
    finally:
        await store.close()


@settings(max_examples=150)
@given(batches=batches)
async def test_sqlite_gives_the_same_results_and_rows_as_memory(batches: list[list[Draw]]) -> None:
    """The two independent interpreters agree on every batch."""
    with tempfile.TemporaryDirectory() as folder:
        await _compare(SqliteStore(Path(folder) / "s.db", synchronous="NORMAL"), batches)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=batches)
async def test_postgres_gives_the_same_results_and_rows_as_memory(batches: list[list[Draw]], postgres_url: str) -> None:
    """What it reads of its tables for a batch is all that the batch can look at, and what it writes back is all that changed."""
    await empty_store(postgres_url)
    await _compare(PostgresStore(postgres_url), batches)
