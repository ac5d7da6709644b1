"""The data of `ps` and `show` in addition to the lines of sessions: turns with their steps, messages, dead letters.

Pure: takes records and `now`. `--json` prints these structs as they are, and the HTTP API returns them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.console.reading.amounts import Amounts, amounts, cost
from holdfast.console.reading.line import Line
from holdfast.console.reading.values import LARGEST, clean, plain
from holdfast.policies.budget import Usage
from holdfast.stores.records import Checkpoint, DeadLetter, Message, MessageState, Outcome, Step, StepState

_outcome = msgspec.msgpack.Decoder(Outcome).decode


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `ps`.

    Attributes:
        store: the name of the store for people.
        process, host: the process that runs it, None if none does, and the machine it is on.
        clean: whether the last process stopped cleanly.
        counts: how many sessions there are of each status, in the whole store.
        sessions: the selected sessions; those that need a person first.
        next: where the next page begins, for `after`; None on the last page.
        stuck: attempts and handlers of the process that did not end in time; 0 if the store was read without its process.
    """

    store: str
    process: int | None
    host: str
    clean: bool
    counts: dict[str, int]
    sessions: list[Line]
    next: str | None = None
    stuck: int = 0


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """One step; `outcome` if it is closed, `error` if it failed. `until` is a store time, `state` that of records.StepState.

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
    """One turn; an open one has no reply, state or duration yet.

    Attributes:
        duration_s: from its first run to its commit, over crashes and parks.
        active_s: the active time of its steps, as `Budget.seconds` counts it: steps at once count once.
        earlier_steps: earlier steps than those in `steps` are left out.
        waiting_s: the time in which steps were under way, less the active time: retries, sleeps, parks, a process that was down.
    """

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
    earlier_steps: bool = False
    active_s: float = 0.0
    waiting_s: float | None = None


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One session in `show`.

    Attributes:
        line: its line in `ps`.
        epoch: how often it was activated.
        crashes: how often its process died during the open turn.
        own: what it cost itself, the open turn included; `line.used` counts also what it gave to children and did not get back.
        total: what it cost with all sessions below it that are not detached. Both are None where there are more than 1,000 of them.
        result: the result with which it finished.
        ended: why it was cancelled or killed; None if it was not.
        notes: effects that were done before a message was dropped; the next turn gets this list.
        mailbox: the messages that wait, in order of arrival; the first ones, where `line.queued` is more.
        earlier_turns: how many turns before the ones in `turns` are left out.
        turns: the last ones in order, the open one last.
        dead_letters: the messages that could not be handled, oldest first.
        children: the sessions that it spawned, in order; the first ones, where there are `more_children`.
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
    own: Amounts | None = None
    total: Amounts | None = None
    ended: str | None = None
    more_children: bool = False


def step_view(step: Step, most: int | None = LARGEST) -> StepView:
    """One step. `most`: the largest value that is not left out, in bytes; None leaves nothing out."""
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
        args=plain(record.args, most),
        outcome=None if record.outcome is None or failure is not None else plain(record.outcome.value, most),
        error=None if failure is None else clean(f"{failure.type}: {failure.message} ({failure.category})"),
        until=record.until if step.state is StepState.WAITING else None,
        target=None if record.target is None else clean(record.target),
        maybe_paid=record.maybe_paid,
        drifted=record.drifted,
        note=clean(record.note),
        key=step.key.hex(),
    )


def message_view(message: Message, now: float, most: int | None = LARGEST) -> MessageView:
    body = plain(message.body, most)
    return MessageView(id=clean(message.id), kind=message.kind, age_s=max(now - message.created, 0.0), body=body)


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
    """The outcomes of its effects: each list that is not empty, after its name; "" for no effects."""
    lists = (("done before it failed", letter.effects), ("outcome unknown", letter.in_doubt), ("failed", letter.failed))
    return "; ".join(f"{name}: {', '.join(effects)}" for name, effects in lists if effects)


def done_turn(
    checkpoint: Checkpoint, message: Message | None, steps: Sequence[Step], *, earlier: bool = False, most: int | None = LARGEST
) -> TurnView:
    """A turn that was committed, or whose dead letter was dropped (then its message is dead).

    Args:
        earlier: it has steps before these.
        most: as in step_view.
    """
    reply, error = answer(message, most)
    return TurnView(
        turn=checkpoint.turn,
        open=False,
        message=None if checkpoint.message is None else clean(checkpoint.message),
        body=None if message is None else plain(message.body, most),
        reply=reply,
        error=error,
        state=plain(checkpoint.state, most),
        version=checkpoint.version,
        duration_s=max(checkpoint.ended - began(steps, checkpoint.started), 0.0),
        cost=amounts(checkpoint.usage),
        steps=[step_view(step, most) for step in steps],
        earlier_steps=earlier,
        active_s=checkpoint.usage.seconds,
        waiting_s=None if earlier else max(_under_way_s(steps) - checkpoint.usage.seconds, 0.0),
    )


def began(steps: Sequence[Step], started: float) -> float:
    """Store time at which a turn began. `started` is that of its last run, which a crash or a park may have delayed.

    A record that does not decode has no time.
    """
    return min([started, *(step.record.opened for step in steps if step.record.opened)])


def _under_way_s(steps: Sequence[Step]) -> float:
    """How long at least one of these steps was under way."""
    total_s, until = 0.0, 0.0
    for record in sorted((step.record for step in steps), key=lambda record: record.opened):
        total_s += max(record.closed - max(record.opened, until), 0.0)
        until = max(until, record.closed)
    return total_s


def open_turn(
    number: int, message: Message | None, steps: Sequence[Step], spent: Usage, *, earlier: bool = False, most: int | None = LARGEST
) -> TurnView:
    """The turn that is open, or that failed and left a dead letter. `spent`: the cost of all its steps."""
    _, error = answer(message, most)
    return TurnView(
        turn=number,
        open=True,
        message=None if message is None else clean(message.id),
        body=None if message is None else plain(message.body, most),
        reply=None,
        error=error,
        state=None,
        version=None,
        duration_s=None,
        cost=amounts(spent),
        steps=[step_view(step, most) for step in steps],
        earlier_steps=earlier,
        active_s=spent.seconds,
    )


def answer(message: Message | None, most: int | None = LARGEST) -> tuple[Any, str | None]:
    """The reply of a message, or the error that it was answered with."""
    if message is None or message.reply is None or message.state is MessageState.QUEUED:
        return None, None
    return result(message.reply, most)


def result(outcome: bytes, most: int | None = LARGEST) -> tuple[Any, str | None]:
    """The value of an encoded Outcome, or its failure as a line."""
    found = _outcome(outcome)
    failure = found.failure
    return (plain(found.value, most), None) if failure is None else (None, clean(f"{failure.type}: {failure.message}"))
