"""Routes that read: the sessions, one session, its timeline, its mailbox, its row."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import Path, Query

from holdfast.console.api.control import Control, Json
from holdfast.console.api.routes import Routes
from holdfast.console.reading import inspect, timeline
from holdfast.console.reading.timeline import Mailbox, Timeline
from holdfast.console.reading.views import Detail, Overview
from holdfast.console.wire.bodies import MAX_LISTED, MOST
from holdfast.runtime.agents.ids import MAX_CHARS, check_id
from holdfast.runtime.live import Live
from holdfast.stores.records import Session

SessionId = Annotated[str, Path(min_length=1, description='The id, percent-encoded: "/" is %2F.')]
Status = Literal["failed", "parked", "working", "unfinished", "idle", "finished", "cancelled", "killed"]
Filter = Annotated[str | None, Query(min_length=1, max_length=MAX_CHARS)]
After = Annotated[str | None, Query(max_length=100, description="The `next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=MAX_LISTED)]
Turn = Annotated[int, Query(ge=1, le=MOST)]
Turns = Annotated[int, Query(ge=1, le=1000)]


def routes(control: Control) -> Routes:
    """The routes, about this process."""
    runtime, group = control.runtime, Routes("read")

    async def ps(
        status: Status | None = None,
        agent: Filter = None,
        tenant: Filter = None,
        all: bool = False,
        limit: Limit = 200,
        after: After = None,
    ) -> Json:
        """What every session does and why; those that need a person first."""
        check_names(agent=agent, tenant=tenant)
        view = await inspect.overview(
            runtime.store,
            control.store,
            ended=all,
            status=status,
            agent=agent,
            tenant=tenant,
            limit=limit,
            after=after,
            now=control.now(),
            live=runtime.live,
            agents=runtime.agents,
        )
        return Json(msgspec.structs.replace(view, stuck=runtime.statistics()["stuck"]))

    async def show(id: SessionId, turn: Annotated[int | None, Query(ge=1, le=MOST)] = None, turns: Turns = 10, whole: bool = False) -> Json:
        """What a session did, its cost, and why it is in its present state. With `turn` and `whole`, nothing of that turn is left out."""
        now = control.now()
        return Json(
            await inspect.detail(runtime.store, id, turn=turn, turns=turns, whole=whole, now=now, live=runtime.live, agents=runtime.agents)
        )

    async def row(id: SessionId) -> Json:
        """The row of a session as it is stored, for programs."""
        return Json(await runtime.session(id).row())

    async def live(id: SessionId) -> Json:
        """What a session does right now, by its actor; null if it is not in memory."""
        return Json(await runtime.session(id).live())

    async def mailbox(id: SessionId) -> Json:
        """The messages that wait in the mailbox of a session."""
        found = await timeline.mailbox(runtime.store, id, now=control.now())
        session = await runtime.session(id).row()
        agent = runtime.agents.get(session.agent)
        return Json(found if agent is None else msgspec.structs.replace(found, limit=agent.mailbox))

    async def events_in_time(id: SessionId, first: Turn = 1, turns: Turns = 50) -> Json:
        """The turns of a session with their steps, in order of time, a page at a time."""
        return Json(await timeline.read(runtime.store, id, first=first, turns=turns))

    group.add("GET", "/sessions", ps, gives=Overview)
    group.add("GET", "/sessions/{id:session}", show, gives=Detail, problems=(404,))
    group.add("GET", "/sessions/{id:session}/row", row, gives=Session, problems=(404,))
    group.add("GET", "/sessions/{id:session}/live", live, gives=Live | None, problems=(404,))
    group.add("GET", "/sessions/{id:session}/mailbox", mailbox, gives=Mailbox, problems=(404,))
    group.add("GET", "/sessions/{id:session}/timeline", events_in_time, gives=Timeline, problems=(404,))
    return group


def check_names(**names: str | None) -> None:
    """Raises ConfigError if the name in a filter is not valid."""
    for what, name in names.items():
        if name is not None:
            check_id(what, name)
