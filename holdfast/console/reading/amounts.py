"""Amounts of budget, money and time, as structs for JSON and as words for a person."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from holdfast.policies.budget import ZERO, Budget, Usage
from holdfast.stores.records import Step


class Amounts(msgspec.Struct, frozen=True, gc=False):
    """Amounts used, or limits (None: no limit)."""

    steps: int | None = None
    tokens: int | None = None
    microusd: int | None = None
    seconds: float | None = None
    tool_calls: int | None = None


def amounts(usage: Usage) -> Amounts:
    return Amounts(usage.steps, usage.tokens, usage.microusd, round(usage.seconds, 6), usage.tool_calls)


@lru_cache(1024)
def limits(budget: Budget) -> Amounts:
    """The limits of a budget, cached: most sessions have those of their agent."""
    return Amounts(budget.steps, budget.tokens, budget.microusd, budget.seconds, budget.tool_calls)


def cost(step: Step) -> Usage:
    """The cost of a step, with the most that its open attempt can cost."""
    return step.record.used + step.record.reserved


def spent(steps: Iterable[Step]) -> Usage:
    """The cost of these steps together."""
    return sum(map(cost, steps), ZERO)


def used(amounts: Amounts) -> str:
    """Steps, tokens and money, on one line."""
    parts = [f"{amounts.steps or 0} st"]
    if amounts.tokens:
        parts.append(f"{amounts.tokens} tok")
    if amounts.microusd:
        parts.append(dollars(amounts.microusd))
    return " ".join(parts)


def number(count: int, one: str, many: str = "") -> str:
    """A count with its noun; `many` is the plural, default `one` with an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def dollars(microusd: int) -> str:
    whole = f"{microusd / 1_000_000:.6f}".rstrip("0")
    cents = whole.partition(".")[2]
    return "$" + whole + "0" * max(2 - len(cents), 0)


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def clock(at: float) -> str:
    """A store time, in the time zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
