"""Routes about the process: its tree, its agents, its breakers, its counts, its health."""

from __future__ import annotations

import os

import msgspec

from holdfast.console.api import doctor
from holdfast.console.api.control import Control, Json
from holdfast.console.api.routes import Routes
from holdfast.console.reading.amounts import limits
from holdfast.console.reading.values import clean
from holdfast.console.wire.answers import AgentView, Diagnosis, Statistics
from holdfast.policies.breaker import BreakerView
from holdfast.supervisors import SupervisorView


def routes(control: Control) -> Routes:
    """The routes, about this process."""
    runtime, group = control.runtime, Routes("process")

    async def tree() -> Json:
        """The supervision tree of the process."""
        return Json(_cleaned(runtime.tree()))

    async def agents() -> Json:
        """The agents whose sessions the process runs."""
        return Json(
            [
                AgentView(
                    name=agent.name,
                    version=agent.version,
                    tools=sorted(tool.name for tool in agent.tools),
                    limits=limits(agent.budget),
                    mailbox=agent.mailbox,
                )
                for _, agent in sorted(runtime.agents.items())
            ]
        )

    async def breakers() -> Json:
        """The breakers of dependencies, by name."""
        return Json({clean(name): _without_secrets(view) for name, view in runtime.breakers().items()})

    async def statistics() -> Json:
        """Counts, as of now."""
        sessions, counts = await runtime.store.counts(), runtime.statistics()
        return Json(Statistics(process=os.getpid(), at=control.now(), started=control.started, counts=counts, sessions=sessions))

    async def diagnosis() -> Json:
        """Whether the process is healthy: one line for each check, failures first."""
        return Json(await doctor.diagnose(control))

    group.add("GET", "/tree", tree, gives=SupervisorView)
    group.add("GET", "/agents", agents, gives=list[AgentView])
    group.add("GET", "/breakers", breakers, gives=dict[str, BreakerView])
    group.add("GET", "/statistics", statistics, gives=Statistics)
    group.add("GET", "/doctor", diagnosis, gives=Diagnosis)
    return group


def _without_secrets(view: BreakerView) -> BreakerView:
    return msgspec.structs.replace(view, cause=clean(view.cause), error=clean(view.error))


def _cleaned(view: SupervisorView) -> SupervisorView:
    """The view without secrets in the texts of errors."""
    children = tuple(
        msgspec.structs.replace(
            child,
            error=None if child.error is None else clean(child.error),
            supervisor=None if child.supervisor is None else _cleaned(child.supervisor),
        )
        for child in view.children
    )
    return msgspec.structs.replace(view, children=children)
