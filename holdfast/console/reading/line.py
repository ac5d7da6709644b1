"""One line for a session: its fields in `ps`, the reason of its present state, and the next action of a person.

Pure: takes records and `now`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from holdfast.console.reading.amounts import Amounts, amounts, limits, spent
from holdfast.console.reading.values import clean
from holdfast.runtime.live import Live
from holdfast.stores.listed import Listed
from holdfast.stores.records import (
    ENDED,
    RANK_PERSON,
    DeadLetter,
    Outcome,
    Park,
    Ranked,
    Step,
    StepState,
    display_status,
    in_doubt,
    rank,
)

_name = lru_cache(1024)(clean)  # thousands of sessions have few agents and tenants
_outcome = msgspec.msgpack.Decoder(Outcome).decode

_NEXT = {
    "doubt": "holdfast resolve {id} 'done|retry|fail'",
    "budget": "holdfast budget {id} --{limit} ...",
    "drift": "fix the code, then holdfast resume {id}",
    "unclaimed": "deploy code that calls the recorded effect, then holdfast resume {id}",
    "state": "deploy the agent that knows this state, or restore the row, then holdfast resume {id}",
    "crashes": "find out why the process died, then holdfast resume {id}",
    "repair": "repair {dependency}, then holdfast resume --dependency {dependency}",
    "paused": "holdfast resume {id}",
    "other": "holdfast resume {id}",
    "failed": "fix the cause, then holdfast retry {id}, or holdfast drop {id}",
    "failed in doubt": "holdfast resolve {id} 'done|retry|fail', then holdfast retry {id}, or holdfast drop {id}",
    "no agent": "add it to agents=, or holdfast cancel {id}",
    "no process": "holdfast run",
}
"""The next action of a person: by the reason of the park, for a failed session, for a missing agent, for a session that no process runs.

The quotes: pasted into a shell without them, `done|retry|fail` is a pipe whose first command resolves as done."""


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One session in `ps`. The garbage collector does not track it: there are thousands at once, without cycles.

    Attributes:
        status: as in records.display_status: "working" if a message is being handled or waits.
        reason: why it is parked, or why an ended session is unresolved ("doubt"); else None.
        why: one line for a person: what happened, or what it does; "" if there is no such line.
        next: the next action of a person, if possible a command with this session's id; "" for none.
        asks_a_person: whether it resumes only after an action of a person, or has ended with an effect whose outcome is unknown.
        turn: how many turns are done.
        queued: messages that wait, the one that is being handled included.
        steps: records of the open turn.
        used, limits: what counts against the limits of its budget, and these: what it cost itself, the open turn included, and what it
            gave to children and did not get back. `show` has the cost of itself, and that with all below it.
        dependency: the dependency that it waits for; "" for none.
        until: store time, seconds since the epoch, at which it resumes by itself; None if it does not wait for a time.
        updated: store time of the last change.
        age_s: seconds since then.
        live: what it does right now, by its actor; None if it is not in memory, or the store was read without its process.
    """

    session: str
    agent: str
    tenant: str
    status: str
    reason: str | None
    why: str
    next: str
    asks_a_person: bool
    turn: int
    queued: int
    steps: int
    used: Amounts
    limits: Amounts
    dependency: str
    until: float | None
    updated: float
    age_s: float
    live: Live | None = None


def line(
    session: Listed,
    steps: Sequence[Step],
    letter: DeadLetter | None,
    live: Live | None = None,
    *,
    alive: bool,
    now: float,
    has_agent: bool = True,
) -> Line:
    """One line for a session.

    Args:
        steps: the steps of its open turn.
        letter: the dead letter that blocks it, if it is failed.
        live: what it does right now; takes precedence over the store.
        alive: whether a process runs it.
        has_agent: whether that process has its agent; True if only the store is known.
    """
    status = display_status(session)
    park = waits_for(session)
    updated, usage = session.updated, session.usage
    if steps:
        updated = max([updated, *(max(step.record.opened, step.record.closed) for step in steps)])
        usage = usage + spent(steps)
    used = amounts(usage)
    why, reason = _why(session, status, letter, steps, alive=alive)
    lost = not has_agent and status not in ENDED
    if lost:
        why = "; ".join(part for part in (why, f"this process does not have agent {session.agent!r}") if part)
        reason = reason if reason == "doubt" else "no agent"
    elif live is not None and live.steps:
        why = _doing(live)
    elif status == "working" and alive:
        why = _under_way(steps, now)
    return Line(
        session=clean(session.id),
        agent=_name(session.agent),
        tenant=_name(session.tenant),
        status=status,
        reason=None if park is None else park.reason,
        why=clean(why) if why else "",
        next=_next(session, reason, used),
        asks_a_person=rank(session) <= RANK_PERSON or (lost and status != "idle"),
        turn=session.turn,
        queued=session.pending if live is None else max(session.pending, live.queued),
        steps=len(steps),
        used=used,
        limits=limits(session.budget),
        dependency="" if park is None or not park.dependency else clean(park.dependency),
        until=None if park is None else park.until,
        updated=updated,
        age_s=max(now - updated, 0.0),
        live=live,
    )


def waits_for(session: Ranked) -> Park | None:
    """The reason of its park, or what is unresolved in an ended session; else None."""
    if session.status in ENDED:
        return session.unresolved
    return session.park if session.status == "parked" else None


def _doing(live: Live) -> str:
    oldest = max(live.steps, key=lambda step: step.age_s)
    others = f", and {len(live.steps) - 1} more" if len(live.steps) > 1 else ""
    return f"{oldest.name} is under way for {oldest.age_s:.1f} s, attempt {oldest.attempt}{others}"


def _why(session: Listed, status: str, letter: DeadLetter | None, steps: Sequence[Step], *, alive: bool) -> tuple[str, str]:
    """The reason of its present state, and the key in `_NEXT` of the next action of a person ("" for none)."""
    if status == "failed":
        if letter is None:
            return "a message could not be handled", "failed"
        unknown = f"; outcome unknown: {', '.join(letter.in_doubt)}" if letter.in_doubt else ""
        return letter.cause + unknown, "failed in doubt" if unknown else "failed"
    if status == "parked":
        park = session.park
        if park is None:
            return "", "other"
        waits = f" (waits for {', '.join(park.waits_on)})" if park.waits_on else ""
        by_itself = park.until is not None or bool(park.waits_on)
        return park.text + waits, park.reason if park.reason in _NEXT else "" if by_itself else "other"
    if status == "working":
        return ("", "") if alive else ("no process runs it: it resumes at the next start", "no process")
    if status == "unfinished":
        return "the handler ended the turn when the budget was exhausted", "budget"
    if status in ENDED and session.unresolved is not None:
        return session.unresolved.text, session.unresolved.reason if session.unresolved.reason == "doubt" else ""
    if status in ENDED and session.ending is not None:
        failure, doubts = _outcome(session.ending).failure, [step.record.name for step in steps if in_doubt(step)]
        message = "" if failure is None else failure.message
        return (f"{message}; {', '.join(doubts)} may or may not have happened", "doubt") if doubts else (message, "")
    return "", ""


def _next(session: Listed, reason: str, used: Amounts) -> str:
    """The next action of a person for this session; an id that a shell would split is quoted."""
    if not reason:
        return ""
    waits_on = shlex.quote(clean(session.park.dependency)) if reason == "repair" and session.park is not None else ""
    return _NEXT[reason].format(id=shlex.quote(clean(session.id)), limit=_spent(used, limits(session.budget)), dependency=waits_on)


def _spent(used: Amounts, most: Amounts) -> str:
    """The limit that most likely has to be raised, as the option of `holdfast budget` that raises it."""
    names = [name for name in Amounts.__struct_fields__ if (limit := getattr(most, name)) is not None and getattr(used, name) >= limit]
    return (names or ["microusd"])[0].replace("microusd", "usd").replace("_", "-")


def _under_way(steps: Sequence[Step], now: float) -> str:
    """What a session does, by its journal: a free read has no record before it ends."""
    for step in reversed(steps):
        since_s = max(now - step.record.opened, 0.0)
        if step.state is StepState.OPEN:
            return f"{step.record.name} is under way for {since_s:.1f} s, attempt {step.record.attempts}"
        if step.state is StepState.WAITING:
            return f"{step.record.name} waits for {since_s:.1f} s"
    return ""
