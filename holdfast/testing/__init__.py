"""Deterministic tests of agents: simulated time and crashes, and faults on purpose.

```python
import asyncio

from holdfast import NotDone, Runtime, Session, agent, tool
from holdfast.stores.memory.store import MemoryStore
from holdfast.testing import Crashed, OutsideLedger, Simulation, simulate


def test_a_refund_is_made_once_wherever_the_process_dies() -> None:
    points = 0
    while True:
        bank, store = OutsideLedger(), MemoryStore()  # they survive the process
        life = simulate(lambda simulation: serve(simulation, store, bank), crash_at=points)
        if not isinstance(life, Crashed):
            break  # it came to its end before the crash: every point was tried
        store.crash()
        simulate(lambda simulation: serve(simulation, store, bank), start_s=life.time_s)
        assert bank.count("order-17") == 1
        points += 7  # 1 tries every point


async def serve(simulation: Simulation, store: MemoryStore, bank: OutsideLedger) -> str:
    async def is_refunded(order: str) -> None:
        if not bank.count(order):
            raise NotDone

    @tool(effect="once", reconcile=is_refunded, timeout_s=10.0)
    async def refund(order: str) -> None:
        await asyncio.sleep(2.0)  # in virtual time
        bank.run(order)

    @agent(tools=[refund])
    async def support(session: Session[None], order: str) -> str:
        await session.step(refund, order)
        return "paid back"

    async with Runtime(store, agents=[support], clock=simulation.clock, random=simulation.random) as runtime:
        ticket = await runtime.spawn(support, id="ticket-1234")
        return await ticket.ask("order-17", id="message-1")


test_a_refund_is_made_once_wherever_the_process_dies()
```

`FaultPlan` makes a store or an effect fail on purpose, `for_each_seed` and `explore` try many orders of tasks.
"""

from holdfast.testing.faults import Applied, EffectFault, FaultPlan, OutsideLedger, StoreFault, StoreHook
from holdfast.testing.loop import Deadlock, NotSimulated, SimulatedLoop
from holdfast.testing.simulation import Crashed, SeedFailed, SimulatedClock, Simulation, explore, for_each_seed, simulate

__all__ = [
    "Applied",
    "Crashed",
    "Deadlock",
    "EffectFault",
    "FaultPlan",
    "NotSimulated",
    "OutsideLedger",
    "SeedFailed",
    "SimulatedClock",
    "SimulatedLoop",
    "Simulation",
    "StoreFault",
    "StoreHook",
    "explore",
    "for_each_seed",
    "simulate",
]
