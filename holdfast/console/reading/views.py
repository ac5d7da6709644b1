"""What `ps` and `show` say about sessions: records turned into lines, each with why it stands where it stands and what to do next.

Pure: takes records and `now`. `--json` prints these structs as they are, and the HTTP API gives them.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.console.reading.amounts import Amounts, amounts, cost, limits
from holdfast.console.reading.values import clean, plain
from holdfast.policies.budget import ZERO
from holdfast.runtime.live import Live
from holdfast.stores.records import (
    ENDED,
    RANK_PERSON,
    Checkpoint,
    DeadLetter,
    Message,
    MessageState,
    Outcome,
    Park,
    Session,
    Step,
    StepState,
    in_doubt,
    rank,
    shown_status,
)

_outcome = msgspec.msgpack.Decoder(Outcome).decode

_NEXT = {
    "doubt": "holdfast resolve {id} done|retry|fail",
    "budget": "holdfast budget {id} --{limit} ...",
    "drift": "fix the code, then holdfast resume {id}",
    "unclaimed": "deploy code that calls the recorded effect, then holdfast resume {id}",
    "state": "deploy the agent that knows this state, then holdfast resume {id}",
    "crashes": "find out why the process died, then holdfast resume {id}",
    "paused": "holdfast resume {id}",
    "other": "holdfast resume {id}",
    "failed": "fix the cause, then holdfast retry {id}, or holdfast drop {id}",
    "failed in doubt": "holdfast resolve {id} done|retry|fail, then holdfast retry {id}, or holdfast drop {id}",
    "no agent": "add it to agents=, or holdfast cancel {id}",
    "nobody": "holdfast run",
}
"""What a person does next: by the reason to be parked, where it is failed, where its agent is gone, where no process runs it."""


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One session in `ps`. Nothing for the garbage collector: there are thousands at once, and no cycles.

    Attributes:
        status: as records.shown_status has it: "working" where a message is being handled or waits to be.
        reason: why it is parked, or what is unresolved of one that has ended ("doubt"); None where it is neither.
        why: one line for a person: what happened, or what it is at; "" for nothing to say.
        next: what a person does next, a command with this session's id where there is one; "" for nothing.
        asks_a_person: it goes on only when somebody does something; or it has ended, and the outcome of an effect is unknown.
        turn: how many turns are done.
        queued: messages that wait, the one under way included.
        steps: records of the open turn.
        used, limits: of the budget, what the open turn has cost included.
        until: store time, seconds since the epoch, at which it goes on by itself; None for not by time.
        updated: store time of the last change.
        age_s: seconds since then.
        live: what it does right now, as its actor says; None where it is not in memory, or where nobody was asked.
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
    until: float | None
    updated: float
    age_s: float
    live: Live | None = None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What `ps` shows.

    Attributes:
        store: what people call the store.
        process, host: the process that runs it, None if none does, and the machine it is on.
        clean: whether the last one to run it put it down itself.
        counts: how many sessions there are of each status, in the whole store.
        sessions: those asked for, the ones that need a person first.
        stuck: attempts and handlers of the process that did not end when they should have; 0 where the store itself was read.
    """

    store: str
    process: int | None
    host: str
    clean: bool
    counts: dict[str, int]
    sessions: list[Line]
    stuck: int = 0


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """One step; `outcome` where it is closed, `error` where it failed. `until` is a store time, `state` that of records.StepState.

    `key` is its key in hexadecimal: where several effects of one name are in doubt, `resolve` takes it in place of the name.
    """

    kind: str
    name: str
    branch: str
    effect: str
    state: str
    attempts: int
    duration_s: float | None
    cost: Amounts
    args: Any
    outcome: Any = None
    error: str | None = None
    until: float | None = None
    target: str | None = None
    maybe_paid: int = 0
    drifted: int = 0
    note: str = ""
    key: str = ""


class LetterView(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter: the `effects` that were done before it failed, those `in_doubt`, and those that `failed`."""

    message: str
    turn: int
    cause: str
    effects: list[str]
    age_s: float
    in_doubt: list[str] = []
    failed: list[str] = []


class MessageView(msgspec.Struct, frozen=True, kw_only=True):
    """A message in the mailbox."""

    id: str
    kind: str
    age_s: float
    body: Any


class TurnView(msgspec.Struct, frozen=True, kw_only=True):
    """One turn; an open one has no reply, state or duration yet."""

    turn: int
    open: bool
    message: str | None
    body: Any
    reply: Any
    error: str | None
    state: Any
    version: int | None
    duration_s: float | None
    cost: Amounts
    steps: list[StepView]


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One session in `show`.

    Attributes:
        line: what `ps` shows of it.
        epoch: how often it was activated.
        crashes: how often its process died during the open turn.
        result: what it finished with.
        ended: why it was cancelled or killed; None if it was not.
        notes: effects that were done before a message was dropped, which the next turn is told of.
        mailbox: what waits, in order of arrival.
        earlier_turns: how many turns before the ones in `turns` are left out.
        turns: the last ones in order, the open one last.
        dead_letters: what could not be handled, oldest first.
        children: the sessions that it spawned, in order.
    """

    line: Line
    user: str
    epoch: int
    crashes: int
    parent: str | None
    created: float
    result: Any
    notes: list[str]
    mailbox: list[MessageView]
    earlier_turns: int
    turns: list[TurnView]
    dead_letters: list[LetterView]
    children: list[Line]
    ended: str | None = None


# ---------------------------------------------------------------- ps


def line(
    session: Session,
    steps: Sequence[Step],
    letter: DeadLetter | None,
    live: Live | None = None,
    *,
    alive: bool,
    now: float,
    has_agent: bool = True,
) -> Line:
    """One line about a session.

    Args:
        steps: those of its open turn.
        letter: the dead letter that holds it up, if it is failed.
        live: what it does right now; that goes before what the store knows.
        alive: whether a process runs it.
        has_agent: whether that process has its agent; True where only the store is known.
    """
    status = shown_status(session)
    park = waits_for(session)
    updated, usage = session.updated, session.usage
    if steps:
        updated = max([updated, *(max(step.record.opened, step.record.closed) for step in steps)])
        usage = sum((cost(step) for step in steps), usage)
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
        agent=clean(session.agent),
        tenant=clean(session.tenant),
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
        until=None if park is None else park.until,
        updated=updated,
        age_s=max(now - updated, 0.0),
        live=live,
    )


def waits_for(session: Session) -> Park | None:
    """What it is parked for, or what is unresolved of one that has ended; None for neither."""
    if session.status in ENDED:
        return session.unresolved
    return session.park if session.status == "parked" else None


def _doing(live: Live) -> str:
    oldest = max(live.steps, key=lambda step: step.age_s)
    others = f", and {len(live.steps) - 1} more" if len(live.steps) > 1 else ""
    return f"{oldest.name} is under way for {oldest.age_s:.1f} s, attempt {oldest.attempt}{others}"


def _why(session: Session, status: str, letter: DeadLetter | None, steps: Sequence[Step], *, alive: bool) -> tuple[str, str]:
    """Why it stands where it stands, and by which key of `_NEXT` a person finds what to do next ("" for nothing)."""
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
        return ("", "") if alive else ("no process runs it: it resumes at the next start", "nobody")
    if status == "unfinished":
        return "its budget was exhausted and it handed over what it had", "budget"
    if status in ENDED and session.unresolved is not None:
        return session.unresolved.text, session.unresolved.reason if session.unresolved.reason == "doubt" else ""
    if status in ENDED and session.result is not None:
        failure, doubts = _outcome(session.result).failure, [step.record.name for step in steps if in_doubt(step)]
        message = "" if failure is None else failure.message
        return (f"{message}; {', '.join(doubts)} may or may not have happened", "doubt") if doubts else (message, "")
    return "", ""


def _next(session: Session, reason: str, used: Amounts) -> str:
    """What a person does next, for this session; an id that a shell would take apart is quoted."""
    return _NEXT[reason].format(id=shlex.quote(clean(session.id)), limit=_spent(used, limits(session.budget))) if reason else ""


def _spent(used: Amounts, most: Amounts) -> str:
    """The limit that most likely has to be raised, as the option of `holdfast budget` that raises it."""
    names = [name for name in Amounts.__struct_fields__ if (limit := getattr(most, name)) is not None and getattr(used, name) >= limit]
    return (names or ["microusd"])[0].replace("microusd", "usd").replace("_", "-")


def _under_way(steps: Sequence[Step], now: float) -> str:
    """What a session is at, as far as the journal knows: a free read has no record before it ends."""
    for step in reversed(steps):
        since_s = max(now - step.record.opened, 0.0)
        if step.state is StepState.OPEN:
            return f"{step.record.name} is under way for {since_s:.1f} s, attempt {step.record.attempts}"
        if step.state is StepState.WAITING:
            return f"{step.record.name} waits for {since_s:.1f} s"
    return ""


# ---------------------------------------------------------------- show


def step_view(step: Step) -> StepView:
    record = step.record
    failure = None if record.outcome is None else record.outcome.failure
    ended = step.state in (StepState.CLOSED, StepState.FAILED)
    return StepView(
        kind=record.kind,
        name=clean(record.name),
        branch=record.branch,
        effect=record.effect,
        state=step.state.name.lower(),
        attempts=record.attempts,
        duration_s=max(record.closed - record.opened, 0.0) if ended else None,
        cost=amounts(cost(step)),
        args=plain(record.args),
        outcome=None if record.outcome is None or failure is not None else plain(record.outcome.value),
        error=None if failure is None else clean(f"{failure.type}: {failure.message} ({failure.category})"),
        until=record.until if step.state is StepState.WAITING else None,
        target=None if record.target is None else clean(record.target),
        maybe_paid=record.maybe_paid,
        drifted=record.drifted,
        note=clean(record.note),
        key=step.key.hex(),
    )


def message_view(message: Message, now: float) -> MessageView:
    return MessageView(id=clean(message.id), kind=message.kind, age_s=max(now - message.created, 0.0), body=plain(message.body))


def letter_view(letter: DeadLetter, now: float) -> LetterView:
    return LetterView(
        message=clean(letter.message),
        turn=letter.turn,
        cause=clean(letter.cause),
        effects=[clean(effect) for effect in letter.effects],
        age_s=max(now - letter.created, 0.0),
        in_doubt=[clean(effect) for effect in letter.in_doubt],
        failed=[clean(effect) for effect in letter.failed],
    )


def effects_of(letter: LetterView) -> str:
    """What became of its effects, each list that has some behind its name; "" for no effect at all."""
    lists = (("done before it failed", letter.effects), ("outcome unknown", letter.in_doubt), ("failed", letter.failed))
    return "; ".join(f"{name}: {', '.join(effects)}" for name, effects in lists if effects)


def done_turn(checkpoint: Checkpoint, message: Message | None, steps: Sequence[Step]) -> TurnView:
    """A turn that was committed, or whose letter was dropped (then its message is dead)."""
    reply, error = answer(message)
    return TurnView(
        turn=checkpoint.turn,
        open=False,
        message=None if checkpoint.message is None else clean(checkpoint.message),
        body=None if message is None else plain(message.body),
        reply=reply,
        error=error,
        state=plain(checkpoint.state),
        version=checkpoint.version,
        duration_s=max(checkpoint.ended - checkpoint.started, 0.0),
        cost=amounts(checkpoint.usage),
        steps=[step_view(step) for step in steps],
    )


def open_turn(number: int, message: Message | None, steps: Sequence[Step]) -> TurnView:
    """The turn that is open, or that failed and left a dead letter."""
    _, error = answer(message)
    return TurnView(
        turn=number,
        open=True,
        message=None if message is None else clean(message.id),
        body=None if message is None else plain(message.body),
        reply=None,
        error=error,
        state=None,
        version=None,
        duration_s=None,
        cost=amounts(sum((cost(step) for step in steps), ZERO)),
        steps=[step_view(step) for step in steps],
    )


def answer(message: Message | None) -> tuple[Any, str | None]:
    """The reply of a message, or the error that it was answered with."""
    if message is None or message.reply is None or message.state is MessageState.QUEUED:
        return None, None
    return result(message.reply)


def result(outcome: bytes) -> tuple[Any, str | None]:
    """The value of an encoded Outcome, or its failure as a line."""
    found = _outcome(outcome)
    failure = found.failure
    return (plain(found.value), None) if failure is None else (None, clean(f"{failure.type}: {failure.message}"))
