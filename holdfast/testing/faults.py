"""Injects faults, by script or by rate; the same seed gives the same faults.

```python
from holdfast import tool
from holdfast.stores.memory.store import MemoryStore
from holdfast.testing import FaultPlan

plan = FaultPlan(7, store_at={3: "unknown"}, effect_fail=0.1, effect_crash_after=0.02)
store = MemoryStore()
store.faults = plan.store_hook()


@tool(effect="once")
@plan.effect
async def refund(order: str) -> str:
    return f"{order} is paid back"
```

A call has at most one fault. Create a plan outside the process and let it survive the crashes that it makes; otherwise each life has the
same faults at the same calls.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, get_args

from holdfast.errors import ConfigError, NotWritten, OutcomeUnknown
from holdfast.testing.loop import SimulatedLoop

P = ParamSpec("P")
R = TypeVar("R")

StoreFault = Literal["fail", "delay", "unknown", "unknown_lost", "unknown_applied", "crash_before", "crash_after"]
"""NotWritten; late; OutcomeUnknown (drawn: lost or applied); OutcomeUnknown and not applied; the same and applied; killed."""

EffectFault = Literal["fail", "fail_after", "delay", "hang", "hang_before", "hang_after", "crash_before", "crash_after"]
"""ConnectionError, not made; ConnectionError, made; late; never returns (drawn: made or not); not made; made; killed."""


class FaultPlan:
    """Decides for each call of the store and of each wrapped effect which fault it has.

    Args:
        seed: the seed of the draws, or a generator to draw from.
        store_fail: the share of batches that raise NotWritten; the other rates are shares, too.
        store_delay: share that take `delay_s`, before or after they are applied.
        store_unknown: share that raise OutcomeUnknown; half of those were applied.
        store_at: faults by the number of the batch, counted by the store from 1; a batch named here draws nothing.
        effect_fail: share of calls that raise ConnectionError before the effect.
        effect_fail_after: share that raise ConnectionError after it.
        effect_delay: share that take `delay_s`, before or after the effect.
        effect_hang: share that never return; half of those made the effect.
        effect_crash_before: share at which the simulation is killed before the effect.
        effect_crash_after: share at which it is killed after it.
        effect_at: faults by the number of the call, counted over all effects from 1; a call named here draws nothing.
        delay_s: the shortest and the longest delay, in seconds.
        crash: awaited at a crash and must not return; None kills the running simulation.

    Attributes:
        injected: the faults so far, in order, one line each.

    Raises:
        ConfigError: a rate or a scripted fault is not valid.
    """

    def __init__(
        self,
        seed: int | random.Random = 0,
        *,
        store_fail: float = 0.0,
        store_delay: float = 0.0,
        store_unknown: float = 0.0,
        store_at: Mapping[int, StoreFault] | None = None,
        effect_fail: float = 0.0,
        effect_fail_after: float = 0.0,
        effect_delay: float = 0.0,
        effect_hang: float = 0.0,
        effect_crash_before: float = 0.0,
        effect_crash_after: float = 0.0,
        effect_at: Mapping[int, EffectFault] | None = None,
        delay_s: tuple[float, float] = (0.001, 10.0),
        crash: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.injected: list[str] = []
        self._random = seed if isinstance(seed, random.Random) else random.Random(f"faults {seed}")
        self._store_rates = {"fail": store_fail, "delay": store_delay, "unknown": store_unknown}
        self._effect_rates = {
            "fail": effect_fail,
            "fail_after": effect_fail_after,
            "delay": effect_delay,
            "hang": effect_hang,
            "crash_before": effect_crash_before,
            "crash_after": effect_crash_after,
        }
        self._store_at, self._effect_at = dict(store_at or {}), dict(effect_at or {})
        self._delay_s, self._crash_with = delay_s, crash
        self._calls = 0
        faults = [
            *_mistakes("store", self._store_rates, self._store_at, get_args(StoreFault)),
            *_mistakes("effect", self._effect_rates, self._effect_at, get_args(EffectFault)),
        ]
        if faults:
            raise ConfigError("; ".join(faults))

    def store_hook(self) -> StoreHook:
        """The hook for `MemoryStore.faults`."""
        return StoreHook(self)

    def effect(self, fn: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Wrap the async function of an effect; keeps its name, signature and annotations.

        The wrapper suspends once before the effect and once after it, so that `crash_at` reaches both sides.
        """

        @functools.wraps(fn)
        async def faulty(*args: P.args, **kwargs: P.kwargs) -> R:
            self._calls += 1
            call = f"effect {self._calls} ({getattr(fn, '__name__', 'effect')})"
            fault = self._draw(call, self._calls, self._effect_at, self._effect_rates)
            await asyncio.sleep(0)
            await self._strike(fault, call, after=False)
            result = await fn(*args, **kwargs)
            await self._strike(fault, call, after=True)
            await asyncio.sleep(0)
            return result

        return faulty

    def _draw(self, call: str, n: int, script: Mapping[int, str], rates: Mapping[str, float]) -> str | None:
        fault: str | None = script[n] if n in script else _pick(self._random.random(), rates)
        if fault in _EITHER:
            fault = self._random.choice(_EITHER[fault])
        if fault is not None:
            self.injected.append(f"{call}: {fault}")
        return fault

    async def _strike(self, fault: str | None, call: str, *, after: bool) -> None:
        """Inject an effect's fault if it belongs on this side of the effect."""
        if fault is None or fault.endswith("_after") is not after:
            return
        match fault.partition("_")[0]:
            case "fail":
                raise ConnectionError(f"injected fault: {call} was {'made, and its answer lost' if after else 'not made'}")
            case "delay":
                await self._delay()
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "crash":
                await self._crash()

    async def _delay(self) -> None:
        await asyncio.sleep(self._random.uniform(*self._delay_s))

    async def _crash(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        if self._crash_with is not None:
            await self._crash_with()
        elif isinstance(loop, SimulatedLoop):
            loop.kill()
            await loop.create_future()
        raise ConfigError("a crash was injected and nothing crashed: run it in simulate(), or hand FaultPlan a crash= that does not return")


class StoreHook:
    """A fault plan at the two sides of each batch of a store."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        # The present batch and its fault. There is one batch at a time: the next one overwrites the values of a cancelled one.
        self._after: tuple[int, str | None] = (0, None)

    async def before_apply(self, n: int, ops: Sequence[object]) -> None:
        """Called before batch `n` is applied; raises if it must not be.

        Raises:
            NotWritten, OutcomeUnknown: the fault that the plan has for this batch; the batch is not applied.
        If cancelled, the batch is not applied.
        """
        plan = self._plan
        fault = plan._draw(f"batch {n}", n, plan._store_at, plan._store_rates)
        self._after = (n, fault)
        match fault:
            case "fail":
                raise NotWritten(f"injected fault: batch {n} was not written")
            case "unknown_lost":
                raise OutcomeUnknown(f"injected fault: the outcome of batch {n} is unknown")
            case "delay_before":
                await plan._delay()
            case "crash_before":
                await plan._crash()

    async def after_apply(self, n: int, ops: Sequence[object]) -> None:
        """Called after batch `n` was applied; raises if the store must not learn that.

        Raises:
            OutcomeUnknown: the fault that the plan has for this batch; the batch is applied.
        If cancelled, the batch is applied all the same.
        """
        number, fault = self._after
        if number != n:
            return
        match fault:
            case "unknown_applied":
                raise OutcomeUnknown(f"injected fault: the outcome of batch {n} is unknown")
            case "delay_after":
                await self._plan._delay()
            case "crash_after":
                await self._plan._crash()


_EITHER: Mapping[str | None, tuple[str, ...]] = {
    "unknown": ("unknown_lost", "unknown_applied"),
    "hang": ("hang_before", "hang_after"),
    "delay": ("delay_before", "delay_after"),
}


def _pick(draw: float, rates: Mapping[str, float]) -> str | None:
    for fault, rate in rates.items():
        if draw < rate:
            return fault
        draw -= rate
    return None


def _mistakes(what: str, rates: Mapping[str, float], script: Mapping[int, str], known: tuple[str, ...]) -> list[str]:
    found = [f"{what}_{fault}={rate!r} is not a share from 0 to 1" for fault, rate in rates.items() if not 0.0 <= rate <= 1.0]
    if sum(rates.values()) > 1.0 + 1e-9:
        found.append(f"the {what} rates add up to more than 1")
    found += [f"{what}_at[{n}]={fault!r} is none of {', '.join(known)}" for n, fault in script.items() if fault not in known]
    return found + [f"{what}_at[{n}]: calls are counted from 1" for n in script if n < 1]


# ---------------------------------------------------------------- the world outside


@dataclass(frozen=True)
class Applied:
    """An effect as the outside world saw it."""

    key: Hashable
    facts: Mapping[str, Any]


class OutsideLedger:
    """The outside world: the effects that really happened. Create it outside the simulation, so that it survives the crashes.

    Attributes:
        entries: every effect, in order.
    """

    def __init__(self) -> None:
        self.entries: list[Applied] = []

    def run(self, key: Hashable, **facts: Any) -> None:
        """Make the effect of `key` (an order's refund, say), atomically and without an await."""
        self.entries.append(Applied(key, facts))

    def count(self, key: Hashable) -> int:
        """How often the effect happened."""
        return sum(entry.key == key for entry in self.entries)

    def applied_twice(self) -> list[Hashable]:
        """The keys of effects that happened more than once, in the order of their first time."""
        return [key for key in dict.fromkeys(entry.key for entry in self.entries) if self.count(key) > 1]
