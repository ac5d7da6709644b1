"""The datagrams that a service manager gets, read from a socket that stands in for its own."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.console.process.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager: the address that it gives out, and its socket."""
    abstract = f"holdfast-test-{os.getpid()}-{time.monotonic_ns()}"
    address = str(tmp_path / "notify") if request.param == "path" else f"@{abstract}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address if request.param == "path" else f"\0{abstract}")
        receiver.settimeout(5)
        yield address, receiver


def test_each_message_is_one_datagram_of_assignments(manager: tuple[str, socket.socket]) -> None:
    """A path and an abstract name are both reached; reloading carries the monotonic time that the protocol asks for."""
    address, receiver = manager
    notifier = Notifier(address)
    before = time.monotonic_ns() // 1000
    assert all([notifier.ready("up"), notifier.alive("well"), notifier.status("busy"), notifier.reloading(), notifier.stopping("going")])
    received = [receiver.recv(4096).decode().split("\n") for _ in range(5)]
    assert received[:3] == [["READY=1", "STATUS=up"], ["WATCHDOG=1", "STATUS=well"], ["STATUS=busy"]]
    assert received[4] == ["STOPPING=1", "STATUS=going"]
    reloading, at = received[3]
    name, _, usec = at.partition("=")
    assert (reloading, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before <= int(usec) <= time.monotonic_ns() // 1000


def test_a_status_is_one_line_without_secrets(manager: tuple[str, socket.socket]) -> None:
    """A newline in it would begin another assignment."""
    address, receiver = manager
    Notifier(address).status("failed:\nREADY=1 Bearer abcdefghijkl " + "x" * 5000)
    (line,) = receiver.recv(8192).decode().split("\n")
    assert line.startswith("STATUS=failed: READY=1 [redacted] xxx")
    assert len(line) < 1100


def test_the_environment_says_where_and_how_often_and_is_taken_out() -> None:
    """What the process starts must not speak for it."""
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    notifier = Notifier.from_environment(environment)
    assert (notifier.address, notifier.watchdog_s, environment) == ("@x", 2.5, {"HOME": "/"})


@pytest.mark.parametrize(
    ("environment", "address", "logged"),
    [
        ({}, None, ""),
        ({"NOTIFY_SOCKET": ""}, None, ""),
        ({"NOTIFY_SOCKET": "@x"}, "@x", ""),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, "@x", ""),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "soon"}, "@x", "WATCHDOG_USEC is 'soon'"),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "0"}, "@x", "WATCHDOG_USEC is '0'"),
        ({"WATCHDOG_USEC": "1000"}, None, ""),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, None, "NOTIFY_SOCKET is 'vsock:2:1234'"),
    ],
)
def test_what_the_environment_does_not_say_or_says_wrongly_is_left_out(
    environment: dict[str, str], address: str | None, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No watchdog where none is asked for, or one of another process; nonsense is one warning and stops nothing."""
    notifier = Notifier.from_environment(environment)
    assert (notifier.address, notifier.watchdog_s) == (address, None)
    assert [record.getMessage().startswith(logged) for record in caplog.records] == ([True] if logged else [])


def test_without_a_service_manager_nothing_is_sent() -> None:
    """A process that was started by hand has nobody to tell."""
    assert Notifier().ready("up") is True


def test_a_manager_that_is_gone_is_logged_once_until_it_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every message asks to be sent again; the log has one line for all of them."""
    notifier = Notifier(str(tmp_path / "notify"))
    with caplog.at_level(logging.WARNING):
        assert [notifier.ready("up"), notifier.alive("well")] == [False, False]
    assert len(caplog.records) == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        assert notifier.ready("up") is True
        assert receiver.recv(4096).startswith(b"READY=1")


def test_a_manager_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    """The loop must not wait for it: what does not fit is to be sent again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        sent = 0
        while notifier.alive("well"):
            sent += 1
            assert sent < 100_000, "a queue of datagrams has an end"
        receiver.recv(4096)
        assert notifier.ready("up") is True
