"""Effects in doubt: asked about, or resolved by a person; never guessed, never run again by themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from holdfast import UNKNOWN, NotDone, Runtime, Session, StepError, agent, tool
from holdfast.errors import ConfigError, SessionError
from holdfast.events import DoubtRaised, DoubtSettled
from tests.unit.runtime.support import World, rest, steps


def refunding(world: World, *, finding: Any = None) -> Any:
    """An agent whose refund is cut off the first time, after or before it was made."""

    async def reconcile(order: str) -> str:
        world.done.append("reconcile")
        if isinstance(finding, Exception):
            raise finding
        return finding  # type: ignore[no-any-return]

    @tool(effect="once", reconcile=None if finding is None else reconcile)
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
def test_a_person_resolves_it(verdict: str, reply: str, refunds: int, crashed: bool) -> None:
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

    async def resolves(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        settled = await handle.resolve(verdict, step="refund", result="by hand" if verdict == "done" else None)
        return [settled, await handle.ask("o1", id="m", timeout_s=5)]

    world.life(support, parks)
    assert world.life(support, resolves) == [1, reply]
    assert world.done.count("refund") == refunds
    assert [event.by for event in world.seen(DoubtSettled)] == ["person"]


@pytest.mark.parametrize(("named", "why"), [(False, "not in tools= of its agent"), (True, "process died before it could record")])
def test_people_read_why_no_reconcile_was_asked(named: bool, why: str) -> None:
    """After a crash only the tools of the agent are known: the reason tells what to add."""
    world = World()

    async def was_refunded(order: str) -> str:
        return "found it" if not named else UNKNOWN  # type: ignore[return-value] # as documented

    @tool(effect="once", reconcile=was_refunded, timeout_s=5.0)
    async def refund(order: str) -> str:
        await world.crash()
        return "never"

    @agent(tools=[refund] if named else [])
    async def support(session: Session[Any], order: str) -> str:
        return await session.step(refund, order)

    async def asks(runtime: Runtime) -> str:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("o1", id="m")
        await asyncio.sleep(60)  # past the deadline of the attempt
        row = await rest(handle)
        assert row.park.reason == "doubt"
        return str(row.park.text)

    world.life(support, asks)
    text = world.life(support, asks)
    assert why in text
    assert ("tools=" in text) == (not named)


@pytest.mark.parametrize(
    ("finding", "reply", "done"),
    [
        ("found it", "found it", ["refund", "reconcile"]),
        (NotDone("it is not there"), "told ConnectionError", ["refund", "reconcile"]),
    ],
    ids=["done", "not done"],
)
def test_reconcile_decides(finding: Any, reply: str, done: list[str]) -> None:
    """Whether it happened is asked of the outside; no person is needed."""
    world = World()
    support = refunding(world, finding=finding)

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(support, id="s")).ask("o1")

    assert world.life(support, main) == reply
    assert world.done == done
    assert len(world.seen(DoubtRaised)) == 1


@pytest.mark.parametrize("finding", [UNKNOWN, RuntimeError("reconcile is broken")], ids=["unknown", "broken"])
def test_a_reconcile_that_cannot_tell_leaves_it_to_a_person(finding: Any) -> None:
    """A guess is no answer."""
    world = World()
    support = refunding(world, finding=finding)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("o1", id="m")
        return (await rest(handle)).park.reason

    assert world.life(support, main) == "doubt"
    assert world.done.count("refund") == 1


def test_a_doubt_of_a_step_that_its_caller_cancelled_is_reconciled_too() -> None:
    """Where the tool can tell what became of it, no person is needed."""
    world = World()

    async def reconcile(order: str) -> str:
        world.done.append("reconcile")
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
    assert world.done == ["reconcile"]


def test_a_doubt_of_a_killed_session_can_still_be_resolved() -> None:
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
        with pytest.raises(ConfigError, match="done, retry or fail"):
            await handle.resolve("maybe")
        return (await handle.row()).status

    assert world.life(support, main) == "parked"


def test_a_result_by_hand_that_the_effect_could_not_have_is_refused() -> None:
    """Recorded, it could not be taken back: the doubt stays, and can be resolved with the right one."""

    @tool(effect="once")
    async def count() -> int:
        raise RuntimeError("cut off")

    @agent(tools=[count])
    async def support(session: Session[Any], text: str) -> int:
        return await session.step(count)

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("go", id="m")
        await rest(handle)
        with pytest.raises(SessionError, match="count returns"):
            await handle.resolve("done", result="not an int")
        return [(await handle.row()).status, await handle.resolve("done", result=5), await handle.ask("go", id="m")]

    assert World().life(support, main) == ["parked", 1, 5]


def test_a_reconcile_that_is_cancelled_from_within_leaves_it_to_a_person() -> None:
    """The session was not cancelled: it parks as with every reconcile that cannot tell."""
    world = World()

    async def reconcile() -> str:
        lost = asyncio.get_running_loop().create_future()
        lost.cancel()
        await lost
        return "unreachable"

    @tool(effect="once", reconcile=reconcile)
    async def refund() -> str:
        if world.lives == 1:
            await world.crash()
        return "made"

    @agent(tools=[refund])
    async def support(session: Session[Any], text: str) -> str:
        return await session.step(refund)

    async def first(runtime: Runtime) -> None:
        await (await runtime.spawn(support, id="s")).ask("go", id="m")

    async def second(runtime: Runtime) -> Any:
        await rest(runtime.session("s"))
        await asyncio.sleep(100)  # until the deadline of the attempt that the crash cut, it is not asked
        return (await rest(runtime.session("s"))).park.reason

    world.life(support, first)
    assert world.life(support, second) == "doubt"


def test_a_secret_in_the_error_of_an_effect_is_neither_recorded_nor_emitted() -> None:
    """What a person reads about a doubt says why, without the key."""
    world, secret = World(), "abcdefghijklmnop12345"

    @tool(effect="once")
    async def refund() -> str:
        raise RuntimeError(f"Authorization: Bearer {secret}")

    @agent(tools=[refund])
    async def support(session: Session[Any], text: str) -> str:
        return await session.step(refund)

    async def main(runtime: Runtime) -> str:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("go")
        row = await rest(handle)
        assert row.park.reason == "doubt"
        return repr([row, await steps(runtime, handle), world.events])

    told = world.life(support, main)
    assert secret not in told
    assert "[redacted]" in told


def test_a_doubt_that_several_people_resolve_at_once_is_charged_once() -> None:
    """A double click costs nothing."""
    world = World()
    support = refunding(world)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(support, id="s")
        await handle.tell("order", id="m")
        await rest(handle)
        await asyncio.gather(*(handle.resolve("retry") for _ in range(3)))
        reply = await handle.ask("order", id="m")
        return reply, (await handle.row()).usage.steps

    assert world.life(support, main) == ("second", 2)


@pytest.mark.parametrize("paid", [True, False])
def test_a_drop_asks_reconcile_before_it_asks_a_person(paid: bool) -> None:
    """An effect under way when its turn is given up: where the tool can tell what became of it, no person has to."""
    world = World()
    told: list[tuple[str, ...]] = []

    async def was_paid() -> str:
        if world.done:
            return "paid"
        raise NotDone("no such payment")

    @tool(effect="once", reconcile=was_paid)
    async def pay() -> str:
        if paid:
            world.done.append("paid")
        await asyncio.sleep(30)
        return "paid"

    @agent(tools=[pay])
    async def shop(session: Session[None], text: str) -> str:
        told.append(session.dropped_effects)
        return await session.step(pay) if text == "pay" else "handled"

    async def main(runtime: Runtime) -> str:
        handle = await runtime.spawn(shop, id="s")
        await handle.tell("pay")
        await asyncio.sleep(1)
        await handle.drop("it takes too long")
        return str(await handle.ask("next"))

    assert world.life(shop, main) == "handled"
    assert told == [(), ("pay",) if paid else ()]


@pytest.mark.parametrize("found", [None, 5])
def test_a_reconcile_that_returns_something_else_leaves_it_to_a_person(found: Any) -> None:
    """It forgot its return, or returns another type: that is no answer, and a person can still resolve the doubt."""
    world = World()

    async def was_paid() -> Any:
        return found

    @tool(effect="once", reconcile=was_paid)
    async def pay() -> str:
        raise ConnectionError("cut off")

    @agent(tools=[pay])
    async def shop(session: Session[None], text: str) -> str:
        return await session.step(pay)

    async def main(runtime: Runtime) -> str:
        handle = await runtime.spawn(shop, id="s")
        await handle.tell("pay", id="m")
        row = await rest(handle)
        assert row.park.reason == "doubt"
        await handle.resolve("done", result="by hand")
        return str(await handle.ask("pay", id="m"))

    assert world.life(shop, main) == "by hand"
