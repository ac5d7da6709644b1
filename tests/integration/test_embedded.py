"""A program of a user's own with a Runtime in it, seen from outside by the commands and by `holdfast.connect()`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from tests.installed import ROOT, site

COMMAND = [sys.executable, "-c", "from holdfast.console.cli.app import main; main()"]

PROGRAM = """
import asyncio
import sys
from holdfast import Runtime, Session, agent

@agent
async def echo(session: Session[None], text: str) -> str:
    return f"{text} from inside"

async def main():
    runtime = Runtime("sqlite:///sessions.db", agents=[echo], control=True)
    await runtime.start()
    ticket = await runtime.spawn(echo, id="ticket-1", tenant="acme")
    await ticket.ask("hello")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runtime.stop()

asyncio.run(main())
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """The program, with its session answered; it stops when its input ends."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("HOLDFAST_SOCKET", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{site(tmp_path / 'site')}{os.pathsep}{ROOT}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen([sys.executable, "program.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()
        assert process.wait(10.0) == 0


def holdfast_(*arguments: str) -> str:
    ran = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


async def test_an_embedded_runtime_is_seen_from_outside(program: subprocess.Popen[str], tmp_path: Path) -> None:
    """`ps`, `show` and `ask` find the process by its store or its folder, and `connect` asks its session."""
    for where in (("--store", f"sqlite:///{tmp_path}/sessions.db"), ("--db", "sessions.db"), ()):
        shown = json.loads(holdfast_("ps", "--json", *where))
        assert [line["session"] for line in shown["sessions"]] == ["ticket-1"]
        assert shown["process"] == program.pid
    assert f"run by process {program.pid}" in holdfast_("ps")
    assert f"process {program.pid}" in holdfast_("doctor")
    assert "acme" in holdfast_("show", "ticket-1")
    assert "again from inside" in holdfast_("ask", "ticket-1", "again")
    async with holdfast.connect(f"sqlite:///{tmp_path}/sessions.db") as node:
        assert await node.session("ticket-1").ask("hello") == "hello from inside"
    assert program.stdin is not None
    program.stdin.close()
    assert program.wait(10.0) == 0
    assert "run by process" not in holdfast_("ps"), "its store is read from outside, and was stopped cleanly"
    assert not list((tmp_path / "run" / "holdfast").iterdir())
