"""Replay takes the way that the run before it took, or none: not another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from holdfast import Agent, Runtime, Session, TurnFailed, agent, tool
from holdfast.errors import NotJournalable
from holdfast.testing import Crashed
from tests.unit.runtime.support import World, rest


def over_a_crash(world: World, agents: list[Agent], asked: Agent) -> Any:
    """The answer of `asked`, whose first life ends in a crash; the lives after it find all that it left."""

    async def first(runtime: Runtime) -> Any:
        for each in agents:
            if each is not asked:
                await runtime.spawn(each, id=each.name)
        return await (await runtime.spawn(asked, id="s")).ask("go", id="m", timeout_s=5_000)

    async def again(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        row = await rest(handle) if (await handle.row()).status in ("parked",) else None
        answer = None if row is not None else await handle.ask("go", id="m", timeout_s=5_000)
        await asyncio.sleep(100)
        return answer

    assert isinstance(world.life(agents, first), Crashed)
    return world.life(agents, again)


def crashing_once(world: World) -> Callable[[], Any]:
    async def log() -> str:
        if world.lives == 1:
            await world.crash()
        return "logged"

    return log


def test_a_message_told_inside_a_step_is_sent_after_a_crash() -> None:
    """The function of the step is not run again: what it told is on record."""
    world, got = World(), []
    log = crashing_once(world)

    @agent
    async def other(session: Session[None], text: str) -> None:
        got.append(text)

    @agent
    async def boss(session: Session[None], text: str) -> str:
        async def work() -> str:
            await session.tell("other", "x" * 10_000)
            return "told"

        told = await session.step(work)
        await session.step(log)
        return told

    assert over_a_crash(world, [other, boss], boss) == "told"
    assert got == ["x" * 10_000]


@pytest.mark.parametrize("message", [{1, 2}, Decimal("1.20"), datetime(2026, 1, 1, tzinfo=UTC)], ids=["set", "decimal", "datetime"])
@pytest.mark.parametrize("verb", ["tell", "ask"])
def test_a_message_that_is_not_plain_data_is_refused_where_it_is_sent(verb: str, message: object) -> None:
    """It would arrive as something else: the sender hears of it, in a tell as in an ask."""
    world = World()

    @agent
    async def other(session: Session[None], text: Any) -> None:
        world.done.append(text)

    @agent
    async def boss(session: Session[None], text: str) -> str:
        try:
            await getattr(session, verb)("other", message)
        except NotJournalable as error:
            return str(error)
        return "sent"

    async def main(runtime: Runtime) -> Any:
        await runtime.spawn(other, id="other")
        answer = await (await runtime.spawn(boss, id="s")).ask("go", id="m")
        await asyncio.sleep(10)
        return answer

    assert "annotation" in world.life([other, boss], main)
    assert world.done == []


def test_a_second_call_that_the_first_one_answers_is_no_drift() -> None:
    """It has no record of its own; the record of the call after it is not taken for its."""
    world = World()
    log = crashing_once(world)

    async def was_paid(order: str) -> str:
        return "paid"

    @tool(effect="once", reconcile=was_paid)
    async def pay(order: str) -> str:
        world.done.append(order)
        await asyncio.sleep(5)
        return "paid"

    @agent(tools=[pay])
    async def shop(session: Session[None], text: str) -> str:
        try:
            async with asyncio.timeout(1):
                await session.step(pay, "1")
        except TimeoutError:
            pass
        await session.step(pay, "1")
        await session.step(pay, "2")
        return await session.step(log)

    assert over_a_crash(world, [shop], shop) == "logged"
    assert world.done == ["1", "2"]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_timeout_of_the_code_longer_than_the_step_s_own_is_met_again(steps: int) -> None:
    """One around two steps, of which the first is answered at once on replay: still the card is not paid after the voucher."""
    world = World()
    log = crashing_once(world)

    async def first() -> str:
        await asyncio.sleep(50)
        return "found"

    async def was_paid() -> str:
        return "paid"

    @tool(effect="once", timeout_s=20, reconcile=was_paid)
    async def card() -> str:
        await asyncio.sleep(15)
        world.done.append("card")
        return "card"

    @tool(effect="once")
    async def voucher() -> str:
        world.done.append("voucher")
        return "voucher"

    @agent(tools=[card, voucher])
    async def shop(session: Session[None], text: str) -> str:
        try:
            async with asyncio.timeout(60 if steps == 2 else 10):
                if steps == 2:
                    await session.step(first)
                way = await session.step(card)
        except TimeoutError:
            way = await session.step(voucher)
        await session.step(log)
        return way

    assert over_a_crash(world, [shop], shop) == "voucher"
    assert world.done == ["voucher"]


def test_code_that_asks_for_another_effect_than_before_parks_first() -> None:
    """An either-or that came out otherwise is for a person: both would be done."""
    world = World()
    log = crashing_once(world)

    @tool(effect="once")
    async def card() -> str:
        world.done.append("card")
        return "card"

    @tool(effect="once")
    async def voucher() -> str:
        world.done.append("voucher")
        return "voucher"

    @agent(tools=[card, voucher])
    async def shop(session: Session[None], text: str) -> str:
        way = await session.step(card if world.lives == 1 else voucher)
        await session.step(log)
        return way

    async def first(runtime: Runtime) -> Any:
        return await (await runtime.spawn(shop, id="s")).ask("go", id="m")

    async def again(runtime: Runtime) -> Any:
        return (await rest(runtime.session("s"))).park

    assert isinstance(world.life(shop, first), Crashed)
    park = world.life(shop, again)
    assert (park.reason, world.done) == ("drift", ["card"])
    assert park.text == "voucher was asked for where card is on record: deploy code that repeats the old call, then resume"


def test_what_is_not_asked_for_any_more_is_waited_for_once_in_a_run() -> None:
    """A task that new code does not start any more holds the replay up by one time limit, not by one at each step."""
    world = World()
    log = crashing_once(world)

    async def slow() -> int:
        await asyncio.sleep(50)
        return 1

    async def quick(number: int) -> int:
        await asyncio.sleep(1)
        return number

    @agent
    async def shop(session: Session[None], text: str) -> str:
        task = asyncio.create_task(session.step(slow)) if world.lives == 1 else None
        await asyncio.sleep(0)
        for number in range(20):
            await session.step(quick, number)
        if task is not None:
            await task
        return await session.step(log)

    assert over_a_crash(world, [shop], shop) == "logged"
    assert world.now_s() < 50 + 60 + 100 + 30


def test_a_task_that_waits_for_a_step_which_does_not_begin_ends_with_its_turn() -> None:
    """A pause: the task asks for its next step, which is not admitted; its clean-up runs when the turn is left."""
    world, over = World(), []

    async def quick() -> int:
        await asyncio.sleep(1)
        return 1

    @agent
    async def shop(session: Session[None], text: str) -> None:
        async def work() -> None:
            try:
                while True:
                    await session.step(quick)
            finally:
                over.append(world.now_s())

        task = asyncio.create_task(work())
        await session.sleep(1_000)
        task.cancel()

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(shop, id="s")
        await handle.tell("go")
        await asyncio.sleep(3.5)
        await handle.pause()
        await asyncio.sleep(1)
        return list(over)

    assert len(world.life(shop, main)) == 1


def test_a_turn_parks_once_its_own_task_that_computed_has_ended() -> None:
    """A task that ends without a step lets the session park as a step's end would."""
    world = World()

    @agent
    async def shop(session: Session[None], text: str) -> None:
        async def work() -> None:
            await session.now()
            await asyncio.sleep(20)

        task = asyncio.create_task(work())
        await session.sleep(7 * 24 * 3600)
        await task

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(shop, id="s")
        await handle.tell("go")
        row = await rest(handle)
        return row.park.reason, runtime.statistics()["working"]

    assert world.life(shop, main) == ("wait", 0)
    assert world.now_s() < 200


def test_a_gather_that_was_cancelled_before_it_began_is_no_mistake() -> None:
    """Its coroutines go with it: they count neither as forgotten nor as asked for."""
    world = World()

    async def read(number: int) -> int:
        world.done.append(number)
        return number

    @agent
    async def shop(session: Session[None], text: str) -> str:
        try:
            await asyncio.wait_for(session.gather(session.step(read, 1), session.step(read, 2)), 0)
        except TimeoutError:
            return "none"
        return "both"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(shop, id="s")).ask("go", id="m")

    assert world.life(shop, main) == "none"
    assert world.done == []


def test_finish_inside_a_step_is_refused() -> None:
    """A replay does not run the step's function again, and would not know of it."""
    world = World()

    @agent
    async def shop(session: Session[None], text: str) -> None:
        async def work() -> None:
            session.finish("done")

        await session.step(work)

    async def main(runtime: Runtime) -> Any:
        with pytest.raises(TurnFailed, match=r"finish\(\) was called inside a step"):
            await (await runtime.spawn(shop, id="s")).ask("go", id="m", timeout_s=5_000)

    world.life(shop, main)
