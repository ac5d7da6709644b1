"""The events of turns and steps, made from the records: events are a view of the journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast import events
from holdfast.calls.call import Call
from holdfast.runtime.turns.journal import Claim, cost
from holdfast.runtime.turns.turn import Turn


def turn_starts(turn: Turn, restarts: int) -> None:
    """A run of a turn begins. Called in the task whose context the handler copies."""
    if turn.node.observers.all:
        owner, message, first = turn.owner, turn.message, next(iter(turn.journal.records.values()), None)
        began = turn.started if first is None else min(turn.started, first.record.opened)
        turn.emit(events.TurnStarted, message.id, restarts, owner.agent.name, owner.tenant, owner.user, message.context, began)


def step_starts(turn: Turn, claim: Claim, kind: str, name: str, effect: str, opened: float) -> None:
    """A step without a result on record is about to run. Called in the task that runs it."""
    if turn.node.observers.all:
        claim.started = (kind, name)
        turn.node.observers.emit(events.StepStarted(turn.owner.id, turn.number, claim.key, kind, name, effect, opened))


def step_over(turn: Turn, claim: Claim, call: Call | None, value: Any) -> None:
    """A step that the observers saw begin has ended, or its turn leaves it. Called in the task that ran it."""
    if claim.started is None:
        return
    step = turn.journal.records.get(claim.key)
    outcome = None if step is None else step.record.outcome
    if step is None or outcome is None:
        turn.emit(events.StepLeft, claim.key, *claim.started)
        return
    record, failure = step.record, outcome.failure
    used, took_s = cost(step), record.closed - record.opened
    error, cause = ("", "") if failure is None else (failure.type, failure.message)
    event = events.StepEnded(
        turn.owner.id, turn.number, record.kind, record.name, record.effect, failure is None, record.attempts,
        took_s if took_s > 0.0 else 0.0, claim.key, used.tokens, used.microusd, error, cause,
        None if call is None or call.facts is None else _facts(call, value),
    )  # fmt: skip
    turn.node.observers.emit(event)


def _facts(call: Call, value: Any) -> Mapping[str, Any] | None:
    try:
        assert call.facts is not None
        return call.facts(value)
    except Exception:
        # The facts of a response are for people: an odd response must not fail the step, which is recorded already.
        events.log.exception("the facts of %s could not be read", call.name)
        return None
