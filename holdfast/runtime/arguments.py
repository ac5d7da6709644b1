"""The arguments of a Runtime, checked and converted in its constructor: each function reports all faults at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from holdfast import errors
from holdfast.calls.models.client import ModelClient
from holdfast.calls.models.prices import Prices
from holdfast.given import brief
from holdfast.runtime.agents.definition import Agent
from holdfast.supervisors import ChildSpec
from holdfast.telemetry.telemetry import Telemetry

SERVICES = "holdfast.services"
"""The group of entry points for services that run next to the sessions."""

Service = Callable[[Any, str | None], AbstractContextManager[ChildSpec]]
"""Takes the Runtime and the path that its user gave; returns a context to hold open while it runs, and the child that serves it."""

Control = bool | str | os.PathLike[str]


def agents_by_name(agents: Sequence[object]) -> dict[str, Agent]:
    """The agents by their names. Raises ConfigError."""
    faults: list[str] = []
    by_name: dict[str, Agent] = {}
    if isinstance(agents, Agent):
        raise errors.ConfigError(f"agents= is one agent: give a list, agents=[{agents.name}]")
    for agent in agents:
        if not isinstance(agent, Agent):
            faults.append(f"{brief(agent)} is not an agent: decorate its handler with @agent")
        elif agent.name in by_name:
            faults.append(f"two agents are called {agent.name!r}: give one of them another name=")
        else:
            by_name[agent.name] = agent
    if not agents:
        faults.append("there is no agent: Runtime(store, agents=[...])")
    if faults:
        raise errors.ConfigError("; ".join(faults))
    return by_name


def prepared(clients: Mapping[str, Any], prices: Prices) -> dict[str, ModelClient]:
    """The clients, wrapped so that their calls are steps. Raises ConfigError."""
    faults: list[str] = []
    by_name: dict[str, ModelClient] = {}
    for name, client in clients.items():
        try:
            by_name[name] = client if isinstance(client, ModelClient) else ModelClient(name, client, prices=prices)
        except errors.ConfigError as error:
            faults.append(str(error))
    if faults:
        raise errors.ConfigError("; ".join(faults))
    return by_name


def other_faults(store: object, telemetry: object, control: object) -> list[str]:
    """The faults of these arguments; empty if there are none."""
    found: list[str] = []
    if not isinstance(store, str) and not callable(getattr(store, "apply", None)):
        found.append(f"store is {brief(store)}: give a URL such as sqlite:///sessions.db, or a Store")
    if telemetry is not None and telemetry is not False and not isinstance(telemetry, Telemetry):
        found.append(f"telemetry is {brief(telemetry)}: give a Telemetry, or False for none")
    if not isinstance(control, bool | os.PathLike) and not (isinstance(control, str) and control):
        found.append(f"control is {brief(control)}: give True, False, or the path of the socket")
    return found


def service(name: str) -> Service:
    """The service that an installed package offers under this name. A layer above offers it, so it is found by its entry point.

    Raises:
        ConfigError: no package offers it, or it cannot be imported.
    """
    from importlib import metadata  # imported late: it imports much of `email`

    found = list(metadata.entry_points(group=SERVICES, name=name))
    if not found:
        raise errors.ConfigError(f"no installed package offers {name!r} ({SERVICES}): install holdfast again, or leave out {name}=")
    try:
        offered: Service = found[0].load()
    except (ImportError, AttributeError) as error:
        raise errors.ConfigError(f"{name}= cannot be used: {found[0].value} cannot be imported: {error}") from error
    return offered
