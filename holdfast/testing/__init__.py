"""Deterministic tests of agents: simulated time and crashes, and faults on purpose."""

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
