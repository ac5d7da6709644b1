"""How the control socket takes connections, where descriptors run out."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from pathlib import Path

import anyio
import pytest

from holdfast.console.api import accepting


class Short(socket.socket):
    """A listener of a process that has no descriptors left, for a while."""

    tries = 0

    def accept(self) -> tuple[socket.socket, str]:
        self.tries += 1
        if self.tries <= 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_where_descriptors_run_out_it_waits_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It tries again after a while, once each time, and whoever waits in the queue is served then."""
    waits: list[float] = []
    sleep = anyio.sleep

    async def wait(delay_s: float) -> None:
        waits.append(delay_s)
        await sleep(0)

    monkeypatch.setattr("holdfast.console.api.accepting.anyio.sleep", wait)
    caplog.set_level(logging.WARNING)
    with Short(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        client.connect(str(tmp_path / "s"))
        served = asyncio.Event()

        async def attach(connection: socket.socket) -> None:
            connection.close()
            served.set()

        async with anyio.create_task_group() as group:
            group.start_soon(accepting.accept, listener, attach)
            await served.wait()
            group.cancel_scope.cancel()
    assert waits == [accepting.RETRY_S] * 3
    assert [record.getMessage() for record in caplog.records] == ["the control socket accepts no connection for now: Too many open files"]
