"""What is submitted while nobody writes: timers and callbacks do so, too."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import NotWritten
from holdfast.stores.group import GroupCommit
from holdfast.stores.memory import MemoryStore
from holdfast.stores.ops import Activate


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
