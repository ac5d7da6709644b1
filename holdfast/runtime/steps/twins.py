"""Twins: the same `once` effect asked for again in one turn, by a loop of the handler, another branch, or another attempt of an outer step.

It never begins while the outcome of an earlier one is open. Where the caller cancelled the earlier one, or a step or gather around it, and
the effect was done, its record answers: the loop asked for one effect, not for two.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from holdfast import events
from holdfast.calls.call import Call
from holdfast.runtime.steps.step import Step
from holdfast.runtime.turns import doubt
from holdfast.runtime.turns.branches import keys_around
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.records import Outcome, StepRecord, StepState, in_doubt


class Turnstile:
    """Lets the `once` steps of the same name and arguments pass one after the other, within one run of a turn.

    A step that runs inside another of the same does not wait for it.
    """

    __slots__ = ("_passed", "_step")

    def __init__(self, step: Step) -> None:
        self._step = step
        self._passed: asyncio.Future[None] = step.turn.node.loop.create_future()

    async def __aenter__(self) -> None:
        """Wait for the steps before this one. If cancelled, it gives up its place."""
        step, waiting = self._step, self._waiting()
        before = [each._passed for each in waiting if each._step.claim.key.hex() not in step.branch]
        waiting.append(self)
        if before:
            step.turn.flight.pause(step.lane)
            try:
                await asyncio.wait(before)
            except BaseException:
                self._pass()
                raise
            finally:
                step.turn.flight.resume(step.lane)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pass()

    def _waiting(self) -> list[Turnstile]:
        return self._step.turn.once.setdefault((self._step.name, self._step.asked.args), [])

    def _pass(self) -> None:
        self._passed.set_result(None)
        self._waiting().remove(self)


async def answered_by_twin(step: Step) -> Outcome | None:
    """The outcome of an earlier, cancelled step of the same effect, if the effect was done; resolves the doubts among such steps."""
    turn, call = step.turn, step.asked
    assert isinstance(call, Call)
    if step.claim.step is not None:
        return None
    await turn.written()  # a twin cancelled while its outcome was being written records the cut in a second write
    for key in [twin.key for twin in turn.journal.twins(step.name, step.asked.args, step.claim.key, step.branch)]:
        while (twin := turn.journal.records.get(key)) is not None and in_doubt(twin):
            park = await doubt.settle(turn, key, call)
            if park is None:
                break
            if park.until is None:
                await turn.park_here(step.lane, park.reason, park.text)
            await turn.pause(step.lane, park.until or 0.0, park.reason, park.text)
        twin = turn.journal.records.get(key)
        if twin is not None and twin.state is StepState.CLOSED and _let_go(turn, twin.record) and turn.journal.answer_again(twin):
            turn.emit(events.StepReplayed, step.kind, step.name)
            turn.journal.order.sees(twin.record.ended)
            return twin.record.outcome
    return None


def _let_go(turn: Turn, record: StepRecord) -> bool:
    """Whether the code that asked for it cancelled it, or a step or `session.gather` around it."""
    if record.cut or (turn.left_gathers and any(gather.holds(record.branch, record.line) for gather in turn.left_gathers)):
        return True
    around = (turn.journal.records.get(key) for key in keys_around(record.branch)) if record.branch else ()
    return any(step is not None and step.record.cut for step in around)
