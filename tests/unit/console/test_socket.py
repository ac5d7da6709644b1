"""The control socket as a file: who gets it, who does not, and what is left behind."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.console.wire.socket import ControlSocket, candidates, default_path, exists, listen, peer
from holdfast.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is this user's alone."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def own(folder: Path) -> Iterator[ControlSocket]:
    taken = listen(str(folder / "s"))
    yield taken
    taken.close()


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_the_file_is_for_this_user_alone_and_so_is_a_folder_that_is_made_for_it(folder: Path) -> None:
    """0600 in 0700, whatever the umask was, which is as before afterwards."""
    before = os.umask(0o000)
    try:
        own = listen(str(folder / "made" / "s"))
        assert (mode(own.path), mode(folder / "made")) == (0o600, 0o700)
        assert os.umask(0o000) == 0o000
    finally:
        os.umask(before)
    own.close()


def test_a_forked_child_does_not_listen(own: ControlSocket) -> None:
    """Its parent's socket ends with its parent; what the child closes is not the parent's file."""
    ready, told = os.pipe()
    wait, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        own.close()
        os.write(told, b"x")
        os.read(wait, 1)
        os._exit(0)
    os.read(ready, 1)
    assert exists(own.path)
    own.listener.close()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(own.path)
    own.close()
    listen(own.path).close()
    for descriptor in (ready, told, wait, go):
        os.close(descriptor)
    os.waitpid(pid, 0)


def test_nothing_is_left_behind(folder: Path) -> None:
    """Neither the socket nor the lock beside it."""
    listen(str(folder / "s")).close()
    assert list(folder.iterdir()) == []


def test_a_path_too_long_for_a_socket_is_refused(folder: Path) -> None:
    """With its length and what to do, before anything is made."""
    with pytest.raises(ConfigError, match=r"107 at most.*--socket"):
        listen(str(folder / ("x" * 120)))
    assert list(folder.iterdir()) == []


def test_a_stale_file_is_replaced(folder: Path) -> None:
    """The file of a process that is gone: it is there, and nobody accepts."""
    gone = socket.socket(socket.AF_UNIX)
    gone.bind(str(folder / "s"))
    gone.close()
    own = listen(str(folder / "s"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(own.path)
    own.close()


def test_a_live_one_is_not_taken_and_its_process_is_named(folder: Path) -> None:
    """Also one of another program, which has no lock."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "s"))
        other.listen()
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            listen(str(folder / "s"))
        assert stat.S_ISSOCK(os.lstat(folder / "s").st_mode)


def test_a_second_listener_is_refused_while_the_first_lives(own: ControlSocket) -> None:
    """The lock says so, also where the first one's queue is full; the file stays the first one's."""
    before = os.lstat(own.path).st_ino
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}: stop it first, or name another"):
        listen(own.path)
    assert os.lstat(own.path).st_ino == before


def test_a_file_that_is_no_socket_is_not_removed(folder: Path) -> None:
    """Nor is a link, wherever it points."""
    (folder / "s").write_text("precious")
    (folder / "link").symlink_to(folder / "s")
    for name in ("s", "link"):
        with pytest.raises(ConfigError, match="is no socket and stays as it is"):
            listen(str(folder / name))
    assert (folder / "s").read_text() == "precious"


def test_a_folder_that_is_open_to_others_is_refused(folder: Path) -> None:
    """Whoever can write to it could put a socket of theirs there."""
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="open to others: chmod 700"):
        listen(str(folder / "s"))
    assert list(folder.iterdir()) == []


def test_a_folder_of_another_user_or_no_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a folder that cannot be made."""
    (folder / "file").touch()
    for path, says in ((folder / "file" / "s", "no folder"), (folder / "a" / "b" / "s", "No such file")):
        with pytest.raises(ConfigError, match=says):
            listen(str(path))
    theirs = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: theirs)
    with pytest.raises(ConfigError, match=f"belongs to uid {os.getuid()}, not to {theirs}"):
        listen(str(folder / "s"))


def test_only_the_file_that_was_made_here_is_removed(folder: Path) -> None:
    """One that took its place meanwhile stays."""
    own = listen(str(folder / "s"))
    (folder / "s").unlink()
    (folder / "s").write_text("another")
    own.close()
    assert (folder / "s").read_text() == "another"


def test_a_file_that_is_gone_at_the_end_is_no_error(folder: Path) -> None:
    """Somebody cleaned up."""
    own = listen(str(folder / "s"))
    os.unlink(own.path)
    own.close()


def test_both_ends_know_each_other(own: ControlSocket) -> None:
    """By what the kernel says, which no peer can choose."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(own.path)
        own.listener.setblocking(True)
        accepted, _ = own.listener.accept()
        with accepted:
            assert peer(accepted) == peer(client) == (os.getpid(), os.geteuid())


def test_a_socket_in_a_folder_open_to_others_is_not_trusted(own: ControlSocket, folder: Path) -> None:
    """A client does not speak to what somebody else may have put there."""
    assert exists(own.path)
    folder.chmod(0o777)
    assert not exists(own.path)
    folder.chmod(0o700)


# ---------------------------------------------------------------- where


def test_the_place_follows_from_the_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the login's runtime folder if there is one, else in a folder of this user's for temporary files; short enough in any case."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    path = default_path("sqlite:/data/a.db")
    assert path.startswith(f"{folder}/holdfast/")
    assert path == default_path("sqlite:/data/a.db") != default_path("sqlite:/data/b.db")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    assert list(candidates("sqlite:/data/a.db"))[-1].endswith(f"holdfast-{os.geteuid()}/{os.path.basename(path)}")


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """It could not be told from one that another process made meanwhile, however often it is opened."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    (folder / "file").touch()
    (folder / "s.lock").symlink_to(folder / "file")
    with pytest.raises(ConfigError, match="is a link"):
        listen(str(folder / "s"))
    assert (folder / "s.lock").is_symlink()
