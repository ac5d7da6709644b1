"""A limit in seconds: it refuses what has not begun, cuts what may be cut, and blames no dependency."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import NO_RETRY, BreakerSpec, Budget, BudgetExhausted, Runtime, Session, StepError, agent, tool
from holdfast.events import DoubtRaised, SessionParked
from tests.unit.runtime.support import World, rest

QUICK = BreakerSpec(minimum=1, window=4, open_s=600.0, half_open_calls=1)


def buying(world: World, takes_s: float) -> Any:
    @tool(effect="once")
    async def buy(number: int) -> int:
        world.done.append(number)
        await asyncio.sleep(takes_s)
        return number

    return buy


def test_a_once_effect_that_has_begun_ends_past_the_limit() -> None:
    """Its outcome is known, nothing is in doubt, and what comes after it is refused."""
    world = World()
    buy = buying(world, 10.0)

    @agent(budget=Budget(seconds=1))
    async def worker(session: Session[Any], text: str) -> str:
        bought = await session.step(buy, 1)
        try:
            await session.step(buy, 2)
        except BudgetExhausted as error:
            return f"{bought}; {error.message}"
        return "both"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == "1; seconds: 10 of 1 used"
    assert world.done == [1]
    assert world.seen(DoubtRaised) == []


def test_its_own_timeout_still_ends_a_once_effect() -> None:
    """The limit of the session does not make an effect run for ever."""
    world = World()

    @tool(effect="once", timeout_s=5)
    async def buy(number: int) -> int:
        await asyncio.sleep(100)
        return number

    @agent(budget=Budget(seconds=1))
    async def worker(session: Session[Any], text: str) -> int:
        return int(await session.step(buy, 1))

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go")
        return (await rest(handle)).park.reason

    assert world.life(worker, main) == "doubt"
    assert 5 <= world.time_s < 7


def test_a_once_effect_does_not_begin_in_the_time_that_others_under_way_have_used() -> None:
    """The time of the first one counts before it has ended."""
    world = World()
    buy = buying(world, 10.0)

    @agent(budget=Budget(seconds=3))
    async def worker(session: Session[Any], text: str) -> str:
        first = asyncio.create_task(session.step(buy, 1))
        await asyncio.sleep(5)
        try:
            await session.step(buy, 2)
        except BudgetExhausted as error:
            return f"{error.message}; {await first}"
        return "both"

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        return [await handle.ask("go"), round((await handle.row()).usage.seconds, 3)]

    assert world.life(worker, main) == ["seconds: 5 of 3 used; 1", 10.0]
    assert world.done == [1]


def test_a_step_inside_a_once_effect_is_not_refused_for_the_time() -> None:
    """A refusal inside it would leave it half done."""
    world = World()

    async def look(number: int) -> int:
        await asyncio.sleep(2)
        return number

    @agent(budget=Budget(seconds=1))
    async def worker(session: Session[Any], text: str) -> int:
        @tool(effect="once")
        async def buy(number: int) -> int:
            world.done.append(number)
            found = await session.step(look, 1) + await session.step(look, 2)
            await session.sleep(1)
            return int(found)

        return int(await session.step(buy, 1))

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go")

    assert world.life(worker, main) == 3
    assert world.done == [1]


@pytest.mark.parametrize("ends", ["cancelled", "as a broken connection"])
def test_an_attempt_that_the_limit_ends_counts_against_no_breaker(ends: str) -> None:
    """The error names the budget, however the effect takes its cancellation; the dependency is well."""

    @tool(dependency="bank", retry=NO_RETRY)
    async def balance(seconds: float) -> float:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if ends == "cancelled":
                raise
            raise ConnectionError("the connection was closed") from None
        return seconds

    @agent(budget=Budget(seconds=1), breaker=QUICK)
    async def poor(session: Session[Any], seconds: float) -> str:
        try:
            return str(await session.step(balance, seconds))
        except StepError as error:
            return f"{type(error).__name__}: {error.message}"

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(poor, id="p")
        said = await handle.ask(20.0)
        await handle.raise_budget(Budget(seconds=60))
        return [said, runtime.breakers()["bank"].error, await handle.ask(2.0), runtime.breakers()["bank"].state]

    assert World().life(poor, main, breaker=QUICK) == ["BudgetExhausted: seconds: 1.1 of 1 used", "", "2.0", "closed"]


def test_what_the_limit_ended_is_done_again_once_it_is_raised() -> None:
    """The second time in a turn the session parks; its time is charged also over a crash, and the call is made once more."""
    world = World()

    async def look(seconds: float) -> float:
        world.done.append(seconds)
        await asyncio.sleep(seconds)
        return seconds

    @agent(budget=Budget(seconds=3))
    async def worker(session: Session[Any], text: str) -> float:
        return float(await session.step(look, 1.0) + await session.step(look, 20.0))

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(worker, id="s")
        await handle.tell("go", id="m")
        await rest(handle)
        await world.crash()

    async def second(runtime: Runtime) -> list[Any]:
        handle = runtime.session("s")
        parked = await rest(handle)
        await handle.raise_budget(Budget(seconds=30))
        return [parked.park.reason, await handle.ask("go", id="m"), round((await handle.row()).usage.seconds)]

    world.life(worker, first)
    assert world.life(worker, second) == ["budget", 21.0, 23]
    assert world.done == [1.0, 20.0, 20.0]


def test_an_attempt_that_a_person_ends_counts_against_no_breaker() -> None:
    """`Handle.interrupt` is no fault of the dependency."""

    @tool(dependency="shop", retry=NO_RETRY)
    async def order(number: int) -> int:
        await asyncio.sleep(30)
        return number

    @agent(breaker=QUICK)
    async def worker(session: Session[Any], text: str) -> str:
        try:
            return str(await session.step(order, 1))
        except StepError as error:
            return error.message

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(worker, id="s")
        asking = asyncio.ensure_future(handle.ask("go"))
        await asyncio.sleep(1)
        await handle.interrupt()
        return [await asking, runtime.breakers()["shop"].state]

    world = World()
    assert world.life(worker, main, breaker=QUICK) == ["ended by a person", "closed"]
    assert world.seen(SessionParked) == []
