"""`python -m benchmarks.dead_provider [--sessions 300] [--dead 120] [--limited 120]`: a provider that is down for two minutes, then limits
its rate for as long as `--limited` says, and all that wait for it."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import openai

from benchmarks import raw
from benchmarks.flaky_server import WAYS, flaky_server
from holdfast import BreakerSpec, Handle, Runtime, Session, agent, tool
from holdfast.console.process.main import tune
from holdfast.events import Event, SessionFailed, SessionParked
from holdfast.stores.listed import Filter
from holdfast.stores.records import ASKS_A_PERSON

CLIENT = "openai"
SPREAD_S = 20.0
"""How long after an opening the last session may be done, in seconds: 5 of jitter behind a breaker, 10 of alarms that are due at
once, and the work itself."""


@dataclass(frozen=True)
class Count:
    """The counts of one run, most of them from outside.

    Attributes:
        sessions: each makes one model call, between two purchases.
        while_dead: requests that reached the provider while it was down; `most_while_dead` is the limit.
        while_limited: requests that it answered with 429 and a Retry-After; `most_while_limited` is the limit.
        afterwards: requests that reached it once it was back; one a session is needed.
        done_s: seconds from then until all were done; `most_done_s` is the limit.
        unanswered: sessions whose caller got an error.
        twice, missing: purchases that were made twice, or not at all.
        for_a_person: sessions that parked for a person, or failed.
        errors: the last error by the breaker, and by the park of one session, at the end of each phase.
    """

    sessions: int
    while_dead: int
    most_while_dead: int
    while_limited: int
    most_while_limited: int
    afterwards: int
    done_s: float
    most_done_s: float
    unanswered: int
    twice: int
    missing: int
    for_a_person: int
    errors: tuple[str, ...]

    def faults(self) -> list[str]:
        """What is not as it should be, for a person."""
        none = {
            "sessions without an answer": self.unanswered,
            "purchases twice": self.twice,
            "purchases missing": self.missing,
            "sessions for a person": self.for_a_person,
        }
        faults = [f"{name}: {found}, expected 0" for name, found in none.items() if found]
        if self.while_dead > self.most_while_dead:
            faults.append(f"{self.while_dead} requests reached it while it was down, expected {self.most_while_dead} at most")
        if self.while_limited > self.most_while_limited:
            faults.append(f"{self.while_limited} requests while it limited its rate, expected {self.most_while_limited} at most")
        faults += [f"no status and text of the last error: {text}" for text in self.errors if "error" not in text.lower()]
        if self.afterwards != self.sessions:
            faults.append(f"{self.afterwards} requests once it was back, expected one a session")
        if self.done_s > self.most_done_s:
            faults.append(f"done {self.done_s:.0f} s after it was back, expected {self.most_done_s:.0f} s at most")
        return faults


def most_calls(spec: BreakerSpec, sessions: int, dead_s: float) -> int:
    """The most calls that a breaker lets through to a dependency that is down for so long.

    The first call of each session, which may all be under way before the first fails; as many again as it has to count before it opens; and
    the half-open calls of each opening that ends in this time.
    """
    calls, at, opening_s = sessions + spec.minimum, 0.0, spec.open_s
    while (at := at + opening_s) < dead_s:
        calls += spec.half_open_calls
        opening_s = min(2 * opening_s, spec.open_max_s)
    return calls


async def measure(
    sessions: int, dead_s: float, timeout_s: float, spec: BreakerSpec, path: Path, *, limited_s: float = 0.0, retry_after_s: int = 120
) -> Count:
    """Start all sessions while the provider is down, and wait until each has its answer.

    Args:
        limited_s: for how long the provider answers with 429 and this Retry-After after that, in seconds; it only says 503 before then.
    """
    bought: Counter[str] = Counter()
    stopped: set[str] = set()

    @tool(effect="once")
    async def buy(what: str) -> None:
        await asyncio.sleep(0.005)
        bought[what] += 1

    @agent(tools=[buy])
    async def shopper(session: Session[None], text: str) -> str:
        await session.step(buy, f"{session.id} before")
        messages = [{"role": "user", "content": text}]
        reply = await session.clients.openai.chat.completions.create(model="gpt-4o-mini", messages=messages)
        await session.step(buy, f"{session.id} after")
        return str(reply.choices[0].message.content)

    def observe(event: Event) -> None:
        if isinstance(event, SessionFailed) or (isinstance(event, SessionParked) and event.reason in ASKS_A_PERSON):
            stopped.add(event.session)

    async def shop(handle: Handle) -> str:
        return str(await handle.ask("Which one?", timeout_s=20 * dead_s + 600))

    ways, errors = (("503",) if limited_s else WAYS), list[str]()
    async with flaky_server(ways) as server, openai.AsyncOpenAI(base_url=server.base_url, api_key="none", timeout=timeout_s) as client:
        runtime = Runtime(f"sqlite:///{path}", [shopper], clients={CLIENT: client}, breaker=spec)
        runtime.observe(observe)
        async with runtime:
            handles = await asyncio.gather(*(runtime.spawn(shopper, id=f"s-{number}") for number in range(sessions)))
            waiting = [asyncio.ensure_future(shop(handle)) for handle in handles]
            await asyncio.sleep(dead_s)
            while_dead = server.requests
            errors += await _errors(runtime)
            if limited_s:
                server.limit(retry_after_s)
                await asyncio.sleep(limited_s)
                errors += await _errors(runtime)
            while_limited, most_done_s = server.requests - while_dead, SPREAD_S + _opening_s(runtime)
            back = server.recover()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            done_s = time.monotonic() - back
    expected = [f"{handle.id} {when}" for handle in handles for when in ("before", "after")]
    return Count(
        sessions=sessions,
        while_dead=while_dead,
        most_while_dead=most_calls(spec, sessions, dead_s),
        while_limited=while_limited,
        most_while_limited=spec.half_open_calls * math.ceil(1 + limited_s / retry_after_s) if limited_s else 0,
        afterwards=server.requests - while_dead - while_limited,
        done_s=done_s,
        most_done_s=most_done_s,
        unanswered=sum(isinstance(answer, BaseException) for answer in answers),
        twice=sum(times > 1 for times in bought.values()),
        missing=sum(not bought[what] for what in expected),
        for_a_person=len(stopped),
        errors=tuple(errors),
    )


async def _errors(runtime: Runtime) -> list[str]:
    """What `holdfast breakers` and `holdfast ps` say about the provider."""
    view = runtime.breakers()[CLIENT]
    parks = [row.park.text for row in await runtime.store.sessions(Filter(status="parked"), limit=1) if row.park is not None]
    return [f"breakers: HTTP {view.status} {view.error}", *(f"ps: {text}" for text in parks)]


def _opening_s(runtime: Runtime) -> float:
    """How long the breaker of the provider stays open."""
    until = runtime.breakers()[CLIENT].until
    return 0.0 if until is None else max(until - time.time(), 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dead_provider", description=__doc__)
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--dead", type=float, default=120.0, help="for how many seconds the provider is down")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the counts there")
    parser.add_argument("--quick", action="store_true", help="60 sessions, 10 s, a breaker that opens for 3 s")
    parser.add_argument("--limited", type=float, default=0.0, help="for how many seconds it answers with 429 after that")
    options = parser.parse_args()
    sessions, dead_s, timeout_s, spec = options.sessions, options.dead, 5.0, BreakerSpec()
    if options.quick:
        sessions, dead_s, timeout_s, spec = 60, 10.0, 1.0, BreakerSpec(open_s=3.0)
    tune()
    with raw.scratch() as directory:
        result = asyncio.run(measure(sessions, dead_s, timeout_s, spec, directory / "dead.db", limited_s=options.limited))
    print(f"{sessions} sessions, a provider that is down for {dead_s:g} s:")
    for name, value in asdict(result).items():
        if name != "errors":
            print(f"  {name.replace('_', ' '):18} {value:>8,.6g}")
    print(*(f"  {text}" for text in result.errors), sep="\n")
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(result), indent=2) + "\n")
    faults = result.faults()
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
