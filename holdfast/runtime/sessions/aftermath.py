"""What follows when a handler raised: decided here, and noted in the session's gates and its window of restarts; nothing is written."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.clock import Clock
from holdfast.errors import BudgetExhausted, StepError, StoreError
from holdfast.runtime.turns.gates import Gates
from holdfast.stores.records import Park
from holdfast.supervisors.intensity import Backoff, RestartWindow, delay

PROVIDER_S, PROVIDER_MAX_S = 5.0, 300.0
"""How soon a session resumes whose dependency was down: doubling from the first to the second, with jitter down to half."""

STORE_S = 5.0


def after_crash(
    error: BaseException, gates: Gates, restarts: RestartWindow, backoff: Backoff, clock: Clock, uniform: Callable[[float, float], float]
) -> Park | float | None:
    """Park, restart after so many seconds, or give the message up (None).

    Only bugs count against the intensity: a budget that is spent waits for a person, a dependency that is down is asked again, ever more
    rarely, for as long as it takes.
    """
    if isinstance(error, BudgetExhausted):
        return Park("budget", f"budget exhausted: {error.message}; raise it, then it resumes")
    if isinstance(error, StoreError):
        return Park("store", f"the store could not be read: {error}", clock.time() + STORE_S)
    if isinstance(error, StepError) and error.category == "transient":
        gates.failures += 1
        wait_s = min(PROVIDER_S * 2.0 ** min(gates.failures - 1, 10), PROVIDER_MAX_S) * uniform(0.5, 1.0)
        return Park("provider", f"{error.step}: {error.message}", clock.time() + wait_s)
    now = clock.monotonic()
    return delay(backoff, restarts.count(now), uniform) if restarts.allow(now) else None
