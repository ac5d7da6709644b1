"""While many sessions resume, the garbage collector pauses; it works again however the start ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast import Runtime, Session, agent
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.records import Runnable


@agent
async def echo(session: Session[Any], text: str) -> str:
    return text


class Many(MemoryStore):
    """A store that names more sessions with work than there are."""

    async def runnable(self) -> list[Runnable]:
        return [Runnable(f"s{n}", None) for n in range(600)]


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    assert gc.isenabled()
    yield
    gc.enable()


def test_it_works_again_when_all_have_resumed() -> None:
    async def main() -> None:
        async with Runtime(Many(), [echo]) as runtime:
            while runtime.statistics()["recovering"]:  # noqa: ASYNC110 — a count has no event to wait for
                await asyncio.sleep(0)
            assert gc.isenabled()

    asyncio.run(main())


def test_it_works_again_after_a_start_that_failed() -> None:
    class Fails(Many):
        async def orphans(self) -> list[str]:
            raise RuntimeError("the disk is gone for a moment")

    async def main() -> None:
        async with Runtime(Fails(), [echo]):
            pass

    with pytest.raises(BaseException, match="gone for a moment"):
        asyncio.run(main())
    assert gc.isenabled()


def test_it_works_again_where_the_runtime_stops_at_once() -> None:
    async def main() -> None:
        async with Runtime(Many(), [echo], max_recovering=1):
            assert not gc.isenabled()

    asyncio.run(main())
    assert gc.isenabled()
