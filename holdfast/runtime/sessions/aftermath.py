"""The decision after a handler raised. It is noted in the session's gates and its restarts; this module writes nothing."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.clock import Clock
from holdfast.errors import BudgetExhausted, StepError, StoreError
from holdfast.runtime.turns.gates import Gates
from holdfast.stores.records import Park
from holdfast.supervisors.intensity import Backoff, Restarts

PROVIDER_S, PROVIDER_MAX_S = 5.0, 300.0
"""The pause before a session whose dependency was down resumes, in seconds: doubling from the first to the second, with jitter down to
half."""

TRIES = 5
"""How many runs of a turn in a row may end by a transient failure that is no dependency's (an ask without an answer, an empty reply of a
model, a deadlock): after the last of them the message is a dead letter."""

STORE_S = 5.0


def after_crash(
    error: BaseException, gates: Gates, restarts: Restarts, backoff: Backoff, clock: Clock, uniform: Callable[[float, float], float]
) -> Park | float | None:
    """What to do: a Park, a restart after so many seconds, or give the message up (None).

    Only bugs count against the intensity. A spent budget waits for a person. A dependency that is down is called again after growing
    pauses, without a limit; any other transient failure after the same pauses, a few times: it says nothing about the health of a
    dependency, and what it costs must not be bought without end.
    """
    if isinstance(error, BudgetExhausted):
        return Park("budget", f"budget exhausted: {error.message}; raise it, then it resumes")
    if isinstance(error, StoreError):
        return Park("store", f"the store could not be read: {error}", clock.time() + STORE_S)
    if isinstance(error, StepError) and error.category == "transient":
        if error.dependency:
            gates.failures += 1
            return Park("provider", f"{error.step}: {error.message}", clock.time() + _pause_s(gates.failures, uniform))
        gates.tries += 1
        if gates.tries >= TRIES:
            return None
        return Park("retry", f"{error.step}: {error.message}", clock.time() + _pause_s(gates.tries, uniform))
    return restarts.after_crash(backoff, clock.monotonic(), uniform)


def _pause_s(nth: int, uniform: Callable[[float, float], float]) -> float:
    return min(PROVIDER_S * 2.0 ** min(nth - 1, 10), PROVIDER_MAX_S) * uniform(0.5, 1.0)
