"""A refused step: its record, and the error that the handler gets, live and on replay."""

from __future__ import annotations

from typing import NoReturn

from holdfast import redact
from holdfast.calls.call import ONE_STEP
from holdfast.errors import BudgetExhausted, StepError
from holdfast.policies.budget import ZERO
from holdfast.runtime.steps.step import Step
from holdfast.runtime.turns.failures import error_of
from holdfast.stores.records import Failure, Outcome


async def refuse(
    step: Step, text: str, error: type[StepError] = StepError, *, cause: str | None = None, category: str = "permanent"
) -> NoReturn:
    """Record that the step was refused, and raise `error`.

    Args:
        cause: the `type` that the error names; default the error's own class.
    """
    failure = Failure(error.__name__, step.name, cause or error.__name__, redact.text(text), category)
    await step.close(Outcome(failure=failure))
    raise error_of(failure)


async def exhausted(step: Step, text: str) -> NoReturn:
    """The budget refuses an attempt: the handler gets BudgetExhausted once, after that the session parks until its budget is raised."""
    turn = step.turn
    if turn.refused:
        await turn.park_here(step.lane, "budget", f"budget exhausted: {text}; raise it, then it resumes")
    turn.refused = True
    await refuse(step, text, BudgetExhausted)


async def spend_step(step: Step) -> None:
    """Charge one step for a step without an effect (a wait, a message, a spawn, a refusal), so that no loop is free.

    Raises:
        BudgetExhausted: none is left.
    """
    ledger = step.turn.owner.ledger
    refused = ledger.reserve(ONE_STEP)
    if refused is not None:
        await exhausted(step, refused)
    ledger.settle(ONE_STEP, ONE_STEP)
    step.used = ONE_STEP if step.used is ZERO else step.used + ONE_STEP


def exhausts(outcome: Outcome | None) -> bool:
    """Whether this outcome raises BudgetExhausted in the handler: that happens once in a turn, also across a crash."""
    return outcome is not None and outcome.failure is not None and outcome.failure.error == "BudgetExhausted"
