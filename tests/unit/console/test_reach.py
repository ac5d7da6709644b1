"""From what a person names, or does not, to the control socket of the process that is meant."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast import ConfigError, NodeUnreachable
from holdfast.console.client import reach
from holdfast.console.reading import target
from holdfast.console.wire import identity
from holdfast.console.wire.socket import default_path, listen
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.postgres.dev import DEFAULT_FOLDER
from holdfast.stores.postgres.store import PostgresStore
from holdfast.stores.sqlite.lock import take_lock
from holdfast.stores.sqlite.store import SqliteStore

Listening = Callable[[str], str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of our own to be in, and a runtime folder that nobody else uses."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.delenv("HOLDFAST_SOCKET", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def listening() -> Iterator[Listening]:
    """Has a process listen for a store, or at a path; its path."""
    taken = []

    def start(where: str) -> str:
        taken.append(listen(where if where.startswith("/") else default_path(identity.of_url(where))))
        return taken[-1].path

    yield start
    for own in taken:
        own.close()


def test_a_process_is_found_by_its_store(listening: Listening, here: Path) -> None:
    """By file, by URL, and in a folder with one database by nothing at all."""
    path = listening("sqlite:///a.db")
    assert reach.find(path="a.db") == reach.find(url="sqlite:///a.db") == reach.find(path=str(here / "a.db")) == path
    (here / "a.db").touch()
    assert reach.of_target("a.db") == reach.of_target("sqlite:///a.db") == reach.of_target(here / "a.db") == path
    assert reach.find(path="b.db") is None


def test_a_process_at_a_socket_of_its_own_is_found_by_the_lock_of_its_store(listening: Listening, here: Path) -> None:
    """As long as it holds the lock: the file names it still when it has ended."""
    folder = here / "own"
    folder.mkdir(mode=0o700)
    path = listening(str(folder / "app.sock"))
    assert reach.find(path="a.db") is None
    lock = take_lock(str(here / "a.db"), path)
    assert reach.find(path="a.db") == reach.find(url="sqlite:///a.db") == path
    lock.name_socket("")
    assert reach.find(path="a.db") is None
    lock.name_socket(path)
    assert reach.find(path="a.db") == path
    lock.close()
    assert reach.find(path="a.db") is None


@pytest.mark.parametrize("url", ["postgresql://user:pw@[::1/db", "http://user:pw@[::1/db"])
def test_a_url_that_makes_no_sense_is_told_without_its_password(url: str) -> None:
    """And in one line, not as an error of Python's own."""
    shown = target.name(url)
    assert shown == url.replace("user:pw@", "")
    if url.startswith("http"):
        with pytest.raises(ConfigError, match="cannot be read from outside"):
            reach.find(url=url)
    else:
        assert reach.find(url=url) is None


def test_a_folder_without_a_sqlite_file_says_how_to_name_another_store(here: Path) -> None:
    """Also where the database is the Postgres that postgres:dev keeps in this folder."""
    with pytest.raises(ConfigError, match=r"--db path\.db or --store URL$"):
        reach.find()
    (here / DEFAULT_FOLDER).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"--store postgres:dev$"):
        reach.find()


@pytest.mark.parametrize(
    ("store", "name"),
    [
        (PostgresStore("postgresql://user:pw@host/app?schema=other"), "postgresql://user@host/app?schema=other"),
        (PostgresStore("postgres:dev"), "postgres:dev"),
        (SqliteStore("/data/a.db"), "sqlite:////data/a.db"),
        (MemoryStore(), "memory:"),
    ],
    ids=["postgres", "postgres:dev", "sqlite", "memory"],
)
def test_a_store_is_named_by_its_url_without_its_password(store: object, name: str) -> None:
    """As `holdfast run` and `doctor` print it."""
    assert identity.url_of(store) == name


def test_a_socket_that_is_named_goes_before_the_store_and_the_environment_before_the_folder(
    listening: Listening, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    """What is named on the command line is what is meant."""
    path = listening("sqlite:///a.db")
    monkeypatch.setenv("HOLDFAST_SOCKET", "/somewhere/else")
    assert reach.find() == "/somewhere/else"
    assert reach.find(path="a.db") == path
    assert reach.find(path="a.db", socket="there") == str(here / "there")


def test_a_process_without_a_file_is_found_in_its_folder(listening: Listening) -> None:
    """One that keeps its sessions in memory."""
    with pytest.raises(ConfigError, match="no holdfast database"):
        reach.find()
    path = listening("memory:")
    assert reach.find() == reach.of_target(None) == reach.of_target("memory:") == path


def test_nobody_there_is_one_clear_error() -> None:
    """With where one would be, and what to do."""
    with pytest.raises(NodeUnreachable, match="start it with holdfast run") as nobody:
        reach.need(path="a.db")
    assert nobody.value.address == default_path(identity.of_url("sqlite:///a.db"))
    with pytest.raises(ConfigError, match="107 at most"):
        reach.find(socket="x" * 200)


def test_a_store_and_its_url_have_the_same_identity() -> None:
    """A process knows its store, whoever looks for it the URL."""
    for url in (
        "postgresql://ann:secret@db/app",
        "postgres://db:6543/app?schema=other",
        "postgresql:///app?host=/run/pg",
        "postgres:dev/data",
    ):
        assert identity.of_store(PostgresStore(url)) == identity.of_url(url)
    assert identity.of_store(SqliteStore("a.db")) == identity.of_url("sqlite:///a.db") == f"sqlite:{os.path.realpath('a.db')}"
    assert identity.of_store(MemoryStore()) == identity.of_url("memory:")


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("postgresql://ann:secret@DB/app", "postgres://bob@db:5432/app?statement_cache_size=0"),
        ("postgresql://db/app", "postgresql://ann:secret@db/app?schema=holdfast"),
        ("postgresql:///app?host=/run/pg&password=secret", "postgres:///?dbname=app&host=/run/pg"),
        ("postgres:dev", "postgres:dev?schema=holdfast"),
    ],
)
def test_a_database_is_known_by_server_name_and_schema(url: str, same: str) -> None:
    """Whoever logs in, and with whatever options; no password is in it."""
    assert identity.of_url(url) == identity.of_url(same)
    assert "secret" not in identity.of_url(url)
    assert identity.of_url(url) != identity.of_url(f"{url}{'&' if '?' in url else '?'}schema=other")
    assert identity.of_url(url) != identity.of_url("postgresql://elsewhere/app")


def test_a_file_is_known_by_its_real_path(here: Path) -> None:
    """However it is written, and through links."""
    (here / "link").symlink_to(here)
    found = {identity.of_url(url) for url in ("sqlite:///a.db", f"sqlite:///{here}/a.db", "sqlite:///link/a.db")}
    assert found == {f"sqlite:{os.path.realpath(here)}/a.db"}
