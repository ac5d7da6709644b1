"""The effect of a session that gives hostile values (1 GB, NUL, half an emoji, 10^30, deep nesting, ...) in every place, one after another:
the 99th percentile of the step time of twenty healthy sessions with it and without it. Every value is refused, or fails its own step."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from benchmarks import deliberate, postgres, raw
from benchmarks.report import Figure, alternate, percentile
from holdfast import Backoff, Handle, Intensity, Runtime, Session, agent, tool
from holdfast.console.reading.inspect import overview

HEALTHY = 20
_STEP_S = 0.01
_GIGABYTE = 1_000_000_000
_PLACES_LOOKED_AT_S = 0.4


@cache
def values() -> dict[str, Any]:
    """The values by name, made before anything is measured."""
    text = "x" * _GIGABYTE
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return {
        "1 GB of text": text,
        "1 GB of text in a message": {"messages": [{"role": "user", "content": text}]},
        "1 GB of bytes": bytes(_GIGABYTE),
        "1 GB of texts": ["x" * 1_000] * (_GIGABYTE // 1_000),
        "NUL and half an emoji": "a\0b\ud83d",
        "10^30": 10**30,
        "deep nesting": deep,
        "an object": object(),
    }


@tool(effect="once")
async def pay(n: int) -> int:
    """An effect that cannot be made twice; the service answers after 10 ms."""
    await asyncio.sleep(_STEP_S)
    return n


async def look(value: Any) -> Any:
    """Gives nothing back."""


async def gives(name: str) -> Any:
    return values()[name]


async def gives_texts(name: str) -> list[str]:
    return values()[name]  # type: ignore[no-any-return] # that is the fault


@tool(effect="once")
async def gives_once(name: str) -> object:
    """An effect whose result cannot be kept."""
    return values()[name]


@tool
async def raises(name: str) -> None:
    """Fails with the value as its text."""
    raise ValueError(values()[name])


@tool
async def takes(value: Any) -> None:
    """Takes anything."""


async def _state(session: Session[Any], name: str) -> None:
    session.state = {"deeper": [values()[name]]}


async def _reply(session: Session[Any], name: str) -> Any:
    return values()[name]


async def _error(session: Session[Any], name: str) -> None:
    raise RuntimeError(values()[name])


async def _child(session: Session[Any], name: str) -> None:
    await session.spawn(hostile, state=values()[name])


Place = Callable[[Session[Any], str], Awaitable[Any]]
PLACES: dict[str, Place] = {
    "the state": _state,
    "the reply": _reply,
    "the error of a handler": _error,
    "an argument of a step": lambda session, name: session.step(look, values()[name]),
    "the result of a step": lambda session, name: session.step(gives, name),
    "the result of a step with a type": lambda session, name: session.step(gives_texts, name),
    "the result of a once step": lambda session, name: session.step(gives_once, name),
    "the error of a step": lambda session, name: session.step(raises, name),
    "the arguments of a model": lambda session, name: session.call_tool("takes", values()[name]),
    "an argument of a model": lambda session, name: session.call_tool("takes", {"value": values()[name]}),
    "the message of an ask": lambda session, name: session.ask("hostile", values()[name]),
    "the message of a tell": lambda session, name: session.tell("hostile", values()[name]),
    "the reason of a decision": lambda session, name: session.decide(["a"], "a", values()[name]),
    "the state of a child": _child,
}
TELL, MESSAGE_ID = "the message of Handle.tell", "the id of Handle.tell"


@agent(tools=[gives_once, raises, takes], intensity=Intensity(0, 60.0), backoff=Backoff(base_s=0.0))
async def hostile(session: Session[Any], case: list[str]) -> None:
    """Brings the value to its place."""
    await PLACES[case[0]](session, case[1])


async def _try(runtime: Runtime, place: str, name: str, id: str) -> None:
    """One case, in a session of its own, to its end."""
    handle = await runtime.spawn(hostile, id=id)
    try:
        if place == TELL:
            await handle.tell(values()[name])
        elif place == MESSAGE_ID:
            await handle.tell("hello", id=values()[name])
        else:
            await handle.ask([place, name], timeout_s=30.0)
    except Exception:  # as it should: a value is refused, or its session fails
        pass


async def _spoil(runtime: Runtime, places: list[str], count: list[int]) -> None:
    """Every value in every place, one case after another without a pause."""
    for place, name in itertools.cycle(itertools.product(places, values())):
        await _try(runtime, place, name, f"hostile-{count[0]}")
        count[0] += 1


def p99(url: str, seconds: float, places: list[str]) -> float:
    """The 99th percentile, in ms, of the healthy sessions' steps within `seconds`. None of them may park or be in doubt."""
    times: list[float] = []

    @agent(tools=[pay])
    async def healthy(session: Session[None], until: float) -> int:
        n = 0
        while time.monotonic() < until:
            began = time.perf_counter()
            await session.step(pay, n)
            times.append((time.perf_counter() - began) * 1e3)
            n += 1
        return n

    async def measure() -> float:
        async with Runtime(url, [healthy, hostile], drain_s=1.0) as runtime:
            handles: list[Handle] = await asyncio.gather(*(runtime.spawn(healthy, id=f"h-{n}") for n in range(HEALTHY)))
            await runtime.spawn(hostile, id="hostile")
            await asyncio.gather(*(handle.ask(0.0) for handle in handles))
            count = [0]
            driver = asyncio.ensure_future(_spoil(runtime, places, count)) if places else None
            await asyncio.sleep(0.1)
            until = time.monotonic() + seconds
            counts = await asyncio.gather(*(handle.ask(until, timeout_s=seconds + 60) for handle in handles))
            if driver is not None:
                if driver.done():
                    driver.result()
                driver.cancel()
                await asyncio.wait((driver,))
            view = await overview(runtime.store, agent="healthy")
            if any(each.status != "idle" for each in view.sessions) or sum(counts) != len(times):
                raise RuntimeError(f"a healthy session is {sorted({each.status for each in view.sessions})}")
            return percentile(times, 0.99)

    with deliberate.failures("hostile"):
        return asyncio.run(measure())


@contextmanager
def _memory() -> Iterator[Callable[[], str]]:
    yield lambda: "memory:"


@contextmanager
def _sqlite() -> Iterator[Callable[[], str]]:
    with raw.scratch() as directory:
        numbers = itertools.count()
        yield lambda: f"sqlite:///{directory}/hostile-{next(numbers)}.db"


@contextmanager
def _postgres() -> Iterator[Callable[[], str]]:
    with postgres.server() as dsn:
        numbers = itertools.count()
        yield lambda: f"{dsn}&schema=hostile_{next(numbers)}"


def _figure(name: str, url: Callable[[], str], places: list[str], quick: bool) -> Figure:
    pairs, seconds = (1, 1.0) if quick else (5, 4.0)
    without, with_it = alternate(pairs, lambda: p99(url(), seconds, []), lambda: p99(url(), seconds, places))
    ratio = statistics.median(w / wo for w, wo in zip(with_it, without, strict=True))
    return Figure(
        f"p99 step of the others: hostile values, {name}", "ms", statistics.median(with_it), statistics.median(without),
        "the same without it", "<= 2 x without", ratio <= 2.0, ratio, {"ours": with_it, "raw": without},
    )  # fmt: skip


def run(quick: bool) -> list[Figure]:
    """For each store all places; then the place that was worst in a look at each of them alone."""
    places = [*PLACES, TELL, MESSAGE_ID]
    values()
    figures = []
    for name, store in (("memory", _memory), ("SQLite", _sqlite), ("Postgres", _postgres)):
        with store() as url:
            figures.append(_figure(name, url, places, quick))
    with _sqlite() as url:
        looked = {place: p99(url(), _PLACES_LOOKED_AT_S, [place]) for place in places}
        worst = max(looked, key=looked.__getitem__)
        figures.append(_figure(f"only {worst}, SQLite", url, [worst], quick))
    return figures
