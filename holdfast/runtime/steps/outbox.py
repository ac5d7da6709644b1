"""The messages that leave when a turn commits: those of `tell`, made from the step's arguments, live and from a record."""

from __future__ import annotations

from holdfast.codec import digest
from holdfast.runtime.steps.message import Sent, read
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.ops import Enqueue
from holdfast.stores.records import Step, StepState
from holdfast.telemetry.context import linked


def sends(turn: Turn, id: str, sent: Sent) -> None:
    """Put a message into the outbox, under `id`; it leaves with the commit."""
    turn.outbox.add(Enqueue(sent.target, id, sent.body, digest(sent.body), turn.node.clock.time(), context=linked()))


def send_again(turn: Turn, step: Step) -> None:
    """The same for a step inside another one that is answered from its record: the function that sent it does not run."""
    if step.record.kind == "tell" and step.state is StepState.CLOSED:
        sent = read(step.record.args)
        sends(turn, turn.name_of(step.key) if sent.id is None else sent.id, sent)
