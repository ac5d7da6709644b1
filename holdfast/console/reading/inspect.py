"""What every session does and why, read from any open store: live in the process that runs it, or opened read-only in another process.

The answers are the plain structs of `views`: `ps` and `show` print them; `--json` and the HTTP API return them as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from anyio.lowlevel import checkpoint

from holdfast.console.reading import views
from holdfast.console.reading.line import Line, line
from holdfast.console.reading.values import clean
from holdfast.errors import ConfigError, SessionNotFound
from holdfast.runtime.live import Live
from holdfast.stores.protocol import Store
from holdfast.stores.records import DISPLAY_STATUSES, ENDED, DeadLetter, Message, MessageState, Session, Step

LiveOf = Callable[[Iterable[str]], Mapping[str, Live]]
"""Returns what sessions do right now, by id, for those that are in memory."""

_EACH = 20
"""The dead letters of up to so many failed sessions are read one by one; for more sessions, all letters are read at once."""

_EVERY = 1 << 31

AT_ONCE = 500
"""So many lines are created before other tasks of the loop run: a few milliseconds."""


async def overview(
    store: Store,
    name: str = "",
    *,
    ended: bool = False,
    status: str | None = None,
    agent: str | None = None,
    tenant: str | None = None,
    limit: int = 200,
    now: float | None = None,
    live: LiveOf | None = None,
    agents: Container[str] | None = None,
) -> views.Overview:
    """The sessions, those that need a person first.

    Args:
        name: the name of the store for people, without secrets.
        ended: include those that have ended.
        status: only sessions of this status; one of records.DISPLAY_STATUSES.
        agent, tenant: only sessions of it. The counts are those of all sessions.
        limit: how many at most.
        now: store time, seconds since the epoch; default that of this machine.
        live: what sessions do right now, in the process that runs them.
        agents: the names of the agents that this process has; None where that is not known.

    Raises:
        ConfigError: there is no such status.
        StoreError: the store cannot be read.
    """
    if status is not None and status not in DISPLAY_STATUSES:
        raise ConfigError(f"there is no status {status!r}: use one of {', '.join(DISPLAY_STATUSES)}")
    now = time.time() if now is None else now
    sessions = await store.sessions(limit=limit, status=status, ended=ended, agent=agent, tenant=tenant)
    counts, owner = await store.counts(), await store.owner()
    return views.Overview(
        store=name,
        process=owner.process,
        host=owner.host,
        clean=owner.clean,
        counts={status: counts[status] for status in DISPLAY_STATUSES if status in counts},
        sessions=await lines(store, sessions, alive=owner.process is not None, now=now, live=live, agents=agents),
    )


async def lines(
    store: Store,
    sessions: Sequence[Session],
    *,
    alive: bool,
    now: float,
    live: LiveOf | None = None,
    agents: Container[str] | None = None,
) -> list[Line]:
    """One line for each of these rows. `alive`: a process runs the store; `now`: store time; `live`, `agents`: as in `overview`."""
    # An idle session has no open turn: most are idle.
    steps = await store.open_steps([session.id for session in sessions if session.status != "idle" or session.pending])
    letters = await blocking(store, [session for session in sessions if session.status == "failed"])
    found: list[Line] = []
    for first in range(0, len(sessions), AT_ONCE):
        some = sessions[first : first + AT_ONCE]
        doing = {} if live is None else live([session.id for session in some])
        for session in some:
            id, has_agent = session.id, agents is None or session.agent in agents
            found.append(line(session, steps.get(id, ()), letters.get(id), doing.get(id), alive=alive, now=now, has_agent=has_agent))
        await checkpoint()  # so that the sessions of this process can run meanwhile
    return found


async def blocking(store: Store, failed: Sequence[Session]) -> dict[str, DeadLetter]:
    """The dead letter that blocks each of these failed sessions, by its id."""
    if len(failed) > _EACH:
        letters = await store.dead_letters()
    else:
        letters = [letter for session in failed for letter in await store.dead_letters(session.id)]
    open_turns = {session.id: session.turn + 1 for session in failed}
    return {letter.session: letter for letter in letters if letter.turn == open_turns.get(letter.session)}


async def detail(
    store: Store,
    id: str,
    name: str = "",
    *,
    turn: int | None = None,
    turns: int = 10,
    now: float | None = None,
    live: LiveOf | None = None,
    agents: Container[str] | None = None,
) -> views.Detail:
    """One session, with its last turns.

    Args:
        name: the name of the store for people, without secrets.
        turn: only this one.
        turns: how many at most, the last ones.
        now: store time, seconds since the epoch; default that of this machine.
        live: what sessions do right now, in the process that runs them.
        agents: the names of the agents that this process has; None where that is not known.

    Raises:
        SessionNotFound: there is no such session, or no such turn in it.
        StoreError: the store cannot be read.
    """
    now = time.time() if now is None else now
    session = await store.session(id)
    if session is None:
        where = f" in {name}" if name else ""
        raise SessionNotFound(id, f"no session {id!r}{where}: holdfast ps --all lists them{await _alike(store, id)}")
    alive = (await store.owner()).process is not None
    steps = await store.steps(id, session.turn + 1)
    queued = await waiting(store, session)
    letters = await store.dead_letters(id)
    letter = next((letter for letter in letters if letter.turn == session.turn + 1), None)
    listed = await _done_turns(store, session, turn, turns)
    if turn in (None, session.turn + 1):
        listed += await _open_turn(store, session, steps, queued, letter)
    if turn is not None and not listed:
        still_open = f", and {session.turn + 1} is open" if steps else ""
        raise SessionNotFound(id, f"session {id!r} has no turn {turn}: it has 1 to {session.turn}{still_open}")
    doing, has_agent = None if live is None else live([id]).get(id), agents is None or session.agent in agents
    result, ended = (None, None) if session.result is None else views.result(session.result)
    held_by = letter if session.status == "failed" else None
    return views.Detail(
        line=line(session, steps, held_by, doing, alive=alive, now=now, has_agent=has_agent),
        user=clean(session.user),
        epoch=session.epoch,
        crashes=session.crashes,
        parent=None if session.parent is None else clean(session.parent.session),
        created=session.created,
        result=result,
        notes=[clean(note) for note in session.notes],
        mailbox=[views.message_view(message, now) for message in queued],
        earlier_turns=0 if turn is not None else max(session.turn - sum(not view.open for view in listed), 0),
        turns=listed,
        dead_letters=[views.letter_view(letter, now) for letter in letters],
        children=await lines(store, await store.children(id), alive=alive, now=now, live=live, agents=agents),
        ended=ended,
    )


async def _done_turns(store: Store, session: Session, only: int | None, limit: int) -> list[views.TurnView]:
    first, last = (only, only) if only is not None else (session.turn - limit + 1, session.turn)
    found: list[views.TurnView] = []
    for point in await store.checkpoints(session.id, first=max(first, 1), last=last):
        message = None if point.message is None else await store.message(session.id, point.message)
        found.append(views.done_turn(point, message, await store.steps(session.id, point.turn)))
    return found


async def _open_turn(
    store: Store, session: Session, steps: Sequence[Step], queued: Sequence[Message], letter: DeadLetter | None
) -> list[views.TurnView]:
    """The turn that is open or failed, if there is one."""
    if letter is not None:
        message = await store.message(session.id, letter.message)
    else:
        message = next((message for message in queued if message.kind == "message"), None)
    if steps or (message is not None and session.status not in ENDED):
        return [views.open_turn(session.turn + 1, message, steps)]
    return []


async def waiting(store: Store, session: Session) -> list[Message]:
    """The messages that wait in the mailbox. Nearly always these are the latest; a retried dead letter can be older."""
    for limit in (1000, _EVERY):
        queued = [message for message in await store.messages(session.id, limit=limit) if message.state is MessageState.QUEUED]
        if sum(message.kind == "message" for message in queued) >= session.pending:
            break
    return queued


async def _alike(store: Store, id: str) -> str:
    found = await store.similar(id)
    return f" (did you mean {', '.join(clean(other) for other in found)}?)" if found else ""
