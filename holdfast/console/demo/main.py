"""`holdfast demo`: kills the process of sessions in the middle of their work; the sessions resume, and no effect happens twice.

Three processes: this one, which only starts, kills and counts; a scripted model server; and `holdfast run` with the agent of
examples/support. The module `facts` describes how it counts.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import holdfast
from holdfast.console.demo.facts import Answered, Asked, Fact, Kill, Left, Tail, exchanges
from holdfast.console.demo.processes import DemoError, Processes
from holdfast.console.demo.report import LOOP_ORDER, LOOPER, Row, Scene, done, paid_and_open, summary
from holdfast.console.demo.screen import Quiet, Screen, Tally
from holdfast.errors import ConfigError

BROKEN = 1
_ANSWERS = 10
"""Whole answers that one conversation takes."""
_POLL_S, _POLL_DUE_S = 0.05, 0.01
_REFUND_WAIT_S = 3.0
"""How long, in seconds, a kill that is due waits for the worst moment: a refund is paid, and its answer has not arrived."""
_ANSWER_S = 0.15
"""How long after a payment, in seconds, its answer has certainly not arrived, at pace 1."""
_QUIET_S = 5.0
"""After so long without an answer of the model, in seconds, the demo looks whether a breaker holds the sessions back."""


def main(*, sessions: int = 50, kills: int = 3, seed: int | None = None, pace: float = 1.0, deadline_s: float = 170.0) -> int:
    """Run the demo; 0 if every promise was kept, 1 if one was broken.

    Args:
        sessions: the number of customers, without the one whose model loops.
        kills: how often their process is killed.
        seed: the seed of the model's delays and failures; default another one each time.
        pace: how slow model and bank are; 1.0 is lifelike.
        deadline_s: after so long, in seconds, the demo gives up.

    Raises:
        ConfigError: the examples or a package are missing.
    """
    checkout = _checkout()
    seed = random.randrange(1, 10_000) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    with Screen() as screen, _ended_by_signals():
        try:
            rows = _Demo(Scene(sessions, kills), checkout, folder, screen, seed, pace).run(time.monotonic() + deadline_s)
        except DemoError as error:
            screen.say(f"stopped: {error}")
            rows = []
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # Ctrl-C: the files are not needed
            raise
    if rows:
        screen.table(rows)
    broken = [row.what for row in rows if row.kept is False]
    if rows and not broken:
        shutil.rmtree(folder, ignore_errors=True)
        screen.console.print(f"Every promise was kept, in {screen.elapsed_s:.0f} s (--seed {seed}).", markup=False)
        return 0
    verdict = f"Not kept: {'; '.join(broken)}." if broken else "The demo did not get to its end."
    screen.console.print(f"{verdict} Seed {seed}; all files are in {folder}", markup=False, soft_wrap=True)
    return BROKEN


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, so that its processes end with it."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checkout() -> Path:
    """The folder with the examples. Raises ConfigError if there is none, or a package is missing."""
    folder = Path(holdfast.__file__).resolve().parent.parent
    if not (folder / "examples" / "support" / "app.py").is_file():
        raise ConfigError(
            "the demo runs examples/support, which is not part of an installed package: clone the repository and run make demo"
        )
    missing = [name for name in ("openai", "llmock") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"the demo needs {' and '.join(missing)}: install holdfast with its extra, holdfast[demo]")
    return folder


class _Demo:
    """One run of the demo."""

    def __init__(self, scene: Scene, checkout: Path, folder: Path, screen: Screen, seed: int, pace: float) -> None:
        self._scene, self._checkout, self._folder, self._screen = scene, checkout, folder, screen
        self._settings = {"SUPPORT_CUSTOMERS": str(scene.sessions), "SUPPORT_SEED": str(seed), "SUPPORT_PACE": str(pace)}
        self._ledger: Tail[Fact] = Tail(folder / "ledger.jsonl", Fact)
        self._log: Tail[Asked | Answered | Left] = Tail(folder / "model.jsonl", Asked | Answered | Left)
        self._kills: list[Kill] = []
        self._answers, self._replayed, self._refunds = 0, 0, 0
        self._done: set[str] = set()
        self._due_since, self._paid_at, self._answer_s = 0.0, 0.0, _ANSWER_S * pace
        self._quiet = Quiet(_QUIET_S)

    def run(self, deadline: float) -> list[Row]:
        """From the start of the processes to the summary. Raises DemoError."""
        scene, screen = self._scene, self._screen
        with Processes(self._checkout, self._folder, self._settings) as processes:
            processes.start_model()
            screen.say("the model server is up: it limits, fails, stalls and cuts streams")
            screen.say(
                f"holdfast run examples.support.app:runtime (process {processes.start_worker()}): {scene.sessions} customers, and a loop"
            )
            while len(self._done) < scene.sessions + 1:
                processes.check_worker()
                self._look()
                if self._quiet.over(self._answers, time.monotonic()) and (held := processes.held_back()):
                    screen.say(f"the circuit breaker of the model server is open: {held} sessions wait; they resume within two minutes")
                if self._due(processes):
                    self._kill(processes)
                if time.monotonic() > deadline:
                    raise DemoError(f"{len(self._done - {LOOPER})} of {scene.sessions} sessions were done when time was up")
                time.sleep(_POLL_DUE_S if self._due_since else _POLL_S)
            screen.say("all customers have their answers: SIGTERM, and it drains")
            processes.stop_worker()
        self._look()
        return summary(scene, self._ledger.lines, exchanges(self._log.lines), self._kills, self._folder)

    def _look(self) -> None:
        """Read the new lines of the books, and print the progress."""
        for fact in self._ledger.read():
            self._replayed += fact.what == "replayed"
            if fact.what == "refund":
                self._refunds, self._paid_at = self._refunds + 1, fact.at
            if fact.what == "answer" and fact.session == LOOPER and LOOPER not in self._done:
                self._screen.say(f"the loop was stopped by its budget; its customer reads: {fact.text!r}")
                self._done.add(LOOPER)
        self._done = done(self._ledger.lines)
        self._answers += sum(isinstance(line, Answered) and line.whole and line.order != LOOP_ORDER for line in self._log.read())
        sessions = self._scene.sessions
        self._screen.show(Tally(len(self._done - {LOOPER}), sessions, self._answers, sessions * _ANSWERS, self._replayed, self._refunds))

    def _due(self, processes: Processes) -> bool:
        """Whether it is time for a kill: evenly over the run, and right after a payment if there is one soon."""
        killed, wanted = len(self._kills), self._scene.kills
        if killed == wanted or self._answers < self._scene.sessions * _ANSWERS * 0.75 * (killed + 0.8) / wanted:
            return False
        now = time.monotonic()
        self._due_since = self._due_since or now
        if now - self._due_since > _REFUND_WAIT_S:
            return bool(processes.open_steps())
        return time.time() - self._paid_at < self._answer_s and any(step.name == "refund" for step in processes.open_steps())

    def _kill(self, processes: Processes) -> None:
        kill = processes.kill_worker()
        self._kills.append(kill)
        self._due_since = 0.0
        self._look()
        begun = " + ".join(f"{count} {name}" for name, count in sorted(Counter(step.name for step in kill.open).items()))
        paid = paid_and_open(self._ledger.lines, kill)
        self._screen.say(f"kill -9 with {len(kill.open)} steps open ({begun}), {paid} of the refunds paid already; started again")
