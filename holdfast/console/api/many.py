"""Routes that apply one verb to many sessions: those that match a filter, some at a time, each with its own outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import anyio
from starlette.requests import Request

from holdfast.console.api.control import Control, Gone, Json, body
from holdfast.console.api.read import check_names
from holdfast.console.api.routes import Routes
from holdfast.console.api.verbs import AGAIN, VERBS, WAITING, Verb, described
from holdfast.console.reading.line import waits_for
from holdfast.console.reading.values import clean
from holdfast.console.wire import bodies
from holdfast.console.wire.answers import DidMany, One
from holdfast.console.wire.problems import problem_of
from holdfast.console.wire.verbs import HELP
from holdfast.errors import ConfigError, HoldfastError
from holdfast.runtime.handle import Handle
from holdfast.stores.listed import Filter, Listed, Place
from holdfast.stores.protocol import Store
from holdfast.stores.records import DISPLAY_STATUSES, PARK_REASONS, RANK_PERSON, Park, display_status

_AT_ONCE = 32
_MEANT = {"resume": "parked", "retry": "failed", "drop": "failed", "interrupt": "working"}
_DOUBT = "doubt"
_PAGE, _LIMIT = 1000, 1000

Act = Callable[[Handle], Awaitable[bool]]


def routes(control: Control) -> Routes:
    """The routes, about this process."""
    group = Routes("many")

    def add(name: str, verb: Verb) -> None:
        summary = HELP[name]

        async def endpoint(request: Request) -> Json:
            given = await body(request, verb.takes_many)

            async def one(handle: Handle) -> bool:
                done = await verb.act(handle, given)
                return done is None or done > 0

            return Json(await _each(control, request, name, described(name, given), given, one))

        endpoint.__name__, endpoint.__doc__ = f"{name}_many", f"For every session that matches: {summary[0].lower()}{summary[1:]}"
        group.add("POST", f"/{name}", endpoint, gives=DidMany, takes=verb.takes_many)

    async def resolve_many(request: Request) -> Json:
        """For every session that matches, failed and ended ones too: resolve its effects whose outcome is unknown."""
        given = await body(request, bodies.SettleMany)

        async def one(handle: Handle) -> bool:
            return await handle.resolve(given.verdict, step=given.step, result=given.result) > 0

        return Json(await _each(control, request, "resolve", f"resolve as {given.verdict}", given, one))

    for name, verb in VERBS.items():
        add(name, verb)
    group.add("POST", "/resolve", resolve_many, gives=DidMany, takes=bodies.SettleMany)
    return group


async def _each(control: Control, request: Request, verb: str, logged: str, given: bodies.Many, act: Act) -> DidMany:
    """Act on every session that matches, and log who did it, with the text `logged`."""
    chosen, more = await _matching(control, verb, given)
    found: dict[str, One] = {}
    left = iter(chosen)

    async def some() -> None:
        for session in left:  # shared: each task takes the next one
            found[session.id] = await _one(control, session, None if given.dry_run else act)

    async def work() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(len(chosen) if verb in WAITING else min(_AT_ONCE, len(chosen))):
                group.start_soon(some)

    def audit() -> None:
        if not given.dry_run and chosen:
            control.audit(request, logged, [session.id for session in chosen], given.reason)

    try:
        await control.wait(request, work, AGAIN, alone=verb not in WAITING)
    except Gone:
        audit()  # the verb is running all the same
        raise
    audit()
    return DidMany(verb=verb, dry_run=given.dry_run, sessions=[found[session.id] for session in chosen], more=more)


async def _one(control: Control, session: Listed, act: Act | None) -> One:
    """The outcome for one session; `act` None changes nothing."""
    changed, problem = True, None
    if act is not None:
        try:
            changed = await act(control.runtime.session(session.id))
        except HoldfastError as error:
            changed, problem = False, problem_of(error)
    park = waits_for(session)
    why = None if park is None else clean(park.reason)
    return One(session=session.id, agent=session.agent, status=display_status(session), why=why, changed=changed, problem=problem)


async def _matching(control: Control, verb: str, given: bodies.Many) -> tuple[list[Listed], bool]:
    """The sessions that match every filter and that the verb is for, and whether there are more than the limit."""
    if not given.all and (given.status, given.agent, given.tenant, given.why, given.dependency) == (None,) * 5:
        raise ConfigError("give at least one of status, agent, tenant, why and dependency, or all")
    check_names(agent=given.agent, tenant=given.tenant)
    if given.status is not None and given.status not in DISPLAY_STATUSES:
        raise ConfigError(f"there is no status {given.status!r}: use one of {', '.join(DISPLAY_STATUSES)}")
    if given.why is not None and given.why not in PARK_REASONS:
        raise ConfigError(f"no session parks for {given.why!r}: use one of {', '.join(PARK_REASONS)}")
    store, found = control.runtime.store, list[Listed]()
    limit = given.limit or (bodies.MAX_LISTED if given.dependency is not None else _LIMIT)
    in_doubt = verb == "resolve" and given.why in (None, _DOUBT) and given.dependency is None
    by_park = given.why is not None or given.dependency is not None
    status = None if in_doubt else given.status or ("parked" if by_park else _MEANT.get(verb))
    async for page in _pages(store, given, status):
        if in_doubt:
            found += await _in_doubt(store, [row for row in page if given.status in (None, display_status(row))])
        else:
            found += [row for row in page if not by_park or (row.park is not None and _waits_so(row.park, given))]
        if len(found) > limit or (in_doubt and page[-1].place.rank > RANK_PERSON):
            break
    return found[:limit], len(found) > limit


def _waits_so(park: Park, given: bodies.Many) -> bool:
    return given.why in (None, park.reason) and given.dependency in (None, park.dependency)


async def _pages(store: Store, given: bodies.Many, status: str | None) -> AsyncIterator[list[Listed]]:
    after: Place | None = None
    which = Filter(status=status, ended=False, agent=given.agent, tenant=given.tenant)
    while page := await store.sessions(which, limit=_PAGE, after=after):
        yield page
        after = page[-1].place


async def _in_doubt(store: Store, rows: Sequence[Listed]) -> list[Listed]:
    """Those with an effect whose outcome is unknown: parked for it, failed with it, or ended before it was known."""
    letters = await store.blocking_letters([row.id for row in rows if row.status == "failed"])
    return [row for row in rows if _is_in_doubt(row) or (row.id in letters and letters[row.id].in_doubt)]


def _is_in_doubt(session: Listed) -> bool:
    park = waits_for(session)
    return park is not None and park.reason == _DOUBT
