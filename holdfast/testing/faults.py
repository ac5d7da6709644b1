"""What goes wrong, by script or by rate, and the same for the same seed.

```python
from holdfast import tool
from holdfast.stores.memory import MemoryStore
from holdfast.testing import FaultPlan

plan = FaultPlan(7, store_at={3: "unknown"}, effect_fail=0.1, effect_crash_after=0.02)
store = MemoryStore()
store.faults = plan.store_hook()


@tool(effect="once")
@plan.effect
async def refund(order: str) -> str:
    return f"{order} is paid back"
```

At most one fault strikes a call. A plan is the world's, not the process's: let it survive the crashes it makes, or each life
meets the same faults at the same calls.
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
    """Decides for each call of the store and of each wrapped effect what goes wrong with it.

    Args:
        seed: of the draws, or a generator to draw from.
        store_fail: share of batches that raise NotWritten, as are the other rates.
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
        delay_s: the least and the most that a delay takes.
        crash: awaited at a crash and must not return; None kills the running simulation.

    Attributes:
        injected: what went wrong so far, in order, one line each.

    Raises:
        ConfigError: a rate or a scripted fault makes no sense.
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
        """What to set as `MemoryStore.faults`."""
        return StoreHook(self)

    def effect(self, fn: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Wrap the async function of an effect, its name, signature and annotations kept.

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
        """Let an effect's fault happen if this is the side of the effect on which it does."""
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
        # The batch under way and its fault. One batch at a time: what a cancelled one leaves here is overwritten by the next.
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
    """An effect as the world outside saw it."""

    key: Hashable
    facts: Mapping[str, Any]


class OutsideLedger:
    """The world outside: what was really done there. Make it outside the simulation, and it survives its crashes.

    Attributes:
        entries: every effect, in order.
    """

    def __init__(self) -> None:
        self.entries: list[Applied] = []

    def run(self, key: Hashable, **facts: Any) -> None:
        """Do the effect that `key` stands for (an order's refund, say); at once, as one thing."""
        self.entries.append(Applied(key, facts))

    def count(self, key: Hashable) -> int:
        """How often it was done."""
        return sum(entry.key == key for entry in self.entries)

    def applied_twice(self) -> list[Hashable]:
        """The keys of what was done more than once, in the order of their first time."""
        return [key for key in dict.fromkeys(entry.key for entry in self.entries) if self.count(key) > 1]
