"""The decision after a handler raised. It is noted in the session's gates and its restarts; this module writes nothing."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.clock import Clock
from holdfast.errors import BudgetExhausted, StepError, StoreError
from holdfast.policies.breaker import in_a_line
from holdfast.runtime.turns.gates import Gates
from holdfast.stores.records import Park
from holdfast.supervisors.intensity import Backoff, Restarts

PROVIDER_S, PROVIDER_MAX_S = 5.0, 300.0
"""The pause before a session whose dependency was down resumes, in seconds: doubling from the first to the second, with jitter down to
half."""

TRIES = 5
"""How many runs of a turn in a row may end by a failed step that is no dependency's (an ask without an answer, a deadlock, a tool's bug).
After the last of them the message is a dead letter."""

STORE_S = 5.0


def after_crash(
    error: BaseException,
    gates: Gates,
    restarts: Restarts,
    backoff: Backoff,
    clock: Clock,
    uniform: Callable[[float, float], float],
    *,
    asks_again: bool = False,
) -> Park | float | None:
    """What to do: a Park, a restart after so many seconds, or give the message up (None).

    Only bugs count against the intensity. A failed step is treated as the table of failures says (docs/failures.md). A spent budget waits
    for a person. A dependency that is down is called again after growing pauses, without a limit; any other failure of a step makes a turn
    run again a few times only, since what it costs must not be bought without end.

    Args:
        asks_again: whether another run makes an attempt again that has failed, whatever the error is.
    """
    if isinstance(error, StoreError):
        return Park("store", f"the store could not be read: {error}", clock.time() + STORE_S)
    failed = _step_error(error)
    if failed is None:
        gates.tries += asks_again
        return None if gates.tries >= TRIES else restarts.after_crash(backoff, clock.monotonic(), uniform)
    if isinstance(failed, BudgetExhausted):
        return Park("budget", f"budget exhausted: {failed.message}; raise it, then it resumes")
    line = f"{failed.step}: {in_a_line(failed.status, f'{failed.type}: {failed.message}')}"
    if failed.then == "person":
        return Park("repair", line, dependency=failed.of or failed.step)
    if failed.dependency and failed.then == "park":
        gates.failures += 1
        return Park("provider", line, _until(failed, gates.failures, clock, uniform), dependency=failed.of)
    gates.tries += 1
    if gates.tries >= TRIES or failed.then == "dead letter":
        return None
    if failed.then == "park":
        return Park("retry", line, _until(failed, gates.tries, clock, uniform), dependency=failed.of)
    return restarts.after_crash(backoff, clock.monotonic(), uniform)


def _step_error(error: BaseException) -> StepError | None:
    """The failed step that an error is about, itself or as the cause that its `raise ... from` names: of a group, such as that of a task
    group, the one that waits for the most; None where a part of it is no failed step."""
    for _ in range(_CAUSES):
        if isinstance(error, StepError):
            return error
        if isinstance(error, BaseExceptionGroup) or error.__cause__ is None:
            break
        error = error.__cause__
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [_step_error(each) for each in error.exceptions]
    failed = [each for each in found if each is not None]
    return max(failed, key=_weight) if len(failed) == len(found) else None


def _weight(error: StepError) -> tuple[bool, int, float]:
    return isinstance(error, BudgetExhausted), _ORDER.index(error.then) if error.then in _ORDER else 0, error.until or 0.0


_CAUSES = 8
_ORDER = ("park", "handler", "dead letter", "person")


def _until(error: StepError, nth: int, clock: Clock, uniform: Callable[[float, float], float]) -> float:
    """The time that its dependency stated, and never before the pause that grows with each run."""
    pause_s = min(PROVIDER_S * 2.0 ** min(nth - 1, 10), PROVIDER_MAX_S) * uniform(0.5, 1.0)
    return max(clock.time() + pause_s, error.until or 0.0)
