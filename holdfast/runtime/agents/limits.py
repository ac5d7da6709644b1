"""The limits that can be set from outside the code: of each agent, and of the Runtime.

They override those of the code; unset keys keep the value from code. An Agent is never changed; `apply` returns a copy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from holdfast.errors import ConfigError
from holdfast.given import LARGEST, brief
from holdfast.policies._faults import Faults
from holdfast.policies.breaker import BreakerSpec
from holdfast.policies.budget import Budget
from holdfast.policies.failures import ALL, Rules, read_rules
from holdfast.policies.repetition import RepetitionSpec
from holdfast.runtime.agents.definition import Agent
from holdfast.supervisors.intensity import Backoff, Intensity, faults_of

Overrides = Mapping[str, Any]
"""Fields of one spec by name; None is "no limit" where the spec allows that."""

SPECS: dict[str, type[msgspec.Struct]] = {
    "budget": Budget, "breaker": BreakerSpec, "repetition": RepetitionSpec, "intensity": Intensity, "backoff": Backoff,
}  # fmt: skip
"""The specs of an agent that can be set field by field: the names are those of AgentLimits and of the attributes of an Agent."""

SINGLE = ("idle_s", "drain_s", "quarantine_s", "max_recovering", "reconciles")
"""The limits of the Runtime that can be set, without its breaker."""

_MOST_OF = {"window": 100_000, "cycle_max": 1_000, "max_recovering": 100_000, "reconciles": 10_000}
"""A larger value is a typing error: it would take memory (a window of each session) or overflow when it is used."""


class AgentLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The overrides of one agent; empty and None keep the value from code.

    Attributes:
        budget: fields of Budget, for new sessions; existing ones keep theirs.
        breaker, repetition, intensity, backoff: fields of BreakerSpec, RepetitionSpec, Intensity, Backoff.
        mailbox: messages that may wait.
        park_after_s: how long a wait is held in memory, in seconds.
        crash_limit: unclean ends of the process in one turn after which it parks.
    """

    budget: Overrides = {}
    breaker: Overrides = {}
    repetition: Overrides = {}
    intensity: Overrides = {}
    backoff: Overrides = {}
    mailbox: int | None = None
    park_after_s: float | None = None
    crash_limit: int | None = None


class RuntimeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The overrides of the Runtime; None keeps the value from code. The fields are the arguments of Runtime.

    Attributes:
        idle_s, drain_s, quarantine_s: seconds.
        max_recovering, reconciles: counts.
        breaker: fields of the BreakerSpec of each dependency.
    """

    idle_s: float | None = None
    drain_s: float | None = None
    quarantine_s: float | None = None
    max_recovering: int | None = None
    reconciles: int | None = None
    breaker: Overrides = {}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """All overrides: of the Runtime, and of agents by name.

    Attributes:
        failures: rules on what failures mean: by the name of a client, dependency or tool, or "all"; then as `failures=` of a tool.
    """

    runtime: RuntimeLimits = RuntimeLimits()
    agents: Mapping[str, AgentLimits] = {}
    failures: Mapping[str, Any] = {}


def apply(agent: Agent, limits: AgentLimits | None) -> Agent:
    """A copy of the agent with these limits; the agent itself where there are none.

    Raises:
        ConfigError: limits are invalid for this agent; the error names all of them.
    """
    if limits is None:
        return agent
    changes, found = _overridden_agent(agent, limits)
    if found:
        raise ConfigError(f"limits of agent {agent.name!r}: {'; '.join(found)}")
    return msgspec.structs.replace(agent, **changes)


def apply_breaker(spec: BreakerSpec, overrides: Overrides) -> BreakerSpec:
    """The breaker of each dependency with these fields changed.

    Raises:
        ConfigError: fields are invalid; the error names all of them.
    """
    changed, found = _overridden(spec, overrides)
    if found:
        raise ConfigError(f"limits of the runtime: {'; '.join(f'breaker.{fault}' for fault in found)}")
    assert isinstance(changed, BreakerSpec)
    return changed


def faults(limits: Limits, agents: Mapping[str, Agent], breaker: BreakerSpec, clients: Iterable[str]) -> list[str]:
    """The faults of limits for these agents, this breaker of dependencies and the clients of these names; empty if there are none.

    Each fault begins with its key, such as "agents.support.budget.steps".
    """
    found = [f"runtime.{fault}" for fault in _of_runtime(limits.runtime, breaker)]
    for name, wanted in limits.agents.items():
        agent = agents.get(name)
        if agent is None:
            found.append(f"agents.{name} names no agent of this Runtime{alike(name, agents)}")
        else:
            found += [f"agents.{name}.{fault}" for fault in _overridden_agent(agent, wanted)[1]]
    failure_rules(limits.failures, agents, clients, found)
    return found


def failure_rules(given: Mapping[str, Any], agents: Mapping[str, Agent], clients: Iterable[str], found: list[str]) -> dict[str, Rules]:
    """The rules on what failures mean, by the name that they are for; notes their faults in `found`."""
    tools = [tool for agent in agents.values() for tool in agent.tools]
    known = {ALL, *clients, *(tool.name for tool in tools), *(tool.dependency for tool in tools if tool.dependency is not None)}
    strange = (name for name in given if name not in known)
    found += [f"failures.{name} names no client, dependency or tool of this Runtime{alike(name, known)}" for name in strange]
    return {name: read_rules(given[name], found, f"failures.{name}") for name in given if name in known}


def alike(name: str, known: Iterable[str]) -> str:
    """A suggestion for an unknown name, as the end of a sentence."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, 1)
    return f": did you mean {close[0]!r}?" if close else f": there is {', '.join(known)}"


def _of_runtime(limits: RuntimeLimits, breaker: BreakerSpec) -> list[str]:
    checks = Faults("")
    checks.number("idle_s", limits.idle_s, positive=True, optional=True)
    for name in ("drain_s", "quarantine_s"):
        checks.number(name, getattr(limits, name), optional=True)
    for name in ("max_recovering", "reconciles"):
        checks.whole(name, getattr(limits, name), 1, optional=True)
    single = {name: getattr(limits, name) for name in SINGLE}
    return _given(_with_too_large(checks.found, single)) + [f"breaker.{fault}" for fault in _overridden(breaker, limits.breaker)[1]]


def _overridden_agent(agent: Agent, limits: AgentLimits) -> tuple[dict[str, Any], list[str]]:
    """The attributes of the agent that change, and their faults."""
    changes: dict[str, Any] = {}
    found: list[str] = []
    for name in SPECS:
        changes[name], wrong = _overridden(getattr(agent, name), getattr(limits, name))
        found += [f"{name}.{fault}" for fault in wrong]
    if (limits.intensity or limits.backoff) and not found:
        found += faults_of(changes["intensity"], changes["backoff"])
    checks = Faults("")
    for name in ("mailbox", "crash_limit"):
        checks.whole(name, getattr(limits, name), 1, optional=True)
    checks.number("park_after_s", limits.park_after_s, optional=True)
    single = {name: value for name in ("mailbox", "park_after_s", "crash_limit") if (value := getattr(limits, name)) is not None}
    return changes | single, found + _given(_with_too_large(checks.found, single))


def _overridden(spec: msgspec.Struct, overrides: Overrides) -> tuple[msgspec.Struct, list[str]]:
    """The spec with these fields changed, or as it is where they are wrong; each fault begins with the field."""
    fields = type(spec).__struct_fields__
    strange = [f"{name} is an unknown key{alike(name, fields)}" for name in overrides if name not in fields]
    changed = spec
    try:
        # The constructor, not `replace`, which would not check the values.
        changed = type(spec)(**{name: overrides.get(name, getattr(spec, name)) for name in fields})
    except ConfigError as error:
        text = str(error).removeprefix(f"{type(spec).__name__}: ")
        # Split only where the next fault begins: a value quoted in a fault may hold a semicolon.
        found = re.split(rf"; (?=(?:{'|'.join(fields)}) is )", text)
    else:
        # The faults of these specs begin with the spec's name, since a supervisor has one of each.
        found = [fault.partition(".")[2] for fault in changed.faults()] if isinstance(changed, Intensity | Backoff) else []
    found = strange + _with_too_large(found, overrides)
    return (spec if found else changed), found


def _with_too_large(found: Iterable[str], values: Mapping[str, Any]) -> list[str]:
    """The faults of these values; one that is too large has this fault alone, and in the words of this module."""
    large = {
        name: f"{name} is {brief(value)}: give at most {most:,}".replace(",", "_")
        for name, value in values.items()
        if isinstance(value, int | float) and value > (most := _MOST_OF.get(name, LARGEST))
    }
    return [*large.values(), *(fault for fault in found if fault.partition(" ")[0] not in large)]


def _given(found: Iterable[str]) -> list[str]:
    """The faults without the allowance of None: such a value can only be left out."""
    return [fault.replace(", or None", "").replace(" or None", "") for fault in found]
