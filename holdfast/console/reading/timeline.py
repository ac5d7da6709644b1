"""The life of a session as one list in order of time: messages, steps, commits, failures; a page at a time. And its mailbox.

Read from any open store, as in holdfast.console.reading.inspect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from holdfast.console.reading.amounts import Amounts, amounts, cost
from holdfast.console.reading.inspect import LETTERS, MAILBOX
from holdfast.console.reading.values import LARGEST, clean, compact, plain
from holdfast.console.reading.views import MessageView, answer, began, effects_of, letter_view, message_view, step_view
from holdfast.errors import SessionNotFound
from holdfast.stores.protocol import Store
from holdfast.stores.records import Checkpoint, DeadLetter, Message, Session, Step, StepState

ENTRIES = 1000
"""A page ends with the turn that makes it so long; of one turn, so many steps are listed."""

_TEXT, _LONG = 400, 1 << 13


class Mailbox(msgspec.Struct, frozen=True, kw_only=True):
    """The messages that wait in a session's mailbox, in order of arrival, the first ones; `limit` is how many may wait, `more` how many
    wait that are not listed."""

    session: str
    messages: list[MessageView]
    limit: int | None
    more: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry in the life of a session.

    Attributes:
        at: store time, seconds since the epoch.
        what: "spawned", "message" (a turn begins), "step", "turn" (it is committed) or "letter" (it failed for good).
        name: the name of the step, or the id of the message.
        state: the state of a step, as in records.StepState; else "".
        text: a text for people: a step's outcome or error, a message's body, a turn's reply.
    """

    at: float
    turn: int
    what: str
    name: str
    kind: str = ""
    state: str = ""
    branch: str = ""
    duration_s: float | None = None
    cost: Amounts = Amounts()
    text: str = ""


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The turns of a session with their steps, in order of time.

    Attributes:
        next: the first turn of the next page; None on the last one.
        left_out: turns of which only the last steps are listed.
    """

    session: str
    entries: list[Entry]
    next: int | None
    left_out: list[int] = []


async def mailbox(store: Store, id: str, *, now: float) -> Mailbox:
    """The messages that wait in the mailbox of a session, in order of arrival. `now` is store time. Raises as `read`."""
    session = await _session(store, id)
    found = await store.messages(id, limit=MAILBOX, queued=True, most=LARGEST)
    messages = [message_view(message, now) for message in found]
    # Watches are listed and not counted in `pending`.
    waiting = session.pending + sum(message.kind == "watch" for message in messages)
    return Mailbox(session=id, messages=messages, limit=None, more=max(waiting - len(messages), 0))


async def _session(store: Store, id: str) -> Session:
    session = await store.session(id)
    if session is None:
        raise SessionNotFound(id, f"no session {id!r}: holdfast ps --all lists them")
    return session


async def read(store: Store, id: str, *, first: int = 1, turns: int = 50) -> Timeline:
    """One page of the timeline.

    Args:
        first: the turn that the page begins with.
        turns: how many at most.

    Raises:
        SessionNotFound: there is no such session.
        StoreError: the store cannot be read.
    """
    session = await _session(store, id)
    last, entries, left_out = first + turns - 1, list[Entry](), list[int]()
    if first == 1:
        parent = "" if session.parent is None else f"by {clean(session.parent.session)}"
        entries.append(Entry(at=session.created, turn=0, what="spawned", name=clean(session.agent), text=parent))
    open_turn = session.turn + 1
    for turn in range(first, min(last, session.turn) + 1):
        for point in await store.checkpoints(id, first=turn, last=turn, most=0):
            message = None if point.message is None else await store.message(id, point.message)
            entries += _turn(point, message, await _steps(store, id, turn, left_out))
        if len(entries) >= ENTRIES:
            last = turn
            break
    if first <= open_turn <= last:
        queued = await store.messages(id, limit=1, queued=True, most=LARGEST)
        entries += _open(open_turn, queued, await _steps(store, id, open_turn, left_out))
    letters = await store.dead_letters(id, limit=LETTERS)
    entries += [_letter(letter) for letter in letters if first <= letter.turn <= last]
    # Sorted by time; entries of the same time keep the order above, since the sort is stable.
    entries.sort(key=lambda entry: entry.at)
    return Timeline(session=id, entries=entries, next=last + 1 if last < open_turn else None, left_out=left_out)


async def _steps(store: Store, id: str, turn: int, left_out: list[int]) -> list[Step]:
    found = await store.steps(id, turn, limit=ENTRIES + 1, most=_LONG)
    if len(found) > ENTRIES:
        left_out.append(turn)
    return found[-ENTRIES:]


def _turn(point: Checkpoint, message: Message | None, steps: Sequence[Step]) -> Iterator[Entry]:
    name = "" if point.message is None else clean(point.message)
    body = "" if message is None else compact(plain(message.body), _TEXT)
    start = began(steps, point.started)
    yield Entry(at=start, turn=point.turn, what="message", name=name, text=body)
    for step in steps:
        yield _step(step, point.turn, start)
    reply, error = answer(message)
    yield Entry(
        at=point.ended,
        turn=point.turn,
        what="turn",
        name=name,
        duration_s=max(point.ended - start, 0.0),
        cost=amounts(point.usage),
        text=error if error is not None else compact(reply, _TEXT),
    )


def _open(turn: int, queued: Sequence[Message], steps: Sequence[Step]) -> Iterator[Entry]:
    """The open turn: its message, unless that has become a dead letter, and its steps so far."""
    message = next((message for message in queued if message.kind == "message"), None)
    start = began(steps, math.inf)
    if math.isinf(start):
        start = 0.0 if message is None else message.created
    if message is not None:
        yield Entry(at=start, turn=turn, what="message", name=clean(message.id), text=compact(plain(message.body), _TEXT))
    for step in steps:
        yield _step(step, turn, start)


def _step(step: Step, turn: int, start: float) -> Entry:
    """One step; one whose record does not decode is listed at the start of its turn."""
    view = step_view(step)
    text = view.error if view.error is not None else "" if step.state is not StepState.CLOSED else compact(view.outcome, _TEXT)
    return Entry(
        at=step.record.opened or start,
        turn=turn,
        what="step",
        name=view.name,
        kind=view.kind,
        state=view.state,
        branch=view.branch,
        duration_s=view.duration_s,
        cost=amounts(cost(step)),
        text=text or view.note,
    )


def _letter(letter: DeadLetter) -> Entry:
    view = letter_view(letter, letter.created)
    text = "; ".join(part for part in (view.cause, effects_of(view)) if part)
    return Entry(at=letter.created, turn=letter.turn, what="letter", name=view.message, text=text)
