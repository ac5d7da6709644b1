"""The health check that the watchdog of a service manager depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from holdfast import NotWritten, Runtime, Session, StoreError, agent
from holdfast.stores.ops import Op
from tests.unit.runtime.support import World


class FullDisk:
    """Fails every write while `full`."""

    full = True

    async def before_apply(self, n: int, ops: Sequence[Op]) -> None:
        if self.full:
            raise NotWritten("the disk is full")

    async def after_apply(self, n: int, ops: Sequence[Op]) -> None:
        pass


def test_a_health_check_after_a_failed_write_tries_one_and_the_node_is_ready_again_when_it_succeeds() -> None:
    """A node that has nothing to write finds out by itself that the disk has room again."""
    world, disk = World(), FullDisk()

    @agent
    async def echo(session: Session[Any], text: str) -> str:
        return text

    async def main(runtime: Runtime) -> Any:
        await runtime.check_health()
        world.store.faults = disk
        with pytest.raises(StoreError):
            await runtime.spawn(echo, id="s")
        with pytest.raises(StoreError, match="the disk is full"):
            await runtime.check_health()
        before = runtime.statistics()["ready"]
        disk.full = False
        await runtime.check_health()
        return before, runtime.statistics()["ready"]

    assert world.life(echo, main) == (0, 1)
