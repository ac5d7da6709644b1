"""The control API over its real socket, server and client in one process: waits, streams, hang-ups and connections that ask nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import httpx
import pytest

import holdfast
from holdfast import Runtime, Session, agent, events
from holdfast.console.api import server
from holdfast.console.api.events import READERS
from holdfast.console.api.server import controlled
from holdfast.console.client import node as client
from holdfast.console.client.node import connect, open_node

ODD = "odd\u2028line\u2029of\u0085a\x1cmodel"


class Gate:
    """A step that ends when it is told to."""

    def __init__(self) -> None:
        self.began, self.go = asyncio.Event(), asyncio.Event()

    async def step(self) -> int:
        self.began.set()
        await self.go.wait()
        return 1


class Place:
    """A running Runtime, and the path of its socket."""

    def __init__(self, runtime: Runtime, path: str, gate: Gate) -> None:
        self.runtime, self.path, self.gate = runtime, path, gate

    async def stepping(self, id: str) -> None:
        """Have a session whose step is in flight."""
        handle = await self.runtime.spawn(self.runtime.agents["busy"], id=id)
        await handle.tell("go")
        await self.gate.began.wait()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    gate = Gate()

    @agent
    async def busy(session: Session[None], text: str) -> int:
        if text == "odd":
            raise ValueError(ODD)
        return await session.step(gate.step)

    runtime = Runtime("memory:", agents=[busy])
    with controlled(runtime, str(tmp_path / "own" / "s")) as path:
        async with runtime:
            yield Place(runtime, path, gate)


# ---------------------------------------------------------------- waits


async def test_a_pause_from_outside_waits_for_the_step_in_flight(place: Place) -> None:
    """Longer than anything else may take to be answered, as inside the process."""
    await place.stepping("s")
    async with connect(place.path, timeout_s=0.05) as node:
        pausing = asyncio.ensure_future(node.session("s").pause("look"))
        done, _ = await asyncio.wait((pausing,), timeout=0.2)
        assert not done
        place.gate.go.set()
        await pausing
        assert (await place.runtime.session("s").row()).status == "parked"


async def test_a_pause_goes_on_where_whoever_asked_for_it_hangs_up(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The request ends with them and is kept; the session pauses once its step has ended."""
    caplog.set_level(logging.INFO, "holdfast.audit")
    await place.stepping("s")
    async with connect(place.path) as node:
        pausing = asyncio.ensure_future(node.session("s").pause("look"))
        await asyncio.wait((pausing,), timeout=0.1)
        pausing.cancel()
        with anyio.fail_after(5):
            while not caplog.records:  # noqa: ASYNC110 — that the connection is closed the server learns from its loop
                await asyncio.sleep(0.001)
    assert caplog.records[0].message.startswith("pause by uid=")
    place.gate.go.set()
    with anyio.fail_after(5):
        while (await place.runtime.session("s").row()).status != "parked":  # noqa: ASYNC110 — as above
            await asyncio.sleep(0.001)


async def test_a_time_limit_that_took_several_requests_is_told_as_a_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long one request may wait."""
    monkeypatch.setattr(client, "WAIT_S", 0.02)
    await place.stepping("s")
    async with connect(place.path) as node:
        with pytest.raises(holdfast.ReplyTimeout, match=r"within 0\.05 s; ask again with id='m2'") as late:
            await node.session("s").ask("go", id="m2", timeout_s=0.05)
        assert late.value.timeout_s == 0.05
        with pytest.raises(holdfast.ReplyTimeout, match=r"not ended within 0\.05 s"):
            await node.session("s").result(timeout_s=0.05)
    place.gate.go.set()


# ---------------------------------------------------------------- streams


async def test_any_text_comes_through_a_stream_of_events(place: Place) -> None:
    """What ends a line elsewhere does not here."""
    await place.runtime.spawn(place.runtime.agents["busy"], id="s")
    async with connect(place.path) as node, node.watch("s", kinds=()) as watched:
        await node.session("s").tell("odd")
        async for event in watched:
            if event.event == "TurnCrashed":
                assert ODD in event.fields["error"]
                break


async def test_an_error_of_whoever_watches_is_their_own(place: Place) -> None:
    """Also where it is one that the client itself could have met."""
    async with connect(place.path) as node:
        with pytest.raises(httpx.ConnectError, match="my own service"):
            async with node.watch():
                raise httpx.ConnectError("my own service")


async def test_a_process_that_gives_no_sign_of_life_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was stopped leaves its connections open, and whoever reads would wait for ever."""
    monkeypatch.setattr(client, "HEARTBEAT_S", 0.01)
    asked = iter((b"content-length: 2\r\ncontent-type: application/json\r\n\r\n[]", b"content-type: text/event-stream\r\n\r\n: here\n\n"))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() not in (b"\r\n", b""):
            pass
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + next(asked))
        await reader.read()
        writer.close()

    path = str(tmp_path / "s")
    async with await asyncio.start_unix_server(answer, path), open_node(path, timeout_s=0.05) as node, node.watch() as watched:
        with pytest.raises(holdfast.NodeUnreachable, match="no heartbeat"):
            await anext(watched)


async def test_a_reader_that_does_not_read_does_not_hold_up_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is cut off, without a word in the log."""

    @agent
    async def calm(session: Session[None], text: str) -> str:
        return text

    runtime = Runtime("memory:", agents=[calm])
    with controlled(runtime, str(tmp_path / "own" / "s")) as path, socket.socket(socket.AF_UNIX) as reader:
        async with runtime:
            reader.setblocking(False)
            await asyncio.get_running_loop().sock_connect(reader, path)
            await asyncio.get_running_loop().sock_sendall(reader, b"GET /v1/events HTTP/1.1\r\nhost: h\r\n\r\n")
            with anyio.fail_after(5):
                while not runtime.observers:  # noqa: ASYNC110 — until the server has read it
                    await asyncio.sleep(0.001)
            for _ in range(900):
                runtime.observers.emit(events.Undelivered("s", "m", "x" * 1000))
            await asyncio.sleep(0.1)
            began = time.monotonic()
        took_s = time.monotonic() - began
    assert took_s < 2
    assert "Exception in ASGI" not in caplog.text
    assert not runtime.observers


async def test_only_so_many_read_live_events(place: Place) -> None:
    """Each costs every step a little; there is one observer for all of them."""
    async with connect(place.path) as node, AsyncExitStack() as readers:
        for _ in range(READERS):
            await readers.enter_async_context(node.watch())
        assert len(place.runtime.observers.all) == 1
        with pytest.raises(holdfast.RuntimeStopped, match="read live events already"):
            async with node.watch():
                pass


# ---------------------------------------------------------------- connections


async def test_a_connection_that_asks_nothing_is_closed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it sends nothing, or its request a byte at a time."""
    monkeypatch.setattr(server, "REQUEST_S", 0.05)
    for begun in (b"", b"GET /v1", b"POST /v1/cancel HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n{"):
        reader, writer = await asyncio.open_unix_connection(place.path)
        writer.write(begun)
        with anyio.fail_after(5):
            assert await reader.read() == b""
        writer.close()
    async with connect(place.path) as node:
        assert (await node.get("/agents", list[object])) != []


async def test_too_many_connections_are_told_so_and_the_others_are_served(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process keeps descriptors for its own work."""
    monkeypatch.setattr(server, "most_connections", lambda: 3)
    async with connect(place.path) as node:
        idle = [await asyncio.open_unix_connection(place.path) for _ in range(2)]
        with pytest.raises(holdfast.RuntimeStopped, match="too many connections"):
            async with connect(place.path):
                pass
        assert (await node.get("/agents", list[object])) != []
        for _, writer in idle:
            writer.close()


# ---------------------------------------------------------------- what cannot be sent


async def test_what_cannot_be_sent_is_refused_as_holdfasts_own_error(place: Place) -> None:
    """Bytes of a shell that are no text, and numbers that leave 64 bits."""
    async with connect(place.path) as node:
        for asking in (
            node.get("/sessions", object, tenant="\udcff"),
            node.spawn("busy", user="\udcff"),
            node.spawn("\udcff"),
            node.post("/cancel", {"agent": "busy", "limit": 1 << 70}, object),
        ):
            with pytest.raises(holdfast.ConfigError):
                await asking
        with pytest.raises(holdfast.ConfigError):
            async with node.watch(kinds=("\udcff",)):
                pass
    for timeout_s in (0, -1, float("nan")):
        with pytest.raises(holdfast.ConfigError, match="timeout_s"):
            async with connect(place.path, timeout_s=timeout_s):
                pass
    with pytest.raises(holdfast.ConfigError, match="is no path"):
        async with connect("a\0b"):
            pass
