"""`holdfast run` under a service manager: a real process, a socket that stands in for systemd's, real signals. Nothing sleeps: datagrams,
lines and connections say when something has happened."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from holdfast.console.process import keeper

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from holdfast.console.cli.app import main; main()"]
LONG_S = 20.0

APP = '''
import asyncio
import os
import socket
from holdfast import Budget, Runtime, Session, StoreError, agent, tool
from holdfast.stores.sqlite.store import SqliteStore

async def outside() -> str:
    """Connects to the test, and takes as long as that wants."""
    reader, writer = await asyncio.open_unix_connection("test")
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()

def crunch() -> None:
    """The same, and the loop cannot run meanwhile."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect("test")
        peer.recv(1)

@tool(effect="once")
async def hold() -> str:
    return await outside()

async def look() -> int:
    return 1

@agent(tools=[hold], budget=Budget(steps=5))
async def support(session: Session[None], text: str) -> str:
    match text:
        case "hold":
            return await session.step(hold)
        case "replay":
            await session.step(look)
            await outside()  # no step: on replay it is gone through before anything new
            await session.step(hold)
        case "block":
            crunch()
    return text

class Sick(SqliteStore):
    async def owner(self):
        if os.path.exists("sick"):
            raise StoreError("the disk is gone")
        return await super().owner()

runtime = Runtime(Sick("sessions.db"), agents=[support], drain_s=60)

async def commands(runtime):
    """Spawns the session that a line names, tells it the second word of it, and answers with its limit in steps."""
    reader, writer = await asyncio.open_unix_connection("commands")
    try:
        while line := (await reader.readline()).decode().split():
            session = await runtime.spawn(support, id=line[0])
            for text in line[1:]:
                await session.tell(text, id="m1")
            writer.write(f"{(await session.row()).budget.steps}\\n".encode())
    finally:
        writer.close()
    await asyncio.Event().wait()
'''


class Manager:
    """The test's side of one folder: the service manager's socket, the one that steps connect to, the one that takes commands."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.steps, self._commands = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for which, name in ((self.notify, "notify"), (self.steps, "test"), (self._commands, "commands")):
            which.bind(str(folder / name))
            which.settimeout(LONG_S)
        self.steps.listen()
        self._commands.listen()
        self._stack = stack

    @contextmanager
    def run(self, *options: str, watchdog_s: float | None = None) -> Iterator[subprocess.Popen[str]]:
        """`holdfast run`, killed if it still runs at the end."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(self.folder / "notify")}
        if watchdog_s is not None:
            env["WATCHDOG_USEC"] = str(round(watchdog_s * 1e6))
        args = [*COMMAND, "run", "app:runtime", "--with", "app:commands", "--no-socket", *options]
        with subprocess.Popen(args, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def datagram(self) -> dict[str, str]:
        """The next one."""
        return dict(line.split("=", 1) for line in self.notify.recv(4096).decode().split("\n"))

    def until(self, name: str, holds: str = "") -> list[dict[str, str]]:
        """All datagrams up to one with this assignment."""
        seen = [self.datagram()]
        while holds not in seen[-1].get(name, "\0"):
            seen.append(self.datagram())
        return seen

    def commanded(self) -> Commander:
        """The process's connection for commands."""
        peer, _ = self._commands.accept()
        return Commander(self._stack.enter_context(peer))

    def step(self) -> socket.socket:
        """The connection of a step, or of what blocks, which is now under way; it ends when this is closed."""
        peer, _ = self.steps.accept()
        return self._stack.enter_context(peer)

    def limits(self, text: str) -> None:
        (self.folder / "holdfast.toml").write_text(text)


class Commander:
    def __init__(self, peer: socket.socket) -> None:
        peer.settimeout(LONG_S)
        self._peer, self._lines = peer, peer.makefile()

    def spawn(self, *words: str) -> int:
        """The limit in steps of the session that it spawned."""
        self.send(*words)
        return int(self._lines.readline())

    def send(self, *words: str) -> None:
        """The same without waiting: a loop that is blocked gives no answer."""
        self._peer.sendall((" ".join(words) + "\n").encode())


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    folder = tmp_path_factory.mktemp("p")  # a short name: the path of a socket has 107 bytes
    (folder / "app.py").write_text(APP)
    with ExitStack() as stack:
        yield Manager(folder, stack)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LONG_S)
    return process.returncode, out, err


def line_with(process: subprocess.Popen[str], stream: str, text: str) -> str:
    """The first line that holds `text`."""
    lines = process.stdout if stream == "stdout" else process.stderr
    assert lines is not None
    for line in lines:
        if text in line:
            return line
    raise AssertionError(f"{stream} ended without {text!r}")


def test_ready_comes_after_the_sessions_are_recovered(manager: Manager) -> None:
    """A kill leaves a turn open; the next process says how many it recovers, and READY only once that one is past its records."""
    with manager.run() as process:
        manager.until("READY", "1")
        manager.commanded().spawn("s", "replay")
        manager.step()
        process.kill()
    with manager.run() as process:
        replayed = manager.step()
        seen = manager.until("STATUS", "recovering: 1 of 1 sessions")
        assert not any("READY" in datagram for datagram in seen)
        replayed.close()
        before = manager.until("READY", "1")
        assert before[-1]["STATUS"].startswith("running: 1 session live, 1 running, ")
        manager.step().close()
        process.terminate()
        assert manager.until("STOPPING", "1")[-1]["STATUS"].startswith("draining: ")
        assert ended(process)[0] == 0


def test_a_session_that_replays_for_long_does_not_hold_up_ready_for_ever(manager: Manager) -> None:
    """Past recovery_s the others are to be had; the status and the log say who is missing."""
    manager.limits("[process]\nrecovery_s = 0.1\n[runtime]\ndrain_s = 0\n")
    with manager.run() as process:
        manager.until("READY", "1")
        manager.commanded().spawn("s", "replay")
        manager.step()
        process.kill()
    with manager.run() as process:
        manager.step()
        assert manager.until("READY", "1")[-1]["STATUS"].endswith(", 1 recovering")
        assert "1 of 1 sessions are recovering after 0.1 s" in line_with(process, "stderr", "recovering")
        process.terminate()
        assert ended(process)[0] == 0


def test_the_watchdog_is_pinged_only_while_the_database_answers(manager: Manager) -> None:
    """The loop runs all the while: that alone is not enough. One line in the log for all the health checks that failed."""
    with manager.run(watchdog_s=0.8) as process:
        manager.until("READY", "1")
        manager.until("WATCHDOG", "1")
        (manager.folder / "sick").touch()
        manager.until("STATUS", "not healthy: the disk is gone")
        assert [manager.datagram() for _ in range(2)] == [{"STATUS": "not healthy: the disk is gone"}] * 2
        (manager.folder / "sick").unlink()
        assert manager.until("WATCHDOG", "1")[-1]["STATUS"].startswith("running: ")
        process.terminate()
        code, _, err = ended(process)
    assert code == 0
    assert err.count("the watchdog is not pinged: the disk is gone\n") == 1
    assert "the watchdog is pinged again: the database answers\n" in err


def test_hup_reads_the_limits_again_and_a_wrong_file_changes_nothing(manager: Manager) -> None:
    """Sessions that are spawned from then on have the new budget; each fault is a line, and the process goes on."""
    with manager.run() as process:
        manager.until("READY", "1")
        commands = manager.commanded()
        assert commands.spawn("before") == 5

        manager.limits("[agents.support.budget]\nsteps = 7\n")
        process.send_signal(signal.SIGHUP)
        reloading = manager.until("RELOADING", "1")[-1]
        assert reloading["MONOTONIC_USEC"].isdigit()
        manager.until("READY", "1")
        assert line_with(process, "stdout", "reloaded") == "reloaded: the limits are those of holdfast.toml\n"
        assert (commands.spawn("after"), commands.spawn("before")) == (7, 5)

        manager.limits("[agents.support]\nbudget = { stps = 1 }\nmailbox = 0\n")
        process.send_signal(signal.SIGHUP)
        manager.until("RELOADING", "1")
        assert manager.until("READY", "1")[-1]["STATUS"].endswith("; faults in holdfast.toml: 2, so it was not taken")
        assert commands.spawn("then") == 7

        manager.limits(f"[agents.support.budget]\nsteps = {'9' * 5000}\n")
        process.send_signal(signal.SIGHUP)
        manager.until("RELOADING", "1")
        manager.until("READY", "1")
        assert commands.spawn("last") == 7

        process.terminate()
        code, _, err = ended(process)
    assert code == 0
    *lines, digits, again = err.splitlines()
    assert digits.startswith("holdfast: holdfast.toml: it is not TOML: ")
    assert [*lines, again] == [
        "holdfast: holdfast.toml: agents.support.budget.stps is an unknown key: did you mean 'steps'?",
        "holdfast: holdfast.toml: agents.support.mailbox is 0: give a whole number, 1 or more",
        "holdfast: the limits stay as they were before holdfast.toml was read again",
        "holdfast: the limits stay as they were before holdfast.toml was read again",
    ]


def test_hup_while_the_process_starts_does_not_end_it(manager: Manager) -> None:
    """A manager that only wants the file read again has it read: the process has not come to it yet."""
    (manager.folder / "late.py").write_text("from app import crunch\ncrunch()\nasync def feed(runtime): pass\n")
    with manager.run("--with", "late:feed") as process:
        loading = manager.step()
        process.send_signal(signal.SIGHUP)
        manager.limits("[agents.support.budget]\nsteps = 9\n")
        loading.close()
        assert line_with(process, "stdout", "ready: ").endswith(f"/sessions.db, pid {process.pid}\n")
        assert manager.commanded().spawn("s") == 9
        process.terminate()
        assert ended(process)[0] == 0


def test_a_wrong_file_at_the_start_is_refused_with_all_its_faults(manager: Manager) -> None:
    """A line each on stderr, exit code 2, and the database is not even made."""
    (manager.folder / "other.toml").write_text("[runtime]\ndrain_s = -1\n[agents.suport]\n")
    with manager.run("--config", "other.toml") as process:
        assert ended(process) == (
            2,
            "",
            "holdfast: other.toml: runtime.drain_s is -1: it cannot be below 0\n"
            "holdfast: other.toml: agents.suport names no agent of this Runtime: did you mean 'support'?\n",
        )
    assert not (manager.folder / "sessions.db").exists()


def test_a_drain_keeps_the_file_and_the_signs_of_life_until_the_last_step_has_ended(manager: Manager) -> None:
    """While it drains another process is refused the file, and the watchdog is content; then it is put down cleanly."""
    with manager.run(watchdog_s=0.8) as process:
        manager.until("READY", "1")
        manager.commanded().spawn("s", "hold")
        held = manager.step()
        process.terminate()
        manager.until("STOPPING", "1")
        assert manager.until("WATCHDOG", "1")[-1]["STATUS"] == "draining: 1 session live, 1 running, 1 step in flight"
        with manager.run() as other:
            code, _, err = ended(other)
        assert (code, f"in use by process {process.pid}" in err) == (3, True)
        held.close()
        code, out, err = ended(process)
    assert (code, out.splitlines()[-1]) == (0, "drained")
    assert "cut off" not in out
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ps = subprocess.run([*COMMAND, "ps", "--json"], cwd=manager.folder, env=env, capture_output=True, text=True, timeout=LONG_S)
    assert json.loads(ps.stdout)["clean"] is True


def test_the_drain_has_the_limit_that_the_file_sets(manager: Manager) -> None:
    """A step that outlasts it is cut off; the code's own limit of a minute is not waited for."""
    manager.limits("[runtime]\ndrain_s = 0.05\n")
    with manager.run() as process:
        manager.commanded().spawn("s", "hold")
        manager.step()
        process.terminate()
        code, out, _ = ended(process)
    assert code == 0
    assert "cut off" in out


def test_what_blocks_the_loop_is_named_and_past_the_limit_ends_the_process(manager: Manager) -> None:
    """The turn, the function and its line, without secrets; the loop says when it runs again. A block without end is an exit code 70."""
    manager.limits("[process]\nblocked_s = 0.2\nstuck_s = 20\n")
    with manager.run() as process:
        commands = manager.commanded()
        commands.send("sk-abcdefghijkl", "block")
        block = manager.step()
        line = line_with(process, "stderr", "crunch")
        number = APP.splitlines().index("        peer.recv(1)") + 1
        assert " ERROR holdfast.run: the loop has been blocked for " in line
        assert f" by turn [redacted]/1: crunch ({manager.folder}/app.py:{number}) < support ({manager.folder}/app.py:" in line
        block.close()
        assert "the loop runs again, after " in line_with(process, "stderr", "again")

        manager.limits("[process]\nblocked_s = 0.2\nstuck_s = 0.4\n")
        process.send_signal(signal.SIGHUP)
        line_with(process, "stdout", "reloaded")
        commands.send("other", "block")
        manager.step()
        code, _, err = ended(process)
    assert code == keeper.STUCK
    assert "by turn other/1: crunch (" in err
    assert "the process exits; open turns resume at the next start" in err.splitlines()[-1]
