"""Dead letters: what could not be handled is kept, with what had been done, until someone retries or drops it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from holdfast import Agent, Backoff, Intensity, Runtime, Session, TurnFailed, agent, tool
from holdfast.errors import SessionError
from holdfast.events import TurnCrashed, TurnStarted
from tests.unit.runtime.support import World


class Count(msgspec.Struct):
    n: int = 0


def buggy(world: World, *, restarts: int = 2) -> Agent:
    """Refunds, then strikes a bug while `world.done` lacks "fixed"."""

    @tool(effect="once")
    async def refund(order: str) -> str:
        world.done.append(order)
        return "refunded"

    @agent(tools=[refund], intensity=Intensity(restarts, 60.0), backoff=Backoff(base_s=0.1, max_s=1.0))
    async def support(session: Session[Count], order: str) -> str:
        session.state.n += 1
        if order == "look":
            return f"{session.state.n} {session.dropped_effects}"
        result = await session.step(refund, order)
        if "fixed" not in world.done:
            raise ZeroDivisionError("a bug")
        return result

    return support


def test_a_bug_after_an_effect_is_restarted_then_given_up_with_the_effect_named() -> None:
    """Restarted as often as the intensity says, from the record of the refund; the ask is answered at once."""
    world = World()
    support = buggy(world, restarts=2)

    async def main(runtime: Runtime) -> list[Any]:
        handle = await runtime.spawn(support, id="s")
        with pytest.raises(TurnFailed) as caught:
            await handle.ask("o1", id="m")
        (letter,) = await runtime.store.dead_letters("s")
        return [caught.value.effects, letter.effects, letter.message, "a bug" in letter.cause, (await handle.row()).status]

    assert world.life(support, main) == [("refund",), ("refund",), "m", True, "failed"]
    assert world.done == ["o1"]
    assert len(world.seen(TurnStarted)) == 3
    assert [event.delay_s is None for event in world.seen(TurnCrashed)] == [False, False, True]


def test_a_failed_session_accepts_and_handles_nothing() -> None:
    """Messages wait behind the letter, also over a restart of the process; resume does not get around it."""
    world = World()
    support = buggy(world)

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(support, id="s")
        with pytest.raises(TurnFailed):
            await handle.ask("o1")
        await handle.tell("o2")
        with pytest.raises(SessionError):
            await handle.resume()
        await asyncio.sleep(10)

    async def second(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        await handle.tell("o3")
        await asyncio.sleep(10)
        return [(await handle.row()).status, (await handle.row()).pending]

    world.life(support, first)
    assert world.life(support, second) == ["failed", 2]
    assert world.done == ["o1"]


def test_a_retry_goes_on_from_the_same_journal() -> None:
    """Still one refund; the same id gives the answer now, and what waited behind it is handled."""
    world = World()
    support = buggy(world)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(support, id="s")
        with pytest.raises(TurnFailed):
            await handle.ask("o1", id="m")
        await handle.tell("o2", id="n")
        world.done.append("fixed")
        await handle.retry()
        return [await handle.ask("o1", id="m"), await handle.ask("o2", id="n"), await runtime.store.dead_letters("s")]

    assert world.life(support, main) == ["refunded", "refunded", []]
    assert world.done == ["o1", "fixed", "o2"]


def test_after_a_drop_the_next_turn_is_told_which_effects_were_done() -> None:
    """The state is as before the failed turn; the one after the next is told nothing."""
    world = World()
    support = buggy(world)

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(support, id="s")
        with pytest.raises(TurnFailed):
            await handle.ask("o1", id="m")
        await handle.drop()
        replies = [await handle.ask("look"), await handle.ask("look")]
        with pytest.raises(TurnFailed):
            await handle.ask("o1", id="m")
        return replies

    assert world.life(support, main) == ["1 ('refund',)", "2 ()"]


def test_without_a_dead_letter_there_is_nothing_to_retry_or_drop() -> None:
    """A clear error, and nothing is changed."""
    world = World()
    support = buggy(world)

    async def main(runtime: Runtime) -> None:
        handle = await runtime.spawn(support, id="s")
        with pytest.raises(SessionError, match="no dead letter"):
            await handle.retry()
        with pytest.raises(SessionError, match="no dead letter"):
            await handle.drop()

    world.life(support, main)


def test_one_session_that_fails_does_not_stop_another() -> None:
    """The others are handled meanwhile and afterwards."""
    world = World()
    support = buggy(world)

    async def main(runtime: Runtime) -> Any:
        bad, good = await runtime.spawn(support, id="bad"), await runtime.spawn(support, id="good")
        await bad.tell("o1")
        meanwhile = await good.ask("look")
        await asyncio.sleep(10)
        return [meanwhile, (await bad.row()).status, await good.ask("look")]

    assert world.life(support, main) == ["1 ()", "failed", "2 ()"]
