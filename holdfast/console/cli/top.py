"""`holdfast top`: what a process does right now, drawn again each second; sessions that need a person come first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from holdfast.console.cli.render import PIPED_COLUMNS, STATUS_STYLES, console, status
from holdfast.console.reading.amounts import dollars, number, span
from holdfast.console.reading.line import Line
from holdfast.console.reading.values import compact
from holdfast.console.reading.views import Overview
from holdfast.console.wire.answers import Statistics

if TYPE_CHECKING:
    from holdfast.console.client.node import Node

_WHY = 120
_WIDE, _NARROW = 120, 70
_LEAST_ROWS, _PIPED_ROWS = 3, 50


async def run(node: Node, *, once: bool, every_s: float) -> None:
    """Draw until cancelled; one frame with `once`, or if the output is no terminal."""
    out = console()
    before: Statistics | None = None
    if once or not out.is_terminal:
        out.print(await _frame(node, out, None, await node.get("/statistics", Statistics)))
        return
    with Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            now = await node.get("/statistics", Statistics)
            live.update(await _frame(node, out, before, now), refresh=True)
            before = now
            await anyio.sleep(every_s)


async def _frame(node: Node, out: Console, before: Statistics | None, now: Statistics) -> Group:
    rows = max(out.height - 5, _LEAST_ROWS) if out.is_terminal else _PIPED_ROWS
    view = await node.get("/sessions", Overview, limit=rows)
    top = header(now, before, view.store)
    for line in top:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*top, grid(view.sessions, out.width))


def header(now: Statistics, before: Statistics | None, store: str) -> list[Text]:
    """The process and its state, on two lines, and an empty line."""
    counts = now.counts
    state = Text("ready", "green") if counts["ready"] else Text("not accepting work: draining, or the last write failed", "bold red")
    more = {
        "recovering": "recovering",
        "stuck": "attempts stuck",
        "threads_abandoned": "threads stuck",
        "threads_waiting": "waiting for a thread",
    }
    parts = [
        f"{counts['live']} live",
        f"{counts['working']} running",
        f"{number(counts['steps_in_flight'], 'step')} in flight",
        _writes(now, before),
    ]
    parts += [f"{counts[name]} {words}" for name, words in more.items() if counts[name]]
    sessions = ", ".join(f"{count} {status}" for status, count in now.sessions.items()) or "no sessions"
    first = Text.assemble((store, "bold"), f"  process {now.process}, up {span(now.at - now.started)}, ", state)
    return [first, Text(f"{sessions}; {', '.join(parts)}"), Text("")]


def _writes(now: Statistics, before: Statistics | None) -> str:
    if before is None or now.at <= before.at or now.process != before.process:
        return f"{now.counts['ops']} writes"
    return f"{max(now.counts['ops'] - before.counts['ops'], 0) / (now.at - before.at):,.0f} writes/s"


def grid(lines: list[Line], width: int) -> Table:
    """A row for each session; a narrow screen has fewer columns, each row on one line."""
    fits = width < PIPED_COLUMNS
    table = Table(box=None, pad_edge=False, header_style="dim", expand=fits)
    columns = ["SESSION", "STATUS"]
    columns += ["TURN", "QUEUED", "LEFT", "BREAKER"] if width >= _WIDE else ["QUEUED"] if width >= _NARROW else []
    table.add_column("SESSION", no_wrap=True, overflow="ellipsis", max_width=max(width // 4, 8))
    table.add_column("STATUS", no_wrap=True, overflow="ellipsis", max_width=max(width // 4, 8))
    for name in columns[2:]:
        table.add_column(name, no_wrap=True)
    # The last column takes the width that is left: otherwise the longest reason would cut the other columns.
    table.add_column("WHAT, AND ACTION", no_wrap=True, overflow="ellipsis", ratio=1 if fits else None)
    for line in lines:
        cells = {
            "SESSION": Text(line.session),
            "STATUS": _status(line),
            "TURN": Text(str(line.turn)),
            "QUEUED": Text(str(line.queued)),
            "LEFT": Text(_left(line)),
            "BREAKER": _breaker(line),
        }
        table.add_row(*(cells[name] for name in columns), Text(_what(line)))
    return table


def _status(line: Line) -> Text:
    return Text(status(line), style="bold red" if line.asks_a_person else STATUS_STYLES.get(line.status, ""))


def _left(line: Line) -> str:
    """The amounts that are left of its limits."""
    if line.live is None:
        return ""
    left = line.live.left
    parts = [f"{left.steps} st"] if left.steps is not None else []
    parts += [f"{left.tokens} tok"] if left.tokens is not None else []
    parts += [dollars(int(left.usd * 1_000_000))] if left.usd is not None else []
    return " ".join(parts)


def _breaker(line: Line) -> Text:
    state = "" if line.live is None else line.live.breaker
    return Text(state, style="" if state in ("", "closed") else "bold red")


def _what(line: Line) -> str:
    why = compact(line.why, _WHY)
    if line.live is not None and not line.live.steps and line.live.waits:
        why = compact("; ".join(wait.text for wait in line.live.waits), _WHY)
    if line.live is not None and line.live.restarts:
        why = f"{why}; crashed {number(line.live.restarts, 'time')}".removeprefix("; ")
    return "; ".join(part for part in (why, line.next) if part)
