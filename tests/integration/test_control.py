"""A process and whoever speaks to it: a real `holdfast run`, its real socket, the command line and `holdfast.connect()`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from typer.testing import CliRunner

import holdfast
from holdfast.console.api.server import controlled
from holdfast.console.cli.app import app as command

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from holdfast.console.cli.app import main; main()"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}

NOBODY = ": start it with holdfast run, give your own Runtime control=True, or name its socket with --socket"

APP = '''
import asyncio
import msgspec
from holdfast import Budget, Runtime, Session, agent, tool

@tool(effect="once")
async def wire(order: str) -> dict:
    raise ConnectionError("cut")

@tool(effect="read")
async def hang() -> str:
    await asyncio.Event().wait()
    return ""

async def look(x: int) -> int:
    return x + 1

class State(msgspec.Struct):
    turns: int = 0

@agent(tools=[wire, hang], budget=Budget(steps=6, usd=1), park_after_s=0.0, mailbox=3)
async def support(session: Session[State], text: str) -> str:
    session.state.turns += 1
    match text:
        case "nap":
            await session.sleep(3600)
        case "transfer":
            return (await session.call_tool("wire", '{"order": "o1"}')).content
        case "twice":
            await session.gather(*(session.call_tool("wire", f'{{"order": "twin-{n}"}}') for n in range(2)))
        case "bug":
            raise ZeroDivisionError("oops Bearer abcdefghijkl")
        case "greedy":
            for n in range(9):
                await session.step(look, n)
        case "hang":
            await session.call_tool("hang", "{}")
        case "last":
            session.finish({"said": "bye", "raw": b"\\xff"})
    return f"hello {text}"

@agent
async def echo(session: Session[None], message: object) -> object:
    return message

runtime = Runtime("sqlite:///sessions.db", agents=[support, echo])

async def feed(runtime):
    """One session of each kind, and a line once each is where it will stay."""
    expected = {"hi": "idle", "nap": "parked", "transfer": "parked", "bug": "failed", "greedy": "parked", "hang": "idle"}
    handles = [await runtime.spawn(support, id=text, tenant="acme") for text in expected]
    for handle in handles:
        await handle.tell(handle.id, id="m1")
    while {h.id: (await h.row()).status for h in handles} != expected or runtime.statistics()["steps_in_flight"] != 1:
        await asyncio.sleep(0.01)
    print("fed", flush=True)
'''


@holdfast.agent
async def parrot(session: holdfast.Session[None], message: object) -> object:
    return message


class Node:
    """A running process."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, path: str) -> None:
        self.process, self.folder, self.path = process, folder, path

    def http(self) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=self.path), base_url="http://holdfast", timeout=20)


@contextmanager
def running(folder: Path, *args: str, until: str = "control socket") -> Iterator[Node]:
    """`holdfast run`, once it has printed a line that begins with `until`; killed if it still runs at the end."""
    with subprocess.Popen(
        [*COMMAND, "run", "app:runtime", "--drain-s", "0.2", *args],
        cwd=folder,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            path, line = "", ""
            while not path or not line.startswith(until):
                line = process.stdout.readline()
                assert line, process.stderr.read() if process.stderr else ""
                path = line.strip().removeprefix("control socket: ") if line.startswith("control socket") else path
            yield Node(process, folder, path)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A process with one session of each kind; each test leaves those alone, or is the only one to use it."""
    folder = tmp_path_factory.mktemp("fed")
    (folder / "app.py").write_text(APP)
    with running(folder, "--with", "app:feed", until="fed") as node:
        yield node


def hold(node: Node, *args: str) -> Any:
    """A command, in this process, about that one."""
    return CliRunner().invoke(command, [*args, "--socket", node.path])


def found(node: Node, *args: str) -> Any:
    """The JSON that a command prints."""
    ran = hold(node, *args, "--json")
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def said(ran: Any) -> str:
    """The one line on stderr of a command that was refused."""
    assert ran.exit_code == 2, ran.output
    assert (ran.stdout, ran.stderr.count("\n")) == ("", 1)
    return str(ran.stderr)


# ---------------------------------------------------------------- look


def test_ps_and_show_have_what_the_actor_itself_says(fed: Node) -> None:
    """The step that is under way and its age, what the budget leaves, the breaker, the owner: of what is in memory."""
    lines = {line["session"]: line for line in found(fed, "ps")["sessions"]}
    assert [line["session"] for line in found(fed, "ps", "--status", "failed")["sessions"]] == ["bug"]
    live = lines["hang"]["live"]
    (step,) = live["steps"]
    assert (step["name"], step["kind"], step["attempt"]) == ("hang", "tool", 1)
    assert 0 < step["age_s"] < 60
    assert lines["hang"]["why"].startswith("hang is under way")
    assert (live["left"]["steps"], live["breaker"], live["process"], live["queued"]) == (5, "closed", fed.process.pid, 1)
    assert lines["transfer"]["live"] is None
    assert found(fed, "show", "hang")["line"]["live"]["steps"][0]["name"] == "hang"


def test_tree_breakers_and_doctor_tell_how_the_process_is(fed: Node) -> None:
    """The control API is a child of the tree; sessions that wait for a person are no fault of the process."""
    tree = found(fed, "tree")
    services = next(child for child in tree["children"] if child["id"] == "services")
    assert [child["id"] for child in services["supervisor"]["children"]] == ["control"]
    assert "control  running" in hold(fed, "tree").stdout
    assert found(fed, "breakers") == {}
    ran = hold(fed, "doctor", "--json")
    checks = {check["name"]: check["level"] for check in json.loads(ran.stdout)["checks"]}
    assert ran.exit_code == 0
    assert checks.keys() >= {"loop", "database", "ready", "stuck", "threads", "breaker", "disk", "wal", "sqlite", "failed", "parked"}
    assert (checks["failed"], checks["parked"], checks["database"], checks["ready"]) == ("warning", "warning", "ok", "ok")
    shown = hold(fed, "doctor").stdout
    assert "1 session has failed: holdfast ps --status failed" in " ".join(shown.split())
    assert f"process {fed.process.pid}: healthy, " in shown


def test_timeline_and_mailbox_tell_what_was_and_what_waits(fed: Node) -> None:
    """In order of time, with the steps; and what has not been handled yet."""
    entries = found(fed, "timeline", "transfer")["entries"]
    happened = [(entry["what"], entry["name"], entry["state"]) for entry in entries]
    assert happened == [("spawned", "support", ""), ("message", "m1", ""), ("step", "wire", "doubt")]
    box = found(fed, "mailbox", "nap")
    assert ([message["id"] for message in box["messages"]], box["limit"]) == (["m1"], 3)
    assert "tool wire" in hold(fed, "timeline", "transfer").stdout
    assert "1 of at most 3" in hold(fed, "mailbox", "nap").stdout


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_top_fits_any_terminal_and_shows_who_needs_a_person_first(fed: Node, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """One frame; a narrow one has fewer columns."""
    monkeypatch.setenv("COLUMNS", columns)
    lines = hold(fed, "top", "--once").stdout.splitlines()
    assert f"process {fed.process.pid}" in lines[0]
    rows = [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in ("bug", "greedy", "transfer", "nap", "hang", "hi")]
    assert rows[0] == "bug"
    assert set(rows[1:3]) == {"greedy", "transfer"}


def test_what_a_process_does_not_know_is_one_line(fed: Node) -> None:
    """A session, an agent, a status, a message that is none: what it is and what to do, exit code 2."""
    assert "no session 'nope'" in said(hold(fed, "show", "nope"))
    assert "no session 'nope'" in said(hold(fed, "ask", "nope", "hi"))
    assert "no session 'nope'" in said(hold(fed, "tail", "nope"))
    assert "use one of echo, support" in said(hold(fed, "spawn", "nope"))
    assert "failed, parked, working" in said(hold(fed, "ps", "--status", "dead"))
    assert "--text sends it as text" in said(hold(fed, "send", "hi", "5"))
    assert "give a session or a filter" in said(hold(fed, "cancel"))
    assert "not both" in said(hold(fed, "cancel", "hi", "--all"))
    assert "for one session, holdfast show hi prints" in said(hold(fed, "drop", "--dry-run", "hi"))
    assert "done|retry|fail" in said(hold(fed, "resolve", "hi", "maybe"))
    assert "give at least one of" in said(hold(fed, "budget", "hi"))


# ---------------------------------------------------------------- talk


def test_the_command_line_can_hold_a_conversation(fed: Node) -> None:
    """Spawn, send, ask; JSON where it is some, text where it is not or where that is asked for."""
    assert hold(fed, "spawn", "echo", "--id", "talk/1").stdout == "talk/1\n"
    assert hold(fed, "ask", "talk/1", '{"a": [1, null]}').stdout == '{"a":[1,null]}\n'
    assert hold(fed, "ask", "talk/1", "not {json").stdout == "not {json\n"
    assert hold(fed, "ask", "talk/1", "5", "--text", "--json").stdout == '{\n  "session": "talk/1",\n  "reply": "5"\n}\n'
    assert hold(fed, "send", "talk/1", "hello", "--id", "m7").stdout == "m7\n"
    assert found(fed, "spawn", "support", "--id", "talk/2", "--steps", "2", "--state", '{"turns": 7}') == {"session": "talk/2"}
    assert found(fed, "show", "talk/2")["line"]["limits"]["steps"] == 2


async def settled(handle: holdfast.Handle, status: str) -> None:
    """Wait until that is its status."""
    while (await handle.row()).status != status:  # noqa: ASYNC110 — it is in another process, whose events are not ours to wait for
        await asyncio.sleep(0.01)


async def test_a_handle_is_the_same_outside_as_inside(fed: Node) -> None:
    """Replies come as they were given, bytes too; rows are rows; every verb of a person is there."""
    async with holdfast.connect(fed.path) as node:
        talker = await node.spawn("echo", id="handle/echo")
        value = {"a": b"\xff", "b": [1.5, None, "ü"], 3: True}
        assert await talker.ask(value, id="m1") == value
        assert await talker.ask(value, id="m1") == value
        row = await talker.row()
        assert (row.id, row.agent, row.turn, row.status) == ("handle/echo", "echo", 1, "idle")
        live = await talker.live()
        assert live is not None
        assert (live.process, live.queued) == (fed.process.pid, 0)
        doubtful = await node.spawn("support", id="handle/doubt", budget=holdfast.Budget(steps=9), state={"turns": 1})
        await doubtful.tell("transfer", id="t1")
        await settled(doubtful, "parked")
        assert await doubtful.resolve("done", result={"paid": True}) == 1
        assert await doubtful.ask("transfer", id="t1") == '{"paid":true}'
        await doubtful.raise_budget(holdfast.Budget(steps=1, usd=0.25))
        assert (await doubtful.row()).budget.steps == 10
        await talker.pause("look at it")
        assert (await talker.row()).status == "parked"
        await talker.resume()
        assert (await talker.cancel("enough"), await talker.cancel()) == (True, False)
        with pytest.raises(holdfast.SessionEnded, match="enough"):
            await talker.result()
        last = await node.spawn("support", id="handle/last")
        await last.tell("last")
        assert await last.result(timeout_s=20) == {"said": "bye", "raw": b"\xff"}


async def test_errors_are_the_same_outside_as_inside(fed: Node) -> None:
    """The class and what it carries, so that the same `except` works."""
    async with holdfast.connect(fed.path) as node:
        with pytest.raises(holdfast.SessionNotFound) as unknown:
            await node.session("nope").tell("x")
        assert unknown.value.session == "nope"
        with pytest.raises(holdfast.SessionConflict):
            await node.spawn("echo", id="hi")
        with pytest.raises(holdfast.ConfigError, match="use one of"):
            await node.spawn("nope")
        with pytest.raises(holdfast.ConfigError, match="printable"):
            await node.session("a\nb").row()
        with pytest.raises(holdfast.NotJournalable):
            await node.session("hi").tell(object())
        with pytest.raises(holdfast.MessageRefused, match="does not take this message"):
            await node.session("nap").tell({"not": "a text"})
        with pytest.raises(holdfast.MessageConflict):
            await node.session("nap").tell("other", id="m1")
        with pytest.raises(holdfast.ReplyTimeout) as late:
            await node.session("nap").ask("nap", id="m1", timeout_s=0.05)
        assert (late.value.message_id, late.value.session) == ("m1", "nap")
        with pytest.raises(holdfast.TurnFailed) as failed:
            await node.session("bug").ask("bug", id="m1")
        assert "ZeroDivisionError: oops [redacted]" in failed.value.cause
        full = await node.spawn("support", id="errors/full")
        await full.pause()
        for _ in range(3):
            await full.tell("x")
        with pytest.raises(holdfast.MailboxFull) as over:
            await full.tell("one more")
        assert (over.value.message, over.value.limit) == ("one more", 3)
        with pytest.raises(holdfast.SessionError, match="cannot be resumed"):
            await node.session("hi").resume()


@pytest.mark.parametrize("id", ["a/b", "a//b/", "ticket ünï", "..", ".", "%2F", "?x=1&y#z", "x" * 512, "'\"\\", "日本"])
async def test_any_id_can_be_reached(fed: Node, id: str) -> None:
    """Whatever is in it; over HTTP it is percent-encoded."""
    async with holdfast.connect(fed.path) as node:
        handle = await node.spawn("echo", id=id)
        assert handle.id == id
        assert await handle.ask("there?") == "there?"
        assert (await handle.row()).id == id
        assert await handle.cancel()


# ---------------------------------------------------------------- a person's verbs


def test_the_verbs_of_a_person(fed: Node) -> None:
    """Each on a session of its own, with a reason; what there is nothing to do about is one line."""
    hold(fed, "spawn", "support", "--id", "p/1", "--tenant", "persons")
    assert hold(fed, "pause", "p/1", "--reason", "look at it").stdout == "p/1: paused\n"
    assert found(fed, "ps", "--tenant", "persons")["sessions"][0]["why"] == "look at it"
    assert hold(fed, "resume", "p/1").stdout == "p/1: resumed\n"
    assert "oops" in said(hold(fed, "ask", "p/1", "bug", "--id", "b1", "--timeout-s", "20"))
    assert "is retried" in hold(fed, "retry", "p/1", "--reason", "fixed").stdout
    assert "no dead letter" in said(hold(fed, "retry", "hi"))
    assert found(fed, "budget", "p/1", "--steps", "4", "--usd", "0.50")["changed"]
    assert found(fed, "show", "p/1")["line"]["limits"]["microusd"] == 1_500_000
    assert hold(fed, "kill", "p/1", "--reason", "misbehaved").stdout == "p/1: killed\n"
    assert hold(fed, "kill", "p/1").stdout == "p/1: it had ended before\n"
    line = found(fed, "show", "p/1")["line"]
    assert (line["status"], line["why"]) == ("killed", "misbehaved")


def parked(node: Node, id: str, text: str) -> None:
    """A session that has been sent this, and parked over it."""
    hold(node, "spawn", "support", "--id", id, "--tenant", "given-up")
    hold(node, "send", id, text)
    while found(node, "show", id)["line"]["status"] != "parked":
        pass


def test_a_turn_can_be_interrupted_and_given_up(fed: Node) -> None:
    """A running one, a parked one; what is refused is one line that says what to do first."""
    hold(fed, "spawn", "support", "--id", "up/1", "--tenant", "given-up")
    assert hold(fed, "interrupt", "up/1").stdout == "up/1: no such step is in flight\n"
    hold(fed, "send", "up/1", "hang")
    while not (line := found(fed, "show", "up/1")["line"])["live"] or not line["live"]["steps"]:
        pass
    assert hold(fed, "interrupt", "up/1", "--step", "wire").stdout == "up/1: no such step is in flight\n"
    assert hold(fed, "interrupt", "up/1", "--step", "hang", "--reason", "too slow").stdout == "up/1: 1 attempt interrupted\n"
    assert hold(fed, "drop", "up/1", "--keep-letter").stdout == "up/1: turn given up; its message is a dead letter\n"
    assert "is a dead letter already" in said(hold(fed, "drop", "up/1", "--keep-letter"))
    assert hold(fed, "drop", "up/1").stdout == "up/1: dropped\n"
    assert "so it has none to drop" in said(hold(fed, "drop", "up/1"))
    parked(fed, "up/2", "transfer")
    assert "the outcome of wire is unknown, so the dead letter of 'up/2' is kept: resolve it" in said(hold(fed, "drop", "up/2"))
    shown = " ".join(hold(fed, "show", "up/2").stdout.split())
    assert "outcome unknown: wire" in shown
    assert "holdfast resolve up/2 'done|retry|fail', then holdfast retry up/2, or holdfast drop up/2" in shown
    assert "resolve: 1 of 1 session" in hold(fed, "resolve", "fail", "--tenant", "given-up").stdout
    assert hold(fed, "drop", "up/2", "--reason", "wrong order").stdout == "up/2: dropped\n"
    for id in ("up/1", "up/2"):
        hold(fed, "cancel", id)


def test_two_doubts_of_one_name_are_shown_with_their_keys(fed: Node) -> None:
    """Each can be resolved alone; of a single one the name is enough."""
    parked(fed, "twins", "twice")
    lines = [line.split() for line in hold(fed, "show", "twins").stdout.splitlines() if "resolves this one only" in line]
    keys = [line[line.index("--step") + 1] for line in lines]
    assert [("twin-0" in " ".join(line), "twin-1" in " ".join(line)) for line in lines] == [(True, False), (False, True)]
    assert hold(fed, "resolve", "twins", "fail", "--step", keys[1]).stdout == "twins: 1 effect resolved\n"
    hold(fed, "cancel", "twins", "--reason", "clean up")
    ran = hold(fed, "show", "twins").stdout
    assert ("resolves this one only" in ran, "ended" in ran, "cancelled: clean up" in ran) == (False, True, True)
    assert "cancelled (outcome unknown)" in hold(fed, "top", "--once").stdout
    assert hold(fed, "resolve", "twins", "retry").stdout == "twins: 1 effect resolved\n"
    assert found(fed, "show", "twins")["line"]["why"] == "clean up"


def test_a_person_who_waits_for_a_step_is_told_so(fed: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where they wait no longer, what they asked for is under way: nothing is an error."""
    monkeypatch.setattr("holdfast.console.cli.many._WORD_S", 0.0)
    hold(fed, "spawn", "support", "--id", "wait/1", "--tenant", "waits")
    ran = hold(fed, "pause", "wait/1")
    assert (ran.exit_code, ran.stdout) == (0, "wait/1: paused\n")
    assert ran.stderr in ("", "holdfast: pause waits until the steps in flight have ended; Ctrl-C stops waiting; the pause request stays\n")
    hold(fed, "kill", "wait/1")


def test_what_a_session_says_cannot_move_the_cursor(fed: Node) -> None:
    """An error's text on the terminal is one line of what can be printed."""
    refused = said(hold(fed, "spawn", "\x1b]0;pwn\x07\u202e\u200bx"))
    assert refused.rstrip("\n").isprintable()


def test_verbs_on_many_take_filters_and_can_be_tried_first(fed: Node) -> None:
    """A dry run says which they are; then each has its own outcome."""
    for number in range(3):
        hold(fed, "spawn", "support", "--id", f"many/{number}", "--tenant", "many")
        hold(fed, "send", f"many/{number}", "transfer")
    while sum(line["reason"] == "doubt" for line in found(fed, "ps", "--tenant", "many")["sessions"]) < 3:
        pass
    chosen = ("resolve", "retry", "--tenant", "many", "--where-reason", "doubt")
    tried = found(fed, *chosen, "--dry-run")
    assert ({one["session"] for one in tried["sessions"]}, tried["dry_run"]) == ({"many/0", "many/1", "many/2"}, True)
    assert found(fed, *chosen, "--dry-run", "--limit", "2")["more"]
    paused = hold(fed, "pause", "--tenant", "many", "--reason", "hold")
    assert (paused.exit_code, "pause: 3 of 3 sessions" in paused.stdout) == (0, True)
    ran = hold(fed, "retry", "--tenant", "many", "--status", "parked", "--json")
    assert ran.exit_code == 1
    assert {one["problem"]["error"] for one in json.loads(ran.stdout)["sessions"]} == {"SessionError"}
    assert "cancel: 3 of 3" in hold(fed, "cancel", "--tenant", "many", "--reason", "clean up").stdout
    left = found(fed, "ps", "--tenant", "many")["sessions"]
    assert {(line["status"], line["reason"], line["asks_a_person"]) for line in left} == {("cancelled", "doubt", True)}
    ran = hold(fed, "resolve", "fail", "--tenant", "many")
    assert ("resolve: 3 of 3 sessions" in ran.stdout, "cancelled (outcome unknown)" in ran.stdout) == (True, True)
    assert found(fed, "ps", "--tenant", "many")["sessions"] == []


# ---------------------------------------------------------------- live


async def test_what_happens_can_be_watched_from_outside(fed: Node) -> None:
    """Each event in order, of one session or of all of a kind, without secrets."""
    async with holdfast.connect(fed.path) as node:
        watched = await node.spawn("support", id="watch/1")
        async with node.watch(watched.id) as mine, node.watch(kinds=("TurnCommitted",)) as commits:
            await watched.ask("hello", id="w1")
            names = []
            async for event in mine:
                names.append(event.event)
                if event.event == "TurnCommitted":
                    assert (event.session, event.fields["message"]) == ("watch/1", "w1")
                    break
            assert names == ["Resumed", "TurnStarted", "TurnCommitted"]
            async for event in commits:
                assert event.event == "TurnCommitted"
                break


def test_tail_prints_a_line_for_each_event_and_ends_with_the_process(folder: Path) -> None:
    """At once, also into a pipe; that the process ended is said on stderr, and is no failure."""
    with running(folder) as node:
        hold(node, "spawn", "echo", "--id", "t")
        with subprocess.Popen(
            [*COMMAND, "tail", "t", "--json"], cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as tail:
            assert tail.stdout is not None
            asked = 0
            while not (line := _line_within(tail.stdout.fileno(), 0.3)):
                asked += 1
                hold(node, "ask", "t", f"{asked}")
            assert json.loads(line)["session"] == "t"
            node.process.terminate()
            _, err = tail.communicate(timeout=20)
        assert (tail.returncode, err) == (0, b"holdfast: the process has ended\n")
        assert node.process.wait(timeout=20) == 0


def _line_within(number: int, seconds: float) -> bytes:
    """What can be read by then, up to the first line; nothing if there is none."""
    import select

    return os.read(number, 65536).splitlines()[0] if select.select([number], [], [], seconds)[0] else b""


async def test_a_program_of_ones_own_can_be_reached_too(tmp_path: Path) -> None:
    """It names the socket before it opens the Runtime; whoever watched and went away is forgotten, and so is the socket at the end."""
    runtime = holdfast.Runtime("memory:", agents=[parrot])
    with controlled(runtime, str(tmp_path / "own" / "s")) as path:
        async with runtime, holdfast.connect(path) as node:
            handle = await node.spawn(parrot, id="s")
            async with node.watch("s") as events:
                assert len(runtime.observers.all) == 1
                await handle.tell("hello")
                assert (await anext(events)).session == "s"
            with anyio.fail_after(10):
                while runtime.observers.all:  # noqa: ASYNC110 — that the connection is closed the server learns from its loop
                    await asyncio.sleep(0.01)
            assert await handle.ask("still there?") == "still there?"
    assert not Path(path).exists()  # noqa: ASYNC240
    with pytest.raises(holdfast.NodeUnreachable, match="no process listens"):
        async with holdfast.connect(path):
            pass


# ---------------------------------------------------------------- ends


async def test_whoever_waits_while_the_process_drains_is_told_how_to_go_on(folder: Path) -> None:
    """The message is safe: asked again with the same id, the next process answers it."""
    with running(folder) as node:
        async with holdfast.connect(node.path) as outside:
            handle = await outside.spawn("support", id="s")
            async with node_watch(outside) as events:
                asking = asyncio.ensure_future(handle.ask("nap", id="m1", timeout_s=30))
                async for event in events:
                    if event.event == "SessionParked":
                        break
            node.process.terminate()
            with pytest.raises(holdfast.RuntimeStopped, match="ask again with id='m1'"):
                await asking
        assert node.process.wait(timeout=20) == 0
        assert not Path(node.path).exists()  # noqa: ASYNC240


def node_watch(node: Any) -> Any:
    return node.watch("s")


def test_a_process_that_was_killed_leaves_a_socket_that_the_next_one_recovers(folder: Path) -> None:
    """Meanwhile `ps` reads the database itself, and what needs a process says that there is none."""
    with running(folder, "--with", "app:feed", until="fed") as node:
        node.process.kill()
        node.process.wait()
    assert stat.S_ISSOCK(os.lstat(node.path).st_mode)
    ran = subprocess.run([*COMMAND, "ps"], cwd=folder, env=ENV, capture_output=True, text=True, timeout=30)
    assert (ran.returncode, "crashed; sessions resume" in ran.stdout) == (0, True)
    ran = subprocess.run([*COMMAND, "ask", "hi", "x"], cwd=folder, env=ENV, capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stderr.count("\n"), "no process listens" in ran.stderr) == (2, 1, True)
    with running(folder) as again:
        assert again.path == node.path
        assert hold(again, "ask", "hi", "back?").stdout == "hello back?\n"


async def test_a_process_that_dies_while_it_is_asked_is_one_error(folder: Path) -> None:
    """It says that the request had left: it may have been done."""
    with running(folder) as node:
        async with holdfast.connect(node.path) as outside:
            handle = await outside.spawn("support", id="s")
            async with node_watch(outside) as events:
                asking = asyncio.ensure_future(handle.ask("hang", id="m1", timeout_s=30))
                async for event in events:
                    if event.event == "StepStarted":
                        break
                node.process.kill()
                with pytest.raises(holdfast.NodeUnreachable, match="went away") as gone:
                    await asking
                assert gone.value.sent
                with pytest.raises(holdfast.NodeUnreachable, match="went away"):
                    async for _ in events:
                        pass
    with pytest.raises(holdfast.NodeUnreachable, match="no process listens") as nobody:
        async with holdfast.connect(node.path):
            pass
    assert not nobody.value.sent


# ---------------------------------------------------------------- the socket


def test_a_second_process_at_the_same_socket_is_refused(fed: Node, folder: Path) -> None:
    """Whatever its database; the first one goes on. So is a path too long, and a file that is no socket."""
    (folder / "file").write_text("precious")
    folder.chmod(0o700)
    for path, says in (
        (fed.path, f"in use by process {fed.process.pid}"),
        ("x" * 120, "107 at most"),
        (str(folder / "file"), "is no socket"),
    ):
        ran = subprocess.run(
            [*COMMAND, "run", "app:runtime", "--socket", path], cwd=folder, env=ENV, capture_output=True, text=True, timeout=30
        )
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
        assert says in ran.stderr
    assert not (folder / "sessions.db").exists()
    assert hold(fed, "ask", "hi", "still there?").exit_code == 0


def test_a_process_can_do_without_a_socket(folder: Path) -> None:
    """Then nobody can ask it, and what is asked says so."""
    with subprocess.Popen(
        [*COMMAND, "run", "app:runtime", "--no-socket"], cwd=folder, env=ENV, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        ran = subprocess.run([*COMMAND, "tree"], cwd=folder, env=ENV, capture_output=True, text=True, timeout=30)
        assert (ran.returncode, ran.stderr) == (2, f"holdfast: no process listens for commands on sqlite:{folder}/sessions.db{NOBODY}\n")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert "control socket" not in out


OTHER = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
except PermissionError:
    print("kept out")
    sys.exit()
s.sendall(b"GET /v1/sessions HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
data = b""
while part := s.recv(65536):
    data += part
print(data.decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_kept_out(folder: Path) -> None:
    """By the file's mode; and where somebody has opened that, by who it is."""
    folder.chmod(0o755)
    place = folder / "place"
    with running(folder, "--socket", str(place / "s")) as node:
        asked = [sys.executable, "-c", OTHER, node.path]
        assert subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout == "kept out\n"
        for opened in (place, *folder.parents):
            if str(opened).startswith("/tmp/"):
                opened.chmod(opened.stat().st_mode | 0o055)
        os.chmod(node.path, 0o666)
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
        assert answer.startswith("HTTP/1.1 403 Forbidden")
        assert json.loads(answer.partition("\n\n")[2])["message"].endswith("you are uid=65534")


# ---------------------------------------------------------------- HTTP


def test_curl_is_enough(fed: Node) -> None:
    """Plain HTTP and JSON, without any header."""
    with fed.http() as http:
        assert http.get("/v1/sessions", params={"limit": 1}).json()["sessions"][0]["session"] == "bug"
        made = http.post("/v1/sessions", content=b'{"agent": "echo", "id": "curl"}')
        assert (made.status_code, made.json()["session"]) == (201, "curl")
        assert http.post("/v1/sessions/curl/messages", content=b'{"message": 1}').status_code == 202
        assert http.post("/v1/sessions/curl/ask", content=b'{"message": [1]}').json()["reply"] == [1]
        late = http.post("/v1/sessions/nap/ask", content=b'{"message": "nap", "id": "m1", "timeout_s": 0}')
        assert (late.status_code, late.json()["error"], late.json()["attributes"]["message_id"]) == (504, "ReplyTimeout", "m1")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/sessions/nope", None, 404),
        ("GET", "/nope", None, 404),
        ("DELETE", "/v1/sessions", None, 405),
        ("GET", "/v1/sessions?limit=0", None, 422),
        ("GET", "/v1/sessions?status=dead", None, 422),
        ("GET", "/v1/sessions/%FF", None, 422),
        ("GET", "/v1/sessions/%00", None, 422),
        ("POST", "/v1/sessions/hi/messages", b"{", 422),
        ("POST", "/v1/sessions/hi/messages", b"", 422),
        ("POST", "/v1/sessions/hi/messages", b'{"message": NaN}', 422),
        ("POST", "/v1/sessions/hi/messages", b'{"message": "\xff"}', 422),
        ("POST", "/v1/sessions/hi/messages", b'{"message": 1' + b"0" * 400 + b"}", 422),
        ("POST", "/v1/sessions/hi/messages", b'{"message": ' + b"[" * 9000 + b"]" * 9000 + b"}", 422),
        ("POST", "/v1/sessions/hi/messages", b'{"message": "x", "id": "a\\u0000b"}', 422),
        ("POST", "/v1/sessions/hi/messages", b'{"message": "x", "typo": 1}', 422),
        ("POST", "/v1/sessions/hi/messages", b'{"message": 5}', 422),
        ("POST", "/v1/sessions/hi/ask", b'{"message": "x", "timeout_s": 1e999}', 422),
        ("POST", "/v1/sessions/hi/messages", b'{"message": "' + b"x" * (1 << 20) + b'"}', 413),
        ("POST", "/v1/sessions/hi/resume", b"{}", 409),
        ("POST", "/v1/cancel", b"{}", 422),
    ],
)
def test_a_malformed_request_has_a_proper_status(fed: Node, method: str, path: str, body: bytes | None, status: int) -> None:
    """And a body that says what was wrong with it."""
    with fed.http() as http:
        answer = http.request(method, path, content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_its_own_connection_only(fed: Node, data: bytes) -> None:
    """The next one is answered."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(fed.path)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(65536)[:10] in (b"HTTP/1.1 4", b"")
    assert found(fed, "ps")["process"] == fed.process.pid
