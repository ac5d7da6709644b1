"""The messages that leave when a turn commits: those of `tell`, made from the step's arguments, live and from a record."""

from __future__ import annotations

from typing import Any

from holdfast.codec import canonical, digest
from holdfast.runtime.steps.asked import plain
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.ops import Enqueue
from holdfast.stores.records import Step, StepState
from holdfast.telemetry.context import linked


def tells(target: str, message: Any) -> bytes:
    """The arguments of a `tell` step. Raises NotJournalable where the message is not plain data, as an ask does."""
    plain.encode(message)
    return canonical([target, message])


def sends(turn: Turn, id: str, args: bytes) -> None:
    """Put the message of a `tell` with these arguments into the outbox, under `id`; it leaves with the commit."""
    target, message = plain.decode(args)
    body = canonical(message)
    turn.outbox.add(Enqueue(target, id, body, digest(body), turn.node.clock.time(), context=linked()))


def send_again(turn: Turn, step: Step) -> None:
    """The same for a step inside another one that is answered from its record: the function that sent it does not run."""
    if step.record.kind == "tell" and step.state is StepState.CLOSED:
        sends(turn, turn.name_of(step.key), step.record.args)
