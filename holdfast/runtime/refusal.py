"""A step that is not allowed to run: its record, and the error that the handler gets, live and on replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from holdfast import redact
from holdfast.calls.call import ONE_STEP
from holdfast.errors import BudgetExhausted, StepError
from holdfast.policies.budget import ZERO, Usage
from holdfast.runtime.failures import error_of
from holdfast.runtime.journal import Claim
from holdfast.stores.records import Failure, Outcome, StepRecord, StepState

if TYPE_CHECKING:
    from holdfast.runtime.turn import Turn


async def refuse(
    turn: Turn,
    claim: Claim,
    kind: str,
    name: str,
    text: str,
    error: type[StepError] = StepError,
    *,
    cause: str | None = None,
    category: str = "permanent",
    effect: str = "read",
    used: Usage = ZERO,
) -> NoReturn:
    """Record that the step was refused, and raise `error`.

    Args:
        cause: the `type` that the error names; default the error's own class.
        used: what attempts before this one have cost.
    """
    failure = Failure(error.__name__, name, cause or error.__name__, redact.text(text), category)
    now = turn.node.clock.time()
    record = StepRecord(
        kind, name, claim.branch, claim.digest, claim.nth, effect, Outcome(failure=failure), used=used, attempts=0, opened=now, closed=now,
        beside=claim.beside,
    )  # fmt: skip
    await turn.acknowledged(turn.submit(claim.key, StepState.FAILED, record))
    raise error_of(failure)


async def exhausted(turn: Turn, claim: Claim, kind: str, name: str, text: str, *, effect: str = "read", used: Usage = ZERO) -> NoReturn:
    """The budget refuses an attempt: the handler is told once, after that the session parks until its budget is raised."""
    if turn.refused:
        await turn.park_here("budget", f"budget exhausted: {text}; raise it to go on")
    turn.refused = True
    await refuse(turn, claim, kind, name, text, BudgetExhausted, effect=effect, used=used)


async def spend_step(turn: Turn, claim: Claim, kind: str, name: str) -> Usage:
    """Charge one step for what performs no effect (a wait, a spawn, a refusal), so that no loop is free. Raises BudgetExhausted."""
    refused = turn.actor.ledger.reserve(ONE_STEP)
    if refused is not None:
        await exhausted(turn, claim, kind, name, refused)
    turn.actor.ledger.settle(ONE_STEP, ONE_STEP)
    return ONE_STEP


def told(outcome: Outcome) -> bool:
    """Whether this record tells the handler that its budget is exhausted: that is said once in a turn, also across a crash."""
    return outcome.failure is not None and outcome.failure.error == "BudgetExhausted"
