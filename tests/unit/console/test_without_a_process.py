"""Which commands read the database, and which ask the process that runs it: what README.md says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import typer.main
from typer.testing import CliRunner

from holdfast import Runtime, Session, agent
from holdfast.console.cli.app import app

PAGE = (Path(__file__).parents[3] / "README.md").read_text()
(SENTENCE,) = re.findall(r"((?:`\w+`(?:, | and ))+`\w+`) work while no process runs", PAGE)
READERS = re.findall(r"`(\w+)`", SENTENCE)
MORE: dict[str, list[str]] = {
    "spawn": ["support"], "send": ["ticket-1", "hello"], "ask": ["ticket-1", "hello"], "budget": ["ticket-1", "--steps", "1"],
    "resolve": ["ticket-1", "done"], "rewind": ["ticket-1", "--turn", "0"], "ps": [], "top": [], "doctor": [], "tree": [],
    "breakers": [], "tail": [],
}  # fmt: skip
COMMANDS = sorted(set(typer.main.get_group(app).commands) - {"run", "demo"})


@agent
async def support(session: Session[Any], text: str) -> str:
    return text


@pytest.fixture
async def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A Runtime without `control=True`, that had one session."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("HOLDFAST_SOCKET", raising=False)
    monkeypatch.chdir(tmp_path)
    runtime = Runtime("sqlite:///sessions.db", [support], telemetry=False)
    async with runtime:
        await (await runtime.spawn(support, id="ticket-1")).ask("hello")
    return runtime


def run(name: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, [name, *MORE.get(name, ["ticket-1"])])
    return ran.exit_code, ran.output


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_command_reads_the_database_or_asks_for_a_process(name: str, runtime: Runtime) -> None:
    """Without a process four commands answer; the others are refused in a line that names what to start."""
    code, said = await anyio.to_thread.run_sync(run, name)
    if name in READERS:
        assert (code, any(text in said for text in ("ticket-1", "0 messages", "spawned"))) == (0, True), said
    else:
        assert (code, "no process listens for commands on sqlite:" in said) == (2, True), said


@pytest.mark.parametrize("name", READERS)
async def test_an_embedded_runtime_without_a_socket_is_read_while_it_runs(name: str, runtime: Runtime) -> None:
    """`control=True` is for the commands that act."""
    async with runtime:
        code, said = await anyio.to_thread.run_sync(run, name)
        assert code == 0, said
        code, said = await anyio.to_thread.run_sync(run, "pause")
        assert (code, "no process listens" in said) == (2, True)
