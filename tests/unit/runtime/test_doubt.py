"""Effects in doubt: asked about, or settled by a person; never guessed, never run again by themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from holdfast import UNKNOWN, NotDone, Runtime, Session, StepError, agent, tool
from holdfast.errors import SessionError
from holdfast.events import DoubtRaised, DoubtSettled
from tests.unit.runtime.support import World, rest


def refunding(world: World, *, probe: Any = None) -> Any:
    """An agent whose refund is cut off the first time, after or before it was made."""

    async def reconcile(order: str) -> str:
        world.done.append("probe")
        if isinstance(probe, Exception):
            raise probe
        return probe  # type: ignore[no-any-return]

    @tool(effect="once", reconcile=None if probe is None else reconcile)
    async def refund(order: str) -> str:
        world.done.append("refund")
        if world.done.count("refund") == 1:
            raise ConnectionError("cut off")
        return "second"

    @agent
    async def support(session: Session[Any], order: str) -> str:
        try:
            return await session.step(refund, order)
        except StepError as error:
            return f"told {error.type}"

    return support


@pytest.mark.parametrize(
    ("verdict", "reply", "refunds"),
    [("done", "by hand", 1), ("fail", "told NotDone", 1), ("retry", "second", 2)],
)
@pytest.mark.parametrize("crashed", [False, True])
def test_a_person_settles_it(verdict: str, reply: str, refunds: int, crashed: bool) -> None:
    """done: the handler gets the result; fail: it gets an error and nothing runs; retry: it runs again."""
    world = World()
    support = refunding(world)

    async def parks(runtime: Runtime) -> None:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("o1", id="m")
        row = await rest(handle)
        assert (row.status, row.park.reason) == ("parked", "doubt")
        if crashed:
            await world.crash()

    async def settles(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        settled = await handle.resolve(verdict, step="refund", result="by hand" if verdict == "done" else None)
        return [settled, await handle.ask("o1", id="m", timeout_s=5)]

    world.life(support, parks)
    assert world.life(support, settles) == [1, reply]
    assert world.done.count("refund") == refunds
    assert [event.by for event in world.seen(DoubtSettled)] == ["person"]


@pytest.mark.parametrize(
    ("probe", "reply", "done"),
    [
        ("found it", "found it", ["refund", "probe"]),
        (NotDone("it is not there"), "told ConnectionError", ["refund", "probe"]),
    ],
    ids=["done", "not done"],
)
def test_the_probe_decides(probe: Any, reply: str, done: list[str]) -> None:
    """Whether it happened is asked of the outside; nobody has to be there."""
    world = World()
    support = refunding(world, probe=probe)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(support, id="s")).ask("o1")

    assert world.life(support, main) == reply
    assert world.done == done
    assert len(world.seen(DoubtRaised)) == 1


@pytest.mark.parametrize("probe", [UNKNOWN, RuntimeError("the probe is broken")], ids=["unknown", "broken"])
def test_a_probe_that_cannot_tell_leaves_it_to_a_person(probe: Any) -> None:
    """A guess is no answer."""
    world = World()
    support = refunding(world, probe=probe)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("o1", id="m")
        return (await rest(handle)).park.reason

    assert world.life(support, main) == "doubt"
    assert world.done.count("refund") == 1


def test_a_doubt_of_a_step_that_its_caller_cancelled_is_probed_too() -> None:
    """Where the tool can tell what became of it, no person is needed."""
    world = World()

    async def reconcile(order: str) -> str:
        world.done.append("probe")
        return "made"

    @tool(effect="once", reconcile=reconcile)
    async def refund(order: str) -> str:
        await asyncio.sleep(100)
        return "made"

    @agent(tools=[refund])
    async def support(session: Session[Any], order: str) -> str:
        with anyio.move_on_after(1):
            await session.step(refund, order)
        return "went on"

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(support, id="s")).ask("o1", timeout_s=20)

    assert world.life(support, main) == "went on"
    assert world.done == ["probe"]


def test_a_doubt_of_a_killed_session_can_still_be_settled() -> None:
    """The verdict is recorded; the session stays ended."""
    world = World()
    support = refunding(world)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("o1", id="m")
        await rest(handle)
        await handle.kill("out of hand")
        return [await handle.resolve("done", result="by hand"), (await handle.row()).status]

    assert world.life(support, main) == [1, "killed"]


def test_a_verdict_that_is_none_is_refused() -> None:
    """A clear error; the doubt stays."""
    world = World()
    support = refunding(world)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("o1", id="m")
        await rest(handle)
        with pytest.raises(SessionError, match="done, retry or fail"):
            await handle.resolve("maybe")
        return (await handle.row()).status

    assert world.life(support, main) == "parked"
