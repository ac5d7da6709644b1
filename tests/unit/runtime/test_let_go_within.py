"""Effects inside something that was let go of: they are answered from their records, and not made again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import NotDone, Runtime, Session, StepError, agent, tool
from holdfast.calls.tools.tool import Tool
from tests.unit.runtime.support import World


async def answer(runtime: Runtime, agent: Any) -> Any:
    """The reply to the one message of the test, in whichever life."""
    return await (await runtime.spawn(agent, id="s")).ask("go", id="m", timeout_s=5_000)


class Shop:
    """A world with a payment that is on record outside, and a way to crash once."""

    def __init__(self) -> None:
        self.world = World()
        self.card: Tool[..., Any] = tool(effect="once")(self._card)
        self.crash: Tool[..., Any] = tool(self._crash)

    async def _card(self) -> str:
        self.world.done.append("card")
        return "card"

    async def _crash(self) -> None:
        if self.world.lives == 1:
            await self.world.crash()


@pytest.mark.parametrize("around", ["step", "gather"])
def test_an_effect_in_what_was_let_go_of_answers_the_next_attempt(around: str) -> None:
    """A loop around a timeout around a step, or a gather, in which the payment was done and something else is slow."""
    shop = Shop()
    pauses_s = [5.0, 0.1]

    async def slow() -> None:
        await asyncio.sleep(pauses_s.pop(0))

    @agent(tools=[shop.card])
    async def buyer(session: Session[None], text: str) -> str:
        async def order() -> str:
            paid = await session.step(shop.card)
            await slow()
            return str(paid)

        for _ in range(3):
            try:
                async with asyncio.timeout(1):
                    if around == "step":
                        return await session.step(order)
                    paid, _nothing = await session.gather(session.step(shop.card), session.step(slow))
                    return str(paid)
            except TimeoutError:
                continue
        return "no"

    assert shop.world.life(buyer, lambda runtime: answer(runtime, buyer)) == "card"
    assert shop.world.done == ["card"]


def test_a_step_that_was_cut_and_runs_again_finds_what_it_did_inside() -> None:
    """An event outside of the session cut it; after a crash it does not come again, and the step is performed after all."""
    shop = Shop()

    @agent(tools=[shop.card])
    async def buyer(session: Session[None], text: str) -> str:
        pressed = asyncio.Event()

        async def order() -> str:
            paid = await session.step(shop.card)
            if shop.world.lives == 1:
                pressed.set()
                await asyncio.sleep(5)
            return str(paid)

        ordered = asyncio.create_task(session.step(order))
        stop = asyncio.create_task(pressed.wait())
        await asyncio.wait({ordered, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not ordered.done():
            ordered.cancel()
            await asyncio.wait({ordered})
        stop.cancel()
        await session.step(shop.crash)
        return "stopped" if ordered.cancelled() else ordered.result()

    shop.world.life(buyer, lambda runtime: answer(runtime, buyer))
    assert shop.world.life(buyer, lambda runtime: answer(runtime, buyer)) == "card"
    assert shop.world.done == ["card"]


@pytest.mark.parametrize("own_task", [False, True])
def test_an_effect_let_go_of_that_did_not_happen_stays_let_go_of(own_task: bool) -> None:
    """The handler went another way meanwhile; `reconcile` finds after the crash that the effect did not happen."""
    shop = Shop()

    async def was_paid() -> str:
        raise NotDone("no such payment")

    @tool(effect="once", reconcile=was_paid, timeout_s=10)
    async def pay() -> str:
        await asyncio.sleep(2 if shop.world.lives == 1 else 0)
        shop.world.done.append("paid")
        return "paid"

    @agent(tools=[pay, shop.card])
    async def buyer(session: Session[None], text: str) -> str:
        async def buy() -> str:
            try:
                async with asyncio.timeout(1):
                    return await session.step(pay)
            except TimeoutError:
                return str(await session.step(shop.card))

        bought = await (asyncio.create_task(buy()) if own_task else buy())
        await session.step(shop.crash)
        return bought

    shop.world.life(buyer, lambda runtime: answer(runtime, buyer))
    assert shop.world.life(buyer, lambda runtime: answer(runtime, buyer)) == "card"
    assert shop.world.done == ["card"]


def test_a_read_that_makes_an_error_of_its_cancellation_is_let_go_of() -> None:
    """Many clients raise an error of their own where they are cancelled: the handler's timeout is met all the same."""
    world = World()

    @tool
    async def fetch() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise ConnectionError("the request was aborted") from None
        return "fetched"

    @agent(tools=[fetch])
    async def reader(session: Session[None], text: str) -> str:
        try:
            async with asyncio.timeout(1):
                return await session.step(fetch)
        except TimeoutError:
            return f"timeout after {world.now_s():.0f} s"
        except StepError as error:
            return repr(error)

    assert world.life(reader, lambda runtime: answer(runtime, reader)) == "timeout after 1 s"
