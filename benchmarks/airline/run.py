"""Drives a run: starts the processes, kills one of them again and again, waits for the last answer, counts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.airline import recordings, report, settings
from benchmarks.airline.books import LEDGER
from benchmarks.airline.processes import Processes, ProcessFailed
from benchmarks.airline.progress import Progress
from benchmarks.airline.recordings import Conversation
from benchmarks.airline.tables import MissingData, Tables

_LOOK_S = 0.004
_SHOW_S = 5.0
_WRITE_WAIT_S = 2.0
_WRITE_WAIT = 0.6
"""How long a kill that is due waits for a running write, in seconds and as a part of the time between two kills: the worst moments are just
before and just after a write is made."""


@dataclass(frozen=True)
class Plan:
    """The options of a run.

    Attributes:
        conversations: the file of the recordings.
        data: the directory of the tables and the policy.
        folder: the folder of the books and the logs; it is not removed.
        store: a URL; None for a SQLite file in the folder.
        concurrency: conversations at once.
        kills: how often the process is killed.
        first: only so many conversations; None for all.
        pace: how long the model and the airline's system take, 1.0 being 50 ms and 40 ms.
        deadline_s: after so long, in seconds, the run is given up.
    """

    conversations: Path
    data: Path
    folder: Path
    store: str | None = None
    concurrency: int = 50
    kills: int = 5
    first: int | None = None
    pace: float = 1.0
    deadline_s: float = 1200.0


def run(plan: Plan) -> report.Report:
    """Run all of it, and count.

    Raises:
        MissingData: the recordings, the tables or the policy are missing.
        ProcessFailed: the model server did not start.
    """
    tables, name = Tables.load(plan.data), f"run-{os.urandom(4).hex()}"
    conversations = recordings.load(plan.conversations, run=name, first=plan.first)
    if not (plan.data / "policy.md").is_file():
        raise MissingData(f"{plan.data / 'policy.md'} is not there: the agent follows it")
    plan.folder.mkdir(parents=True, exist_ok=True)
    if (plan.folder / LEDGER).exists():
        raise MissingData(f"{plan.folder} holds the books of another run: name an empty folder")
    environment = settings.environment(
        folder=plan.folder.resolve(),
        data=plan.data.resolve(),
        conversations=plan.conversations.resolve(),
        first=plan.first,
        run=name,
        concurrency=plan.concurrency,
        pace=plan.pace,
    )
    with Processes(plan.folder, plan.store, environment) as processes:
        processes.start_model()
        processes.start_worker()
        drive, broken = _Drive(plan, processes, conversations), ""
        try:
            drive.run()
            processes.stop_worker()
        except ProcessFailed as error:
            broken = str(error)
    counts = report.count(plan.folder, tables, conversations, kills=drive.kills, seconds=drive.seconds)
    return replace(counts, broken=broken)


class _Drive:
    """One run, from the first message to the last answer."""

    def __init__(self, plan: Plan, processes: Processes, conversations: list[Conversation]) -> None:
        self._plan, self._processes, self._progress = plan, processes, Progress(plan.folder)
        self._messages = {each.id: {f"{each.id}/{number}" for number, _ in enumerate(each.turns, 1)} for each in conversations}
        self._turns = sum(map(len, self._messages.values()))
        self._began = self._shown = time.monotonic()
        self._due_since: float | None = None
        self.seconds = 0.0
        self.kills: list[list[str]] = []
        """The running steps at each kill."""

    def run(self) -> None:
        """Wait until every conversation is over, or the deadline has passed."""
        while not self._over() and self.seconds < self._plan.deadline_s:
            time.sleep(_LOOK_S)
            self.seconds = time.monotonic() - self._began
            self._processes.check_worker()
            self._progress.look()
            if self._due():
                self._kill()
            if time.monotonic() - self._shown > _SHOW_S:
                self._show()
        for text in self._progress.failed.values():
            self._say(f"no answer to {text}")
        self._show()

    def _over(self) -> bool:
        progress = self._progress
        if len(progress.answered) >= self._turns:
            return True
        return bool(progress.failed) and all(id in progress.failed or ids <= progress.answered for id, ids in self._messages.items())

    def _due(self) -> bool:
        """Whether it is time for a kill: evenly over the run, each while a step is running, a write if there is one soon."""
        progress, killed, wanted = self._progress, len(self.kills), self._plan.kills
        over = len(progress.answered) / self._turns * (wanted + 1) - (killed + 1)
        if killed == wanted or over < 0:
            return False
        now = time.monotonic()
        self._due_since = self._due_since or now
        # In turn: a write that is made and not reported yet, and a write that is not made yet.
        if progress.writing(made=killed % 2 == 0):
            return True
        return (over > _WRITE_WAIT or now - self._due_since > _WRITE_WAIT_S) and bool(progress.open())

    def _kill(self) -> None:
        self._processes.kill_worker()
        self._progress.look()
        open_ = self._progress.open()
        self.kills.append(open_)
        self._progress.killed()
        self._due_since = None
        self._processes.start_worker()
        self._say(f"kill -9 with {len(open_)} under way ({report.tally(open_)}); started again")

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._say(f"{len(self._progress.answered)} of {self._turns} turns answered, {self._progress.replayed} steps replayed")

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)
