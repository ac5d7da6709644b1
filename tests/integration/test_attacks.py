"""What hostile and clumsy code, input and surroundings do to a node: one clear line, and nobody else notices."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from holdfast import Agent, Runtime, Session, TurnFailed, agent, tool
from holdfast.errors import ConfigError, RuntimeStopped
from holdfast.stores.memory.store import MemoryStore

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from holdfast.console.cli.app import main; main()"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Base(BaseException):
    pass


class Notes(msgspec.Struct):
    lines: list[str] = []


def a_ring() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


async def one_more(x: int) -> int:
    return x + 1


@agent
async def neighbour(session: Session[Any], text: str) -> int:
    return await session.step(one_more, 1)


async def attack(bad: Agent) -> str:
    """What the asker of a bad session is told; its neighbour has to answer as ever, and the bad one must rest."""
    async with Runtime(MemoryStore(), [bad, neighbour]) as runtime:
        good, one = await runtime.spawn(neighbour), await runtime.spawn(bad)
        with pytest.raises(TurnFailed) as failed:
            await one.ask("go", timeout_s=20.0)
        assert await good.ask("still there?", timeout_s=5.0) == 2
        assert (await one.row()).status == "failed"
    return failed.value.cause


ERRORS: list[BaseException] = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopAsyncIteration(),
    Unprintable(),
    Base("mine"),
    ValueError("a file \udcff"),
    ValueError("nul \0"),
    ValueError("x" * 1_000_000),
]


@pytest.mark.anyio
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}-{len(error.args)}")
async def test_whatever_a_handler_raises_is_a_dead_letter_and_no_neighbour_notices(error: BaseException) -> None:
    """Errors that end an event loop, that cannot be printed, stored or sent: none ends another session, none is retried for ever."""

    @agent
    async def bad(session: Session[Any], text: str) -> None:
        raise error

    assert len(await attack(bad)) < 5_000


@pytest.mark.anyio
@pytest.mark.parametrize("threaded", [False, True])
async def test_a_tool_that_exits_the_interpreter_only_fails(threaded: bool) -> None:
    """`sys.exit()` in a tool, in a thread or on the loop, is that tool's failure."""

    @tool
    async def leave() -> None:
        sys.exit(3)

    @tool
    def leave_in_thread() -> None:
        sys.exit(3)

    @agent(tools=[leave, leave_in_thread])
    async def bad(session: Session[Any], text: str) -> None:
        if threaded:
            await session.step(leave_in_thread)
        await session.step(leave)

    assert "SystemExit" in await attack(bad)


@pytest.mark.anyio
@pytest.mark.parametrize("value", [a_ring(), deep(100_000), object(), "\udcff"], ids=["ring", "deep", "object", "surrogate"])
@pytest.mark.parametrize("where", ["reply", "state"])
async def test_a_reply_or_state_that_cannot_be_stored_fails_the_turn(value: Any, where: str) -> None:
    """It is neither committed nor tried for ever; the asker is told what is wrong."""

    @agent
    async def bad(session: Session[Any], text: str) -> Any:
        if where == "reply":
            return value
        session.state = value
        return None

    assert "NotJournalable" in await attack(bad)


@pytest.mark.anyio
async def test_a_state_of_the_wrong_type_is_never_committed() -> None:
    """What would not load again is refused while the last good state still stands."""

    @agent
    async def bad(session: Session[Notes], text: str) -> None:
        session.state.lines.append(5)  # type: ignore[arg-type]

    assert "lines[0]" in await attack(bad)


@pytest.mark.anyio
async def test_an_id_that_cannot_be_stored_is_refused_alone() -> None:
    """It never gets into the batch in which the writes of its neighbours are."""
    async with Runtime(MemoryStore(), [neighbour]) as runtime:
        good = await runtime.spawn(neighbour)
        for id in ("\udcff", 5):
            with pytest.raises(ConfigError):
                await runtime.spawn(neighbour, id=id)  # type: ignore[arg-type]
            with pytest.raises(ConfigError):
                await good.tell("hello", id=id)  # type: ignore[arg-type]
        assert await good.ask("still there?", timeout_s=5.0) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")])
async def test_a_sleep_that_would_never_end_fails_the_turn(seconds: float) -> None:
    """It would be parked for ever, and nobody would see why."""

    @agent
    async def bad(session: Session[Any], text: str) -> None:
        await session.sleep(seconds)

    await attack(bad)


@pytest.mark.anyio
async def test_a_session_object_that_outlives_its_turn_does_nothing() -> None:
    """What it would do is in no journal that is ever replayed."""
    kept: list[Session[Any]] = []
    runs: list[int] = []

    async def effect(x: int) -> int:
        runs.append(x)
        return x

    @agent
    async def leaky(session: Session[Any], text: str) -> int:
        kept.append(session)
        return await session.step(effect, 1)

    async with Runtime(MemoryStore(), [leaky]) as runtime:
        await (await runtime.spawn(leaky)).ask("go", timeout_s=5.0)
        for late in (kept[0].step(effect, 2), kept[0].sleep(0.0), kept[0].now(), kept[0].tell("x", 1)):
            with pytest.raises(RuntimeStopped, match="turn that has ended"):
                await late
    assert runs == [1]


# ---------------------------------------------------------------- the command line

STUCK = """
import asyncio, threading
from holdfast import Runtime, Session, agent, tool

@tool(timeout_s=0.1)
def for_ever() -> None:
    print("fed", flush=True)
    threading.Event().wait()

@agent(tools=[for_ever])
async def deaf(session: Session[None], how: str) -> None:
    if how == "thread":
        await session.step(for_ever)
    print("fed", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:
            pass

runtime = Runtime("memory:", agents=[deaf], drain_s=0.2, quarantine_s=0.1)

async def task(runtime):
    await (await runtime.spawn(deaf)).tell("task")
    await asyncio.Event().wait()

async def thread(runtime):
    await (await runtime.spawn(deaf)).tell("thread")
    await asyncio.Event().wait()
"""

MODULES = {
    "exits": "import sys; sys.exit(3)",
    "unprintable": "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E()",
    "odd": "def leave(): raise SystemExit(4)\ndef __getattr__(name): raise ZeroDivisionError(name)",
}


@pytest.mark.parametrize("feed", ["task", "thread"])
def test_a_process_exits_with_0_though_a_task_or_a_thread_does_not_end(tmp_path: Path, feed: str) -> None:
    """One signal is enough, whatever a handler swallows and a tool's thread waits for."""
    (tmp_path / "stuck.py").write_text(STUCK)
    with subprocess.Popen(
        [*COMMAND, "run", "stuck:runtime", "--with", f"stuck:{feed}"], cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            while (line := process.stdout.readline()) != "fed\n":
                assert line, "it ended before its session was at work"
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "drained" in out
    assert "left behind" in out


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("exits:runtime", "SystemExit: 3"),
        ("unprintable:runtime", "E: (its text cannot be read)"),
        ("odd:leave", "SystemExit: 4"),
        ("odd:runtime", "ZeroDivisionError: runtime"),
        (".odd:runtime", "of the form module:attr"),
    ],
)
def test_a_module_that_misbehaves_is_one_line(tmp_path: Path, target: str, says: str) -> None:
    """Neither a traceback nor silence, and exit code 2."""
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    ran = subprocess.run([*COMMAND, "run", target], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    assert says in line


def test_a_row_that_does_not_decode_is_listed_as_that(tmp_path: Path) -> None:
    """A damaged row is listed and shown as what it is."""

    async def make() -> None:
        async with Runtime(f"sqlite:///{tmp_path}/s.db", [neighbour]) as runtime:
            await runtime.spawn(neighbour, id="s-1")

    anyio.run(make)
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("UPDATE sessions SET budget = x'07'")
    db.close()
    for command in (["ps"], ["show", "s-1"]):
        ran = subprocess.run([*COMMAND, *command], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=30)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "s-1" in ran.stdout
        assert "does not decode" in " ".join(ran.stdout.split())
