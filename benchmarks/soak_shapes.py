"""The orders in which the handlers of the soak run an answer, a note and a payment: as users' handlers do, with timeouts of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio

from holdfast import Session, StepError

HURRY_S = 0.03
"""A timeout, in seconds, that a step of 5 to 50 ms sometimes keeps."""


class Steps(Protocol):
    """The steps of one turn."""

    session: Session[Any]

    async def answer(self) -> str:
        """A paid call."""

    async def note(self) -> str:
        """An effect with a key."""

    async def pay(self) -> str:
        """An effect that must not happen twice."""

    async def fresh(self) -> str:
        """Recorded if an answer came in time."""

    async def stale(self) -> str:
        """Recorded if the handler let go of it."""


async def plain(steps: Steps) -> None:
    await steps.answer()
    await steps.note()
    await steps.pay()


async def gather(steps: Steps) -> None:
    await steps.session.gather(steps.answer(), steps.note(), steps.pay())


async def agather(steps: Steps) -> None:
    await asyncio.gather(steps.answer(), steps.note(), steps.pay())


async def group(steps: Steps) -> None:
    async with asyncio.TaskGroup() as tasks:
        for work in (steps.answer(), steps.note(), steps.pay()):
            tasks.create_task(work)


async def task(steps: Steps) -> None:
    paid = asyncio.create_task(steps.pay())
    noted = asyncio.create_task(steps.note())
    await steps.answer()
    await paid
    await noted


async def completed(steps: Steps) -> None:
    for work in asyncio.as_completed([steps.answer(), steps.note(), steps.pay()]):
        await work


async def anyio_group(steps: Steps) -> None:
    async with anyio.create_task_group() as tasks:
        for work in (steps.answer, steps.note, steps.pay):
            tasks.start_soon(work)


async def nested(steps: Steps) -> None:
    async def order() -> str:
        await steps.note()
        await asyncio.gather(steps.answer(), steps.pay())
        return "ordered"

    await steps.session.step(order)


async def hurry(steps: Steps) -> None:
    try:
        async with asyncio.timeout(HURRY_S):
            await steps.answer()
    except TimeoutError:
        await steps.stale()
    else:
        await steps.fresh()
    await asyncio.gather(steps.note(), steps.pay())


async def again(steps: Steps) -> None:
    for _ in range(3):
        try:
            async with asyncio.timeout(HURRY_S):
                await steps.pay()
                break
        except TimeoutError:
            continue
    else:
        await steps.pay()
    await steps.note()


async def retry(steps: Steps) -> None:
    for work in (steps.answer, steps.note, steps.pay):
        for _ in range(3):
            try:
                await work()
                break
            except StepError:
                continue


async def cancelled(steps: Steps) -> None:
    asked = asyncio.create_task(steps.answer())
    await asyncio.sleep(HURRY_S)
    asked.cancel()
    try:
        await asked
    except asyncio.CancelledError:
        await steps.stale()
    else:
        await steps.fresh()
    await steps.note()
    await steps.pay()


async def last(steps: Steps) -> None:
    try:
        await asyncio.gather(steps.answer(), steps.note())
    finally:
        await steps.pay()


SHAPES: dict[str, Callable[[Steps], Awaitable[None]]] = {
    shape.__name__: shape
    for shape in (plain, gather, agather, group, task, completed, anyio_group, nested, hurry, again, retry, cancelled, last)
}
