"""A provider that is down for two minutes under 300 sessions: few calls reach it, and all get on by themselves once it is back."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count
from typing import Any

import pytest

from holdfast import BreakerSpec, Handle, Runtime, Session, Usage, agent, tool
from holdfast.events import SessionFailed, SessionParked
from holdfast.stores.listed import Filter
from holdfast.stores.records import ASKS_A_PERSON
from tests.unit.runtime.support import World

SESSIONS, DEAD_S = 300, 120.0
SPEC = BreakerSpec()


class Unavailable(Exception):
    status_code = 503


@pytest.mark.parametrize("park_after_s", [1.0, 1e6], ids=["parked", "in memory"])
def test_sessions_wait_for_a_provider_that_is_down_and_buy_nothing_twice(park_after_s: float) -> None:
    """The first call of each, a few before the breaker opens, then half-open calls only; none needs a person."""
    world, number = World(), count()
    bought: Counter[str] = Counter()
    calls: list[float] = []
    done: list[float] = []

    @tool(effect="once")
    async def buy(what: str) -> None:
        await asyncio.sleep(0.01)
        bought[what] += 1

    @tool(dependency="provider", timeout_s=5.0, cost=Usage(tokens=10))
    async def answer(text: str) -> str:
        calls.append(world.now_s())
        await asyncio.sleep(0.1)
        if world.now_s() < DEAD_S:
            match next(number) % 3:
                case 0:
                    raise ConnectionError("refused")
                case 1:
                    raise Unavailable("out of order")
                case _:
                    await asyncio.sleep(1000)
        return "The blue one."

    @agent(tools=[buy, answer], park_after_s=park_after_s)
    async def shopper(session: Session[Any], text: str) -> str:
        await session.step(buy, f"{session.id} before")
        said = await session.step(answer, text)
        await session.step(buy, f"{session.id} after")
        return said

    async def shop(handle: Handle) -> None:
        assert await handle.ask("Which one?", timeout_s=3600) == "The blue one."
        done.append(world.now_s())

    async def main(runtime: Runtime) -> None:
        handles = [await runtime.spawn(shopper, id=f"s{each}") for each in range(SESSIONS)]
        await asyncio.gather(*map(shop, handles))

    world.life(shopper, main, breaker=SPEC)
    while_dead = [at for at in calls if at < DEAD_S]
    assert len(while_dead) <= SESSIONS + SPEC.minimum + SPEC.half_open_calls
    assert len([at for at in while_dead if at > 10]) == SPEC.half_open_calls  # of the opening that ends after 60 s
    assert len(calls) - len(while_dead) == SESSIONS
    # It opens within 6 s, for 60 s; 5 half-open calls fail within 11 s; then for 120 s; 5 s of jitter, 10 s of alarms at once.
    assert max(done) < 6 + 60 + 11 + 120 + 15
    assert set(bought.values()) == {1}
    assert len(bought) == 2 * SESSIONS
    assert world.seen(SessionFailed) == []
    assert [event for event in world.seen(SessionParked) if event.reason in ASKS_A_PERSON] == []


class Limited(Exception):
    """As the clients of providers raise a 429."""

    status_code, headers = 429, {"Retry-After": "120"}  # the shape of another library


def test_a_provider_that_is_down_and_then_limits_its_rate_is_waited_for() -> None:
    """503 for two minutes, then 429 with `Retry-After: 120` for two more: few requests, and people see the status and text of the last."""
    world = World()
    calls: list[tuple[float, int]] = []
    done: list[float] = []
    seen: list[tuple[str, ...]] = []

    @tool(dependency="provider", timeout_s=5.0, cost=Usage(tokens=10))
    async def answer(text: str) -> str:
        now = world.now_s()
        calls.append((now, 503 if now < 120 else 429 if now < 240 else 200))
        await asyncio.sleep(0.1)
        if now < 120:
            raise Unavailable("out of order")
        if now < 240:
            raise Limited("slow down")
        return "The blue one."

    @agent(tools=[answer])
    async def shopper(session: Session[Any], text: str) -> str:
        return await session.step(answer, text)

    async def shop(handle: Handle) -> None:
        assert await handle.ask("Which one?", timeout_s=3600) == "The blue one."
        done.append(world.now_s())

    async def look(runtime: Runtime, at_s: float) -> None:
        await asyncio.sleep(at_s)
        view = runtime.breakers()["provider"]
        parks = [row.park for row in await runtime.store.sessions(Filter(status="parked")) if row.park is not None]
        assert len(parks) == SESSIONS
        status, error = ("503", "Unavailable: out of order") if at_s < 120 else ("429", "Limited: slow down")
        seen.append((str(view.status), view.error))
        # The sessions that wait for the breaker name the error that they have seen last, the others their own.
        assert all(park.text.endswith((f"HTTP {status} {error}", "HTTP 503 Unavailable: out of order")) for park in parks)

    async def main(runtime: Runtime) -> None:
        handles = [await runtime.spawn(shopper, id=f"s{each}") for each in range(SESSIONS)]
        await asyncio.gather(look(runtime, 50), look(runtime, 230), *map(shop, handles))

    world.life(shopper, main, breaker=SPEC)
    by_status = Counter(status for _, status in calls)
    assert by_status[503] <= SESSIONS + SPEC.minimum + SPEC.half_open_calls
    assert by_status[429] <= SPEC.half_open_calls
    assert by_status[200] == SESSIONS
    assert seen == [("503", "Unavailable: out of order"), ("429", "Limited: slow down")]
    # It opens within 6 s, for 60 s and for 120 s; then for as long as it is asked to: 120 s; 5 s of jitter, 10 s of alarms at once.
    assert max(done) < 6 + 60 + 1 + 120 + 1 + 120 + 15
    assert world.seen(SessionFailed) == []
    assert [event for event in world.seen(SessionParked) if event.reason in ASKS_A_PERSON] == []
