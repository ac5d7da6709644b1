"""The steps and waits of a session right now, from its actor: the store has only records."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from holdfast.policies.budget import Left
from holdfast.runtime.sessions.actor import Actor
from holdfast.runtime.turns.deadlines import Timed
from holdfast.runtime.turns.node import Node


class Running(msgspec.Struct, frozen=True):
    """A step under way: it began `age_s` seconds ago, and its current attempt times out in `left_s` seconds."""

    kind: str
    name: str
    branch: str
    effect: str
    attempt: int
    age_s: float
    left_s: float


class Waiting(msgspec.Struct, frozen=True):
    """A wait of a turn; until a store time, or without a limit."""

    reason: str
    text: str
    until: float | None


class Live(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One session in memory.

    Attributes:
        working: whether it has a turn open or is about to open one.
        turn: the number of the open turn; None if none is open.
        queued: messages in its mailbox, the open one included.
        steps, waits: the steps in flight of the open turn, and its waits.
        left: the rest of its budget; None in a field is no limit.
        breaker: "closed", "open" or "half_open"; `openings` is how often it opened.
        restarts: crashes that count against its intensity now.
        epoch: the epoch of its activation, the fencing token of its writes.
        process: the id of the process that has it: the session's owner as long as that process owns the store.
    """

    session: str
    agent: str
    status: str
    working: bool
    turn: int | None
    queued: int
    steps: list[Running]
    waits: list[Waiting]
    left: Left
    breaker: str
    openings: int
    restarts: int
    epoch: int
    process: int


def under_way(node: Node) -> dict[str, list[tuple[Timed, float]]]:
    """The steps in flight, by session."""
    found: defaultdict[str, list[tuple[Timed, float]]] = defaultdict(list)
    for step, deadline in node.deadlines:
        found[step.session].append((step, deadline))
    return found


def live(actor: Actor, entries: list[tuple[Timed, float]], process: int) -> Live:
    """The facts of one session, as of now."""
    node, turn, now = actor.node, actor.current, actor.node.clock.time()
    return Live(
        session=actor.id,
        agent=actor.row.agent,
        status=actor.status,
        working=actor.task is not None,
        turn=None if turn is None else turn.number,
        queued=len(actor.mailbox),
        steps=[_running(step, deadline - node.clock.monotonic(), now) for step, deadline in entries],
        waits=[] if turn is None else [Waiting(park.reason, park.text, park.until) for park in turn.waits.parks()],
        left=actor.owner.ledger.left(),
        breaker=actor.owner.gates.breaker.state,
        openings=actor.owner.gates.breaker.openings,
        restarts=actor.restarts.count(node.clock.monotonic()),
        epoch=actor.owner.epoch,
        process=process,
    )


def _running(step: Timed, left_s: float, now: float) -> Running:
    return Running(
        step.kind,
        step.name,
        step.branch,
        step.effect,
        step.attempts,
        max(now - step.opened, 0.0),
        max(left_s, 0.0),
    )
