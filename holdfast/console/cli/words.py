"""The output of the commands other than `ps` and `show`. Stored text is data and never markup."""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec
from rich.text import Text

from holdfast.console.cli.render import console, table, with_reason
from holdfast.console.reading.amounts import clock, number, span, used
from holdfast.console.reading.timeline import Entry, Mailbox, Timeline
from holdfast.console.reading.values import clean, compact, escaped, legible
from holdfast.console.wire.answers import Diagnosis, Did, DidMany, Happened
from holdfast.policies.breaker import BreakerView
from holdfast.runtime.sessions.rewinding import Rewound
from holdfast.supervisors.view import SupervisorView

_PREVIEW = 160
_LEFT_OUT = {"key", "context", "began", "opened"}  # fields of an event without meaning for a person
_LEVEL_NAMES = {"fail": "FAIL"}
_LEVELS = {"ok": "green", "warning": "yellow", "fail": "bold red"}


def tree(view: SupervisorView) -> None:
    """Each supervisor with its children below it."""
    out = console()
    out.print(Text.assemble((view.name, "bold"), f"  {view.strategy}"))
    _below(view, "")


def _below(view: SupervisorView, indent: str) -> None:
    out = console()
    for at, child in enumerate(view.children):
        last = at == len(view.children) - 1
        restarts = f", restarted {number(child.restarts, 'time')}" if child.restarts else ""
        error = f": {clean(child.error)}" if child.error else ""
        out.print(f"{indent}{'└─' if last else '├─'} {child.id}  {child.state} for {span(child.age_s)}, {child.restart}{restarts}{error}")
        if child.supervisor is not None:
            _below(child.supervisor, indent + ("   " if last else "│  "))
    if view.count > len(view.children):
        out.print(f"{indent}   and {view.count - len(view.children)} more")


def timeline(view: Timeline) -> None:
    """One line for each entry, in order of time."""
    out = console()
    rows = [_entry(entry) for entry in view.entries]
    table(out, ("TIME", "TURN", "WHAT", "NAME", "STATE", "TOOK", "COST", "TEXT"), rows)
    for turn in view.left_out:
        out.print(f"earlier steps of turn {turn} are left out: show --turn {turn} --whole prints them")
    if view.next is not None:
        out.print(f"more with --first {view.next}")


def _entry(entry: Entry) -> tuple[str, ...]:
    cost = used(entry.cost) if entry.cost.steps else ""
    return clock(entry.at), str(entry.turn), entry.what, _what(entry), entry.state, _took(entry), cost, entry.text


def _what(entry: Entry) -> str:
    branch = f" [{entry.branch}]" if entry.branch else ""
    return f"{entry.kind} {entry.name}{branch}".strip()


def _took(entry: Entry) -> str:
    return "" if entry.duration_s is None else span(entry.duration_s)


def mailbox(view: Mailbox) -> None:
    """The waiting messages, in order of arrival."""
    out = console()
    waiting = len(view.messages) + view.more
    wait = "waits" if waiting == 1 else "wait"
    out.print(f"{number(waiting, 'message')} {wait}" if view.limit is None else f"{waiting} of at most {view.limit} messages {wait}")
    if view.messages:
        rows = [(message.id, message.kind, span(message.age_s), compact(message.body, _PREVIEW)) for message in view.messages]
        table(out, ("ID", "KIND", "AGE", "BODY"), rows)
    if view.more:
        out.print(f"and {view.more} more")


def event(happened: Happened, *, json: bool) -> None:
    """Print one line and flush it: the output may be a pipe."""
    if json:
        line = escaped(msgspec.json.encode(happened).decode())
    else:
        fields = {name: value for name, value in happened.fields.items() if name not in _LEFT_OUT and value not in ("", None)}
        text = " ".join(f"{name}={compact(value, 80)}" for name, value in fields.items())
        at = time.strftime("%H:%M:%S", time.localtime(happened.at))
        line = f"{at} {clean(happened.session)} {happened.event} {text}".rstrip()
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def breakers(views: dict[str, BreakerView]) -> None:
    """Each dependency that was called at least once."""
    out = console()
    if not views:
        out.print("no dependency has been called yet")
        return
    rows = [(name, view.state.replace("_", "-"), str(view.openings), view.cause, _last_error(view)) for name, view in views.items()]
    table(out, ("DEPENDENCY", "BREAKER", "OPENINGS", "CAUSE", "LAST ERROR"), rows)


def _last_error(view: BreakerView) -> str:
    return compact(view.error, 80) if view.status is None else f"HTTP {view.status}: {compact(view.error, 80)}"


def doctor(view: Diagnosis) -> None:
    """A line for each check, failures first."""
    out = console()
    table(
        out,
        ("", "", ""),
        [(Text(_LEVEL_NAMES.get(check.level, check.level), _LEVELS[check.level]), check.name, check.text) for check in view.checks],
    )
    counts = {"failure": "fail", "warning": "warning"}
    found = [number(n, word) for word, level in counts.items() if (n := sum(check.level == level for check in view.checks))]
    out.print(f"process {view.process}: {', '.join(['healthy' if view.healthy else 'not healthy', *found])}")


def reply(value: Any) -> None:
    """A reply: a text as it is, without control characters; any other value as JSON on one line."""
    if not isinstance(value, str):
        value = escaped(msgspec.json.encode(value).decode())
    elif sys.stdout.isatty():
        value = legible(value)
    sys.stdout.write(f"{value}\n")


def did(one: Did, *, letter_kept: bool = False) -> None:
    """The outcome for one session. `letter_kept`: a turn was given up, and its message not dropped."""
    print(f"{clean(one.session)}: {'turn given up; its message is a dead letter' if letter_kept else _done(one)}")


def _done(one: Did) -> str:
    if one.verb == "interrupt":
        return f"{number(one.count or 0, 'attempt')} interrupted" if one.changed else "no such step is in flight"
    if one.count is not None:
        return f"{number(one.count, 'effect')} resolved" if one.changed else "no effect of unknown outcome"
    return _PAST[one.verb] if one.changed else "it had ended before"


def rewound(done: Rewound) -> None:
    """The outcome of a rewind: the turn, and the effects since."""
    out = console()
    verb = "has the state after turn" if done.changed else "would have the state after turn"
    out.print(f"{clean(done.session)}: {verb} {done.turn}, as turn {done.as_turn}")
    for effect in done.effects:
        out.print(f"  turn {effect.turn}: {clean(effect.name)} was done, and stays done")


_PAST = {"pause": "paused", "resume": "resumed", "cancel": "cancelled", "kill": "killed", "retry": "is retried", "drop": "dropped"}


def did_many(many: DidMany) -> None:
    """The outcome for each session."""
    out = console()
    rows = []
    for one in many.sessions:
        outcome = (
            f"would {many.verb}" if many.dry_run else "failed" if one.problem is not None else "done" if one.changed else "nothing to do"
        )
        was = with_reason(one.status, one.why)
        rows.append((clean(one.session), one.agent, was, outcome, "" if one.problem is None else clean(one.problem.message)))
    if rows:
        table(out, ("SESSION", "AGENT", "WAS", many.verb.upper(), "WHY NOT"), rows)
    failed = sum(one.problem is not None for one in many.sessions)
    more = "; there are more: --limit" if many.more else ""
    if many.dry_run:
        out.print(f"would {many.verb} {number(len(rows), 'session')}{more}")
    else:
        out.print(f"{many.verb}: {len(rows) - failed} of {number(len(rows), 'session')}{more}")
