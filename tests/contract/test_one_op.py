"""One op harms only itself, on each store: what no store can hold is refused before it is queued, and a batch is written without the op
that the store refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast.codec import MAX_BYTES
from holdfast.errors import WriteRefused
from holdfast.policies.budget import Budget, Usage
from holdfast.stores.group import GroupCommit
from holdfast.stores.limits import fault_of
from holdfast.stores.ops import Activate, CreateSession, DropSteps, Enqueue, FailTurn, Op, Result, Status, UpdateSession, WriteStep
from holdfast.stores.protocol import Store
from holdfast.stores.records import Park, StepState

pytestmark = pytest.mark.anyio

HALF, NUL = "\ud83d", "\0"
HUGE: Any = 10**30


def create(id: str, **fields: Any) -> CreateSession:
    given: dict[str, Any] = {
        "agent": "a",
        "tenant": "t",
        "user": "",
        "version": 1,
        "state": b"",
        "budget": Budget(),
        "seed": b"",
        "now": 1.0,
    }
    return CreateSession(id, **{**given, **fields})


def tell(session: str, id: str, **fields: Any) -> Enqueue:
    return Enqueue(session, id, b"body", b"digest", 1.0, **fields)


REFUSED: dict[str, Op] = {
    "half a character in an id": create(HALF),
    "NUL in a tenant": create("x", tenant=f"t{NUL}"),
    "a version over 64 bits": create("x", version=1 << 63),
    "no number as a time": create("x", now=float("nan")),
    "half a character in a trace": tell("s", "m", context=HALF),
    "half a character in a cause": FailTurn("s", 1, 1, "m", HALF, (), b"", 1.0),
    "half a character in the name of an effect": FailTurn("s", 1, 1, "m", "cause", (HALF,), b"", 1.0),
    "half a character in a park": UpdateSession("s", 1, 1.0, status="parked", park=Park("doubt", HALF)),
    "a charge over 64 bits": DropSteps("s", 1, 1, (b"k",), Usage(tokens=HUGE)),
    "half a character in an outbox": WriteStep("s", 1, 1, b"k", StepState.OPEN, b"", (tell("s", HALF),)),
}


@pytest.fixture
async def group(store: Store) -> AsyncIterator[GroupCommit]:
    group = GroupCommit(store)
    writer = asyncio.create_task(group.run())
    await asyncio.gather(*(group.submit(op) for id in ("s", "other") for op in (create(id), Activate(id, 2.0))))
    yield group
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def sent(group: GroupCommit, ops: list[Op]) -> list[Status | type[BaseException]]:
    """The results of ops that are queued at once."""
    results = await asyncio.gather(*map(group.submit, ops), return_exceptions=True)
    return [each.status if isinstance(each, Result) else type(each) for each in results]


@pytest.mark.parametrize("op", REFUSED.values(), ids=REFUSED)
async def test_a_value_that_no_store_holds_is_refused_before_it_is_queued(op: Op, group: GroupCommit, store: Store) -> None:
    """The ops beside it are written in one transaction."""
    before = group.batches
    assert await sent(group, [tell("other", "m"), op, tell("other", "n")]) == [Status.DONE, WriteRefused, Status.DONE]
    assert group.batches == before + 1
    assert [message.id for message in await store.messages("other")] == ["m", "n"]


def test_an_op_that_is_too_large_is_refused() -> None:
    """A database would refuse it, or fail half-way through a gigabyte."""
    assert "bytes" in fault_of(WriteStep("s", 1, 1, b"k", StepState.OPEN, bytes(4 * MAX_BYTES + 1)))
    assert "bytes" in fault_of(Enqueue("s", "m", bytes(4 * MAX_BYTES + 1), b"digest", 1.0))
    # The record of an effect has its arguments and its result: both may be as large as a value can be.
    assert fault_of(WriteStep("s", 1, 1, b"k", StepState.CLOSED, bytes(2 * MAX_BYTES + 10_000))) == ""


@pytest.mark.parametrize("at", [0, 5, 9])
async def test_a_batch_is_written_without_the_op_that_the_store_refuses(at: int, group: GroupCommit, store: Store) -> None:
    """In order, and the batches after it as before. The store stays healthy."""
    bad: Any = "odd"
    ops: list[Op] = [tell("other", f"m{number}") for number in range(9)]
    ops.insert(at, tell("s", "bad", limit=bad))
    expected: list[Any] = [Status.DONE] * 9
    expected.insert(at, WriteRefused)
    assert await sent(group, ops) == expected
    assert [message.id for message in await store.messages("other")] == [f"m{number}" for number in range(9)]
    assert await store.messages("s") == []
    assert group.healthy
    assert await sent(group, [tell("s", "good")]) == [Status.DONE]


async def test_several_ops_at_fault_are_each_refused_alone(group: GroupCommit, store: Store) -> None:
    """Also where all of a batch are."""
    bad: Any = "odd"
    ops: list[Op] = [tell("s", f"b{number}", limit=bad) if number % 3 else tell("s", f"m{number}") for number in range(12)]
    assert await sent(group, ops) == [WriteRefused if number % 3 else Status.DONE for number in range(12)]
    assert [message.id for message in await store.messages("s")] == ["m0", "m3", "m6", "m9"]
    assert await sent(group, ops[1:3]) == [WriteRefused] * 2


@pytest.mark.parametrize("column", ["budget", "usage", "park", "notes", "returns"])
async def test_a_damaged_row_on_postgres_is_in_no_others_way(column: str, postgres_url: str) -> None:
    """Its own ops are refused, those of other sessions in the same batch are applied, and its row is not changed."""
    from holdfast.stores.postgres.store import PostgresStore

    store = PostgresStore(postgres_url)
    await store.open()
    try:
        await store.apply([op for id in ("s", "other") for op in (create(id), Activate(id, 2.0))])
        connection = await store.address.connect("reader")
        table = f'"{store.address.schema}".sessions'
        await connection.execute(f"UPDATE {table} SET {column} = '\\xc1' WHERE id = 's'")
        before = await connection.fetchrow(f"SELECT * FROM {table} WHERE id = 's'")
        ops: list[Op] = [tell("other", "m"), Activate("s", 3.0), tell("s", "m"), create("s"), Activate("other", 3.0)]
        results = await store.apply(ops)
        done, refused = Status.DONE, Status.REFUSED
        assert [result.status for result in results] == [done, refused, refused, Status.DUPLICATE, done]
        rows = {row.id: row for row in await store.sessions()}
        assert (bool(rows["s"].unreadable), rows["s"].status, rows["other"].unreadable) == (True, "parked", "")
        assert await connection.fetchrow(f"SELECT * FROM {table} WHERE id = 's'") == before
        await connection.close()
    finally:
        await store.close()
