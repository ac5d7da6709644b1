"""Bring an earlier checkpoint of a session back: the verb `rewind`."""

from __future__ import annotations

import msgspec

from holdfast import errors, events
from holdfast.runtime.sessions.actor import Actor
from holdfast.runtime.turns.node import Node
from holdfast.stores.ops import Rewind
from holdfast.stores.records import ENDED, Checkpoint, StepState

_MOST = 1_000
"""How many turns at most lie between: the effects of each are read."""


class EffectSince(msgspec.Struct, frozen=True):
    """An effect that was done after the state that came back: the turn, and the name of the step."""

    turn: int
    name: str


class Rewound(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a rewind, or of a dry run of one.

    Attributes:
        turn: the turn whose state came back.
        as_turn: the number that the state has now: a turn of its own, without a message.
        effects: the effects done since then, the oldest first. They stay done: the next turn reads their names.
        changed: False for a dry run.
    """

    session: str
    turn: int
    as_turn: int
    effects: list[EffectSince]
    changed: bool


async def plan(node: Node, actor: Actor, turn: int) -> tuple[Rewind, Rewound]:
    """The op that brings the state after `turn` back, and its outcome.

    Raises:
        SessionError: there is no such turn before the last one, a turn is open, or the outcome of an effect is unknown.
        SessionEnded: the session has ended.
    """
    session, last = actor.id, actor.owner.turn
    _check_between_turns(actor)
    if not 0 <= turn < last:
        raise errors.SessionError(
            session, f"session {session!r} is at turn {last}: give an earlier one, from 0, the state it was spawned with"
        )
    if last - turn > _MOST:
        raise errors.SessionError(session, f"turn {turn} is {last - turn:,} turns back: rewind {_MOST:,} at most at a time")
    found: list[Checkpoint] = await node.store.checkpoints(session, first=turn, last=turn)
    if not found or found[0].unreadable:
        raise errors.SessionError(session, f"the state after turn {turn} of {session!r} does not decode: give another turn")
    checkpoint, effects = found[0], await _effects(node, session, turn, last)
    paused = actor.park if actor.park is not None and actor.park.reason == "paused" else None
    op = Rewind(
        session, actor.owner.epoch, last + 1, checkpoint.state, checkpoint.version, checkpoint.fingerprint,
        tuple(dict.fromkeys(effect.name for effect in effects)), node.clock.time(), "idle" if paused is None else "parked", paused,
    )  # fmt: skip
    return op, Rewound(session=session, turn=turn, as_turn=last + 1, effects=effects, changed=True)


def emitted(node: Node, done: Rewound, reason: str) -> None:
    """Tell the observers that a session was rewound."""
    names = ", ".join(dict.fromkeys(effect.name for effect in done.effects))
    node.emit(events.SessionRewound(done.session, done.as_turn, done.turn, names, reason))


def _check_between_turns(actor: Actor) -> None:
    session = actor.id
    if actor.status in ENDED:
        raise errors.SessionEnded(session, f"session {session!r} is {actor.status}: it runs no more turns")
    doubts = sorted({step.record.name for step in actor.journal.in_doubt()})
    if doubts:
        raise errors.SessionError(
            session, f"the outcome of {', '.join(doubts)} is unknown: resolve it (done, retry or fail) and drop its turn, then rewind"
        )
    if actor.status == "failed" or actor.journal.records:
        raise errors.SessionError(session, f"session {session!r} has an open turn: drop it, then rewind")


async def _effects(node: Node, session: str, turn: int, last: int) -> list[EffectSince]:
    found: list[EffectSince] = []
    for number in range(turn + 1, last + 1):
        steps = await node.store.steps(session, number)
        done = (step for step in steps if step.unreadable or (step.record.effect != "read" and step.state is StepState.CLOSED))
        found += (EffectSince(number, step.record.name or step.key.hex()) for step in done)
    return found
