"""What every session does and why, read from any open store: live in the process that runs it, or opened read-only in another process.

The answers are the plain structs of `views`: `ps` and `show` print them; `--json` and the HTTP API return them as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from anyio.lowlevel import checkpoint

from holdfast.console.reading import views
from holdfast.console.reading.amounts import amounts, spent
from holdfast.console.reading.line import Line, line
from holdfast.console.reading.values import LARGEST, clean
from holdfast.errors import ConfigError, SessionNotFound
from holdfast.runtime.live import Live
from holdfast.stores.listed import Filter, Listed, Place, listed
from holdfast.stores.protocol import Store
from holdfast.stores.records import DISPLAY_STATUSES, ENDED, DeadLetter, Message, Session, Step
from holdfast.stores.returns import Sums, sums

LiveOf = Callable[[Iterable[str]], Mapping[str, Live]]
"""Returns what sessions do right now, by id, for those that are in memory."""

MAILBOX, STEPS, CHILDREN, LETTERS = 1000, 500, 200, 100
"""The most messages, steps of one turn, children and dead letters of a session in a Detail."""

FAMILY = 1000
"""The most sessions, itself and those below it, whose costs are added up."""

_PAGE = 1 << 23
"""The bytes of values in a Detail: past them, the values of earlier turns are left out."""

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
    after: str | None = None,
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
        after: the `next` of the page before.
        now: store time, seconds since the epoch; default that of this machine.
        live: what sessions do right now, in the process that runs them.
        agents: the names of the agents that this process has; None where that is not known.

    Raises:
        ConfigError: there is no such status, or `after` is no end of a page.
        StoreError: the store cannot be read.
    """
    if status is not None and status not in DISPLAY_STATUSES:
        raise ConfigError(f"there is no status {status!r}: use one of {', '.join(DISPLAY_STATUSES)}")
    now = time.time() if now is None else now
    place = None if after is None else Place.of(after)
    which = Filter(status=status, ended=ended, agent=agent, tenant=tenant)
    found = await store.sessions(which, limit=limit + 1, after=place)
    sessions = found[:limit]
    counts, owner = await store.counts(), await store.owner()
    return views.Overview(
        store=name,
        process=owner.process,
        host=owner.host,
        clean=owner.clean,
        counts={status: counts[status] for status in DISPLAY_STATUSES if status in counts},
        sessions=await lines(store, sessions, alive=owner.process is not None, now=now, live=live, agents=agents),
        next=str(sessions[-1].place) if len(found) > limit else None,
    )


async def lines(
    store: Store,
    sessions: Sequence[Listed],
    *,
    alive: bool,
    now: float,
    live: LiveOf | None = None,
    agents: Container[str] | None = None,
) -> list[Line]:
    """One line for each of these rows. `alive`: a process runs the store; `now`: store time; `live`, `agents`: as in `overview`."""
    # An idle session has no open turn: most are idle.
    working = [session.id for session in sessions if session.status != "idle" or session.pending]
    steps = await store.open_steps(working) if working else {}
    failed = [session.id for session in sessions if session.status == "failed"]
    letters = await store.blocking_letters(failed) if failed else {}
    found: list[Line] = []
    for first in range(0, len(sessions), AT_ONCE):
        some = sessions[first : first + AT_ONCE]
        doing = {} if live is None else live([session.id for session in some])
        for session in some:
            id, has_agent = session.id, agents is None or session.agent in agents
            found.append(line(session, steps.get(id, ()), letters.get(id), doing.get(id), alive=alive, now=now, has_agent=has_agent))
        await checkpoint()  # so that the sessions of this process can run meanwhile
    return found


async def detail(
    store: Store,
    id: str,
    name: str = "",
    *,
    turn: int | None = None,
    turns: int = 10,
    whole: bool = False,
    now: float | None = None,
    live: LiveOf | None = None,
    agents: Container[str] | None = None,
) -> views.Detail:
    """One session, with its last turns. Large values are left out, and so are early steps of a turn with very many.

    Args:
        name: the name of the store for people, without secrets.
        turn: only this one.
        turns: how many at most, the last ones.
        whole: leave nothing of `turn` out, for programs.
        now: store time, seconds since the epoch; default that of this machine.
        live: what sessions do right now, in the process that runs them.
        agents: the names of the agents that this process has; None where that is not known.

    Raises:
        ConfigError: `whole` without `turn`.
        SessionNotFound: there is no such session, or no such turn in it.
        StoreError: the store cannot be read.
    """
    if whole and turn is None:
        raise ConfigError("--whole prints one turn only: name it by --turn")
    now = time.time() if now is None else now
    session = await store.session(id)
    if session is None:
        where = f" in {name}" if name else ""
        raise SessionNotFound(id, f"no session {id!r}{where}: holdfast ps --all lists them{await _alike(store, id)}")
    alive = (await store.owner()).process is not None
    page = _Page(store, session, whole)
    steps = (await store.open_steps([id])).get(id, [])
    queued = await store.messages(id, limit=MAILBOX, queued=True, most=page.most)
    letters = await store.dead_letters(id, limit=LETTERS)
    letter = next((letter for letter in letters if letter.turn == session.turn + 1), None)
    listed_turns = await page.open_turn(steps, queued, letter) if turn in (None, session.turn + 1) else []
    listed_turns = [*await page.done_turns(turn, turns), *listed_turns]
    if turn is not None and not listed_turns:
        still_open = f", and {session.turn + 1} is open" if steps else ""
        raise SessionNotFound(id, f"session {id!r} has no turn {turn}: it has 1 to {session.turn}{still_open}")
    doing, has_agent = None if live is None else live([id]).get(id), agents is None or session.agent in agents
    result, ended = (None, None) if session.result is None else views.result(session.result, None if whole else LARGEST)
    held_by = letter if session.status == "failed" else None
    children = await store.children(id, limit=CHILDREN + 1)
    cost = await _sums(store, session, steps)
    return views.Detail(
        line=line(listed(session), steps, held_by, doing, alive=alive, now=now, has_agent=has_agent),
        user=clean(session.user),
        epoch=session.epoch,
        crashes=session.crashes,
        parent=None if session.parent is None else clean(session.parent.session),
        created=session.created,
        result=result,
        notes=[clean(note) for note in session.notes],
        mailbox=[views.message_view(message, now, None if whole else LARGEST) for message in queued],
        earlier_turns=0 if turn is not None else max(session.turn - sum(not view.open for view in listed_turns), 0),
        turns=listed_turns,
        dead_letters=[views.letter_view(letter, now) for letter in letters],
        children=await lines(store, children[:CHILDREN], alive=alive, now=now, live=live, agents=agents),
        ended=ended,
        more_children=len(children) > CHILDREN,
        own=None if cost is None else amounts(cost.own),
        total=None if cost is None else amounts(cost.total),
    )


async def _sums(store: Store, session: Session, steps: Sequence[Step]) -> Sums | None:
    """The cost of a session, and with all below it; None where these are too many to add up."""
    family = await store.family(session.id, limit=FAMILY + 1)
    if len(family) > FAMILY:
        return None
    journals = await store.open_steps([each.id for each in family[1:]])
    return sums(family, {session.id: spent(steps), **{id: spent(journal) for id, journal in journals.items()}}).get(session.id)


class _Page:
    """The turns of one session for `detail`, within a sum of bytes: the last ones first."""

    def __init__(self, store: Store, session: Session, whole: bool) -> None:
        self._store, self._session, self._whole = store, session, whole
        self._left = _PAGE

    @property
    def most(self) -> int | None:
        """The largest value that is not left out, in bytes; None leaves nothing out."""
        return None if self._whole else LARGEST if self._left > 0 else 0

    async def done_turns(self, only: int | None, limit: int) -> list[views.TurnView]:
        first, last = (only, only) if only is not None else (self._session.turn - limit + 1, self._session.turn)
        found: list[views.TurnView] = []
        for number in range(min(last, self._session.turn), max(first, 1) - 1, -1):
            for point in await self._store.checkpoints(self._session.id, first=number, last=number, most=self.most):
                message = None if point.message is None else await self._store.message(self._session.id, point.message)
                steps, earlier = await self._steps(number)
                found.append(views.done_turn(point, message, steps, earlier=earlier, most=self.most))
                self._take(point.state, message, steps)
        return found[::-1]

    async def open_turn(self, brief: Sequence[Step], queued: Sequence[Message], letter: DeadLetter | None) -> list[views.TurnView]:
        """The turn that is open or failed, if there is one; `brief` are its steps without their values."""
        session = self._session
        if letter is not None:
            message = await self._store.message(session.id, letter.message)
        else:
            message = next((message for message in queued if message.kind == "message"), None)
        if not brief and (message is None or session.status in ENDED):
            return []
        steps, earlier = await self._steps(session.turn + 1)
        view = views.open_turn(session.turn + 1, message, steps, spent(brief), earlier=earlier, most=self.most)
        self._take(b"", message, steps)
        return [view]

    async def _steps(self, turn: int) -> tuple[Sequence[Step], bool]:
        """The last steps of a turn, and whether there are earlier ones."""
        limit = None if self._whole else STEPS + 1
        found = await self._store.steps(self._session.id, turn, limit=limit, most=self.most)
        return (found, False) if limit is None or len(found) < limit else (found[1:], True)

    def _take(self, state: bytes, message: Message | None, steps: Sequence[Step]) -> None:
        values = [state] if message is None else [state, message.body, message.reply or b""]
        values += [step.record.args for step in steps]
        values += [step.record.outcome.value for step in steps if step.record.outcome is not None]
        self._left -= sum(size for value in values if (size := len(value)) <= LARGEST)


async def _alike(store: Store, id: str) -> str:
    found = await store.similar(id)
    return f" (did you mean {', '.join(clean(other) for other in found)}?)" if found else ""
