"""What becomes of writes while nobody writes, or nobody ever will again, and over a store that fails for a while."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from holdfast import NotWritten, OutcomeUnknown, Runtime, Session, StoreLost, agent
from holdfast.errors import StoreError, SupervisorGaveUp
from holdfast.runtime.turns.tasks import contained
from holdfast.stores.group import GroupCommit
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.ops import Activate, Op, Result, UpdateSession
from tests.unit.supervisors.support import VirtualLoop


def test_a_write_while_the_writer_is_down_fails_in_its_future() -> None:
    """Raised in `submit`, it would end the timer that submits: no alarm of any session would ring again."""

    async def main() -> None:
        store = MemoryStore()
        await store.open()
        group = GroupCommit(store)
        writer = asyncio.ensure_future(group.run())
        await group.submit(Activate("s", 1.0))
        writer.cancel()
        await asyncio.wait((writer,))
        down = group.submit(Activate("s", 2.0))
        with pytest.raises(NotWritten):
            await down
        writer = asyncio.ensure_future(group.run())
        await asyncio.sleep(0)
        assert (await group.submit(Activate("s", 3.0))).value == "unknown"
        writer.cancel()
        await asyncio.wait((writer,))
        await store.close()

    asyncio.run(main())


class Taken(MemoryStore):
    """Another process's, from the moment on that it says so."""

    taken = False

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        if self.taken:
            raise StoreLost("it was taken over")
        return await super().apply(ops)


class Fragile(Taken):
    """A store that has to be looked at. `looks`: the times at which it was."""

    check_s = 5.0
    writing = unreadable = False

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[float] = []

    async def check(self) -> None:
        assert not self.writing, "a look in the middle of a batch"
        self.looks.append(round(asyncio.get_running_loop().time(), 2))
        if self.unreadable:
            raise StoreError("no answer")
        if self.taken:
            raise StoreLost("the file was removed")

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        self.writing = True
        try:
            await asyncio.sleep(3.0)
            return await super().apply(ops)
        finally:
            self.writing = False


def test_a_store_is_looked_at_while_nothing_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """Every few seconds, between batches. A look that fails is tried again; one that finds the store lost ends the writer."""

    async def main() -> None:
        loop, store = asyncio.get_running_loop(), Fragile()
        await store.open()
        group = GroupCommit(store)
        writer = asyncio.ensure_future(group.run())
        await asyncio.sleep(11.0)
        assert store.looks == [5.0, 10.0]
        await asyncio.sleep(3.0)  # this batch is under way when the next look is due
        assert (await group.submit(Activate("s", 1.0))).value == "unknown"
        assert round(loop.time(), 2) == 17.0
        await asyncio.sleep(0.5)
        assert store.looks == [5.0, 10.0, 17.0]
        store.unreadable = True
        await asyncio.sleep(5.0)
        assert (writer.done(), group.healthy, len(store.looks)) == (False, False, 4)
        store.unreadable, store.taken = False, True
        await asyncio.sleep(5.0)
        with pytest.raises(StoreLost, match="was removed"):
            await writer
        with pytest.raises(StoreLost, match="was removed"):
            await group.submit(Activate("s", 2.0))
        assert group.lost is not None

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def test_a_lost_store_ends_the_writer_for_good(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever waits is told, so is whoever comes later, at once; a restart ends at once; it is logged once."""

    async def main() -> None:
        store = Taken()
        await store.open()
        group = GroupCommit(store, max_batch=1)
        store.taken = True
        waiting = [group.submit(Activate("s", 1.0)) for _ in range(3)]
        with pytest.raises(StoreLost, match="taken over"):
            await group.run()
        later = group.submit(Activate("s", 2.0))
        assert later.done()
        for future in (*waiting, later):
            with pytest.raises(StoreLost, match="taken over"):
                await future
        await group.flush()
        assert not group.healthy
        store.taken = False  # it does not ask again
        with pytest.raises(StoreLost, match="taken over"):
            await group.run()
        await store.close()

    asyncio.run(main())
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


def test_a_runtime_whose_store_is_lost_gives_up() -> None:
    """The block that uses it is cancelled, and the reason comes out of it."""

    @agent
    async def echo(session: Session[None], text: str) -> str:
        return text

    async def lose() -> None:
        store = Taken()
        async with Runtime(store, [echo], telemetry=False) as runtime:
            session = await runtime.spawn(echo, id="s")
            assert await session.ask("well?") == "well?"
            store.taken = True
            with pytest.raises(StoreLost):
                await session.tell("and now?")
            await asyncio.sleep(60.0)

    with pytest.raises(ExceptionGroup) as failed:
        asyncio.run(lose())
    (given_up,) = failed.value.exceptions
    assert isinstance(given_up, SupervisorGaveUp)
    assert isinstance(given_up.__cause__, StoreLost)


# ---------------------------------------------------------------- what a session has in hand


class Flaky(MemoryStore):
    """Fails with the next of `faults`, as long as there are any; `written` has the sessions that each batch was tried with."""

    def __init__(self, *faults: Exception | None) -> None:
        super().__init__()
        self.faults_left = list(faults)
        self.tried: list[list[str]] = []
        self.at: list[float] = []

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        self.tried.append([op.session for op in ops if isinstance(op, Activate)])
        self.at.append(asyncio.get_running_loop().time())
        fault = self.faults_left.pop(0) if self.faults_left else None
        if fault is not None:
            raise fault
        return await super().apply(ops)


def run_virtual(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


@asynccontextmanager
async def writing(store: MemoryStore, **options: Any) -> AsyncIterator[GroupCommit]:
    await store.open()
    group = GroupCommit(store, **options)
    writer = asyncio.ensure_future(group.run())
    await asyncio.sleep(0)
    yield group
    writer.cancel()
    await asyncio.wait((writer,))
    await store.close()


def full() -> NotWritten:
    return NotWritten("the disk is full")


async def how(future: asyncio.Future[Result]) -> str:
    try:
        return str((await future).value)
    except StoreError as error:
        return type(error).__name__


def test_what_is_kept_is_written_again_at_the_head_and_in_order(caplog: pytest.LogCaptureFixture) -> None:
    """The others of its batch fail at once; what is submitted meanwhile goes behind it; `applied` runs once, when it is written."""
    applied: list[str] = []

    def note(name: str) -> Callable[[Result], None]:
        return lambda result: applied.append(name)

    async def main() -> None:
        store = Flaky(full())
        async with writing(store) as group:
            futures = {name: group.submit(Activate(name, 1.0), note(name), keep=name.isupper()) for name in "AbCd"}
            assert [await how(futures[name]) for name in "bd"] == ["NotWritten", "NotWritten"]
            assert (group.kept, group.healthy, applied) == (2, False, [])
            later = group.submit(Activate("e", 1.0), note("e"))
            assert not futures["A"].done()
            assert [await how(future) for future in (futures["A"], futures["C"], later)] == ["unknown"] * 3
            assert (group.kept, group.healthy, group.batches, group.ops) == (0, True, 1, 3)
        assert store.tried == [["A", "b", "C", "d"], ["A", "C", "e"]]
        assert applied == ["A", "C", "e"]

    caplog.set_level(logging.INFO)
    run_virtual(main)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "the store failed: the disk is full; 2 writes are kept in memory and written again"),
        (logging.INFO, "the store accepts writes again"),
    ]


def test_the_pause_doubles_to_a_second_and_starts_again_after_a_success(caplog: pytest.LogCaptureFixture) -> None:
    """By a timer of the loop; one warning an outage, however often it fails."""

    async def main() -> None:
        store = Flaky(*[full()] * 7, None, full(), None)
        async with writing(store) as group:
            assert await how(group.submit(Activate("A", 1.0), keep=True)) == "unknown"
            assert await how(group.submit(Activate("B", 1.0), keep=True)) == "unknown"
        pauses = [later - earlier for earlier, later in pairwise(store.at)]
        assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.0, 0.05], abs=1e-4)

    caplog.set_level(logging.WARNING)
    run_virtual(main)
    assert len(caplog.records) == 2


def test_more_is_kept_than_a_batch_holds() -> None:
    """The order stays over every failure, and the count is right all along."""
    counts: list[int] = []

    async def main() -> None:
        store = Flaky(full(), full(), None, full(), None)
        async with writing(store, max_batch=2) as group:
            futures = [group.submit(Activate(name, 1.0), keep=True) for name in "ABCDE"]
            for future in futures:
                assert await how(future) == "unknown"
                counts.append(group.kept)
        assert store.tried == [["A", "B"], ["A", "B"], ["A", "B"], ["C", "D"], ["C", "D"], ["E"]]

    run_virtual(main)
    assert counts == [2, 2, 0, 0, 0], "C and D had failed when A and B were told"


@pytest.mark.parametrize(
    ("fault", "becomes"),
    [
        (NotWritten("an op is at fault", passing=False), "NotWritten"),
        (OutcomeUnknown("the answer was lost"), "OutcomeUnknown"),
        (StoreLost("taken over"), "StoreLost"),
        (ValueError("a fault of the store"), "OutcomeUnknown"),
    ],
)
@pytest.mark.parametrize("before", [0, 1])
def test_nothing_is_kept_over_a_fault_that_does_not_pass(fault: Exception, becomes: str, before: int) -> None:
    """Also where it was kept before: an outcome that is unknown is read again, and an op at fault is not written for ever."""

    async def main() -> None:
        async with writing(Flaky(*[full()] * before, fault)) as group:
            assert await how(group.submit(Activate("A", 1.0), keep=True)) == becomes
            await asyncio.sleep(0)
            assert group.kept == 0

    run_virtual(main)


class Odd(MemoryStore):
    """Writes, and then does not answer as a store has to."""

    def __init__(self, answer: Callable[[list[Result]], Any]) -> None:
        super().__init__()
        self._answer = answer

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        results: list[Result] = self._answer(await super().apply(ops))
        return results


def _exits(_: list[Result]) -> list[Result]:
    raise SystemExit(1)


def _cancelled(_: list[Result]) -> list[Result]:
    raise asyncio.CancelledError("the connection's task was cancelled")


@pytest.mark.parametrize("answer", [lambda results: results[:-1], lambda results: None, _exits, _cancelled])
def test_no_writer_of_an_op_waits_for_ever_where_the_store_answers_oddly(answer: Callable[[list[Result]], Any]) -> None:
    """Too few results, none, an exit, or a cancellation of its own: all outcomes are unknown and read again, and the writer crashes."""

    async def main() -> None:
        store = Odd(answer)
        await store.open()
        unknown: list[Op] = []
        group = GroupCommit(store, unknown=unknown.extend)
        writer = asyncio.create_task(contained(group.run))
        told = [asyncio.create_task(how(group.submit(Activate(name, 1.0), keep=True))) for name in "AB"]
        await asyncio.wait((*told, writer), timeout=5.0)
        assert [task.done() and task.result() for task in told] == ["OutcomeUnknown"] * 2
        assert len(unknown) == 2
        assert writer.done()
        assert not writer.cancelled()
        assert isinstance(writer.exception(), Exception)

    run_virtual(main)


def test_a_timeout_of_the_store_s_own_is_not_taken_for_a_store_that_does_not_answer() -> None:
    """A driver has time limits, too: they end no process, however many there are."""
    ended: list[str] = []

    async def main() -> None:
        async with writing(Flaky(*[TimeoutError("no connection")] * 3), fatal=ended.append) as group:
            for _ in range(3):
                with pytest.raises(OutcomeUnknown, match="no connection"):
                    await group.submit(Activate("A", 1.0))
            assert await how(group.submit(Activate("A", 1.0))) == "unknown"

    run_virtual(main)
    assert ended == []


def test_what_is_kept_fails_when_the_writer_stops() -> None:
    """In its pause as well as in an attempt; a flush with a deadline returns before."""

    async def main(stop_after: float, becomes: str) -> None:
        store = Flaky(*[full()] * 99)
        async with writing(store) as group:
            futures = [group.submit(Activate(name, 1.0), keep=True) for name in "AB"]
            started = asyncio.get_running_loop().time()
            await group.flush(stop_after)
            assert asyncio.get_running_loop().time() == pytest.approx(started + stop_after, abs=1e-4)
            assert (group.kept, [future.done() for future in futures]) == (2, [False, False])
        assert [await how(future) for future in futures] == [becomes] * 2
        assert group.kept == 0

    for stop_after in (0.01, 2.5, 30.0):
        run_virtual(partial(main, stop_after, "NotWritten"))


def test_a_flush_waits_for_what_is_kept() -> None:
    """Without a deadline, until the store writes again; with one that is not reached, too."""

    async def main() -> None:
        store = Flaky(*[full()] * 3)
        async with writing(store) as group:
            future = group.submit(Activate("A", 1.0), keep=True)
            await group.flush(60.0)
            assert future.done()
            store.faults_left = [full(), full()]
            future = group.submit(Activate("A", 1.0), keep=True)
            await group.flush()
            assert future.done()

    run_virtual(main)


def test_a_caller_that_goes_away_leaves_what_is_kept() -> None:
    """A cancelled waiter takes nothing back: the op is written when the store works again."""
    applied: list[Result] = []

    async def main() -> None:
        async with writing(Flaky(full(), full())) as group:
            group.submit(Activate("A", 1.0), applied.append, keep=True).cancel()
            await asyncio.sleep(1.0)
            assert (group.kept, len(applied)) == (0, 1)

    run_virtual(main)


def test_an_error_keeps_whether_it_passes_when_it_is_copied() -> None:
    """By pickle and by its args, as group commit makes one for each waiter."""
    for error, passing in ((NotWritten("a"), True), (NotWritten("a", passing=False), False), (StoreLost("a"), False)):
        copies = [pickle.loads(pickle.dumps(error)), type(error)(*error.args), copy.copy(error)]
        assert [(type(c), str(c), c.passing) for c in copies] == [(type(error), "a", passing)] * 3


def test_the_count_of_what_is_kept_holds_where_what_follows_an_unknown_write_is_refused() -> None:
    """All that is kept is in the next batch, so what is refused behind that is none of it."""

    async def main() -> None:
        async with writing(Flaky(full(), OutcomeUnknown("the answer was lost"), None), max_batch=2) as group:
            futures = [group.submit(UpdateSession("A", 1, 1.0), keep=True) for _ in range(5)]
            other = group.submit(Activate("B", 1.0), keep=True)
            assert [await how(future) for future in futures] == ["OutcomeUnknown"] * 2 + ["NotWritten"] * 3
            assert group.kept == 0
            assert await how(other) == "unknown"

    run_virtual(main)
