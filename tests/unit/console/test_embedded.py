"""The control socket of a Runtime that opens it itself, `Runtime(control=...)`."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import ConfigError, Runtime, Session, StoreLocked, agent
from holdfast.console.api.server import controlled
from holdfast.console.client.reach import of_target
from holdfast.stores.memory.store import MemoryStore
from tests.installed import site


@agent
async def echo(session: Session[None], text: str) -> str:
    return text


def embedded(store: Any, control: Any) -> Runtime:
    return Runtime(store, [echo], telemetry=False, control=control)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, of an installed package, with a runtime folder that no other test uses."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("HOLDFAST_SOCKET", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(site(tmp_path / "site")))
    return tmp_path


async def test_it_is_found_by_its_store(place: Path) -> None:
    """Where the commands look for the process of a store; only while it is open, and again when it is opened again."""
    runtime = embedded("sqlite:///sessions.db", True)
    for life in range(2):
        async with runtime:
            async with holdfast.connect("sqlite:///sessions.db") as node:
                session = await node.spawn("echo", id="s")
                assert await session.ask("hello", id=f"m{life}") == "hello"
            assert list((place / "run" / "holdfast").glob("*.sock"))
            assert [child.id for child in runtime.tree().children[1].supervisor.children] == ["control"]  # type: ignore[union-attr]
        assert not list((place / "run" / "holdfast").iterdir())
        with pytest.raises(holdfast.NodeUnreachable):
            of_target("sqlite:///sessions.db")


@pytest.mark.parametrize("kind", [str, Path])
async def test_it_listens_at_the_path_that_it_was_given(kind: Any) -> None:
    """As text or as a path; then any store will do."""
    async with embedded("memory:", kind("own/app.sock")) as runtime:
        async with holdfast.connect("own/app.sock") as node:
            assert await node.session((await runtime.spawn(echo)).id).ask("hello") == "hello"
    assert os.listdir("own") == []


async def test_the_environment_may_name_the_path(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """As for `holdfast run`, and for the commands that look for it."""
    monkeypatch.setenv("HOLDFAST_SOCKET", str(place / "own" / "env.sock"))
    async with embedded("memory:", True), holdfast.connect() as node:
        await node.spawn("echo", id="s")


async def test_a_store_that_cannot_be_named_needs_a_path() -> None:
    """No command could find its process: it is told before anything is left open."""
    store = MemoryStore()
    with pytest.raises(ConfigError, match="no other process can name the store 'memory:': give the path of the socket"):
        await embedded(store, True).start()
    await store.open()


async def test_a_path_in_use_is_refused() -> None:
    """Nothing is left open where it cannot listen."""
    async with embedded("memory:", "own/app.sock"):
        store = MemoryStore()
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            await embedded(store, "own/app.sock").start()
        await store.open()


async def test_a_store_in_use_is_told_before_its_socket() -> None:
    """Who comes second learns that the store is in use, and does not touch the socket."""
    async with embedded("sqlite:///sessions.db", True):
        with pytest.raises(StoreLocked):
            await embedded("sqlite:///sessions.db", True).start()
        async with holdfast.connect("sqlite:///sessions.db"):
            pass


async def test_holdfast_run_decides_in_its_place(place: Path) -> None:
    """One socket, not two: at the path that the code gave unless the command line gives another one."""
    for given, expected in ((None, "own/app.sock"), ("own/other.sock", "own/other.sock")):
        runtime = embedded("memory:", "own/app.sock")
        with controlled(runtime, given) as path:
            assert path == str(place / expected)
            async with runtime, holdfast.connect(path):
                assert [f"own/{name}" for name in os.listdir("own") if name.endswith(".sock")] == [expected]


@pytest.mark.parametrize("control", ["", None, 3, b"path"])
def test_what_is_no_path_is_refused(control: Any) -> None:
    """Where the Runtime is made."""
    with pytest.raises(ConfigError, match=r"control is .*: give True, False, or the path of the socket"):
        embedded("memory:", control)


def test_a_package_that_does_not_offer_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, where the Runtime is made; without `control` nothing is looked for."""
    monkeypatch.setattr(metadata, "entry_points", lambda **_: ())
    embedded("memory:", False)
    with pytest.raises(ConfigError) as refused:
        embedded("memory:", True)
    assert str(refused.value) == "no installed package offers 'control' (holdfast.services): install holdfast again, or leave out control="
