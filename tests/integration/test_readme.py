"""The commands and their output in README.md, "Operating it": run in that order, they print what the page shows.

What differs from run to run (ids, times, process numbers, paths) is compared by its kind alone.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.stores.sqlite.holder import State, state
from holdfast.stores.sqlite.lock import holder

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

KINDS = [  # a pattern, and what is compared in its place
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
    (r"\b[0-9a-f]{32}\b", "ID"),
    (r"\S*/sessions\.db", "sessions.db"),
    (r"\S+\.sock\b", "SOCKET"),
    (r"\b\d[\d.]* (?:ms|s|min)\b", "TIME"),
    (r"\b(pid|process) \d+", r"\1 N"),
]


def kinds_of(text: str) -> list[str]:
    """The lines, without what differs from run to run, and without blank lines."""
    for pattern, kind in KINDS:
        text = re.sub(pattern, kind, text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


def transcript() -> list[tuple[str, str]]:
    """The commands in the block that begins with `holdfast run`, each with the output below it."""
    (block,) = re.findall(r"```text\n(\$ holdfast run.*?)```", README, re.DOTALL)
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]


def shop() -> str:
    """The first program of the page, with the bank that takes its time."""
    program = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    line = '    return f"{cents} cents of {order} paid back"\n'
    assert line in program
    return str(program.replace(line, f'    await asyncio.sleep(20 if order == "order-17" else 0)\n{line}'))


class Shell:
    """Runs the commands of the page, in their folder; it knows the ids that the page has by those that this run got."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: dict[str, str] = {}
        self.running: subprocess.Popen[str] | None = None
        command = folder / "bin" / "holdfast"
        command.parent.mkdir()
        command.write_text(f"#!{sys.executable}\nfrom holdfast.console.cli.app import main\nmain()\n")
        command.chmod(0o755)
        (folder / "run").mkdir(mode=0o700)
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(folder / "run"), "COLUMNS": "1000"}

    def do(self, command: str) -> str:
        for documented, actual in self.ids.items():
            command = command.replace(documented, actual)
        if command.startswith("holdfast run"):
            return self.start(command.removesuffix(" &"))
        if command.startswith("kill -9"):
            self.kill()
            command = command.partition("; ")[2]
        ran = subprocess.run(["sh", "-c", command], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60)
        return ran.stdout + ran.stderr

    def start(self, command: str) -> str:
        self.running = subprocess.Popen(
            command.split(), cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.running.stdout is not None
        said = "".join(self.running.stdout.readline() for _ in range(2))
        self.env["SOCKET"] = re.findall(r"control socket: (.*)", said)[0]
        return said

    def program(self, code: str) -> str:
        """What a Python program prints that stands in the folder."""
        (self.folder / "program.py").write_text(code)
        ran = subprocess.run([sys.executable, "program.py"], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def kill(self) -> None:
        assert self.running is not None
        held = holder(str(self.folder / "sessions.db"))
        assert held is not None
        assert state(held) is State.RUNS
        self.running.send_signal(signal.SIGKILL)
        self.running.communicate()

    def learn(self, documented: str, actual: str) -> None:
        found = [re.findall(r"\b[0-9a-f]{32}\b", text) for text in (documented, actual)]
        self.ids |= dict(zip(*found, strict=True))

    def end(self) -> None:
        if self.running is not None:
            self.running.kill()
            self.running.communicate()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.end()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_commands_of_the_page_print_what_it_shows(shell: Shell) -> None:
    """A run, a kill in the middle of a refund, the next run, a person who resolves it: line by line."""
    (shell.folder / "shop.py").write_text(shop())
    commands = transcript()
    assert len(commands) >= 9
    for command, documented in commands:
        actual = shell.do(command)
        assert kinds_of(actual) == kinds_of(documented), f"$ {command}\n{actual}"
        shell.learn(documented, actual)
    (sample,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "holdfast.connect()" in code]
    assert "4200 cents of order-19 paid back" in shell.program(sample)
    (curl, documented) = re.findall(r"```text\n\$ (curl .*)\n(.*)\n```", README)[0]
    if shutil.which("curl"):
        assert kinds_of(shell.do(curl)) == kinds_of(documented)


def test_the_first_program_runs_twice_and_refunds_once(shell: Shell) -> None:
    """The second time the answer comes from the database."""
    program = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    program = program.replace('    return f"{cents}', '    print("refunds")\n    return f"{cents}')
    answer = "4200 cents of order-17 paid back\n"
    assert [shell.program(program) for _ in range(2)] == [f"refunds\n{answer}", answer]
