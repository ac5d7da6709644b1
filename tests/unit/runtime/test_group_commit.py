"""What is submitted while nobody writes, or nobody ever will again: timers and callbacks do so, too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from holdfast import NotWritten, Runtime, Session, StoreLost, agent
from holdfast.errors import SupervisorGaveUp
from holdfast.stores.group import GroupCommit
from holdfast.stores.memory import MemoryStore
from holdfast.stores.ops import Activate, Op, Result


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
