"""The output of the demo while it runs: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from holdfast.console.demo.report import Row

_EVERY_S = 3.0
_LEGEND = """
server: the model server's own log. ledger: a line for each real run of a tool.
shop: its database. customers: the answers they got. process: its statistics.
database: what the killed process left. maybe_paid: requested again, because
the process died before it could record the response."""


class Tally(msgspec.Struct, frozen=True):
    """The progress of the demo."""

    done: int
    sessions: int
    answers: int
    of: int
    replayed: int
    refunds: int

    def short(self) -> str:
        """The text next to the bar."""
        return f"{self.done}/{self.sessions} done · {self.answers} answers · {self.refunds} refunds · {self.replayed} replayed"

    def line(self) -> str:
        """The text for a line of its own."""
        sessions = f"{self.done} of {self.sessions} sessions done"
        return f"{sessions} · {self.answers} model answers · {self.refunds} refunds · {self.replayed} steps replayed"


class Quiet:
    """Tells once that a count has stood still for a time, in seconds, and again only after it has moved."""

    def __init__(self, after_s: float) -> None:
        self._after_s, self._count, self._until = after_s, -1, math.inf

    def over(self, count: int, now: float) -> bool:
        """Whether it has just stood still for so long; `now` is monotonic."""
        if count != self._count:
            self._count, self._until = count, now + self._after_s
        if now < self._until:
            return False
        self._until = math.inf
        return True


class Screen:
    """Prints the progress and the events."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        columns = (BarColumn(14), TimeElapsedColumn(), TextColumn("{task.fields[line]}"))
        self._progress = Progress(*columns, console=self.console, transient=True) if self.console.is_terminal else None
        self._task = None if self._progress is None else self._progress.add_task("", line="", total=None)
        self._began, self._printed, self._last = time.monotonic(), time.monotonic(), ""

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Print an event."""
        self.console.print(f"{self.elapsed_s:5.1f} s  {text}", markup=False, soft_wrap=True)

    def show(self, tally: Tally) -> None:
        """Print the progress."""
        line = tally.line()
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=tally.answers, total=tally.of, line=tally.short())
        elif time.monotonic() - self._printed >= _EVERY_S and line != self._last:
            self._printed, self._last = time.monotonic(), line
            self.say(line)

    def table(self, rows: Sequence[Row]) -> None:
        """Print the summary."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("", "", "", "counted from"):
            table.add_column(name, no_wrap=True)
        for row in rows:
            mark = "" if row.kept is None else "[green]kept[/]" if row.kept else "[bold red]BROKEN[/]"
            table.add_row(row.what, f"[bold]{row.figure}[/]", mark, f"[dim]{row.source}[/]")
        self.console.print()
        self.console.print(table)
        self.console.print(_LEGEND, style="dim", markup=False)
        self.console.print()
