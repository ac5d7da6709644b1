"""The contract of every store: what each op does, what its result is, and what the reads then show."""

from __future__ import annotations

import itertools
import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import pytest

from holdfast.errors import NotWritten, StoreError, StoreLocked
from holdfast.policies.budget import ZERO, Budget, Usage
from holdfast.stores.listed import Filter
from holdfast.stores.ops import (
    DONE,
    FENCED,
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
    Status,
    Touch,
    UpdateSession,
    WriteStep,
    concerns,
)
from holdfast.stores.protocol import Store
from holdfast.stores.records import (
    ASKS_A_PERSON,
    DISPLAY_STATUSES,
    ENDED,
    Address,
    Checkpoint,
    DeadLetter,
    Failure,
    Loaded,
    Message,
    MessageState,
    Outcome,
    Park,
    Returns,
    Runnable,
    Session,
    SessionStatus,
    StepRecord,
    StepState,
    display_status,
    rank,
)

pytestmark = pytest.mark.anyio

encode = msgspec.msgpack.encode
OK = encode(Outcome(value=encode("ok")))
GONE = encode(Outcome(failure=Failure("SessionEnded", "ask", "SessionEnded", "gone")))
RESULT = encode(Outcome(value=encode("result")))
RECORD = StepRecord("tool", "refund", "", b"digest", 0, "once", args=b"\x90", opened=1.5)


class Disk(Protocol):
    def store(self) -> Store: ...


# ---------------------------------------------------------------- builders


def create(id: str = "s", *, now: float = 1.0, parent: Address | None = None) -> CreateSession:
    budget = Budget(steps=10, usd="0.50", seconds=2.5)  # type: ignore[arg-type]
    return CreateSession(id, "agent", "acme", "ann", 3, b"state-0", budget, b"seed", now, parent, parent is not None)


def enqueue(id: str = "m", session: str = "s", *, now: float = 2.0, **more: Any) -> Enqueue:
    return Enqueue(session, id, b"body", b"digest", now, **more)


def step(key: bytes = b"k", state: StepState = StepState.OPEN, session: str = "s", *, epoch: int = 1, **more: Any) -> WriteStep:
    more.setdefault("turn", 1)
    return WriteStep(session, epoch, key=key, state=state, body=encode(RECORD), **more)


def commit(message: str = "m", *, status: SessionStatus = "idle", epoch: int = 1, now: float = 9.0, **more: Any) -> CommitTurn:
    fields: dict[str, Any] = {"session": "s", "turn": 1, "usage": Usage(steps=4, seconds=0.5), "started": 8.0, **more}
    return CommitTurn(epoch=epoch, message=message, state=b"state-1", version=4, reply=OK, status=status, now=now, **fields)


def fail(message: str = "m", *, epoch: int = 1, turn: int = 1, now: float = 9.0, **more: Any) -> FailTurn:
    return FailTurn("s", epoch, turn, message, "ValueError: no", ("refund(1)",), GONE, now, **more)


async def one(store: Store, op: Op) -> Result:
    (result,) = await store.apply([op])
    return result


async def row(store: Store, id: str = "s") -> Session:
    session = await store.session(id)
    assert session is not None
    return session


async def letter_box(store: Store, id: str, session: str = "s") -> Message:
    message = await store.message(session, id)
    assert message is not None
    return message


async def active(store: Store, *messages: str) -> None:
    """A session "s" at epoch 1 with these messages in its mailbox."""
    await store.apply([create(), *(enqueue(id) for id in messages), Activate("s", 3.0)])


async def snapshot(store: Store) -> list[Any]:
    sessions = await store.sessions()
    rows: list[Any] = [sessions, await store.dead_letters(), await store.runnable()]
    for session in sessions:
        rows += [await store.messages(session.id), await store.checkpoints(session.id)]
        rows += [await store.steps(session.id, turn) for turn in range(session.turn + 2)]
    return rows


# ---------------------------------------------------------------- ownership


async def test_what_was_applied_is_there_after_the_store_was_closed_and_opened_again(disk: Disk) -> None:
    """Reopening keeps every table, and ownership of the data can pass on."""
    first = disk.store()
    await first.open()
    await active(first, "m", "n")
    await first.apply([step(b"a", StepState.WAITING), step(b"b"), fail()])
    before = await snapshot(first)
    await first.close()
    await first.close()
    second = disk.store()
    await second.open()
    try:
        assert await snapshot(second) == before
        assert await one(second, step(b"c")) == DONE
        assert await one(second, step(b"c", epoch=0)) == FENCED
    finally:
        await second.close()


async def test_a_store_that_is_open_cannot_be_opened_by_another(disk: Disk, store: Store) -> None:
    """One owner at a time; the refused one does no harm to the owner."""
    with pytest.raises(StoreLocked):
        await disk.store().open()
    assert (await one(store, create())).status is Status.DONE


async def test_a_closed_store_neither_reads_nor_writes(disk: Disk) -> None:
    """Whoever lost ownership hears so, and that nothing was written."""
    store = disk.store()
    await store.open()
    await store.close()
    with pytest.raises(NotWritten):
        await store.apply([create()])
    with pytest.raises(StoreError):
        await store.session("s")


# ---------------------------------------------------------------- batches


async def test_an_empty_batch_is_no_batch(store: Store) -> None:
    """Nothing in, nothing out."""
    assert await store.apply([]) == []


async def test_a_batch_in_which_one_op_cannot_be_applied_changes_nothing(store: Store) -> None:
    """Atomicity: ops before and after the malformed one leave no trace, and later batches are as if it had never been."""
    await active(store, "m")
    await store.apply([step(b"wait", StepState.WAITING), step(b"other")])
    before = await snapshot(store)
    batch: list[Op] = [
        create("t"),
        enqueue("n"),
        Activate("s", 5.0),
        step(b"new", epoch=2),
        DropSteps("s", 2, 1, (b"other",), Usage(steps=1)),
        commit(epoch=2),
        EndSession("s", "killed", GONE, 6.0),
        Reply(Address("s", 1, b"wait"), b"\xc1 no outcome", 7.0),
        create("u"),
    ]
    with pytest.raises(NotWritten):
        await store.apply(batch)
    assert await snapshot(store) == before
    assert await store.apply([step(b"new"), enqueue("n")]) == [DONE, DONE]
    assert [m.seq for m in await store.messages("s")] == [1, 2]
    assert [s.key for s in await store.steps("s", 1)] == [b"wait", b"other", b"new"]


async def test_ops_of_a_batch_see_what_those_before_them_did(store: Store) -> None:
    """A batch is applied in order: what counts is the state in which an op finds the store."""
    results = await store.apply([enqueue(), create(), step(epoch=0), enqueue(), enqueue(), Activate("s", 3.0), step(epoch=0), step()])
    statuses = [r.status for r in results]
    refused, done, duplicate, fenced = Status.REFUSED, Status.DONE, Status.DUPLICATE, Status.FENCED
    assert statuses == [refused, done, done, done, duplicate, done, fenced, done]


STALE: dict[str, Callable[[int], Op]] = {
    "WriteStep": lambda epoch: step(b"stale", epoch=epoch, outbox=(enqueue("sent"),)),
    "DropSteps": lambda epoch: DropSteps("s", epoch, 1, (b"kept",), Usage(steps=1)),
    "CommitTurn": lambda epoch: commit(epoch=epoch, outbox=(enqueue("sent"),)),
    "CommitTurn that ends": lambda epoch: commit(epoch=epoch, status="finished", result=RESULT, rest=GONE),
    "FailTurn": lambda epoch: fail(epoch=epoch, outbox=(enqueue("sent"),)),
    "RetryLetter": lambda epoch: RetryLetter("s", epoch, 9.0),
    "Rewind": lambda epoch: Rewind("s", epoch, 1, b"\x02", 1, 7, ("pay",), 9.0),
    "DropLetter": lambda epoch: DropLetter("s", epoch, Usage(steps=1), 9.0),
    "UpdateSession": lambda epoch: UpdateSession("s", epoch, 9.0, status="parked", park=Park("doubt", "?"), gates=b"g"),
}


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("op", STALE)
async def test_an_op_of_another_epoch_changes_nothing_and_does_not_spoil_its_batch(store: Store, op: str, epoch: int) -> None:
    """Fencing: the stale op and its outbox are void, the ops around it are done."""
    await active(store, "m", "n")
    await store.apply([fail("n"), step(b"kept"), Activate("s", 4.0)])
    before = await snapshot(store)
    assert await store.apply([STALE[op](epoch)]) == [FENCED]
    assert await snapshot(store) == before
    first, fenced, last = await store.apply([enqueue("before"), STALE[op](epoch), step(b"after", epoch=2)])
    assert (first, fenced, last) == (DONE, FENCED, DONE)
    assert [m.id for m in await store.messages("s")] == ["m", "n", "before"]
    assert [s.key for s in await store.steps("s", 1)] == [b"kept", b"after"]


@pytest.mark.parametrize("op", STALE)
async def test_an_op_on_a_session_that_does_not_exist_is_fenced(store: Store, op: str) -> None:
    """Nobody can own what is not there."""
    assert await one(store, STALE[op](0)) == FENCED
    assert await store.sessions() == []


OF_A_TURN: dict[str, Callable[[int, int], Op]] = {
    "WriteStep": lambda epoch, turn: step(b"late", epoch=epoch, turn=turn),
    "WriteStep with an outbox": lambda epoch, turn: step(b"late", epoch=epoch, turn=turn, outbox=(enqueue("sent"),)),
    "DropSteps": lambda epoch, turn: DropSteps("s", epoch, turn, (b"kept",), Usage(steps=1)),
}

MOVES: dict[str, tuple[list[Op], int, int]] = {
    "activated": ([Activate("s", 5.0)], 2, 1),
    "committed": ([commit()], 1, 2),
    "committed twice": ([commit(), commit("n", turn=2)], 1, 3),
    "finished": ([commit(status="finished", result=RESULT, rest=GONE)], 1, 2),
    "failed": ([fail()], 1, 1),
    "retried": ([fail(), RetryLetter("s", 1, 6.0)], 1, 1),
    "dropped": ([fail(), DropLetter("s", 1, ZERO, 6.0)], 1, 2),
    "killed": ([EndSession("s", "killed", GONE, 6.0)], 2, 1),
    "committed, then killed": ([commit(), EndSession("s", "killed", GONE, 6.0)], 2, 2),
    "finished, then loaded": ([commit(status="finished", result=RESULT, rest=GONE), Activate("s", 7.0)], 2, 2),
}


@pytest.mark.parametrize("known", ["known", "forgotten", "in one batch"])
@pytest.mark.parametrize("op", OF_A_TURN)
@pytest.mark.parametrize("move", MOVES)
async def test_records_are_written_of_the_open_turn_only(store: Store, move: str, op: str, known: str) -> None:
    """Whatever opened it, and whether or not the store still remembers it: an attempt that outlives its turn leaves nothing behind."""
    moves, epoch, turn = MOVES[move]
    make = OF_A_TURN[op]
    await active(store, "m", "n")
    await store.apply([step(b"kept")])
    tries = [make(epoch, at) for at in (turn - 1, turn + 1, turn + 7)]
    if known == "in one batch":
        results = (await store.apply([*moves, *tries]))[len(moves) :]
    else:
        await store.apply(moves)
        if known == "forgotten":
            store.release("s")
        before = await snapshot(store)
        results = [await one(store, tried) for tried in tries]
        assert await snapshot(store) == before
    assert results == [FENCED] * 3
    assert (await row(store)).usage.steps in (0, 4, 8)
    assert (await store.message("s", "sent"), [s.key for s in await store.steps("s", 1)]) == (None, [b"kept"])
    assert (await one(store, make(epoch - 1, turn))) == FENCED
    assert (await one(store, make(epoch, turn))).status is Status.DONE
    written = [b"kept"] if turn == 1 and op != "DropSteps" else []
    assert [s.key for s in await store.steps("s", turn)] == ([*written, b"late"] if op != "DropSteps" else [])


async def test_a_record_in_an_outbox_is_fenced_by_its_turn(store: Store) -> None:
    """The op that it leaves with is done all the same, and opens the turn that it may be of."""
    await active(store, "m")
    await store.apply([create("t"), Activate("t", 3.0)])
    other = (step(b"a", session="t"), step(b"b", session="t", turn=2), step(b"c", turn=1), step(b"d", turn=2))
    result = await one(store, commit(outbox=other))
    assert result == Result(Status.DONE, None, (DONE, FENCED, FENCED, DONE))
    assert [[s.key for s in await store.steps(id, turn)] for id, turn in (("t", 1), ("s", 1), ("s", 2))] == [[b"a"], [], [b"d"]]


async def test_a_turn_that_did_not_commit_is_open_still(store: Store) -> None:
    """A batch that fails takes back what the store remembers of the turns that it opened."""
    await active(store, "m")
    malformed = Reply(Address("s", 1, b"wait"), b"\xc1 no outcome", 7.0)
    await store.apply([step(b"wait", StepState.WAITING)])
    for opens in (commit(), EndSession("s", "killed", GONE, 6.0), Activate("s", 6.0)):
        with pytest.raises(NotWritten) as failed:
            await store.apply([opens, malformed])
        assert not failed.value.passing, "to write it again would fail again"
        assert await store.apply([step(b"a"), step(b"a", turn=2), step(b"a", epoch=2)]) == [DONE, FENCED, FENCED]


async def test_an_outbox_leaves_in_order_with_the_op_that_is_done(store: Store) -> None:
    """Each op of an outbox has its own result; a refusal among them does not undo the op."""
    await active(store, "m")
    outbox = (create("child"), enqueue("x", "child"), enqueue("x", "child"), enqueue("y", "nobody"), enqueue("z", "child"))
    for op in (
        step(outbox=outbox),
        commit(outbox=(enqueue("later", "child"),)),
        fail("m2", turn=2, outbox=(enqueue("last", "child"),)),
    ):
        result = await one(store, op)
        assert result.status is Status.DONE
        if isinstance(op, WriteStep):
            assert [r.status for r in result.outbox] == [Status.DONE, Status.DONE, Status.DUPLICATE, Status.REFUSED, Status.DONE]
            assert result.outbox[3].value == "unknown"
        else:
            assert result.outbox == (DONE,)
    assert [m.id for m in await store.messages("child")] == ["x", "z", "later", "last"]


# ---------------------------------------------------------------- sessions


async def test_a_session_is_created_once(store: Store) -> None:
    """DONE with the new row; afterwards DUPLICATE with the row that has the id, whatever its agent."""
    parent = Address("boss", 2, b"spawn")
    created = await one(store, create(parent=parent))
    budget = Budget(steps=10, usd="0.50", seconds=2.5)  # type: ignore[arg-type]
    assert created == Result(
        Status.DONE,
        Session(
            "s", "agent", "acme", "ann", "idle", 0, 0, 0, budget,
            seed=b"seed", parent=parent, detached=True, created=1.0, updated=1.0,
        ),
    )  # fmt: skip
    other = msgspec.structs.replace(create(now=5.0), agent="other", state=b"another")
    assert await one(store, other) == Result(Status.DUPLICATE, created.value)
    assert await row(store) == created.value
    assert await store.checkpoints("s") == [Checkpoint(0, b"state-0", 3, started=1.0, ended=1.0)]


async def test_activation_loads_everything_at_a_new_epoch(store: Store) -> None:
    """Loaded: the row, the last checkpoint, what is queued (no watch, nothing done), the journal of the open turn."""
    await active(store, "m")
    await store.apply([step(b"old"), commit(), enqueue("n"), enqueue("w", kind="watch"), enqueue("o")])
    await store.apply([step(b"b", turn=2), step(b"a", StepState.WAITING, turn=2), step(b"b", StepState.CLOSED, turn=2)])
    result = await one(store, Activate("s", 20.0))
    loaded = result.value
    assert result.status is Status.DONE
    assert isinstance(loaded, Loaded)
    assert loaded.session == await row(store)
    assert (loaded.session.epoch, loaded.session.turn, loaded.session.pending, loaded.session.crashes) == (2, 1, 2, 0)
    assert loaded.checkpoint == Checkpoint(1, b"state-1", 4, "m", 8.0, 9.0, Usage(steps=4, seconds=0.5))
    assert [m.id for m in loaded.messages] == ["n", "o"]
    assert [(s.key, s.state, s.turn) for s in loaded.steps] == [(b"b", StepState.CLOSED, 2), (b"a", StepState.WAITING, 2)]
    assert loaded.steps[0].record == RECORD


async def test_an_unknown_session_cannot_be_activated_or_ended(store: Store) -> None:
    """REFUSED with "unknown"."""
    refused = Result(Status.REFUSED, "unknown")
    assert await store.apply([Activate("s", 1.0), EndSession("s", "killed", GONE, 1.0)]) == [refused, refused]


async def test_crashes_are_counted_until_the_turn_gets_further(store: Store) -> None:
    """Crashes at the same number of records add up; another number of records starts the count again."""
    await active(store, "m")

    async def crashes(count: bool = True) -> int:
        loaded: Loaded = (await one(store, Activate("s", 4.0, count_crash=count))).value
        return loaded.session.crashes

    assert [await crashes(), await crashes(), await crashes(False), await crashes()] == [1, 2, 2, 3]
    await store.apply([step(b"a", epoch=5)])
    assert [await crashes(), await crashes()] == [1, 2]
    await store.apply([step(b"a", StepState.CLOSED, epoch=7)])
    assert await crashes() == 3, "a record that is replaced is no further record"
    await store.apply([UpdateSession("s", 8, 5.0, settled=True)])
    assert (await row(store)).crashes == 0
    assert await crashes() == 1
    await store.apply([commit(epoch=9)])
    assert (await row(store)).crashes == 0
    assert [await crashes(), await crashes()] == [1, 2]


async def test_a_start_finds_what_is_known_of_a_sessions_crashes(store: Store) -> None:
    """How many, how many of them it passed, and whether it was alone at the last one; nothing after a new record, and nothing after one
    crash, which makes no session a suspect."""
    await active(store, "m")

    async def known(*ops: Any) -> tuple[int, int, bool]:
        await store.apply(ops)
        (found,) = await store.runnable()
        return found.crashes, found.passes, found.alone

    assert await known() == (0, 0, False)
    assert await known(Activate("s", 4.0, count_crash=True)) == (0, 0, False)
    assert await known(Activate("s", 4.0, count_crash=True, alone=True)) == (2, 0, True)
    assert await known(Activate("s", 4.0, alone=True)) == (2, 0, True)
    assert await known(UpdateSession("s", 3, 5.0, passed=True)) == (2, 0, True), "fenced"
    assert await known(UpdateSession("s", 4, 5.0, passed=True)) == (2, 1, False)
    assert await known(UpdateSession("s", 4, 5.0, passed=True), Activate("s", 4.0, count_crash=True, alone=True)) == (3, 2, True)
    assert await known(step(b"a", epoch=5)) == (0, 0, False)
    assert await known(UpdateSession("s", 5, 5.0, passed=True), Activate("s", 4.0, count_crash=True)) == (0, 0, False)
    assert await known(Activate("s", 4.0, count_crash=True)) == (2, 0, False)
    assert await known(UpdateSession("s", 7, 5.0, status="parked", park=Park("wait", "?", 9.0))) == (2, 0, False)
    assert await known(UpdateSession("s", 7, 5.0, settled=True)) == (0, 0, False)


async def test_an_update_changes_what_it_names(store: Store) -> None:
    """None leaves a field as it is, and any status but "parked" clears the park."""
    await active(store)
    park = Park("wait", "waits for t", 50.0, ("t",))
    assert await one(store, UpdateSession("s", 1, 4.0, status="parked", park=park)) == DONE
    parked = await row(store)
    assert (parked.status, parked.park, parked.updated, parked.gates) == ("parked", park, 4.0, b"")
    budget = Budget(steps=99)
    await store.apply([UpdateSession("s", 1, 5.0, budget=budget, gates=b"gates")])
    changed = await row(store)
    assert (changed.status, changed.park, changed.budget, changed.gates) == ("parked", park, budget, b"gates")
    other = Park("budget", "raise it")
    await store.apply([UpdateSession("s", 1, 5.0, park=other)])
    assert (await row(store)).park == other
    await store.apply([UpdateSession("s", 1, 6.0, status="idle", park=park)])
    idle = await row(store)
    assert (idle.status, idle.park, idle.budget, idle.gates, idle.updated) == ("idle", None, budget, b"gates", 6.0)


@pytest.mark.parametrize("state", [StepState.CLOSED, StepState.FAILED, StepState.OPEN, None])
async def test_a_park_is_refused_where_a_step_that_it_names_does_not_wait_any_more(store: Store, state: StepState | None) -> None:
    """REFUSED with "answered", and nothing changes: what would wake it has come already."""
    await active(store, "m")
    await store.apply([step(key, StepState.WAITING) for key in (b"a", b"b")])
    park = Park("wait", "waits for t", 50.0, ("t",), (b"a", b"b"))
    update = UpdateSession("s", 1, 4.0, status="parked", park=park, budget=Budget(steps=99), gates=b"gates", settled=True)
    await store.apply([DropSteps("s", 1, 1, (b"b",), ZERO) if state is None else step(b"b", state)])
    before = await snapshot(store)
    assert await one(store, update) == Result(Status.REFUSED, "answered")
    assert await snapshot(store) == before
    await store.apply([step(b"b", StepState.WAITING)])
    assert await one(store, update) == DONE
    assert ((await row(store)).status, (await row(store)).park) == ("parked", park)


async def test_a_park_is_refused_after_the_answer_that_it_waits_for(store: Store) -> None:
    """In one batch, too: whichever of answer and park comes first, the session goes on."""
    await active(store, "m")
    await store.apply([step(b"a", StepState.WAITING)])
    update = UpdateSession("s", 1, 4.0, status="parked", park=Park("wait", "waits for t", None, ("t",), (b"a",)))
    results = await store.apply([Reply(Address("s", 1, b"a"), OK, 4.0), update, enqueue("n")])
    assert results == [DONE, Result(Status.REFUSED, "answered"), DONE]
    assert (await row(store)).status == "idle"


async def test_what_is_released_is_still_there(store: Store) -> None:
    """Only a hint: before and after a write, on an ended session and on nobody, nothing that a reader sees depends on it."""
    store.release("nobody")
    await active(store, "m")
    before = await snapshot(store)
    store.release("s")
    assert await snapshot(store) == before
    assert await one(store, step(epoch=0)) == FENCED
    store.release("s")
    assert await one(store, step()) == DONE
    store.release("s")
    assert (await one(store, Activate("s", 5.0))).value.session.epoch == 2
    await store.apply([EndSession("s", "killed", GONE, 6.0)])
    store.release("s")
    assert await one(store, step(epoch=2)) == FENCED
    assert (await row(store)).status == "killed"


def part_of(parent: str, id: str) -> CreateSession:
    """A session that a step of `parent` gave a part of its budget to."""
    return CreateSession(id, "agent", "acme", "ann", 3, b"", Budget(steps=10), b"seed", 1.0, Address(parent, 1, b"k"))


async def test_a_parent_gets_back_what_its_child_left(store: Store) -> None:
    """ReturnBudget is taken off the usage, below zero too (the open turn may hold the charge); on nobody it does nothing."""
    await active(store)
    await store.apply([commit(usage=Usage(steps=5, tokens=100, microusd=7, seconds=2.0, tool_calls=1)), part_of("s", "c")])
    rest = Usage(steps=2, tokens=500, microusd=-3, seconds=0.5, tool_calls=1)
    got = rest.clamp()
    assert await one(store, ReturnBudget("s", "c", rest)) == Result(Status.DONE, (("s", got),))
    assert (await row(store)).usage == Usage(steps=3, tokens=-400, microusd=7, seconds=1.5, tool_calls=0)
    assert (await row(store)).returns == Returns(back=got)
    await store.apply([part_of("nobody", "d")])
    for parent, child in (("nobody", "d"), ("s", "nobody")):
        assert await one(store, ReturnBudget(parent, child, Usage(steps=1))) == Result(Status.DONE, ())


def ends(id: str, parent: str, left: int) -> EndSession:
    return EndSession(id, "cancelled", GONE, 5.0, (ReturnBudget(parent, id, Usage(left)),))


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "in one batch"])
@pytest.mark.parametrize("order", list(itertools.permutations("pcd")), ids="".join)
async def test_what_is_given_back_passes_on_to_the_first_that_lives(store: Store, order: tuple[str, ...], at_once: bool) -> None:
    """In whatever order a line of sessions ends: g gave 10 to p, p 7 of them to c, c 4 to d; p and c used 1 each, d used 2."""
    await store.apply([create("g"), part_of("g", "p"), part_of("p", "c"), part_of("c", "d")])
    lines = {"p": ends("p", "g", 2), "c": ends("c", "p", 2), "d": ends("d", "c", 2)}
    batches = [[lines[id] for id in order]] if at_once else [[lines[id]] for id in order]
    got = [result.outbox[0].value for batch in batches for result in await store.apply(batch)]
    assert (await row(store, "g")).usage == Usage(steps=-6)
    assert [(await row(store, id)).usage.steps for id in "pcd"] == [-4, -2, 0]
    assert sum(amount.steps for credited in got for id, amount in credited if id == "g") == 6


async def test_what_a_parent_used_beyond_its_part_is_not_passed_on(store: Store) -> None:
    """It had 3 more from a person and used them: what comes back to it is a person's up to there."""
    await store.apply([create("g"), part_of("g", "p"), part_of("p", "c"), part_of("p", "d"), ends("p", "g", -3)])
    assert (await one(store, ends("c", "p", 2))).outbox[0].value == (("p", Usage(2)),)
    assert (await one(store, ends("d", "p", 4))).outbox[0].value == (("p", Usage(4)), ("g", Usage(3)))


async def test_nothing_passes_on_from_a_session_that_got_no_part(store: Store) -> None:
    """A detached one has a parent and a budget of its own."""
    await store.apply([create("g"), create("p", parent=Address("g", 1, b"k")), part_of("p", "c"), EndSession("p", "killed", GONE, 5.0)])
    assert (await one(store, ends("c", "p", 2))).outbox[0].value == (("p", Usage(2)),)
    assert (await row(store, "g")).usage == ZERO


# ---------------------------------------------------------------- mailbox


async def test_a_message_is_accepted_once(store: Store) -> None:
    """DONE with None; the same id and digest is a DUPLICATE with the stored message, another digest a conflict."""
    await store.apply([create()])
    to = Address("asker", 1, b"ask")
    first = enqueue(reply_to=to)
    assert await one(store, first) == DONE
    stored = Message("s", "m", b"body", b"digest", reply_to=to, created=2.0, seq=1)
    assert await letter_box(store, "m") == stored
    assert await one(store, enqueue(now=7.0)) == Result(Status.DUPLICATE, stored)
    assert await one(store, Enqueue("s", "m", b"other", b"other", 3.0)) == Result(Status.REFUSED, "conflict")
    session = await row(store)
    assert (session.pending, session.updated) == (1, 2.0)


async def test_a_message_for_nobody_is_refused(store: Store) -> None:
    """REFUSED with "unknown"."""
    assert await one(store, enqueue()) == Result(Status.REFUSED, "unknown")
    assert await store.message("s", "m") is None
    assert await store.messages("s") == []


async def test_a_full_mailbox_refuses_new_messages_only(store: Store) -> None:
    """The limit counts what is queued: not duplicates, not watches, not what is done."""
    await active(store, "m", "n")
    watch = enqueue("w", kind="watch", limit=2)
    results = await store.apply([enqueue("o", limit=2), enqueue("m", limit=2), watch, enqueue("o", limit=3), enqueue("p")])
    assert results[0] == Result(Status.REFUSED, "full")
    assert [r.status for r in results[1:]] == [Status.DUPLICATE, Status.DONE, Status.DONE, Status.DONE]
    assert (await row(store)).pending == 4
    await store.apply([commit("m")])
    assert (await row(store)).pending == 3
    assert await one(store, enqueue("q", limit=4)) == DONE


@pytest.mark.parametrize("kind", ["message", "watch"])
async def test_an_ended_session_accepts_nothing_but_knows_what_it_got(store: Store, kind: str) -> None:
    """REFUSED with the session, whose result answers a watch; earlier ids are still duplicates and conflicts."""
    await active(store, "m")
    await store.apply([commit(status="finished", result=RESULT, rest=GONE)])
    ended = await row(store)
    assert (ended.status, ended.result) == ("finished", RESULT)
    assert await one(store, enqueue("n", kind=kind)) == Result(Status.REFUSED, ("ended", ended))
    duplicate = await one(store, enqueue("m"))
    assert duplicate.status is Status.DUPLICATE
    assert (duplicate.value.state, duplicate.value.reply) == (MessageState.DONE, OK)
    assert (await one(store, Enqueue("s", "m", b"", b"other", 1.0))).value == "conflict"


async def test_messages_are_read_in_order_of_arrival(store: Store) -> None:
    """Other sessions' messages are not among them."""
    await store.apply([create(), create("t"), enqueue("c"), enqueue("x", "t"), enqueue("a"), enqueue("b", kind="watch")])
    messages = await store.messages("s")
    assert [m.id for m in messages] == ["c", "a", "b"]
    assert sorted(m.seq for m in messages) == [m.seq for m in messages]


# ---------------------------------------------------------------- steps


async def test_the_later_record_of_a_step_wins_and_keeps_its_place(store: Store) -> None:
    """(session, turn, key) is unique; the journal is in the order of the first writes, and turns do not mix."""
    await active(store)
    closed = msgspec.structs.replace(RECORD, outcome=Outcome(encode(1)), closed=4.0, used=Usage(steps=1), attempts=2)
    await store.apply([step(b"b"), step(b"a")])
    assert await one(store, WriteStep("s", 1, 1, b"b", StepState.CLOSED, encode(closed))) == DONE
    await store.apply([commit(), step(b"b", turn=2)])
    steps = await store.steps("s", 1)
    assert [(s.key, s.state, s.turn, s.record) for s in steps] == [
        (b"b", StepState.CLOSED, 1, closed),
        (b"a", StepState.OPEN, 1, RECORD),
    ]
    assert [s.state for s in await store.steps("s", 2)] == [StepState.OPEN]
    assert await store.steps("s", 3) == await store.steps("nobody", 1) == []


async def test_a_record_of_before_is_read_with_what_it_did_not_say(store: Store) -> None:
    """Records are arrays: those that lack the last fields decode with their defaults, and new ones keep them."""
    await active(store)
    fields = msgspec.msgpack.decode(encode(RECORD))
    old = encode(fields[:-3])
    new = msgspec.structs.replace(RECORD, cut=True, deadline=77.5, strayed=True)
    await store.apply([WriteStep("s", 1, 1, key, StepState.OPEN, body) for key, body in ((b"old", old), (b"new", encode(new)))])
    assert (RECORD.cut, RECORD.deadline, RECORD.strayed) == (False, 0.0, False)
    assert [s.record for s in await store.steps("s", 1)] == [RECORD, new]


async def test_dropped_steps_are_free_again_and_stay_charged(store: Store) -> None:
    """Only the named keys go, unknown ones do no harm, and a step written anew comes last."""
    await active(store)
    await store.apply([step(b"a"), commit(usage=ZERO)])
    await store.apply([step(key, turn=2) for key in (b"a", b"b", b"c")])
    charge = Usage(steps=2, microusd=30)
    drop = DropSteps("s", 1, 2, (b"a", b"c", b"?"), charge)
    assert await store.apply([drop, step(b"a", turn=2), DropSteps("s", 1, 2, ())]) == [DONE, DONE, DONE]
    assert [s.key for s in await store.steps("s", 2)] == [b"b", b"a"]
    assert len(await store.steps("s", 1)) == 1
    assert (await row(store)).usage == charge


async def test_what_was_dropped_already_is_not_charged_again(store: Store) -> None:
    """Two people who free the same step at once pay for it once."""
    await active(store)
    await store.apply([step(b"a")])
    drop = DropSteps("s", 1, 1, (b"a",), Usage(steps=1))
    assert await store.apply([drop, drop]) == [DONE, DONE]
    assert await store.apply([drop]) == [DONE]
    assert (await row(store)).usage.steps == 1


@pytest.mark.parametrize("body", [b"\xc1", b"\x93\x01\x02\x03", b""], ids=["damaged", "foreign", "empty"])
async def test_a_record_that_does_not_decode_is_loaded_as_one(store: Store, body: bytes) -> None:
    """It says why, and is in no other's way: the others of its session are there, and the batch that reads it is done."""
    await active(store)
    bad = WriteStep("s", 1, 1, b"bad", StepState.CLOSED, body)
    await store.apply([bad, step(b"good"), create("other"), enqueue("n", "other")])
    loaded, other = (result.value for result in await store.apply([Activate("s", 4.0), Activate("other", 4.0)]))
    assert [(each.key, each.state, bool(each.unreadable)) for each in loaded.steps] == [
        (b"bad", StepState.CLOSED, True),
        (b"good", StepState.OPEN, False),
    ]
    assert loaded.steps[0].record.note == loaded.steps[0].unreadable
    assert [message.id for message in other.messages] == ["n"]
    assert await store.steps("s", 1) == loaded.steps
    shown = (await store.open_steps(["s"]))["s"]
    assert [(each.key, each.unreadable) for each in shown] == [(each.key, each.unreadable) for each in loaded.steps]


async def test_an_answer_to_a_record_that_does_not_decode_leaves_it_as_it_is(store: Store) -> None:
    """The session is woken all the same, so that people hear of it."""
    await active(store)
    park = UpdateSession("s", 1, 4.0, status="parked", park=Park("wait", "waits", 900.0))
    await store.apply([WriteStep("s", 1, 1, b"k", StepState.WAITING, b"\xc1"), park])
    before = await store.steps("s", 1)
    assert await one(store, Reply(Address("s", 1, b"k"), OK, 30.0)) == DONE
    assert await store.steps("s", 1) == before
    assert [row.wake_at for row in await store.runnable()] == [30.0]


async def test_a_touch_is_done_and_concerns_nobody(store: Store) -> None:
    """It finds out whether the store can be written."""
    assert await store.apply([Touch()]) == [DONE]
    assert list(concerns(Touch())) == []


@pytest.mark.parametrize(("outcome", "state"), [(OK, StepState.CLOSED), (GONE, StepState.FAILED)])
async def test_an_answer_closes_a_waiting_step_once(store: Store, outcome: bytes, state: StepState) -> None:
    """The record keeps what it was and gets outcome and time; the second answer is a DUPLICATE and changes nothing."""
    await active(store)
    await store.apply([step(b"wait", StepState.WAITING), step(b"next")])
    to = Address("s", 1, b"wait")
    assert await one(store, Reply(to, outcome, 30.0)) == DONE
    answered = (await store.steps("s", 1))[0]
    expected = msgspec.structs.replace(RECORD, outcome=msgspec.msgpack.decode(outcome, type=Outcome), closed=30.0)
    assert (answered.key, answered.state, answered.record) == (b"wait", state, expected)
    before = await snapshot(store)
    assert await one(store, Reply(to, RESULT, 31.0)) == Result(Status.DUPLICATE)
    assert await snapshot(store) == before


@pytest.mark.parametrize("state", [s for s in StepState if s is not StepState.WAITING])
async def test_an_answer_to_a_step_that_does_not_wait_is_dropped(store: Store, state: StepState) -> None:
    """DUPLICATE, for records in any other state and for those that are not there."""
    await active(store)
    await store.apply([step(state=state), UpdateSession("s", 1, 4.0, status="parked", park=Park("wait", "?"))])
    before = await snapshot(store)
    for to in (Address("s", 1, b"k"), Address("s", 1, b"?"), Address("s", 2, b"k"), Address("nobody", 1, b"k")):
        assert await one(store, Reply(to, OK, 5.0)) == Result(Status.DUPLICATE)
    assert await snapshot(store) == before


async def test_an_answer_wakes_a_session_that_is_parked_on_a_wait(store: Store) -> None:
    """`park.until` becomes now, at whatever it stood; the session is runnable at once."""
    await active(store)
    for key, until in ((b"a", None), (b"b", 900.0)):
        park = Park("wait", "waits", until, ("t",))
        await store.apply([step(key, StepState.WAITING), UpdateSession("s", 1, 4.0, status="parked", park=park)])
        await store.apply([Reply(Address("s", 1, key), OK, 30.0)])
        session = await row(store)
        assert (session.status, session.park) == ("parked", Park("wait", "waits", 30.0, ("t",)))
        assert await store.runnable() == [Runnable("s", 30.0, ("t",))]


async def test_an_answer_does_not_wake_a_session_that_is_parked_on_something_else(store: Store) -> None:
    """A doubt stays a doubt, whatever else was answered."""
    await active(store)
    park = Park("doubt", "was it refunded?")
    await store.apply([step(b"a", StepState.WAITING), UpdateSession("s", 1, 4.0, status="parked", park=park)])
    assert await one(store, Reply(Address("s", 1, b"a"), OK, 30.0)) == DONE
    assert (await row(store)).park == park
    assert await store.runnable() == []


# ---------------------------------------------------------------- turns


async def test_a_turn_commits_whole(store: Store) -> None:
    """Checkpoint, message with reply, usage, gates, notes and park cleared, outbox: all there; its journal stays."""
    await active(store, "m", "n")
    await store.apply([create("t"), step(), fail("n"), DropLetter("s", 1, Usage(steps=1), 5.0)])
    assert (await row(store)).notes == ("refund(1)",)
    await store.apply([UpdateSession("s", 1, 5.0, status="parked", park=Park("wait", "?", 6.0)), step(turn=2)])
    result = await one(store, commit(turn=2, gates=b"gates", outbox=(enqueue("out", "t"),)))
    assert result == Result(Status.DONE, None, (DONE,))
    session = await row(store)
    assert (session.status, session.turn, session.pending, session.park, session.notes) == ("idle", 2, 0, None, ())
    assert (session.usage, session.gates, session.result, session.updated) == (Usage(steps=5, seconds=0.5), b"gates", None, 9.0)
    message = await letter_box(store, "m")
    assert (message.state, message.reply, message.done, message.seq) == (MessageState.DONE, OK, 9.0, 1)
    assert [c.turn for c in await store.checkpoints("s")] == [0, 1, 2]
    assert (await store.checkpoints("s"))[2] == Checkpoint(2, b"state-1", 4, "m", 8.0, 9.0, Usage(steps=4, seconds=0.5))
    assert [len(await store.steps("s", turn)) for turn in (1, 2)] == [1, 1]
    assert [m.id for m in await store.messages("t")] == ["out"]


async def test_an_unfinished_session_goes_on(store: Store) -> None:
    """Only an ended status answers the mailbox."""
    await active(store, "m", "n")
    assert await one(store, commit(status="unfinished")) == DONE
    assert (await row(store)).status == "unfinished"
    assert (await letter_box(store, "n")).state is MessageState.QUEUED
    assert await store.runnable() == [Runnable("s", None)]


async def _asker(store: Store, id: str, *keys: bytes) -> None:
    """A session parked on waits for "s", one for each key."""
    await store.apply([create(id), Activate(id, 3.0), *(step(key, StepState.WAITING, id) for key in keys)])
    await store.apply([UpdateSession(id, 1, 4.0, status="parked", park=Park("wait", "for s", None, ("s",)))])


ENDINGS: dict[str, tuple[Op, bytes, bytes]] = {
    "CommitTurn": (commit(status="finished", result=RESULT, rest=GONE), GONE, RESULT),
    "EndSession": (EndSession("s", "cancelled", GONE, 9.0), GONE, GONE),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_an_end_names_no_step_that_waits_no_more(store: Store, ending: str) -> None:
    """Its message is answered without `reply_to`: nobody is woken for it. One that waits is named."""
    op, _, _ = ENDINGS[ending]
    await active(store)
    await _asker(store, "asker", b"ask")
    ask, gone = Address("asker", 1, b"ask"), Address("asker", 1, b"closed before")
    await store.apply([enqueue("m"), enqueue("late", reply_to=gone), enqueue("ask", reply_to=ask)])
    if ending == "EndSession":
        await store.apply([commit()])
    result = await one(store, op)
    answered = result.value.answered if ending == "EndSession" else result.value
    assert [(m.id, m.reply_to) for m in answered] == [("late", None), ("ask", ask)]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_session_that_ends_answers_everybody_who_still_waits(store: Store, ending: str) -> None:
    """Queued messages are dead with `rest`, watches done with the result, waiting steps elsewhere are answered and woken."""
    op, rest, watched = ENDINGS[ending]
    await active(store)
    await _asker(store, "asker", b"ask")
    await _asker(store, "watcher", b"watch")
    ask, watch = Address("asker", 1, b"ask"), Address("watcher", 1, b"watch")
    await store.apply([enqueue("m"), enqueue("early", kind="watch", reply_to=watch), enqueue("plain"), enqueue("ask", reply_to=ask)])
    if ending == "EndSession":
        await store.apply([commit()])
    result = await one(store, op)
    dead, done = MessageState.DEAD, MessageState.DONE
    assert result.status is Status.DONE
    answered = result.value.answered if ending == "EndSession" else result.value
    assert [(m.id, m.state, m.reply, m.done) for m in answered] == [
        ("early", done, watched, 9.0), ("plain", dead, rest, 9.0), ("ask", dead, rest, 9.0),
    ]  # fmt: skip
    assert (await store.messages("s"))[1:] == answered
    assert (await letter_box(store, "m")).reply == OK
    for to, reply in ((ask, rest), (watch, watched)):
        outcome = msgspec.msgpack.decode(reply, type=Outcome)
        (waited,) = await store.steps(to.session, 1)
        assert waited.state is (StepState.CLOSED if outcome.failure is None else StepState.FAILED)
        assert waited.record.outcome == outcome
    assert {r.id: r.wake_at for r in await store.runnable()} == {"asker": 9.0, "watcher": 9.0}
    ended = await row(store)
    assert (ended.pending, ended.park) == (0, None)


@pytest.mark.parametrize("status", ["cancelled", "killed"])
async def test_ending_a_session_fences_what_still_runs_and_keeps_its_steps(store: Store, status: SessionStatus) -> None:
    """The epoch grows, doubts can still be looked at, a second end is a DUPLICATE."""
    await active(store, "m")
    await store.apply([step(state=StepState.DOUBT), UpdateSession("s", 1, 4.0, status="parked", park=Park("doubt", "?", 99.0))])
    result = await one(store, EndSession("s", status, GONE, 9.0))
    assert (result.value.epoch, [m.id for m in result.value.answered]) == (2, ["m"])
    session = await row(store)
    assert (session.status, session.epoch, session.turn, session.result, session.park) == (status, 2, 0, GONE, None)
    assert session.updated == 9.0
    assert [s.state for s in await store.steps("s", 1)] == [StepState.DOUBT]
    assert await store.apply([commit(), step()]) == [FENCED, FENCED]
    assert (await one(store, EndSession("s", "killed", OK, 10.0))) == Result(Status.DUPLICATE)
    assert await row(store) == session
    assert (await one(store, Activate("s", 11.0))).value.session.status == status
    assert await one(store, step(state=StepState.CLOSED, epoch=3)) == DONE
    assert await store.runnable() == []


@pytest.mark.parametrize("parked", [Park("doubt", "was it refunded?", 99.0, ("t",), (b"k",)), Park("unclaimed", "?", 5.0), None])
async def test_an_ended_session_keeps_what_a_person_still_has_to_do(store: Store, parked: Park | None) -> None:
    """The park stays in the row without its wake time, over activations, until it is settled; it makes nothing run."""
    await active(store, "m")
    await store.apply([step(state=StepState.DOUBT), UpdateSession("s", 1, 4.0, status="parked", park=Park("wait", "?", 50.0))])
    ended = await one(store, EndSession("s", "killed", GONE, 9.0, park=parked))
    assert (ended.value.epoch, [m.id for m in ended.value.answered]) == (2, ["m"])
    kept = None if parked is None else msgspec.structs.replace(parked, until=None)
    session = await row(store)
    assert (session.status, session.park, session.unresolved, session.epoch) == ("killed", None, kept, 2)
    assert await one(store, EndSession("s", "cancelled", GONE, 10.0, park=Park("doubt", "other"))) == Result(Status.DUPLICATE)
    assert (await one(store, Activate("s", 11.0))).value.session.unresolved == kept
    assert await one(store, step(state=StepState.CLOSED, epoch=3)) == DONE
    assert (await store.runnable(), (await row(store)).unresolved) == ([], kept)
    await store.apply([UpdateSession("s", 3, 12.0, budget=Budget(steps=1))])
    assert (await row(store)).unresolved == kept
    await store.apply([UpdateSession("s", 3, 12.0, status="killed")])
    session = await row(store)
    assert (session.status, session.unresolved, session.updated) == ("killed", None, 12.0)


async def test_an_ended_session_is_not_woken_by_its_park(store: Store) -> None:
    """Neither by an answer to a step that still waits, nor by a time that an update names."""
    await active(store, "m")
    await store.apply([step(b"w", StepState.WAITING), EndSession("s", "cancelled", GONE, 9.0, park=Park("wait", "?", 10.0))])
    assert await one(store, Reply(Address("s", 1, b"w"), OK, 20.0)) == DONE
    assert ((await row(store)).unresolved, await store.runnable()) == (Park("wait", "?"), [])
    await store.apply([UpdateSession("s", 2, 21.0, park=Park("doubt", "?", 22.0))])
    assert await store.runnable() == []


async def test_an_ended_session_in_doubt_is_listed_with_those_that_need_a_person(store: Store) -> None:
    """First in every list that has it, under the status that it has; after it is settled it stands with the other ended ones."""
    rows: list[tuple[str, SessionStatus, Park | None]] = [
        ("done", "killed", None),
        ("doubt", "killed", Park("doubt", "?")),
        ("old doubt", "killed", Park("doubt", "?")),
        ("cancelled doubt", "cancelled", Park("doubt", "?")),
        ("unclaimed", "cancelled", Park("unclaimed", "?")),
    ]
    await store.apply([create("idle"), create("parked"), Activate("parked", 3.0)])
    for n, (id, status, park) in enumerate(rows):
        now = {"old doubt": 9.0, "done": 90.0}.get(id, 10.0 + n)
        await store.apply([create(id), EndSession(id, status, GONE, now, park=park)])
    await store.apply([UpdateSession("parked", 1, 11.5, status="parked", park=Park("doubt", "?"))])

    async def listed(limit: int = 1000, **filters: Any) -> list[str]:
        return [session.id for session in await store.sessions(Filter(**filters), limit=limit)]

    asks = ["cancelled doubt", "parked", "doubt", "old doubt"]
    assert await listed() == [*asks, "idle", "done", "unclaimed"]
    assert await listed(ended=False) == [*asks, "idle"]
    assert await listed(limit=3) == asks[:3]
    for ended in (True, False):
        assert await listed(status="killed", ended=ended) == ["doubt", "old doubt", "done"]
        assert await listed(status="killed", ended=ended, limit=2, tenant="acme") == ["doubt", "old doubt"]
        assert await listed(status="parked", ended=ended) == ["parked"]
    assert await store.counts() == {"idle": 1, "parked": 1, "killed": 3, "cancelled": 2}
    await store.apply([UpdateSession("doubt", 1, 99.0, status="killed"), UpdateSession("old doubt", 0, 99.0, status="killed")])
    assert await listed(status="killed") == ["old doubt", "doubt", "done"]
    assert await listed(ended=False) == [id for id in [*asks, "idle"] if id != "doubt"]


# ---------------------------------------------------------------- dead letters


async def test_a_turn_that_fails_leaves_a_dead_letter_and_its_journal(store: Store) -> None:
    """The message is dead with its answer, the session failed; the turn is still open."""
    await active(store, "m", "n")
    await store.apply([step(), create("t")])
    result = await one(store, fail(outbox=(enqueue("x", "t"),)))
    assert result == Result(Status.DONE, None, (DONE,))
    session = await row(store)
    assert (session.status, session.turn, session.pending, session.updated, session.park) == ("failed", 0, 1, 9.0, None)
    message = await letter_box(store, "m")
    assert (message.state, message.reply, message.done) == (MessageState.DEAD, GONE, 9.0)
    assert await store.dead_letters() == [DeadLetter("s", "m", 1, "ValueError: no", ("refund(1)",), 9.0)]
    assert await store.dead_letters("t") == []
    assert len(await store.steps("s", 1)) == 1
    assert await one(store, enqueue("o")) == DONE, "a failed session accepts"
    assert [r.id for r in await store.runnable()] == ["t"], "and handles nothing"


async def test_a_letter_tells_what_was_done_what_is_in_doubt_and_what_failed(store: Store) -> None:
    """Three lists, of any text; each keeps its order."""
    await active(store, "m")
    in_doubt, failed = ("charge(2)", "mail(\u00e9)", "charge(2)"), ("book(3)",)
    await store.apply([fail(in_doubt=in_doubt, failed=failed)])
    (letter,) = await store.dead_letters("s")
    assert letter == DeadLetter("s", "m", 1, "ValueError: no", ("refund(1)",), 9.0, in_doubt, failed)
    await store.apply([DropLetter("s", 1, ZERO, 10.0)])
    assert (await row(store)).notes == ("refund(1)",), "the next turn is told what was done"


@pytest.mark.parametrize("ended", [False, True])
async def test_a_letter_can_be_written_again_when_a_doubt_of_it_is_settled(store: Store, ended: bool) -> None:
    """The lists are the new ones; the message keeps the answer that it got, and a session that has ended stays so."""
    await active(store, "m", "n")
    epoch = 1
    await store.apply([fail(in_doubt=("charge(2)",))])
    if ended:
        await store.apply([EndSession("s", "killed", OK, 9.5, park=Park("doubt", "charge(2)"))])
        epoch = 2
    answered, before = await store.messages("s"), await row(store)
    again = msgspec.structs.replace(fail(epoch=epoch, now=12.0), effects=("refund(1)", "charge(2)"), reply=OK, cause="again")
    assert await one(store, again) == DONE
    assert await store.dead_letters() == [DeadLetter("s", "m", 1, "again", ("refund(1)", "charge(2)"), 12.0)]
    assert await store.messages("s") == answered
    assert await row(store) == msgspec.structs.replace(before, updated=12.0)
    if not ended:
        assert (await one(store, RetryLetter("s", 1, 13.0))).status is Status.DONE
        assert (await store.dead_letters(), (await row(store)).pending) == ([], 2)


async def test_a_failed_answer_tells_the_same_three_lists() -> None:
    """They are left out where they are empty, so that answers of before are as they were."""
    plain, told = Failure("TurnFailed", "s", "T", "m"), Failure("TurnFailed", "s", "T", "m", effects=("a",), in_doubt=("b",), failed=("c",))
    assert set(msgspec.msgpack.decode(encode(plain))) == {"error", "step", "type", "message"}
    assert msgspec.msgpack.decode(encode(told), type=Failure) == told
    assert msgspec.msgpack.decode(encode(plain), type=Failure) == plain


async def test_a_letter_that_is_retried_is_at_the_head_of_the_mailbox_again(store: Store) -> None:
    """Same message, same turn, same journal; the letter is gone and there is nothing more to retry."""
    await active(store, "m", "n")
    before = await letter_box(store, "m")
    await store.apply([step(), fail()])
    assert await one(store, RetryLetter("s", 1, 10.0)) == Result(Status.DONE, before)
    session = await row(store)
    assert (session.status, session.turn, session.pending, session.updated) == ("idle", 0, 2, 10.0)
    assert await store.dead_letters() == []
    loaded: Loaded = (await one(store, Activate("s", 11.0))).value
    assert [m.id for m in loaded.messages] == ["m", "n"]
    assert len(loaded.steps) == 1
    assert await one(store, RetryLetter("s", 2, 12.0)) == Result(Status.REFUSED, "none")
    assert (await one(store, fail(epoch=2))).status is Status.DONE, "it may fail again"
    assert len(await store.dead_letters("s")) == 1


async def test_a_letter_that_is_dropped_ends_its_turn_with_the_state_unchanged(store: Store) -> None:
    """Usage is kept, the effects become notes for the next turn, the message stays dead with its answer."""
    await active(store, "m", "n")
    await store.apply([step(), fail()])
    assert await one(store, DropLetter("s", 1, Usage(steps=6), 10.0)) == DONE
    session = await row(store)
    assert (session.status, session.turn, session.pending, session.updated) == ("idle", 1, 1, 10.0)
    assert (session.usage, session.notes, session.crashes) == (Usage(steps=6), ("refund(1)",), 0)
    last = (await store.checkpoints("s"))[-1]
    assert (last.turn, last.state, last.version, last.message, last.ended, last.usage) == (
        1,
        b"state-0",
        3,
        "m",
        10.0,
        Usage(steps=6),
    )
    assert (await letter_box(store, "m")).state is MessageState.DEAD
    assert await store.dead_letters() == []
    assert len(await store.steps("s", 1)) == 1
    loaded: Loaded = (await one(store, Activate("s", 11.0))).value
    assert (loaded.steps, loaded.checkpoint.turn, [m.id for m in loaded.messages]) == ([], 1, ["n"])


async def test_without_a_dead_letter_there_is_nothing_to_retry_or_drop(store: Store) -> None:
    """REFUSED with "none", and nothing changes."""
    await active(store, "m")
    before = await snapshot(store)
    none = Result(Status.REFUSED, "none")
    assert await store.apply([RetryLetter("s", 1, 4.0), DropLetter("s", 1, ZERO, 4.0)]) == [none, none]
    assert await snapshot(store) == before


async def test_an_ended_session_is_not_brought_back_by_its_dead_letter(store: Store) -> None:
    """A failed session that was cancelled stays cancelled; its letter can still be read."""
    await active(store, "m")
    await store.apply([fail(), EndSession("s", "cancelled", GONE, 10.0), Activate("s", 11.0)])
    none = Result(Status.REFUSED, "none")
    assert await store.apply([RetryLetter("s", 3, 12.0), DropLetter("s", 3, ZERO, 12.0)]) == [none, none]
    assert (await row(store)).status == "cancelled"
    assert len(await store.dead_letters("s")) == 1


async def test_a_letter_retried_or_dropped_takes_a_park_with_it(store: Store) -> None:
    """An idle session is never shown as parked on something."""
    await active(store, "m")
    park = UpdateSession("s", 1, 9.5, status="parked", park=Park("crashes", "?", 99.0))
    for op in (RetryLetter("s", 1, 10.0), DropLetter("s", 1, ZERO, 10.0)):
        await store.apply([fail(), park])
        assert (await one(store, op)).status is Status.DONE
        session = await row(store)
        assert (session.status, session.park) == ("idle", None)


async def test_dead_letters_are_read_oldest_first(store: Store) -> None:
    """Of all sessions, or of one."""
    for id, now in (("a", 7.0), ("b", 5.0)):
        failed = msgspec.structs.replace(fail(now=now), session=id)
        await store.apply([create(id), enqueue("m", id), Activate(id, 3.0), failed])
    assert [letter.session for letter in await store.dead_letters()] == ["b", "a"]
    assert [letter.session for letter in await store.dead_letters("a")] == ["a"]


# ---------------------------------------------------------------- reads


async def test_what_needs_a_person_is_listed_first(store: Store) -> None:
    """Failed, then parked, then the rest, each the latest updated first; a limit cuts the list."""
    statuses: list[SessionStatus] = ["idle", "parked", "failed", "idle", "failed", "unfinished", "parked"]
    for n, status in enumerate(statuses):
        park = Park("wait", "?") if status == "parked" else None
        id = f"{status}-{n}"
        await store.apply([create(id), Activate(id, 2.0), UpdateSession(id, 1, 10.0 + n, status=status, park=park)])
    listed = [s.id for s in await store.sessions()]
    assert listed == ["failed-4", "failed-2", "parked-6", "parked-1", "unfinished-5", "idle-3", "idle-0"]
    assert [s.id for s in await store.sessions(limit=3)] == listed[:3]
    assert [s.id for s in await store.sessions(Filter(status="failed"), limit=1)] == ["failed-4"]


async def every_kind(store: Store) -> list[Session]:
    """A session of each status, with and without a message, and parked for each reason; returns the rows in the order they were made."""
    statuses: list[SessionStatus] = ["idle", "unfinished", "failed", "finished", "cancelled", "killed"]
    rows: list[tuple[str, SessionStatus, Park | None]] = [(status, status, None) for status in statuses]
    rows += [(reason, "parked", Park(reason, "?", 70.0)) for reason in (*sorted(ASKS_A_PERSON), "wait", "breaker", "paused")]
    rows += [(f"{status} in doubt", status, Park("doubt", "?")) for status in ("cancelled", "killed")]
    for queued in (0, 1):
        for n, (name, status, park) in enumerate(rows):
            id = f"{name}-{queued}"
            made = msgspec.structs.replace(create(id), agent=f"agent-{n % 2}", tenant=f"tenant-{n % 3}")
            await store.apply([made, *[enqueue("m", id)] * queued, Activate(id, 3.0)])
            if park is not None and status in ENDED:
                await store.apply([EndSession(id, status, GONE, 10.0 + n % 4, park=park)])
            else:
                await store.apply([UpdateSession(id, 1, 10.0 + n % 4, status=status, park=park)])
    return [await row(store, f"{name}-{queued}") for queued in (0, 1) for name, _, _ in rows]


def for_people(rows: list[Session]) -> list[str]:
    made = {session.id: n for n, session in enumerate(rows)}
    return [session.id for session in sorted(rows, key=lambda session: (rank(session), -session.updated, -made[session.id]))]


async def test_sessions_are_listed_by_rank_then_update_then_age(store: Store) -> None:
    """The order is that of `records.rank` for every status and every reason to be parked, the latest made first where all else is equal."""
    rows = await every_kind(store)
    assert [session.id for session in await store.sessions()] == for_people(rows)
    shown = [session for session in rows if session.status not in ENDED or session.unresolved is not None]
    assert [session.id for session in await store.sessions(Filter(ended=False))] == for_people(shown)
    assert sum(session.status in ENDED for session in shown) == 4


@pytest.mark.parametrize("status", [*DISPLAY_STATUSES, "dead"])
async def test_a_list_can_be_narrowed_to_a_status_as_people_see_it(store: Store, status: str) -> None:
    """ "working" is whoever has a message and may handle it; a status that is an end is shown whatever `ended` says."""
    rows = [session for session in await every_kind(store) if display_status(session) == status]
    for ended in (True, False):
        assert [session.id for session in await store.sessions(Filter(status=status, ended=ended))] == for_people(rows)


async def test_a_list_can_be_narrowed_to_an_agent_and_a_tenant(store: Store) -> None:
    """Both at once, and beside the other filters."""
    rows = await every_kind(store)
    for agent, tenant in (("agent-1", None), (None, "tenant-2"), ("agent-0", "tenant-1"), ("nobody", None)):
        wanted = [s for s in rows if agent in (None, s.agent) and tenant in (None, s.tenant)]
        assert [s.id for s in await store.sessions(Filter(agent=agent, tenant=tenant))] == for_people(wanted)
        parked = [s for s in wanted if s.status == "parked"]
        assert [s.id for s in await store.sessions(Filter(status="parked", agent=agent, tenant=tenant), limit=2)] == for_people(parked)[:2]


async def test_sessions_are_counted_by_the_status_that_people_see(store: Store) -> None:
    """Only those that occur; nothing in an empty store."""
    assert await store.counts() == {}
    rows = await every_kind(store)
    assert await store.counts() == dict(Counter(map(display_status, rows)))
    await store.apply([EndSession("doubt-0", "killed", GONE, 99.0)])
    assert (await store.counts())["killed"] == 5


async def test_sessions_that_have_not_ended_are_counted_by_their_agent(store: Store) -> None:
    """In the order of the names; not those that have ended, in doubt or not, and no agent that has none left."""
    assert await store.agents() == {}
    rows = await every_kind(store)
    names = ["Sales", "agent-0", "over", "über"]
    await store.apply([msgspec.structs.replace(create(f"of {name}"), agent=name) for name in reversed(names) if name != "agent-0"])
    await store.apply([EndSession("of over", "killed", GONE, 20.0, park=Park("doubt", "?"))])
    left = Counter(session.agent for session in rows if session.status not in ENDED)
    assert list((await store.agents()).items()) == [("Sales", 1), ("agent-0", left["agent-0"]), ("agent-1", left["agent-1"]), ("über", 1)]
    await store.apply([EndSession("of Sales", "cancelled", GONE, 30.0)])
    assert "Sales" not in await store.agents()


WAYS_OUT: dict[str, Callable[[], Op]] = {
    "committed": lambda: commit(),
    "failed": lambda: fail(),
    "ended": lambda: EndSession("s", "killed", GONE, 9.0),
    "resumed": lambda: UpdateSession("s", 1, 9.0, status="idle"),
    "parked for something else": lambda: UpdateSession("s", 1, 9.0, status="parked", park=Park("wait", "?")),
}


@pytest.mark.parametrize("way", WAYS_OUT)
async def test_a_session_that_left_its_park_is_listed_where_it_stands_now(store: Store, way: str) -> None:
    """Whatever takes a park away takes its place in the list away, too: parked again for something else, it asks nobody."""
    await active(store, "m")
    await store.apply([create("other"), Activate("other", 3.0), UpdateSession("s", 1, 4.0, status="parked", park=Park("doubt", "?"))])
    await store.apply([UpdateSession("other", 1, 8.0, status="parked", park=Park("breaker", "?"))])
    assert [s.id for s in await store.sessions()] == ["s", "other"]
    await store.apply([WAYS_OUT[way]()])
    rows = [await row(store, id) for id in ("s", "other")]
    assert [s.id for s in await store.sessions()] == for_people(rows)


async def test_the_journals_of_open_turns_are_read_together(store: Store) -> None:
    """As `steps` gives each without values; sessions without a record in the open turn, and unknown ones, are left out."""
    await active(store, "m")
    await store.apply([step(b"old"), commit(), step(b"b", turn=2), step(b"a", StepState.WAITING, turn=2), step(b"b", turn=2)])
    await store.apply([create("t"), Activate("t", 3.0), step(b"k", session="t"), create("empty"), create("not asked for")])
    found = await store.open_steps(["t", "nobody", "empty", "s"])
    assert found == {"s": await store.steps("s", 2, most=0), "t": await store.steps("t", 1, most=0)}
    assert [s.key for s in found["s"]] == [b"b", b"a"]
    assert await store.open_steps([]) == {}


async def test_ids_that_contain_a_text_are_found_in_the_order_they_were_made(store: Store) -> None:
    """The text is taken as it is: no pattern, no other case."""
    await store.apply([create(id) for id in ("order-2", "border", "Order-3", "re%er", "order-1", "last-order")])
    assert await store.similar("order") == ["order-2", "border", "order-1"]
    assert await store.similar("order", limit=9) == ["order-2", "border", "order-1", "last-order"]
    assert (await store.similar("%"), await store.similar("_"), await store.similar("zzz")) == (["re%er"], [], [])


async def test_the_owner_of_an_open_store_is_this_process(store: Store) -> None:
    """By the id and the machine that a person finds it by."""
    owner = await store.owner()
    assert (owner.process, owner.host) == (os.getpid(), socket.gethostname())


async def test_checkpoints_are_read_from_turn_to_turn(store: Store) -> None:
    """Both ends included; an end that is beyond what is there is no error."""
    await active(store)
    await store.apply([commit(f"m{turn}", turn=turn) for turn in (1, 2, 3, 4)])
    for first, last, found in ((0, None, [0, 1, 2, 3, 4]), (2, 3, [2, 3]), (3, None, [3, 4]), (0, 0, [0]), (4, 99, [4]), (5, None, [])):
        assert [c.turn for c in await store.checkpoints("s", first=first, last=last)] == found


async def test_a_message_keeps_the_trace_of_its_sender(store: Store) -> None:
    """In every read, and through every change of the message; another trace makes it no other message."""
    await active(store)
    await store.apply([enqueue("m", context="00-a-b-01"), enqueue("n")])
    assert (await one(store, enqueue("m", context="other"))).value.context == "00-a-b-01"
    loaded: Loaded = (await one(store, Activate("s", 5.0))).value
    assert [m.context for m in loaded.messages] == [m.context for m in await store.messages("s")] == ["00-a-b-01", ""]
    await store.apply([fail(epoch=2)])
    assert (await letter_box(store, "m")).context == "00-a-b-01"
    assert (await one(store, RetryLetter("s", 2, 9.0))).value.context == "00-a-b-01"
    assert [m.context for m in (await one(store, EndSession("s", "killed", GONE, 9.0))).value.answered] == ["00-a-b-01", ""]


async def test_children_are_listed_in_the_order_they_were_created(store: Store) -> None:
    """By the session of their parent, whatever the step."""
    boss, other = Address("boss", 1, b"x"), Address("other", 1, b"x")
    await store.apply([create("boss"), create("z", parent=boss), create("y", parent=other), create("a", parent=boss)])
    await store.apply([Activate("z", 5.0), UpdateSession("z", 1, 6.0, status="idle"), create("b", parent=Address("boss", 3, b"y"))])
    assert [s.id for s in await store.children("boss")] == ["z", "a", "b"]
    assert await store.children("z") == []


async def test_children_that_live_on_after_their_parent_are_orphans(store: Store) -> None:
    """In the order they were created; those that are detached, have ended, or have no parent in this store are none."""
    boss = Address("boss", 1, b"x")
    made = [msgspec.structs.replace(create(id, parent=boss), detached=False) for id in ("z", "over", "a")]
    nobodys = msgspec.structs.replace(create("nobodys", parent=Address("nobody", 1, b"x")), detached=False)
    await store.apply([create("boss"), *made, create("free", parent=boss), create("own"), nobodys])
    await store.apply([EndSession("over", "cancelled", GONE, 4.0)])
    assert await store.orphans() == []
    await store.apply([EndSession("boss", "killed", GONE, 5.0)])
    assert await store.orphans() == ["z", "a"]
    await store.apply([EndSession("z", "cancelled", GONE, 6.0)])
    assert await store.orphans() == ["a"]


async def test_children_of_a_turn_that_was_dropped_are_orphans(store: Store) -> None:
    """Those that this turn made, and not those of other turns; the parent lives on. Once each, whether the parent ends or not."""

    def child(id: str, turn: int, parent: str = "s", **more: Any) -> CreateSession:
        return msgspec.structs.replace(create(id, parent=Address(parent, turn, b"spawn")), detached=False, **more)

    await active(store, "m", "n", "o")
    await store.apply(
        [child("first", 1), commit(), child("z", 2), child("over", 2), child("a", 2), create("boss"), child("others", 2, "boss")]
    )
    await store.apply([msgspec.structs.replace(child("free", 2), detached=True), EndSession("over", "cancelled", GONE, 5.0)])
    await store.apply([fail("n", turn=2)])
    assert await store.orphans() == []
    await store.apply([DropLetter("s", 1, ZERO, 10.0)])
    assert [c.dropped for c in await store.checkpoints("s")] == [False, False, True]
    assert await store.orphans() == ["z", "a"]
    await store.apply([child("later", 3), commit("o", turn=3), EndSession("z", "cancelled", GONE, 11.0)])
    assert [c.dropped for c in await store.checkpoints("s")] == [False, False, True, False]
    assert await store.orphans() == ["a"]
    assert (await one(store, Activate("s", 12.0))).value.checkpoint.dropped is False
    await store.apply([EndSession("s", "killed", GONE, 13.0)])
    assert await store.orphans() == ["first", "a", "later"]


async def test_an_activation_tells_whether_the_last_turn_was_dropped(store: Store) -> None:
    """Twice in a row, too: the state is the one of the last turn that was committed."""
    await active(store, "m", "n")
    await store.apply([fail(), DropLetter("s", 1, ZERO, 10.0), fail("n", turn=2), DropLetter("s", 1, ZERO, 11.0)])
    loaded: Loaded = (await one(store, Activate("s", 12.0))).value
    assert loaded.checkpoint == Checkpoint(2, b"state-0", 3, "n", 11.0, 11.0, ZERO, dropped=True)


async def test_what_has_something_to_do_is_runnable(store: Store) -> None:
    """Queued messages run now, parked sessions at their time; what waits for a person, failed or ended does not run."""
    ids = ["idle", "queued", "watched", "timed", "held", "failed", "ended"]
    await store.apply([op for id in ids for op in (create(id), Activate(id, 2.0))])
    await store.apply([enqueue(f"m-{id}", id) for id in ids if id not in ("idle", "watched")])
    await store.apply(
        [
            enqueue("w", "watched", kind="watch"),
            UpdateSession("timed", 1, 3.0, status="parked", park=Park("breaker", "?", 77.0, ("a", "b"), since=3.0)),
            UpdateSession("held", 1, 3.0, status="parked", park=Park("doubt", "?")),
            UpdateSession("failed", 1, 3.0, status="failed"),
            EndSession("ended", "killed", GONE, 3.0),
        ]
    )
    runnable = sorted(await store.runnable(), key=lambda r: r.id)
    assert runnable == [Runnable("queued", None), Runnable("timed", 77.0, ("a", "b"), 3.0)]


async def test_a_read_of_what_is_not_there_is_empty(store: Store) -> None:
    """None or nothing, never an error."""
    assert await store.session("s") is None
    assert await store.message("s", "m") is None
    assert (await store.messages("s"), await store.steps("s", 1), await store.checkpoints("s")) == ([], [], [])
    assert (await store.orphans(), await store.agents()) == ([], {})
    assert (await store.children("s"), await store.dead_letters("s"), await store.runnable(), await store.sessions()) == (
        [],
        [],
        [],
        [],
    )


async def test_an_earlier_state_comes_back_as_a_turn_of_its_own(store: Store) -> None:
    """The rows of the turns since stay; messages stay as they are."""
    await active(store, "m", "n")
    park = Park("paused", "wait")
    rewind = Rewind("s", 1, 2, b"first", 3, 7, ("pay",), 9.0)
    assert (
        await store.apply([commit(), rewind, msgspec.structs.replace(rewind, turn=3, now=10.0, status="parked", park=park)]) == [DONE] * 3
    )
    zero, first, second, third = await store.checkpoints("s")
    assert (second.turn, second.state, second.version, second.fingerprint, second.message, second.ended) == (2, b"first", 3, 7, None, 9.0)
    assert (zero.turn, first.turn, third.turn, third.state) == (0, 1, 3, b"first")
    row = await store.session("s")
    assert row is not None
    assert (row.turn, row.status, row.park, row.notes, row.updated, row.pending) == (3, "parked", park, ("pay",), 10.0, 1)
    loaded = (await one(store, Activate("s", 11.0))).value
    assert (loaded.checkpoint.turn, loaded.checkpoint.state, loaded.checkpoint.fingerprint) == (3, b"first", 7)
    assert await store.apply([Rewind("s", 2, 3, b"", 1, 0, (), 12.0), Rewind("s", 1, 4, b"", 1, 0, (), 12.0)]) == [FENCED] * 2


async def test_a_commit_keeps_the_fingerprint_of_the_state(store: Store) -> None:
    """Also that of the first state, and over a dropped turn."""
    await active(store, "m", "n")
    await store.apply([msgspec.structs.replace(commit(), fingerprint=(1 << 63) - 1), fail("n", turn=2), DropLetter("s", 1, ZERO, 6.0)])
    assert [each.fingerprint for each in await store.checkpoints("s")] == [0, (1 << 63) - 1, (1 << 63) - 1]
    await store.apply([msgspec.structs.replace(create("t"), fingerprint=5)])
    assert [each.fingerprint for each in await store.checkpoints("t")] == [5]
