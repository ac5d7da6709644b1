"""Several steps that wait for one message: each gets its answer, whatever answers it, in one batch or in several."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import pytest

from holdfast.policies.budget import Budget, Usage
from holdfast.stores.ops import (
    Activate,
    CommitTurn,
    CreateSession,
    EndSession,
    Enqueue,
    FailTurn,
    Op,
    Reply,
    Result,
    RetryLetter,
    Status,
    UpdateSession,
    WriteStep,
)
from holdfast.stores.protocol import Store
from holdfast.stores.records import Address, Failure, Message, Outcome, Park, StepRecord, StepState

pytestmark = pytest.mark.anyio

encode = msgspec.msgpack.encode
OK = encode(Outcome(encode("ok")))
GONE = encode(Outcome(failure=Failure("TurnFailed", "", "TurnFailed", "gone")))
ASKERS = ("a", "b", "c")


class Disk(Protocol):
    def store(self) -> Store: ...


def address(session: str) -> Address:
    return Address(session, 1, b"ask")


def asks(session: str | None, *, digest: bytes = b"d") -> Op:
    """The step of a session that waits, with its message; None for a message that no step waits for."""
    if session is None:
        return Enqueue("to", "m", b"body", digest, 2.0)
    record = StepRecord("ask", "to", "", b"digest", 0, "read", opened=1.0)
    sent = Enqueue("to", "m", b"body", digest, 2.0, reply_to=address(session))
    return WriteStep(session, 1, 1, b"ask", StepState.WAITING, encode(record), (sent,))


ENDS: dict[str, tuple[Op, bytes]] = {
    "commit": (CommitTurn("to", 1, 1, "m", b"", 1, OK, "idle", Usage(), 1.0, 9.0, outbox=(Reply(address("a"), OK, 9.0),)), OK),
    "finish": (
        CommitTurn("to", 1, 1, "m", b"", 1, OK, "finished", Usage(), 1.0, 9.0, b"", OK, GONE, (Reply(address("a"), OK, 9.0),)), OK,
    ),
    "fail": (FailTurn("to", 1, 1, "m", "a bug", (), GONE, 9.0, (Reply(address("a"), GONE, 9.0),)), GONE),
    "end": (EndSession("to", "killed", GONE, 9.0), GONE),
    "finish another turn": (CommitTurn("to", 1, 1, "other", b"", 1, OK, "finished", Usage(), 1.0, 9.0, b"", OK, GONE), GONE),
}  # fmt: skip


async def opened(store: Store) -> None:
    for id in ("to", *ASKERS):
        await store.apply([CreateSession(id, "agent", "t", "", 1, b"", Budget(), b"seed", 1.0), Activate(id, 1.0)])


async def outcomes(store: Store) -> list[tuple[StepState, bytes | None]]:
    steps = [(await store.steps(id, 1))[0] for id in ASKERS]
    return [(step.state, None if step.record.outcome is None else encode(step.record.outcome)) for step in steps]


def answered(result: Result) -> list[tuple[str, Address | None, bytes | None]]:
    value: Any = result.value
    messages: list[Message] = getattr(value, "answered", value)
    return [(message.id, message.reply_to, message.reply) for message in messages]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("batches", ["one", "two", "each"])
async def test_all_are_answered(disk: Disk, end: str, batches: str) -> None:
    """And a session that is parked for it wakes; also where the store is opened again before."""
    store = disk.store()
    await store.open()
    await opened(store)
    op, reply = ENDS[end]
    asked = [asks(id) for id in ASKERS]
    parks = [UpdateSession(id, 1, 3.0, status="parked", park=Park("wait", "waits", 99.0)) for id in ASKERS]
    if batches == "one":
        result = (await store.apply([*asked, *parks, op]))[-1]
    elif batches == "two":
        await store.apply([*asked[:2], *parks])
        result = (await store.apply([asked[2], op]))[-1]
    else:
        for each in (*asked, *parks):
            await store.apply([each])
        await store.close()
        store = disk.store()
        await store.open()
        (result,) = await store.apply([op])
    state = StepState.CLOSED if reply == OK else StepState.FAILED
    assert await outcomes(store) == [(state, reply)] * 3
    others = [("m", address(id), reply) for id in ("b", "c")]
    first = [("m", address("a"), reply)] if end in ("end", "finish another turn") else []
    assert answered(result) == first + others
    assert {each.id: each.wake_at for each in await store.runnable() if each.id != "to"} == dict.fromkeys(ASKERS, 9.0)
    message = await store.message("to", "m")
    assert message is not None
    assert (message.reply, message.also) == (reply, ())
    await store.close()


@pytest.mark.parametrize("first", [None, "a"])
async def test_a_duplicate_tells_who_waits_and_changes_nothing_else(store: Store, first: str | None) -> None:
    """The same step again is no other; another body is a conflict; without a step it is a duplicate like any other."""
    await opened(store)
    await store.apply([asks(first)])
    (result,) = await store.apply([asks("b")])
    assert result.status is Status.DONE
    (duplicate,) = result.outbox
    assert (duplicate.status, duplicate.value) == (Status.DUPLICATE, await store.message("to", "m"))
    assert duplicate.value.also == (address("b"),)
    assert duplicate.value.reply_to == (None if first is None else address(first))
    again = [(await store.apply([op]))[0] for op in (asks("b"), asks(first), asks(None))]
    assert {(each.outbox or (each,))[0].value for each in again if each.status is Status.DUPLICATE or each.outbox} == {duplicate.value}
    (conflict,) = (await store.apply([asks("c", digest=b"other")]))[0].outbox
    assert conflict == Result(Status.REFUSED, "conflict")
    row = await store.session("to")
    assert row is not None
    assert (row.pending, len(await store.messages("to"))) == (1, 1)


async def test_those_that_wait_no_more_are_forgotten(store: Store) -> None:
    """When the next one asks: their number is that of those that wait."""
    await opened(store)
    await store.apply([asks(None), asks("a"), asks("b")])
    record = StepRecord("ask", "to", "", b"digest", 0, "read", opened=1.0)
    await store.apply([WriteStep("a", 1, 1, b"ask", StepState.FAILED, encode(record))])
    await store.apply([asks("c")])
    message = await store.message("to", "m")
    assert message is not None
    assert message.also == (address("b"), address("c"))
    (result,) = await store.apply([ENDS["commit"][0]])
    assert answered(result) == [("m", address("b"), OK), ("m", address("c"), OK)]


async def test_an_answered_message_answers_at_once(store: Store) -> None:
    """The duplicate has the reply, and no step is noted; a letter that is retried takes askers again."""
    await opened(store)
    await store.apply([asks("a"), ENDS["fail"][0]])
    duplicate = (await store.apply([asks("b")]))[0].outbox[0]
    assert (duplicate.status, duplicate.value.reply, duplicate.value.also) == (Status.DUPLICATE, GONE, ())
    await store.apply([RetryLetter("to", 1, 10.0), asks("c")])
    (result,) = await store.apply([ENDS["commit"][0]])
    assert answered(result) == [("m", address("c"), OK)]
    assert [state for state, _ in await outcomes(store)] == [StepState.FAILED, StepState.WAITING, StepState.CLOSED]
