"""The `holdfast` command, as a person at a shell meets it: real processes, real signals, a real database file."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

import holdfast
from holdfast.console.cli.app import app as command
from holdfast.console.reading import target

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from holdfast.console.cli.app import main; main()"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}

APP = '''
import asyncio
import msgspec
from holdfast import Agent, Budget, Runtime, Session, agent, tool

@tool(effect="once")
async def refund(order: str) -> dict:
    return {"order": order, "token": "sk-abcdefghijklmnop"}

@tool(effect="once")
async def wire(order: str) -> dict:
    raise ConnectionError("cut")

@tool(effect="once")
async def hang() -> str:
    await asyncio.Event().wait()
    return ""

async def look(x: int) -> int:
    return x + 1

class State(msgspec.Struct):
    turns: int = 0

@agent(tools=[refund, wire, hang], budget=Budget(steps=6, usd=1), park_after_s=0.0)
async def support(session: Session[State], text: str) -> str:
    session.state.turns += 1
    await session.step(look, 1)
    match text:
        case "nap":
            await session.sleep(3600)
        case "transfer":
            await session.call_tool("wire", '{"order": "o1"}')
        case "bug":
            await session.call_tool("refund", '{"order": "o1"}')
            raise ZeroDivisionError("oops \\x1b[31m Bearer abcdefghijkl")
        case "greedy":
            for n in range(9):
                await session.step(look, 10 + n)
        case "stuck":
            await session.call_tool("hang", "{}")
        case "last":
            session.finish("bye")
    return f"hello {text} [red]x[/red]"

runtime = Runtime("sqlite:///sessions.db", agents=[support])
not_a_runtime = 3

def make():
    return runtime

async def amake():
    return runtime

def broken():
    raise ValueError("no such key: Bearer abcdefghijkl")

async def feed(runtime):
    """One session of each kind, and a line once each is where it will stay."""
    expected = {
        "hi": "idle", "nap": "parked", "transfer": "parked", "bug": "failed", "greedy": "parked", "stuck": "idle", "last": "finished",
    }
    handles = [await runtime.spawn(support, id=text, tenant="acme") for text in expected]
    for handle in handles:
        await handle.tell(handle.id, id="m1")
    while {h.id: (await h.row()).status for h in handles} != expected or runtime.statistics()["steps_in_flight"] != 1:
        await asyncio.sleep(0.01)
    print("fed", flush=True)

async def bad_feed(runtime):
    raise RuntimeError("the feed is broken")
'''

FAULTY = """
from holdfast import Runtime, Session, agent
from holdfast.stores.memory.store import MemoryStore

class Faulty(MemoryStore):
    async def apply(self, ops):
        raise RuntimeError("a bug of the store")

@agent
async def echo(session: Session[None], text: str) -> str:
    return text

runtime = Runtime(Faulty(), agents=[echo])

async def feed(runtime):
    await runtime.spawn(echo, id="x")
"""


def hold(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], cwd=folder, env=ENV, capture_output=True, text=True, timeout=30)


@contextmanager
def running(folder: Path, *args: str, until: str = "ready") -> Iterator[subprocess.Popen[str]]:
    """`holdfast run` in the background, once it has printed a line that begins with `until`; killed if it still runs at the end."""
    with subprocess.Popen(
        [*COMMAND, "run", *args], cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            while not (line := process.stdout.readline()).startswith(until):
                assert line, process.stderr.read() if process.stderr else ""
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def refused(ran: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line on stderr of a command that ended with this exit code."""
    assert ran.returncode == code, ran.stderr
    assert ran.stdout == ""
    lines = ran.stderr.splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("holdfast: ")
    return lines[0]


def in_process(*args: str) -> Any:
    return CliRunner().invoke(command, args)


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose process was killed with one session of each kind, one of them in the middle of a step."""
    folder = tmp_path_factory.mktemp("dead")
    (folder / "app.py").write_text(APP)
    with running(folder, "app:runtime", "--with", "app:feed", until="fed") as process:
        process.kill()
        process.wait()
    return folder


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "crashing.py").write_text("x = 1\ny = x / 0\n")
    (tmp_path / "needy.py").write_text("import a_module_that_nobody_has\n")
    return tmp_path


def ps(folder: Path, *args: str) -> dict[str, Any]:
    ran = in_process("ps", "--json", "--db", str(folder / "sessions.db"), *args)
    assert ran.exit_code == 0, ran.output
    found: dict[str, Any] = json.loads(ran.output)
    return found


# ---------------------------------------------------------------- start


def test_help_takes_less_than_400_ms_and_imports_no_runtime() -> None:
    """The best of three, so that a busy machine does not fail it; what is imported does not depend on the machine at all."""
    took_s = []
    for _ in range(3):
        began = time.perf_counter()
        assert subprocess.run([*COMMAND, "--help"], env=ENV, capture_output=True, timeout=30).returncode == 0
        took_s.append(time.perf_counter() - began)
    assert min(took_s) < 0.4
    code = "import sys, holdfast.console.cli.app; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, timeout=30).stdout.split()
    assert [name for name in imported if name.startswith(("holdfast.runtime", "holdfast.stores", "rich.table", "msgspec"))] == []


def test_every_public_name_can_be_imported() -> None:
    """Names that are imported when first asked for are the same as any other; a wrong one is an AttributeError."""
    assert all(getattr(holdfast, name) is not None for name in holdfast.__all__)
    assert set(holdfast.__all__) <= set(dir(holdfast))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = holdfast.nothing_like_it  # type: ignore[attr-defined]


# ---------------------------------------------------------------- run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_process_which_exits_with_0(fresh: Path, number: int) -> None:
    """The file is put down cleanly: the next start counts no crash."""
    with running(fresh, "app:amake") as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert "drained" in out
    assert ps(fresh)["clean"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_exits_at_once(fresh: Path, number: int) -> None:
    """A step that does not end holds up the drain, never the person."""
    with running(fresh, "app:make", "--with", "app:feed", until="fed") as process:
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("draining")
        process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number


def test_a_step_that_outlasts_the_drain_is_cut_off(fresh: Path) -> None:
    """The process ends in time and says so; the turn is still open in the journal."""
    with running(fresh, "app:runtime", "--with", "app:feed", "--drain-s", "0.05", until="fed") as process:
        process.terminate()
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "cut off" in out
    assert ps(fresh, "--status", "working")["sessions"][0]["session"] == "stuck"


def test_the_ready_line_says_how_much_is_recovered_and_where(dead: Path, fresh: Path) -> None:
    """After a kill, the one session that was at work is recovered by the next process."""
    for file in dead.glob("sessions.db*"):
        (fresh / file.name).write_bytes(file.read_bytes())
    with subprocess.Popen([*COMMAND, "run", "app:runtime"], cwd=fresh, env=ENV, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert line == f"ready: 1 session recovering, store sqlite:///{fresh}/sessions.db, pid {process.pid}\n"


def test_a_second_process_on_the_same_file_is_refused(fresh: Path) -> None:
    """One process writes a file; the other one is told which."""
    with running(fresh, "app:runtime") as process:
        assert f"in use by process {process.pid}" in refused(hold(fresh, "run", "app:runtime"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["app"], "of the form module:attr"),
        (["nope:runtime"], "no module 'nope'"),
        (["app:runtme"], "did you mean 'runtime'"),
        (["app:not_a_runtime"], "is of type int: name a Runtime"),
        (["app:broken"], "no such key: [redacted]"),
        (["crashing:runtime"], "crashing.py:2"),
        (["needy:runtime"], "a_module_that_nobody_has"),
        (["app:runtime", "--store", "redis://x"], "sqlite:///path.db"),
        (["app:runtime", "--store", "sqlite:///newer.db"], "upgrade holdfast"),
        (["app:runtime", "--with", "app:make"], "async function"),
    ],
)
def test_what_cannot_be_run_is_one_line_with_a_hint(fresh: Path, args: list[str], says: str) -> None:
    """Never a traceback, and exit code 2."""
    write_newer(fresh / "newer.db")
    assert says in refused(hold(fresh, "run", *args))


@pytest.mark.parametrize(("url", "says"), [("sqlite:///app.py", "not a SQLite database"), ("postgresql://127.0.0.1:1/db", "cannot open")])
def test_a_store_that_cannot_be_opened_now_has_an_exit_code_of_its_own(fresh: Path, url: str, says: str) -> None:
    """A service manager tries again: what is down may come back, unlike a name that is wrong."""
    assert says in refused(hold(fresh, "run", "app:runtime", "--store", url), code=3)


def write_newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript("CREATE TABLE schema_version (version); INSERT INTO schema_version VALUES (99); PRAGMA application_id = 0x686F6C64;")
    db.close()


def test_a_feed_that_crashes_again_and_again_ends_the_process(fresh: Path) -> None:
    """It is started again as any child is; when its supervisor gives up, the process drains and exits with 1."""
    ran = hold(fresh, "run", "app:runtime", "--with", "app:bad_feed")
    assert ran.returncode == 1
    assert "drained" in ran.stdout
    assert "gave up: child 'app:bad_feed'" in ran.stderr.splitlines()[-1]


def test_the_root_supervisor_giving_up_ends_the_process(fresh: Path) -> None:
    """A writer that cannot be kept alive is no reason to stay: whoever started the process starts it again."""
    ran = hold(fresh, "run", "faulty:runtime", "--with", "faulty:feed")
    assert ran.returncode == 1
    assert "gave up: child 'writer'" in ran.stderr
    assert "a bug of the store" in ran.stderr


# ---------------------------------------------------------------- ps


def test_ps_shows_who_needs_a_person_first(dead: Path) -> None:
    """Failed, then parked for a person, then other parks, then at work, then idle; ended ones only when asked for."""
    view = ps(dead)
    found = {line["session"]: (line["status"], line["reason"], line["asks_a_person"]) for line in view["sessions"]}
    assert found == {
        "bug": ("failed", None, True),
        "greedy": ("parked", "budget", True),
        "transfer": ("parked", "doubt", True),
        "nap": ("parked", "wait", False),
        "stuck": ("working", None, False),
        "hi": ("idle", None, False),
    }
    order = [line["session"] for line in view["sessions"]]
    assert (order[0], set(order[1:3]), order[3:]) == ("bug", {"greedy", "transfer"}, ["nap", "stuck", "hi"])
    assert ps(dead, "--all")["sessions"][-1]["session"] == "last"
    assert view["counts"] == {"failed": 1, "parked": 3, "working": 1, "idle": 1, "finished": 1}


def test_ps_says_why_and_what_to_do(dead: Path) -> None:
    """One line each, on a narrow terminal and in a pipe, with nothing of the stored text taken for control or markup."""
    ran = hold(dead, "ps")
    assert ran.returncode == 0, ran.stderr
    assert "crashed; sessions resume" in ran.stdout
    for said in ("ZeroDivisionError: oops", "resumes at the next start", "steps: 6 of 6 used"):
        assert said in ran.stdout
    for verb in ("retry bug", "drop bug", "resolve transfer 'done|retry|fail'", "budget greedy --steps ..."):
        assert f"holdfast {verb}" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert "abcdefghijkl" not in ran.stdout


def test_ps_shows_only_what_is_asked_for(dead: Path) -> None:
    """By status, agent and tenant; the counts stay those of all sessions."""
    assert [line["session"] for line in ps(dead, "--status", "finished")["sessions"]] == ["last"]
    assert len(ps(dead, "--agent", "support", "--tenant", "acme")["sessions"]) == 6
    for nobody in (("--agent", "sales"), ("--tenant", "initech")):
        view = ps(dead, *nobody)
        assert (view["sessions"], view["counts"]["failed"]) == ([], 1)


def test_ps_counts_steps_budget_and_queue(dead: Path) -> None:
    """What the open turn has cost is in it, an open step in full."""
    line = next(line for line in ps(dead)["sessions"] if line["session"] == "stuck")
    assert (line["turn"], line["queued"], line["steps"]) == (0, 1, 2)
    assert (line["used"]["steps"], line["used"]["tool_calls"], line["limits"]["steps"], line["limits"]["microusd"]) == (2, 1, 6, 1_000_000)


def test_ps_works_while_the_process_runs_and_writes_nothing(fresh: Path) -> None:
    """It names the process, says what a session is at, and neither file of the database changes."""
    with running(fresh, "app:runtime", "--with", "app:feed", until="fed") as process:
        before = digests(fresh)
        view = json.loads(hold(fresh, "ps", "--json").stdout)
        assert digests(fresh) == before
    assert view["process"] == process.pid
    assert next(line["why"] for line in view["sessions"] if line["session"] == "stuck").startswith("hang is under way")


def test_looking_at_a_dead_database_changes_nothing(dead: Path) -> None:
    """No checkpoint, no recovery into the file: what the crash left is there for the next start."""
    before = digests(dead)
    assert hold(dead, "ps").returncode == hold(dead, "show", "bug").returncode == 0
    assert digests(dead) == before
    assert before[1] != hashlib.sha256(b"").hexdigest()


def digests(folder: Path) -> tuple[str, str]:
    data = [(folder / name).read_bytes() for name in ("sessions.db", "sessions.db-wal")]
    return hashlib.sha256(data[0]).hexdigest(), hashlib.sha256(data[1]).hexdigest()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--db", "nope.db"], "no database nope.db"),
        (["--db", "app.py"], "not a SQLite database"),
        (["--db", "other.db"], "another program"),
        (["--db", "empty.db"], "cannot be read yet"),
        (["--db", "newer.db"], "upgrade holdfast"),
        (["--store", "memory:"], "cannot be read from outside"),
        (["--store", "redis://ann:secret@cache"], "'redis://cache' cannot be read from outside"),
        (["--store", "sqlite:///a.db", "--db", "a.db"], "not both"),
        ([], "name one with --db"),
    ],
)
def test_a_database_that_cannot_be_shown_is_one_line_with_a_hint(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], says: str
) -> None:
    """The same for both commands that look into one."""
    monkeypatch.chdir(fresh)
    write_newer(fresh / "newer.db")
    write_newer(fresh / "newer2.db")
    (fresh / "empty.db").touch()
    db = sqlite3.connect(fresh / "other.db")
    db.execute("CREATE TABLE t (x)")
    db.close()
    for ran in (in_process("ps", *args), in_process("show", "bug", *args)):
        assert ran.exit_code == 2
        assert says in ran.stderr
        assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "url", "meant", "name"),
    [
        ("a.db", None, "sqlite:///a.db", "a.db"),
        ("/srv/a.db", None, "sqlite:////srv/a.db", "/srv/a.db"),
        (None, "sqlite:///a.db", "sqlite:///a.db", "a.db"),
        (None, "postgres:dev", "postgres:dev", "postgres:dev"),
        (None, "postgresql://ann:secret@db:5432/x?password=y", "postgresql://ann:secret@db:5432/x?password=y", "postgresql://db:5432/x"),
    ],
)
def test_a_store_is_named_as_it_was_given_without_passwords(path: str | None, url: str | None, meant: str, name: str) -> None:
    """The URL that is opened is whole, the one that is shown has neither user nor options."""
    assert target.store_url(path, url) == meant
    assert target.name(meant) == name


def test_an_unknown_status_is_refused_with_those_there_are(dead: Path) -> None:
    """A typing error does not look like an empty list."""
    ran = in_process("ps", "--db", str(dead / "sessions.db"), "--status", "dead")
    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1)
    assert "failed, parked, working" in ran.stderr


# ---------------------------------------------------------------- show


def show(folder: Path, *args: str) -> dict[str, Any]:
    ran = in_process("show", "--json", "--db", str(folder / "sessions.db"), *args)
    assert ran.exit_code == 0, ran.output
    found: dict[str, Any] = json.loads(ran.output)
    return found


def test_show_tells_what_a_failed_session_did_and_why_it_stopped(dead: Path) -> None:
    """The steps of the open turn in order, the dead letter with the effect that was done, and not the secret that a tool returned."""
    view = show(dead, "bug")
    turn = view["turns"][-1]
    assert [(step["kind"], step["name"], step["effect"], step["state"]) for step in turn["steps"]] == [
        ("step", "look", "read", "closed"),
        ("tool", "refund", "once", "closed"),
    ]
    assert (turn["open"], turn["body"], turn["steps"][1]["args"]) == (True, "bug", {"order": "o1"})
    assert turn["steps"][1]["outcome"] == {"order": "o1", "token": "[redacted]"}
    assert [(letter["message"], letter["effects"]) for letter in view["dead_letters"]] == [("m1", ["refund"])]
    assert view["dead_letters"][0]["cause"].split()[:4] == ["ZeroDivisionError:", "oops", "[31m", "[redacted]"]


def test_show_has_message_reply_state_and_cost_of_a_committed_turn(dead: Path) -> None:
    """What was said, what was answered, what is remembered and what it took."""
    (turn,) = show(dead, "hi")["turns"]
    assert (turn["turn"], turn["open"], turn["body"], turn["reply"]) == (1, False, "hi", "hello hi [red]x[/red]")
    assert (turn["state"], turn["cost"]["steps"]) == ({"turns": 1}, 1)


def test_show_marks_a_doubt_and_a_result(dead: Path) -> None:
    """A doubt says what became of the attempt; a finished session what it finished with."""
    step = show(dead, "transfer")["turns"][-1]["steps"][-1]
    assert (step["name"], step["state"]) == ("wire", "doubt")
    assert "ConnectionError" in step["note"]
    assert (show(dead, "last")["result"], show(dead, "last")["line"]["status"]) == ("bye", "finished")


def test_show_prints_every_part_on_a_terminal(dead: Path) -> None:
    """A person reads the same without --json: where it stands, what to do, budget, mailbox, turns and letters."""
    out = hold(dead, "show", "bug").stdout
    for said in (
        "failed",
        "ZeroDivisionError",
        "holdfast retry bug",
        "BUDGET",
        "turn 1",
        "refund",
        '{"order":"o1"}',
        "dead letters",
        "[redacted]",
    ):
        assert said in out
    assert "hello hi [red]x[/red]" in hold(dead, "show", "hi").stdout
    assert "mailbox (1)" in hold(dead, "show", "stuck").stdout
    assert "abcdefghijkl" not in out
    assert "\x1b" not in out


def test_show_of_an_unknown_session_or_turn_is_one_line(dead: Path) -> None:
    """It says where to look, and which id may have been meant."""
    assert "did you mean greedy" in refused(hold(dead, "show", "greed"))
    assert "has no turn 9: it has 1 to 1" in refused(hold(dead, "show", "hi", "--turn", "9"))
    assert [turn["turn"] for turn in show(dead, "hi", "--turn", "1")["turns"]] == [1]


# ---------------------------------------------------------------- demo


def test_the_demo_is_called_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code is the command's."""
    calls: list[dict[str, Any]] = []

    def main(**options: Any) -> int:
        calls.append(options)
        return 7

    stand_in = ModuleType("holdfast.console.demo.main")
    stand_in.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "holdfast.console.demo.main", stand_in)
    assert in_process("demo", "--kills", "1", "--seed", "4").exit_code == 7
    assert calls == [{"sessions": 50, "kills": 1, "seed": 4}]


def test_a_demo_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "holdfast.console.demo.main", None)  # what Python finds where there is no such module
    ran = in_process("demo")
    assert ran.exit_code == 2
    assert "holdfast[demo]" in ran.stderr
