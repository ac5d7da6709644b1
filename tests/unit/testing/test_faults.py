"""Fault plans: scripted and by rate, reproducible; and the world outside."""

from __future__ import annotations

import asyncio
import inspect
import random
from typing import get_type_hints

import pytest

from holdfast.errors import ConfigError, NotWritten, OutcomeUnknown
from holdfast.stores.memory.store import MemoryStore
from holdfast.testing import Crashed, FaultPlan, OutsideLedger, Simulation, simulate
from holdfast.testing.faults import EffectFault, StoreFault


async def _apply(plan: FaultPlan, ledger: OutsideLedger, n: int) -> str:
    """What a store does around a batch; the ledger stands for its tables."""
    hook = plan.store_hook()
    try:
        await hook.before_apply(n, ())
        ledger.run(n)
        await hook.after_apply(n, ())
    except (NotWritten, OutcomeUnknown) as error:
        return type(error).__name__
    return "done"


@pytest.mark.parametrize(
    ("fault", "outcome", "applied"),
    [
        ("fail", "NotWritten", {0}),
        ("unknown", "OutcomeUnknown", {0, 1}),
        ("unknown_lost", "OutcomeUnknown", {0}),
        ("unknown_applied", "OutcomeUnknown", {1}),
        ("delay", "done", {1}),
    ],
)
def test_a_scripted_store_fault_strikes_its_batch_only(fault: StoreFault, outcome: str, applied: set[int]) -> None:
    """Batch 3 meets the fault, batches 2 and 4 do not; "unknown" is both applied and not, by the seed."""
    seen = set[int]()
    for seed in range(20):
        ledger, plan = OutsideLedger(), FaultPlan(seed, store_at={3: fault})

        async def main(simulation: Simulation, plan: FaultPlan = plan, ledger: OutsideLedger = ledger) -> tuple[list[str], float]:
            return [await _apply(plan, ledger, n) for n in (2, 3, 4)], simulation.loop.time()

        result = simulate(main)
        assert not isinstance(result, Crashed)
        assert result[0] == ["done", outcome, "done"]
        assert (result[1] > 0) is (fault == "delay")
        assert (ledger.count(2), ledger.count(4)) == (1, 1)
        seen.add(ledger.count(3))
    assert seen == applied


def test_the_memory_store_takes_the_hook() -> None:
    """A batch of a real store that the plan fails is not written, and the next one goes through."""

    async def main(simulation: Simulation) -> list[str]:
        store, plan = MemoryStore(), FaultPlan(store_at={1: "fail"})
        store.faults = plan.store_hook()
        await store.open()
        with pytest.raises(NotWritten, match="batch 1"):
            await store.apply([])
        assert await store.apply([]) == []
        return plan.injected

    assert simulate(main) == ["batch 1: fail"]


@pytest.mark.parametrize(("fault", "applied"), [("crash_before", 0), ("crash_after", 1)])
def test_a_store_can_crash_the_simulation_on_either_side_of_a_batch(fault: StoreFault, applied: int) -> None:
    """The classic window: the commit happened and its writer does not know."""
    ledger, plan = OutsideLedger(), FaultPlan(store_at={1: fault})
    assert isinstance(simulate(lambda simulation: _apply(plan, ledger, 1)), Crashed)
    assert ledger.count(1) == applied


@pytest.mark.parametrize(
    ("fault", "outcome", "made"),
    [
        ("fail", "ConnectionError", {0}),
        ("fail_after", "ConnectionError", {1}),
        ("delay", "receipt", {1}),
        ("hang", "TimeoutError", {0, 1}),
        ("hang_before", "TimeoutError", {0}),
        ("hang_after", "TimeoutError", {1}),
        ("crash_before", "Crashed", {0}),
        ("crash_after", "Crashed", {1}),
    ],
)
def test_a_scripted_effect_fault_strikes_its_call_only(fault: EffectFault, outcome: str, made: set[int]) -> None:
    """Call 2 meets the fault; whether the effect was made is what the name says, or drawn."""
    seen = set[int]()
    for seed in range(20):
        ledger, plan = OutsideLedger(), FaultPlan(seed, effect_at={2: fault})

        @plan.effect
        async def refund(order: str, ledger: OutsideLedger = ledger) -> str:
            ledger.run(order)
            return "receipt"

        async def main(simulation: Simulation, refund: object = refund) -> str:
            assert callable(refund)
            assert await refund("one") == "receipt"
            try:
                async with asyncio.timeout(60.0):
                    return str(await refund("two"))
            except (ConnectionError, TimeoutError) as error:
                return type(error).__name__

        result = simulate(main)
        assert (type(result).__name__ if isinstance(result, Crashed) else result) == outcome
        assert ledger.count("one") == 1
        seen.add(ledger.count("two"))
        assert [line.startswith("effect 2 (refund): ") for line in plan.injected] == [True]
    assert seen == made


def test_faults_by_rate_come_at_about_their_rate_and_again_for_the_same_seed() -> None:
    """The same seed injects the same faults at the same calls; another seed others."""

    def injected(seed: int | random.Random) -> list[str]:
        plan = FaultPlan(seed, store_fail=0.1, store_unknown=0.1, store_delay=0.1, effect_fail=0.2, effect_fail_after=0.1)
        ledger = OutsideLedger()

        @plan.effect
        async def effect() -> None:
            ledger.run("effect")

        async def main(simulation: Simulation) -> None:
            for n in range(1, 501):
                await _apply(plan, ledger, n)
                try:
                    await effect()
                except ConnectionError:
                    pass

        simulate(main)
        return plan.injected

    first = injected(7)
    assert injected(7) == first
    assert injected(random.Random("faults 7")) == first
    assert injected(8) != first
    for words, expected in (("batch", 150), (": unknown_", 50), (": fail_after", 50), ("effect", 150)):
        assert 0.6 * expected < sum(words in line for line in first) < 1.4 * expected


def test_a_plan_outlives_the_crash_that_it_makes() -> None:
    """The next life goes on with the next call, in whichever simulation it runs."""
    ledger, plan = OutsideLedger(), FaultPlan(effect_at={1: "crash_after", 2: "crash_before"})

    @plan.effect
    async def refund() -> None:
        ledger.run("refund")

    async def main(simulation: Simulation) -> str:
        await refund()
        return "done"

    lives = [simulate(main) for _ in range(3)]
    assert [isinstance(life, Crashed) for life in lives] == [True, True, False]
    assert ledger.applied_twice() == ["refund"]


def test_crash_at_reaches_both_sides_of_an_effect() -> None:
    """An effect that never suspends can still be made without its caller learning of it."""
    made = set[int]()
    for crash_at in range(1, 4):
        ledger, plan = OutsideLedger(), FaultPlan()

        @plan.effect
        async def refund(ledger: OutsideLedger = ledger) -> None:
            ledger.run("refund")

        async def main(simulation: Simulation, refund: object = refund) -> None:
            assert callable(refund)
            await refund()

        if isinstance(simulate(main, crash_at=crash_at), Crashed):
            made.add(ledger.count("refund"))
    assert made == {0, 1}


def test_a_crash_can_be_the_tests_own() -> None:
    """A crash= callback stands in for the simulation's; one that comes back is an error."""
    crashes = list[str]()

    async def crash() -> None:
        crashes.append("crash")

    plan = FaultPlan(effect_at={1: "crash_before"}, crash=crash)

    @plan.effect
    async def refund() -> None: ...

    with pytest.raises(ConfigError, match="nothing crashed"):
        simulate(lambda simulation: refund())
    assert crashes == ["crash"]


def test_a_wrapped_effect_keeps_its_signature() -> None:
    """Decorators that read names, hints or the signature see those of the function."""

    async def refund(order: str, cents: int = 5) -> bytes:
        """Refund it."""
        return order.encode() * cents

    wrapped = FaultPlan().effect(refund)
    assert inspect.iscoroutinefunction(wrapped)
    assert inspect.signature(wrapped) == inspect.signature(refund)
    assert get_type_hints(wrapped) == {"order": str, "cents": int, "return": bytes}
    assert (wrapped.__name__, wrapped.__doc__) == ("refund", "Refund it.")
    assert simulate(lambda simulation: wrapped("x", cents=2)) == b"xx"


def test_a_plan_that_makes_no_sense_is_refused_with_all_its_faults() -> None:
    """Rates are shares that add up to 1 at most; scripted faults have known names and count from 1."""
    with pytest.raises(ConfigError) as caught:
        FaultPlan(store_fail=1.5, effect_fail=0.6, effect_hang=0.6, store_at={3: "explode"}, effect_at={0: "fail"})  # type: ignore[dict-item]
    for words in ("store_fail=1.5", "effect rates add up", "store_at[3]='explode'", "effect_at[0]: calls are counted from 1"):
        assert words in str(caught.value)


def test_the_ledger_says_what_was_done_twice() -> None:
    """Keys come in the order of their first time, with the facts of each time."""
    ledger = OutsideLedger()
    for key in ("a", "b", "c", "b", "a", "b"):
        ledger.run(key, n=len(ledger.entries))
    assert ledger.applied_twice() == ["a", "b"]
    assert [ledger.count(key) for key in ("a", "b", "c", "d")] == [2, 3, 1, 0]
    assert ledger.entries[1].facts == {"n": 1}
