"""A refused step: its record, and the error that the handler gets, live and on replay."""

from __future__ import annotations

from typing import NoReturn

from holdfast import redact
from holdfast.errors import StepError
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


def exhausts(outcome: Outcome | None) -> bool:
    """Whether this outcome raises BudgetExhausted in the handler: that happens once in a turn, also across a crash."""
    return outcome is not None and outcome.failure is not None and outcome.failure.error == "BudgetExhausted"
