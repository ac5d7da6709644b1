"""Twenty healthy sessions, and hostile ones beside them: what must hold whatever value goes where."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from holdfast import NO_RETRY, Backoff, BreakerSpec, Handle, HoldfastError, Intensity, ReplyTimeout, Runtime, Session, agent, tool
from holdfast.calls import ModelClient
from holdfast.clock import Clock
from holdfast.console.api.app import build
from holdfast.console.api.control import Control
from holdfast.console.reading.inspect import detail, overview
from holdfast.stores.listed import Filter
from holdfast.stores.protocol import Store
from tests.chaos.hostile.inside import INSIDE, TOOLS, NotHere, child, given
from tests.chaos.hostile.models import FakeClient
from tests.chaos.hostile.outside import OUTSIDE, Target
from tests.chaos.hostile.values import Explodes

HEALTHY = 20
LONGEST = 3_000
"""The longest text of an error, in characters."""

WAIT_S = 40.0
"""How long a caller may wait, in seconds: longer than each time limit that a place gives."""

REASONS = frozenset({"state", "doubt", "retry", "provider", "breaker", "budget"})
"""Why a hostile session may be parked."""

Values = dict[str, Callable[[], Any]]
charged: Counter[str] = Counter()
raised: dict[str, BaseException] = {}
"""The error that the place gave to the handler, by session."""


@tool(effect="once")
async def charge(key: str) -> str:
    await asyncio.sleep(0.002)
    charged[key] += 1
    return key


@tool
async def look(number: int) -> int:
    return number


@agent(version=1, tools=[charge, look])
async def healthy(session: Session[list[int]], number: int) -> int:
    """Does an effect that cannot be made twice, and counts its messages."""
    await session.step(charge, f"{session.id}/{number}")
    session.state = [*(session.state or []), await session.step(look, number)]
    return len(session.state)


@agent(version=1)
async def partner(session: Session[Any], message: Any) -> Any:
    """Gives back what it gets."""
    return message


@agent(version=1, tools=TOOLS, intensity=Intensity(1, 60.0), backoff=Backoff(base_s=0.001, max_s=0.001), breaker=BreakerSpec(open_s=1.0))
async def hostile(session: Session[Any], message: Any) -> Any:
    """Brings the value of its case to its place; any other message it gives back."""
    if session.id not in given or not isinstance(message, str) or message not in INSIDE:
        return message
    try:
        return await INSIDE[message](session, given[session.id])
    except Exception as error:
        raised[session.id] = error
        raise


AGENTS = [healthy, partner, hostile, child]


class Campaign:
    """One Runtime, twenty healthy sessions in it, and the cases that are tried beside them.

    Attributes:
        faults: what did not hold, a line each.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.faults: list[str] = []
        self._turn = 0
        self._handles: list[Handle] = []
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(build(Control(runtime, "store")), client=("uid=7", 42)), base_url="http://holdfast"
        )

    async def start(self) -> None:
        await self.runtime.spawn(partner, id="partner")
        self._handles = [await self.runtime.spawn(healthy, id=f"healthy-{number}") for number in range(HEALTHY)]
        self._turn = len(await self.runtime.store.checkpoints("healthy-0")) - 1

    async def tries(self, place: str, values: Values) -> None:
        """Bring each value to the place at once, while each healthy session handles a message; then look at all of them."""
        self._turn += 1
        before = len(self.faults)
        answers = asyncio.gather(*(handle.ask(self._turn, timeout_s=WAIT_S) for handle in self._handles), return_exceptions=True)
        cases = {f"{place} | {name}": make() for name, make in values.items()}
        async with asyncio.TaskGroup() as group:
            for case, value in cases.items():
                group.create_task(self._case(case, place, value))
        if set(map(str, await answers)) != {str(self._turn)}:
            self.faults.append(f"{place}: the healthy sessions answered {set(map(str, await answers))}")
        await self._look(place)
        for case in cases:
            given.pop(case, None)
        if len(self.faults) == before:
            raised.clear()

    async def _case(self, case: str, place: str, value: Any) -> None:
        given[case] = value
        handle = await self.runtime.spawn(hostile, id=case)
        outside = OUTSIDE.get(place)
        try:
            if outside is None:
                await self._answer(handle, place)
            else:
                async with asyncio.timeout(WAIT_S):
                    await outside(Target(self.runtime, handle, self._http, hostile), value)
        except NotHere:
            return
        except TimeoutError:
            if "time limit" not in place:
                self.faults.append(f"{case}: a caller waited in vain")
        except ReplyTimeout as error:
            self.faults.append(f"{case}: a caller waited in vain: {error}")
        except Exception as error:
            self._check(case, value, error, given_back=outside is None)
        if case in raised and "of a handler" not in place:
            self._check(case, value, raised[case], given_back=False)
        row = await handle.row()
        if row.status not in ("idle", "failed", "parked", "finished", "cancelled", "killed"):
            self.faults.append(f"{case}: it is {row.status}")

    async def _answer(self, handle: Handle, place: str) -> None:
        """Wait for the answer, or until the session is parked for a reason that it may have."""
        asked = asyncio.ensure_future(handle.ask(place, id="m", timeout_s=WAIT_S))
        while not (await asyncio.wait((asked,), timeout=0.2))[0]:
            park = (await handle.row()).park
            if park is not None and park.reason in REASONS:
                asked.cancel()
        if not asked.cancelled():
            asked.result()

    def _check(self, case: str, value: Any, error: BaseException, *, given_back: bool) -> None:
        """The error of a place is one of the kinds that are documented, in one line."""
        allowed = isinstance(error, HoldfastError | ValueError | TypeError | NotHere)
        try:
            shown = str(error)
        except Exception:
            shown = f"(no text: {error.args and type(error.args[0])})"
        if not allowed and not (isinstance(value, Explodes) and isinstance(error, RuntimeError)):
            self.faults.append(f"{case}: raised {type(error).__name__}: {shown[:200]}")
        if len(shown) > LONGEST:
            self.faults.append(f"{case}: its error has {len(shown):,} characters: {shown[:100]}")
        if "\n" in shown and not given_back and case.rpartition(" | ")[2] != "several lines":
            self.faults.append(f"{case}: its error has several lines: {shown[:200]!r}")

    async def _look(self, place: str) -> None:
        store = self.runtime.store
        for row in await store.sessions(Filter(agent="healthy"), limit=100):
            whole = await store.session(row.id)
            if row.status != "idle" or row.pending or whole is None or whole.crashes:
                self.faults.append(f"{place}: {row.id} is {row.status} {row.park}")
        again = {key: times for key, times in charged.items() if times != 1}
        if again:
            self.faults.append(f"{place}: charged again: {again}")
            charged.clear()
        if self.runtime.statistics()["ready"] != 1:
            self.faults.append(f"{place}: the runtime is not ready")

    async def inspect(self) -> dict[str, tuple[str, str | None]]:
        """Read all that people read; returns the status of each session, and why it is parked."""
        store = self.runtime.store
        rows = await store.sessions(limit=100_000)
        view = await overview(store, ended=True, limit=100_000, live=self.runtime.live, agents=self.runtime.agents)
        msgspec.json.encode(view)
        counted = await store.counts()
        if len(view.sessions) != len(rows) or sum(counted.values()) != len(rows):
            self.faults.append(f"ps has {len(view.sessions)} and counts {counted} of {len(rows)} sessions")
        for row in rows:
            try:
                msgspec.json.encode(await detail(store, row.id, live=self.runtime.live, agents=self.runtime.agents))
                await store.messages(row.id)
            except Exception as error:
                self.faults.append(f"{row.id}: show fails: {type(error).__name__}: {str(error)[:200]}")
        listed = await self._http.get("/v1/sessions?all=true&limit=100000")
        if listed.status_code != 200:
            self.faults.append(f"ps over HTTP: {listed.status_code} {listed.text[:200]}")
        return {row.id: (row.status, None if row.park is None else row.park.reason) for row in rows}

    async def close(self) -> None:
        await self._http.aclose()


def runtime_of(store: str | Store, **more: Any) -> Runtime:
    return Runtime(
        store,
        AGENTS,
        clients={"openai": ModelClient("openai", FakeClient(), retry=NO_RETRY)},
        breaker=BreakerSpec(window=100_000, minimum=100_000),
        drain_s=1.0,
        quarantine_s=0.1,
        **more,
    )


async def campaign(
    store: Callable[[], str | Store], cases: dict[str, Values], *, clock: Clock | None = None, chance: random.Random | None = None
) -> list[str]:
    """Try all cases on a store, then start again on it; returns what did not hold."""
    more: dict[str, Any] = {} if clock is None else {"clock": clock, "random": chance}
    charged.clear()
    faults: list[str] = []
    lives: list[dict[str, tuple[str, str | None]]] = []
    for life in range(2):
        async with runtime_of(store(), **more) as runtime:
            tried = Campaign(runtime)
            await tried.start()
            for place, values in cases.items() if life == 0 else ():
                await tried.tries(place, values)
            lives.append(await tried.inspect())
            if life == 1:
                await tried.tries("the next start", {})
            await tried.close()
        faults += tried.faults
    changed = {id: (lives[0][id], now) for id, now in lives[1].items() if lives[0].get(id) != now and not _passing(lives[0].get(id), now)}
    return faults + [f"after the next start {id} is {now}, was {then}" for id, (then, now) in changed.items()]


def _passing(then: tuple[str, str | None] | None, now: tuple[str, str | None]) -> bool:
    """Whether it waited for a time, which may have passed."""
    return then is not None and then[1] in ("retry", "provider", "breaker", "state", "reconcile")
