"""`ps` and `show` on a terminal. Stored text is data and never markup."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.console.reading.amounts import Amounts, clock, dollars, number, span, used
from holdfast.console.reading.line import Line
from holdfast.console.reading.values import clean, compact, legible
from holdfast.console.reading.views import Detail, Overview, StepView, TurnView, effects_of
from holdfast.stores.records import ENDED

_REASONS = {"doubt": "outcome unknown", "reconcile": "waits for reconcile"}  # for a person; the other reasons are printed as they are
STATUS_STYLES = {"failed": "red", "parked": "yellow", "working": "green", "unfinished": "magenta"}
_PREVIEW = 160
_WIDE_COLUMNS = 150
PIPED_COLUMNS = 1_000  # a pipe has no width: a cut table would hide the text that grep looks for


def console() -> Console:
    """Standard output: as wide as the terminal, and without line breaks if it is none."""
    out = _Legible(highlight=False, emoji=False, markup=False)
    return out if out.is_terminal else _Legible(highlight=False, emoji=False, markup=False, width=PIPED_COLUMNS)


class _Legible(Console):
    """Prints stored text as text: a terminal gets no control characters."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(_legible(thing) if isinstance(thing, str | Text) else thing for thing in objects), **options)


def _legible(cell: str | Text) -> Text:
    if isinstance(cell, str):
        return Text(legible(cell))
    cell.plain = legible(cell.plain)  # the length stays, so that its styles keep their places
    return cell


def table(out: Console, columns: Iterable[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print rows below the names of their columns."""
    grid = Table(box=None, pad_edge=False, header_style="dim" if out.is_terminal else "")
    for name in columns:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*map(_legible, row))
    out.print(grid)


# ---------------------------------------------------------------- ps


def ps(view: Overview, *, all: bool) -> None:
    """Print what every session does and why."""
    out = console()
    out.print(f"{clean(view.store)}: {_process(view)}; {_counts(view.counts)}")
    if view.sessions:
        columns = ("SESSION", "AGENT", "TENANT", "STATUS", "TURN", "QUEUED", "STEPS", "USED", "AGE", "WHY, AND ACTION")
        wide = out.width >= _WIDE_COLUMNS
        table(out, columns if wide else columns[:-1], (_row(line) if wide else _row(line)[:-1] for line in view.sessions))
        if not wide:
            _reasons(out, view.sessions)
        _repairs(out, view.sessions)
    ended = sum(view.counts.get(status, 0) for status in ENDED) - sum(line.status in ENDED for line in view.sessions)
    if view.next is not None:
        out.print(f"only {len(view.sessions)} sessions: --limit lists more, --after {view.next} the next ones")
    elif ended > 0 and not all:
        out.print(f"{ended} more have ended: holdfast ps --all lists them")


def _reasons(out: Console, lines: Iterable[Line]) -> None:
    """The reason of each session, below the table if the table has no room for it."""
    out.print()
    for line in lines:
        if why := _why(line):
            out.print(Text.assemble((line.session, "bold"), f": {why}"))


def _repairs(out: Console, lines: Iterable[Line]) -> None:
    """One line for each dependency that a person has to repair, with the command for all sessions that wait for it."""
    waiting: dict[str, list[Line]] = {}
    for line in lines:
        if line.reason == "repair":
            waiting.setdefault(line.dependency, []).append(line)
    for dependency, those in waiting.items():
        out.print(f"{dependency}: {number(len(those), 'session waits', 'sessions wait')} for its repair; do: {those[0].next}")


def _process(view: Overview) -> str:
    if view.process is not None:
        stuck = f", {number(view.stuck, 'attempt')} stuck: holdfast doctor" if view.stuck else ""
        where = f" on {view.host}" if view.host != socket.gethostname() else ""  # another machine or container
        return f"run by process {view.process}{where}{stuck}"
    return "not running, stopped cleanly" if view.clean else "crashed; sessions resume at the next start"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "no sessions"


def _row(line: Line) -> Sequence[str | Text]:
    return (
        line.session, line.agent, line.tenant, _status(line), str(line.turn), str(line.queued), str(line.steps),
        used(line.used), span(line.age_s), _why(line),
    )  # fmt: skip


def _status(line: Line) -> Text:
    return Text(status(line), style="bold red" if line.asks_a_person else STATUS_STYLES.get(line.status, ""))


def status(line: Line) -> str:
    """The status of a session, with the reason if it is parked, or has ended and needs a person."""
    return with_reason(line.status, line.reason)


def with_reason(status: str, reason: str | None) -> str:
    """A status, with the reason as people know it."""
    return status if reason is None else f"{status} ({_REASONS.get(reason, reason)})"


def _why(line: Line) -> str:
    until = f"until {clock(line.until)}" if line.until is not None else ""
    return "; ".join(part for part in (compact(line.why, _PREVIEW), until, f"do: {line.next}" if line.next else "") if part)


# ---------------------------------------------------------------- show


def show(view: Detail) -> None:
    """Print what one session did, its cost, and why it is in its present state."""
    out, line = console(), view.line
    out.print(Text.assemble((line.session, "bold"), "  ", _status(line)))
    table(out, ("", ""), [row for row in _header(view) if row[1]])
    names, sums = ["BUDGET", "USED", "LIMIT"], [view.own, view.total] if view.children else []
    names += ["OF ITSELF", "WITH CHILDREN"] if view.children else []
    table(out, names, _budget(line.used, line.limits, sums))
    more = line.queued - len(view.mailbox)
    _section(out, "mailbox", len(view.mailbox), f"what waits, and {more} more: holdfast mailbox" if more > 0 else "what waits")
    for message in view.mailbox:
        out.print(f"  {message.id}  {message.kind}  {span(message.age_s)} ago  {compact(message.body, _PREVIEW)}", soft_wrap=True)
    if view.earlier_turns:
        _section(out, "turns", len(view.turns), f"{view.earlier_turns} earlier ones: --turn N shows one")
    for turn in view.turns:
        _turn(out, turn, running=line.status == "working")
    _section(out, "dead letters", len(view.dead_letters), "what could not be handled")
    for letter in view.dead_letters:
        effects = effects_of(letter) or "no effect was done before"
        out.print(f"  {letter.message} in turn {letter.turn}, {span(letter.age_s)} ago: {letter.cause}; {effects}", soft_wrap=True)
    _section(out, "children", len(view.children), "sessions that it spawned")
    if view.children:
        table(
            out,
            ("  SESSION", "AGENT", "STATUS", "USED", "WHY"),
            [("  " + c.session, c.agent, _status(c), used(c.used), _why(c)) for c in view.children],
        )
    if view.more_children:
        out.print("  and more: holdfast ps --all lists them")


def _section(out: Console, name: str, count: int, what: str) -> None:
    if count:
        out.print()
        out.print(Text.assemble((f"{name} ({count})", "bold"), f": {what}"))


def _header(view: Detail) -> list[tuple[str, str]]:
    line = view.line
    result = "" if view.result is None else compact(view.result, _PREVIEW)
    return [
        ("agent", line.agent),
        ("tenant", f"{line.tenant}, user {view.user}" if view.user else line.tenant),
        ("why", line.why),
        ("until", clock(line.until) if line.until is not None else ""),
        ("action", line.next),
        ("result", result),
        ("ended", view.ended or "" if line.reason is not None else ""),
        ("turns done", f"{line.turn} (epoch {view.epoch})"),
        ("crashes", f"{view.crashes} during the open turn" if view.crashes else ""),
        ("parent", view.parent or ""),
        ("notes", f"done before a dropped message failed: {', '.join(view.notes)}" if view.notes else ""),
        ("created", clock(view.created)),
        ("updated", f"{clock(line.updated)}, {span(line.age_s)} ago"),
    ]


def _budget(used: Amounts, limits: Amounts, sums: Sequence[Amounts | None]) -> list[Sequence[str | Text]]:
    """Used and limit; for a session with children also what it cost itself, and what it cost with all below it."""

    def amount(name: str, value: float | None) -> str:
        if value is None:
            return "none"
        return dollars(int(value)) if name == "microusd" else f"{value:.2f} s" if name == "seconds" else str(value)

    rows: list[Sequence[str | Text]] = []
    for name in Amounts.__struct_fields__:
        have, limit = getattr(used, name), getattr(limits, name)
        style = "red" if limit is not None and have >= limit else ""
        more = ["over 1,000 sessions" if sum is None else amount(name, getattr(sum, name)) for sum in sums]
        label = "money" if name == "microusd" else name.replace("_", " ")
        rows.append((label, Text(amount(name, have), style), amount(name, limit), *more))
    return rows


def _turn(out: Console, turn: TurnView, *, running: bool) -> None:
    out.print()
    state = "failed" if turn.open and turn.error is not None else "open" if turn.open else "done"
    facts = ", ".join(fact for fact in (state, *_times(turn), used(turn.cost)) if fact)
    out.print(Text.assemble((f"turn {turn.turn}", "bold"), f" ({facts})"))
    if turn.message is not None:
        out.print(f"  message {turn.message}: {compact(turn.body, _PREVIEW)}", soft_wrap=True)
    if turn.steps:
        columns = ("  KIND", "NAME", "EFFECT", "STATE", "TRIES", "TOOK", "COST", "ARGUMENTS", "OUTCOME")
        table(out, columns, (_step(step) for step in turn.steps))
    if turn.earlier_steps:
        out.print(f"  only its last {len(turn.steps)} steps: --turn {turn.turn} --whole prints all", soft_wrap=True)
    for step in _twins(turn) if turn.open and not running else ():
        out.print(f"  outcome of {step.name} {compact(step.args, 60)} unknown: --step {step.key} resolves this one only", soft_wrap=True)
    if turn.error is not None:
        out.print(Text(f"  failed: {turn.error}", style="red"), soft_wrap=True)
    elif not turn.open:
        out.print(f"  reply: {compact(turn.reply, _PREVIEW)}", soft_wrap=True)
    if not turn.open:
        out.print(f"  state: {compact(turn.state, _PREVIEW)} (version {turn.version})", soft_wrap=True)


def _times(turn: TurnView) -> list[str]:
    """How long it took, and how much of that its steps were active and waited; no word about less than a millisecond."""
    times = {"active": turn.active_s, "waiting": turn.waiting_s or 0.0}
    parts = [f"{span(seconds)} {name}" for name, seconds in times.items() if seconds >= 0.001]
    return [*([] if turn.duration_s is None else [f"took {span(turn.duration_s)}"]), *parts]


def _twins(turn: TurnView) -> list[StepView]:
    """Effects in doubt with the same name: only the key distinguishes them."""
    doubts = [step for step in turn.steps if step.state == "doubt" or (step.state == "open" and step.effect == "once")]
    names = Counter(step.name for step in doubts)
    return [step for step in doubts if names[step.name] > 1]


def _step(step: StepView) -> Sequence[str | Text]:
    branch = f" [{step.branch}]" if step.branch else ""
    took = "" if step.duration_s is None else span(step.duration_s)
    style = {"failed": "red", "doubt": "bold red", "waiting": "yellow"}.get(step.state, "")
    return (
        f"  {step.kind}", step.name + branch, step.effect, Text(step.state, style), str(step.attempts), took, used(step.cost),
        "" if step.args is None else compact(step.args, 60), _outcome(step),
    )  # fmt: skip


def _outcome(step: StepView) -> str:
    value: Any = step.error if step.error is not None else "" if step.state in ("open", "waiting", "doubt") else step.outcome
    parts = [compact(value, 100) if value != "" else ""]
    parts.append(f"until {clock(step.until)}" if step.until is not None else "")
    parts.append(f"to {step.target}" if step.target is not None else "")
    parts.append(f"maybe paid {number(step.maybe_paid, 'time')} more" if step.maybe_paid else "")
    parts.append("answered a call that had drifted" if step.drifted else "")
    parts.append(step.note)
    return "; ".join(part for part in parts if part)
