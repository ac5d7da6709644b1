"""Routes that do something to one session: spawn, send, ask, wait for its end, and a person's verbs."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from fastapi import Query
from starlette.requests import Request

from holdfast.console.api.control import Control, Gone, Json, body, traced
from holdfast.console.api.read import SessionId
from holdfast.console.api.routes import Routes
from holdfast.console.wire import bodies
from holdfast.console.wire.answers import Accepted, Did, Finished, Replied, Spawned
from holdfast.console.wire.bodies import WAIT_S
from holdfast.console.wire.problems import plain, portable
from holdfast.console.wire.verbs import SIMPLE
from holdfast.errors import ConfigError
from holdfast.runtime.agents.ids import check_id
from holdfast.runtime.handle import Handle

Act = Callable[[Handle, str], Awaitable[bool | None]]

AGAIN = "look at it again once it is back"
"""How to go on where the process ends while a verb is waited for."""

WAITING = frozenset({"pause"})
"""Verbs that only wait once they have been said: what they are for happens without whoever asked."""

_THERE = (404, 409, 410)
_MADE = "The session was made."
_GOT = "The session was there already."


def routes(control: Control) -> Routes:
    """The routes, about this process."""
    runtime, group = control.runtime, Routes("verbs")

    async def spawn(request: Request) -> Json:
        """Get or create a session: the caller's id is its identity."""
        given = await body(request, bodies.Spawn)
        agent = runtime.agents.get(check_id("agent", given.agent))
        if agent is None:
            raise ConfigError(f"there is no agent {given.agent!r} here: use one of {', '.join(sorted(runtime.agents))}")
        budget = None if given.budget is None else given.budget.budget()
        there = given.id is not None and await runtime.store.session(check_id("id", given.id)) is not None
        handle = await runtime.spawn(agent, id=given.id, tenant=given.tenant, user=given.user, state=given.state, budget=budget)
        row = await handle.row()
        found = Spawned(session=row.id, agent=row.agent, tenant=row.tenant, status=row.status, created=not there)
        return Json(found, status_code=200 if there else 201)

    async def send(id: SessionId, request: Request) -> Json:
        """Put a message into the mailbox of a session. The answer comes when it is durable."""
        given = await body(request, bodies.Tell)
        with traced(request):
            sent = await runtime.session(id).tell(given.message, id=given.id)
        return Json(Accepted(session=id, id=sent), status_code=202)

    async def ask(id: SessionId, request: Request) -> Json:
        """Put a message into the mailbox of a session and wait for the reply. Asked again with the same id it is not handled again."""
        given = await body(request, bodies.Ask)
        message_id = given.id or uuid.uuid4().hex

        async def work() -> object:
            with traced(request):
                return await runtime.session(id).ask(given.message, id=message_id, timeout_s=given.timeout_s)

        reply = await control.wait(request, work, f"ask again with id={message_id!r} once it is back")
        answer = Replied(session=id, id=message_id, reply=plain(reply))
        return Json(answer, lambda: msgspec.structs.replace(answer, reply=portable(answer.reply)))

    async def result(id: SessionId, request: Request, timeout_s: Annotated[float, Query(ge=0, le=WAIT_S)] = 60.0) -> Json:
        """Wait until a session has ended; what it finished with."""
        found = await control.wait(request, lambda: runtime.session(id).result(timeout_s=timeout_s), "ask again once it is back")
        answer = Finished(session=id, result=plain(found))
        return Json(answer, lambda: msgspec.structs.replace(answer, result=portable(answer.result)))

    async def resolve(id: SessionId, request: Request) -> Json:
        """Settle effects in doubt, by a person's word."""
        given = await body(request, bodies.Settle)
        count = await runtime.session(id).resolve(given.verdict, step=given.step, result=given.result)
        control.audit(request, f"resolve as {given.verdict}", [id], given.reason)
        return Json(Did(session=id, verb="resolve", changed=count > 0, count=count))

    async def budget(id: SessionId, request: Request) -> Json:
        """Add to the limits of a session; one that is parked on its budget goes on."""
        given = await body(request, bodies.Raise)
        await runtime.session(id).raise_budget(given.by.budget())
        control.audit(request, "budget", [id], given.reason)
        return Json(Did(session=id, verb="budget"))

    def simple(verb: str, act: Act) -> None:
        async def endpoint(id: SessionId, request: Request) -> Json:
            given = await body(request, bodies.Because)
            try:
                changed = await control.wait(request, lambda: act(runtime.session(id), given.reason), AGAIN, alone=verb not in WAITING)
            except Gone:
                control.audit(request, verb, [id], given.reason)  # it is under way all the same
                raise
            control.audit(request, verb, [id], given.reason)
            return Json(Did(session=id, verb=verb, changed=changed is not False))

        endpoint.__name__, endpoint.__doc__ = verb, SIMPLE[verb]
        group.add("POST", f"/sessions/{{id:session}}/{verb}", endpoint, gives=Did, takes=bodies.Because, problems=_THERE)

    group.add("POST", "/sessions", spawn, gives=Spawned, takes=bodies.Spawn, status=201, problems=(409,), said=_MADE, also=((200, _GOT),))
    group.add("POST", "/sessions/{id:session}/messages", send, gives=Accepted, takes=bodies.Tell, status=202, problems=(*_THERE, 429))
    group.add("POST", "/sessions/{id:session}/ask", ask, gives=Replied, takes=bodies.Ask, problems=(*_THERE, 429, 504))
    group.add("GET", "/sessions/{id:session}/result", result, gives=Finished, problems=(*_THERE, 504))
    group.add("POST", "/sessions/{id:session}/resolve", resolve, gives=Did, takes=bodies.Settle, problems=_THERE)
    group.add("POST", "/sessions/{id:session}/budget", budget, gives=Did, takes=bodies.Raise, problems=_THERE)
    for verb, act in VERBS.items():
        simple(verb, act)
    return group


VERBS: dict[str, Act] = {
    "pause": lambda handle, why: handle.pause(why or "paused"),
    "resume": lambda handle, why: handle.resume(),
    "cancel": lambda handle, why: handle.cancel(why or "cancelled"),
    "kill": lambda handle, why: handle.kill(why or "killed"),
    "retry": lambda handle, why: handle.retry(),
    "drop": lambda handle, why: handle.drop(),
}
"""The verbs that take no more than a reason."""
