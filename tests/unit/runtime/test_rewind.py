"""An earlier state of a session, brought back by a person."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import ConfigError, Runtime, Session, SessionEnded, SessionError, agent, tool
from holdfast.events import SessionRewound
from holdfast.runtime.sessions.rewinding import EffectSince
from tests.unit.runtime.support import World, rest


@tool(effect="once")
async def pay(order: str) -> str:
    return order


@tool(effect="once")
async def wire(order: str) -> str:
    raise ConnectionError("cut")


@agent(tools=[pay, wire])
async def clerk(session: Session[list[str]], text: str) -> dict[str, Any]:
    if text == "bug":
        raise ValueError("oops")
    if text.startswith("pay"):
        await session.step(pay, text)
    if text == "wire":
        await session.step(wire, text)
    session.state.append(text)
    if text == "end":
        session.finish()
    return {"state": list(session.state), "since": list(session.dropped_effects)}


def test_an_earlier_state_comes_back_as_a_turn_of_its_own() -> None:
    """Messages handled since stay done, effects are listed, and the next turn reads their names; a dry run changes nothing."""
    world = World()

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(clerk, id="s", state=["first"])
        for text in ("a", "pay 1", "pay 2", "b"):
            await handle.ask(text, id=text)
        dry = await handle.rewind(1, dry_run=True)
        before = (await handle.row()).turn
        done = await handle.rewind(1, "the state was wrong")
        again = await handle.ask("pay 1", id="pay 1")
        return dry, before, done, again, await handle.ask("c"), await handle.ask("d"), await runtime.store.checkpoints("s")

    dry, before, done, again, then, last, checkpoints = world.life(clerk, main)
    assert (dry.changed, before, done.changed, done.as_turn) == (False, 4, True, 5)
    assert dry.effects == done.effects == [EffectSince(2, "pay"), EffectSince(3, "pay")]
    assert again["state"] == ["first", "a", "pay 1"]  # as it was answered then: it is not handled again
    assert then == {"state": ["first", "a", "c"], "since": ["pay"]}
    assert last == {"state": ["first", "a", "c", "d"], "since": []}
    assert [each.turn for each in checkpoints] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert checkpoints[5].message is None
    (event,) = world.seen(SessionRewound)
    assert (event.turn, event.back_to, event.effects, event.reason) == (5, 1, "pay", "the state was wrong")


def test_a_rewind_survives_a_crash() -> None:
    world = World()

    async def first(runtime: Runtime) -> None:
        handle = await runtime.spawn(clerk, id="s", state=[])
        for text in ("a", "b"):
            await handle.ask(text)
        await handle.rewind(0)
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        return await (await runtime.spawn(clerk, id="s", state=[])).ask("c")

    world.life(clerk, first)
    assert world.life(clerk, second)["state"] == ["c"]


def test_an_open_turn_is_dropped_first() -> None:
    """Also one that is parked, and one with an effect of unknown outcome, which is resolved before that."""
    world = World()

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(clerk, id="s", state=[])
        for text in ("a", "b"):
            await handle.ask(text)
        await handle.tell("bug")
        await rest(handle)
        with pytest.raises(SessionError, match="'s' has an open turn: drop it, then rewind"):
            await handle.rewind(1)
        await handle.drop()
        await handle.rewind(1)
        await handle.tell("wire")
        await rest(handle)
        with pytest.raises(SessionError, match="the outcome of wire is unknown: resolve it"):
            await handle.rewind(1)
        await handle.resolve("fail")
        await rest(handle)
        await handle.drop()
        await handle.rewind(1)
        return await handle.ask("c")

    assert world.life(clerk, main)["state"] == ["a", "c"]


def test_a_paused_session_stays_paused() -> None:
    world = World()

    async def main(runtime: Runtime) -> Any:
        handle = await runtime.spawn(clerk, id="s", state=[])
        for text in ("a", "b"):
            await handle.ask(text)
        await handle.pause()
        await handle.tell("c", id="c")
        await handle.rewind(1)
        row = await handle.row()
        await handle.resume()
        return row, await handle.ask("c", id="c")

    row, reply = world.life(clerk, main)
    assert (row.status, row.park.reason, row.turn) == ("parked", "paused", 3)
    assert reply["state"] == ["a", "c"]


def test_what_cannot_come_back_is_refused() -> None:
    world = World()

    async def main(runtime: Runtime) -> None:
        handle = await runtime.spawn(clerk, id="s", state=[])
        await handle.ask("a")
        for turn in (1, 2, -1):
            with pytest.raises(SessionError, match="is at turn 1: give an earlier one"):
                await handle.rewind(turn)
        for odd in (True, "1", 1.0):
            with pytest.raises(ConfigError, match="give the number of a turn"):
                await handle.rewind(odd)  # type: ignore[arg-type]
        await handle.ask("end")
        with pytest.raises(SessionEnded):
            await handle.rewind(0)

    world.life(clerk, main)
