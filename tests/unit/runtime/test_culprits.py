"""A session that ends the process is found among its neighbours: it parks, and they go on without a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast import Runtime, Session, agent, tool
from holdfast.errors import HoldfastError
from holdfast.testing import Crashed
from tests.unit.runtime.support import World

GOOD = [f"good{number:02}" for number in range(11)]


def agents(world: World) -> Any:
    """One agent whose sessions make a call of a minute, and then another; "bad" ends the process in the first one."""

    @tool(effect="idempotent", timeout_s=600)
    async def call(number: int) -> int:
        await asyncio.sleep(60)
        return number

    @tool(effect="idempotent")
    async def bad(number: int) -> int:
        await asyncio.sleep(3)
        await world.crash()
        return number

    @agent(tools=[call, bad])
    async def worker(session: Session[Any], text: str) -> str:
        await session.step(bad if text == "bad" else call, 1)
        await session.step(call, 2)
        return "ok"

    return worker


async def begin(runtime: Runtime, worker: Any, bad: list[str]) -> None:
    for name in sorted([*GOOD, *bad]):
        await (await runtime.spawn(worker, id=name)).tell("bad" if name in bad else "go", id="m")


def lives(world: World, worker: Any, main: Callable[[Runtime], Awaitable[Any]], **options: Any) -> Any:
    """Start the process again until it lives; what `main` returned."""
    for _ in range(40):
        result = world.life(worker, main, **options)
        if not isinstance(result, Crashed):
            return result
    raise AssertionError("the process still dies")


async def states(runtime: Runtime, names: list[str]) -> dict[str, str]:
    rows = {name: await runtime.session(name).row() for name in names}
    return {name: row.status if row.park is None else row.park.reason for name, row in rows.items()}


def test_two_killers_among_many_are_found_and_nothing_else_parks() -> None:
    """With two places for those that resume, and calls that leave an open record."""
    world = World()
    worker, bad = agents(world), ["good03x", "zbad"]

    async def first(runtime: Runtime) -> None:
        await begin(runtime, worker, bad)
        await asyncio.sleep(3600)

    async def again(runtime: Runtime) -> Any:
        await asyncio.sleep(3600)
        return await states(runtime, [*GOOD, *bad]), runtime.statistics()

    assert isinstance(world.life(worker, first), Crashed)
    found, counts = lives(world, worker, again, max_recovering=2)
    assert found == {**dict.fromkeys(GOOD, "idle"), **dict.fromkeys(bad, "crashes")}
    assert (counts["recovering"], counts["held"]) == (0, 0)
    assert world.lives < 25


def test_a_client_that_asks_again_after_each_start_does_not_hide_the_killer() -> None:
    """Its message is in the mailbox, and the session runs only when it is its turn."""
    world = World()
    worker = agents(world)

    async def first(runtime: Runtime) -> None:
        await begin(runtime, worker, ["bad"])
        await asyncio.sleep(3600)

    async def ask(runtime: Runtime, name: str) -> str:
        try:
            return str(await runtime.session(name).ask("bad" if name == "bad" else "go", id="m", timeout_s=3000))
        except HoldfastError as error:
            return type(error).__name__

    async def again(runtime: Runtime) -> Any:
        names = [*GOOD, "bad"]
        answers = await asyncio.gather(*(ask(runtime, name) for name in names))
        return dict(zip(names, answers, strict=True)), await states(runtime, ["bad"])

    assert isinstance(world.life(worker, first), Crashed)
    answers, found = lives(world, worker, again)
    assert ({answers[name] for name in GOOD}, found) == ({"ok"}, {"bad": "crashes"})


def test_a_person_sees_and_ends_sessions_that_are_held() -> None:
    """After the third end in a row half of the suspects are held: they are counted, one is cancelled, one paused, and none of it waits."""
    world = World()
    worker = agents(world)

    async def first(runtime: Runtime) -> None:
        await begin(runtime, worker, [])
        await asyncio.sleep(3)
        await world.crash()

    async def early(runtime: Runtime) -> None:
        await asyncio.sleep(3)
        await world.crash()

    async def last(runtime: Runtime) -> Any:
        await asyncio.sleep(1)
        before = runtime.statistics()
        await runtime.session(GOOD[-1]).cancel()
        await runtime.session(GOOD[-2]).pause()
        after = await states(runtime, GOOD[-2:])
        await asyncio.sleep(600)
        counts = runtime.statistics()
        return before["held"], before["recovering"], after, await states(runtime, GOOD[:-2]), counts["held"], counts["recovering"]

    for main in (first, early, early):
        assert isinstance(world.life(worker, main), Crashed)
    assert world.life(worker, last) == (
        5, 5, {GOOD[-1]: "cancelled", GOOD[-2]: "paused"}, dict.fromkeys(GOOD[:-2], "idle"), 0, 0,
    )  # fmt: skip


def test_ends_from_outside_park_no_session() -> None:
    """Someone kills the process five times while long calls are under way: no session is at fault, and none waits for a person."""
    world = World()
    worker = agents(world)

    async def first(runtime: Runtime) -> None:
        await begin(runtime, worker, [])
        await asyncio.sleep(10)
        await world.crash()

    async def killed(runtime: Runtime) -> None:
        await asyncio.sleep(10)
        await world.crash()

    async def last(runtime: Runtime) -> Any:
        await asyncio.sleep(3600)
        return await states(runtime, GOOD)

    world.life(worker, first)
    for _ in range(4):
        world.life(worker, killed)
    assert world.life(worker, last) == dict.fromkeys(GOOD, "idle")
