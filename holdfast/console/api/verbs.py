"""Routes that act on one session: spawn, send, ask, wait for its end, and a person's verbs."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import Query
from starlette.requests import Request

from holdfast import redact
from holdfast.console.api.control import Control, Gone, Json, body, traced
from holdfast.console.api.read import SessionId
from holdfast.console.api.routes import Routes
from holdfast.console.wire import bodies
from holdfast.console.wire.answers import Accepted, Did, Finished, Replied, Spawned
from holdfast.console.wire.bodies import WAIT_S
from holdfast.console.wire.problems import plain, portable
from holdfast.console.wire.verbs import HELP
from holdfast.errors import ConfigError, SessionError
from holdfast.runtime.agents.ids import check_id
from holdfast.runtime.handle import Handle
from holdfast.runtime.sessions.rewinding import Rewound


class Verb(NamedTuple):
    """A verb of a person: its bodies, for one session and for many, and its action.

    `act` gets either body. It returns False if there was nothing to do, and a number if it counts its changes.
    """

    takes: type[bodies.Because]
    takes_many: type[bodies.Many]
    act: Callable[[Handle, Any], Awaitable[int | None]]


AGAIN = "look at it again once it is back"
"""How to continue if the process ends while a client waits for a verb."""

WAITING = frozenset({"pause"})
"""Verbs whose request is recorded at once: they take effect also if the client stops waiting."""

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
        """Put a message into the mailbox of a session. The answer comes once the message is durable."""
        given = await body(request, bodies.Tell)
        with traced(request):
            sent = await runtime.session(id).tell(given.message, id=given.id)
        return Json(Accepted(session=id, id=sent), status_code=202)

    async def ask(id: SessionId, request: Request) -> Json:
        """Put a message into the mailbox of a session and wait for the reply. A second request with the same id does not handle it
        again."""
        given = await body(request, bodies.Ask)
        message_id = given.id or uuid.uuid4().hex

        async def work() -> object:
            with traced(request):
                return await runtime.session(id).ask(given.message, id=message_id, timeout_s=given.timeout_s)

        reply = await control.wait(request, work, f"ask again with id={message_id!r} once it is back")
        answer = Replied(session=id, id=message_id, reply=plain(reply))
        return Json(answer, lambda: msgspec.structs.replace(answer, reply=portable(answer.reply)))

    async def result(id: SessionId, request: Request, timeout_s: Annotated[float, Query(ge=0, le=WAIT_S)] = 60.0) -> Json:
        """Wait until a session has ended; the answer is its result."""
        found = await control.wait(request, lambda: runtime.session(id).result(timeout_s=timeout_s), "ask again once it is back")
        answer = Finished(session=id, result=plain(found))
        return Json(answer, lambda: msgspec.structs.replace(answer, result=portable(answer.result)))

    async def resolve(id: SessionId, request: Request) -> Json:
        """Resolve effects whose outcome is unknown, by a person who knows it. A session that has ended runs no step."""
        given = await body(request, bodies.Settle)
        count = await runtime.session(id).resolve(given.verdict, step=given.step, result=given.result)
        control.audit(request, f"resolve as {given.verdict}", [id], given.reason)
        return Json(Did(session=id, verb="resolve", changed=count > 0, count=count))

    async def budget(id: SessionId, request: Request) -> Json:
        """Add to the limits of a session; a session that is parked on its budget resumes."""
        given = await body(request, bodies.Raise)
        await runtime.session(id).raise_budget(given.by.budget())
        control.audit(request, "budget", [id], given.reason)
        return Json(Did(session=id, verb="budget"))

    async def rewind(id: SessionId, request: Request) -> Json:
        """Bring the state of a session after an earlier turn back. Messages handled since stay done; the answer lists the effects since."""
        given = await body(request, bodies.Rewind)
        done = await runtime.session(id).rewind(given.turn, given.reason or "rewound", dry_run=given.dry_run)
        if done.changed:
            control.audit(request, f"rewind to turn {given.turn}", [id], given.reason)
        return Json(done)

    def add(name: str, verb: Verb) -> None:
        async def endpoint(id: SessionId, request: Request) -> Json:
            given = await body(request, verb.takes)
            try:
                done = await control.wait(request, lambda: verb.act(runtime.session(id), given), AGAIN, alone=name not in WAITING)
            except Gone:
                control.audit(request, described(name, given), [id], given.reason)  # the verb is running all the same
                raise
            except SessionError as error:
                if name == "drop" and type(error) is SessionError:
                    control.audit(request, f"{described(name, given)} (refused)", [id], given.reason)  # the turn may be given up by now
                raise
            control.audit(request, described(name, given), [id], given.reason)
            count = None if done is None or isinstance(done, bool) else done
            return Json(Did(session=id, verb=name, changed=done is None or done > 0, count=count))

        endpoint.__name__, endpoint.__doc__ = name, HELP[name]
        group.add("POST", f"/sessions/{{id:session}}/{name}", endpoint, gives=Did, takes=verb.takes, problems=_THERE)

    group.add(
        "POST", "/sessions", spawn, gives=Spawned, takes=bodies.Spawn, status=201, problems=(409,), description=_MADE, also=((200, _GOT),)
    )
    group.add("POST", "/sessions/{id:session}/messages", send, gives=Accepted, takes=bodies.Tell, status=202, problems=(*_THERE, 429))
    group.add("POST", "/sessions/{id:session}/ask", ask, gives=Replied, takes=bodies.Ask, problems=(*_THERE, 429, 504))
    group.add("GET", "/sessions/{id:session}/result", result, gives=Finished, problems=(*_THERE, 504))
    group.add("POST", "/sessions/{id:session}/resolve", resolve, gives=Did, takes=bodies.Settle, problems=_THERE)
    group.add("POST", "/sessions/{id:session}/budget", budget, gives=Did, takes=bodies.Raise, problems=_THERE)
    group.add("POST", "/sessions/{id:session}/rewind", rewind, gives=Rewound, takes=bodies.Rewind, problems=_THERE)
    for name, verb in VERBS.items():
        add(name, verb)
    return group


def described(name: str, given: bodies.Because | bodies.Many) -> str:
    """A verb with its arguments except the reason, for the audit log."""
    match given:
        case bodies.Drop(keep_letter=True) | bodies.DropMany(keep_letter=True):
            return f"{name} (letter kept)"
        case bodies.Interrupt(step=str(step)) | bodies.InterruptMany(step=str(step)):
            return f"{name} ({redact.text(step)})"
        case _:
            return name


def _simple(act: Callable[[Handle, str], Awaitable[bool | None]]) -> Verb:
    return Verb(bodies.Because, bodies.Many, lambda handle, given: act(handle, given.reason))


VERBS: dict[str, Verb] = {
    "pause": _simple(lambda handle, why: handle.pause(why or "paused")),
    "resume": _simple(lambda handle, why: handle.resume()),
    "cancel": _simple(lambda handle, why: handle.cancel(why or "cancelled")),
    "kill": _simple(lambda handle, why: handle.kill(why or "killed")),
    "retry": _simple(lambda handle, why: handle.retry()),
    "drop": Verb(bodies.Drop, bodies.DropMany, lambda handle, given: handle.drop(given.reason or "dropped", keep_letter=given.keep_letter)),
    "interrupt": Verb(bodies.Interrupt, bodies.InterruptMany, lambda handle, given: handle.interrupt(given.step)),
}
"""The verbs of a person, except those with routes of their own: `resolve`, `budget` and `rewind`."""
