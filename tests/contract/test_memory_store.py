"""What only the memory store does: faults on demand, crashes, and cancellations that land before or after a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from holdfast.errors import NotWritten, OutcomeUnknown, StoreLocked
from holdfast.policies.budget import Budget
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.ops import CreateSession, Op

pytestmark = pytest.mark.anyio


def create(id: str) -> CreateSession:
    return CreateSession(id, "agent", "acme", "ann", 1, b"", Budget(), b"", 1.0)


async def ids(store: MemoryStore) -> list[str]:
    return [session.id for session in await store.sessions()]


class Script:
    """Raises what it is told to, before or after the batch of that number."""

    def __init__(self, before: dict[int, Exception], after: dict[int, Exception]) -> None:
        self.before, self.after = before, after
        self.seen: list[int] = []

    async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
        self.seen.append(n)
        if n in self.before:
            raise self.before[n]

    async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
        if n in self.after:
            raise self.after[n]


async def test_faults_strike_before_or_after_the_batch() -> None:
    """A fault before leaves nothing written, one after leaves everything written, whatever the error says."""
    store = MemoryStore()
    await store.open()
    store.faults = script = Script({1: NotWritten("full"), 2: OutcomeUnknown("gone")}, {3: OutcomeUnknown("gone")})
    errors = []
    for id in ("a", "b", "c", "d"):
        try:
            await store.apply([create(id)])
        except (NotWritten, OutcomeUnknown) as error:
            errors.append(type(error))
    assert errors == [NotWritten, OutcomeUnknown, OutcomeUnknown]
    assert script.seen == [1, 2, 3, 4]
    assert sorted(await ids(store)) == ["c", "d"]


@pytest.mark.parametrize(("passes", "applied"), [(1, []), (2, ["a"])])
async def test_a_cancellation_lands_before_or_after_the_commit(passes: int, applied: list[str]) -> None:
    """One checkpoint on each side of the commit, and no more."""
    store = MemoryStore()
    await store.open()
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(store.apply([create("a")]))
        for _ in range(passes):
            await asyncio.sleep(0)
        writer.cancel()
    assert writer.cancelled()
    assert await ids(store) == applied


async def test_a_crash_frees_the_store_and_voids_what_was_not_applied() -> None:
    """The next owner sees that the last one died, and nothing written by it later."""
    store = MemoryStore()
    await store.open()
    unclean = [store.unclean]
    await store.apply([create("a")])
    with pytest.raises(StoreLocked):
        await store.open()
    async with asyncio.TaskGroup() as tasks:
        late = tasks.create_task(_refused(store))
        await asyncio.sleep(0)
        store.crash()
        await store.open()
        unclean.append(store.unclean)
    assert late.result()
    assert await ids(store) == ["a"]
    await store.close()
    await store.open()
    assert [*unclean, store.unclean] == [False, True, False]


async def _refused(store: MemoryStore) -> bool:
    with pytest.raises(NotWritten):
        await store.apply([create("late")])
    return True
