"""The limits of a running node: those of the code, overridden by those set from outside."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast.policies.breaker import BreakerSpec
from holdfast.policies.failures import Rules
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.agents.limits import Limits, apply, apply_breaker, failure_rules, faults


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The limits in use. The fields are the arguments of Runtime; `agents` are by name.

    Attributes:
        clients: the names of its clients.
        failures: the rules of holdfast.toml on what failures mean, by the name of a client, dependency or tool, or ALL.
    """

    agents: Mapping[str, Agent]
    breaker: BreakerSpec
    idle_s: float
    drain_s: float
    quarantine_s: float
    max_recovering: int
    reconciles: int
    clients: tuple[str, ...] = ()
    failures: Mapping[str, Rules] = {}

    def faults(self, limits: Limits) -> list[str]:
        """The faults of an override by these limits, each beginning with its key; empty if there are none."""
        return faults(limits, self.agents, self.breaker, self.clients)

    def under(self, limits: Limits) -> Settings:
        """These settings, overridden by `limits`. Raises ConfigError if `faults` finds any."""
        single = msgspec.structs.asdict(limits.runtime)
        breaker = apply_breaker(self.breaker, single.pop("breaker"))
        agents = {name: apply(agent, limits.agents.get(name)) for name, agent in self.agents.items()}
        given = {name: value for name, value in single.items() if value is not None}
        rules = failure_rules(limits.failures, self.agents, self.clients, [])
        return msgspec.structs.replace(self, agents=agents, breaker=breaker, failures=rules, **given)
