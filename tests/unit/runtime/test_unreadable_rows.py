"""Rows that do not decode: the session that they belong to parks, its rows stay as they are, and all else goes on."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from holdfast import Agent, Budget, Runtime, Session, StateError, TurnFailed, agent
from holdfast.stores.records import StepState
from holdfast.stores.sqlite.store import SqliteStore
from holdfast.testing import Crashed
from tests.unit.runtime.support import BAD, World, idle, rest

DAMAGES = ["record", "state", "usage", "message", "sender", "gates"]


def two_steps(world: World) -> Agent:
    async def work(number: int) -> int:
        world.done.append(number)
        return number

    @agent(name="a")
    async def handler(session: Session[list[int]], text: str) -> str:
        await session.step(work, 1)
        if world.lives == 1:
            await asyncio.sleep(1 if session.id == "s" else 100)
            await world.crash()
        await session.step(work, 2)
        return text

    return handler


def crashed(world: World, handler: Agent) -> None:
    async def first(runtime: Runtime) -> Any:
        for id in ("other", "s"):
            handle = await runtime.spawn(handler, id=id)
            await handle.tell("go", id="m")
        await asyncio.sleep(100)

    assert isinstance(world.life(handler, first), Crashed)
    world.done.clear()


@pytest.mark.parametrize("what", DAMAGES)
def test_a_row_that_does_not_decode_parks_its_own_session(what: str) -> None:
    """Nothing of it runs, those who ask are told which row it is, it can be listed; the other session resumes."""
    world = World()
    handler = two_steps(world)
    crashed(world, handler)
    restore = world.damage(what)

    async def second(runtime: Runtime) -> Any:
        row = await rest(runtime.session("s"))
        assert await runtime.session("other").ask("go", id="m") == "go"
        with pytest.raises(StateError, match=re.escape(row.park.text)):
            await runtime.session("s").ask("go", id="m")
        assert {each.id for each in await runtime.store.sessions()} == {"other", "s"}
        await runtime.store.steps("s", 1)
        await runtime.store.messages("s")
        return row

    row = world.life(handler, second)
    assert (row.status, row.park.reason, row.turn) == ("parked", "state", 0)
    assert "does not decode" in row.park.text or "does not match its digest" in row.park.text
    assert world.done == [2]  # of the other one
    restore()

    async def third(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("go", id="m")

    assert world.life(handler, third) == "go"
    assert world.done == [2, 2]


@pytest.mark.parametrize("what", DAMAGES)
def test_a_turn_with_a_row_that_does_not_decode_can_be_given_up(what: str) -> None:
    """What the record was of is not known: it is listed with the effects of the turn. The session can be cancelled, too."""
    world = World()
    handler = two_steps(world)
    crashed(world, handler)
    world.damage(what)

    async def second(runtime: Runtime) -> Any:
        handle = runtime.session("s")
        await rest(handle)
        await handle.drop("it is damaged", keep_letter=True)
        letter = (await runtime.store.dead_letters("s"))[0]
        await handle.drop()
        with pytest.raises((TurnFailed, StateError)):
            await handle.ask("go", id="m", timeout_s=5)
        await handle.cancel()
        return letter, await handle.row()

    letter, row = world.life(handler, second)
    assert [name.split()[0] for name in letter.effects] == (["unreadable"] if what == "record" else [])
    assert (row.status, row.park) == ("cancelled", None)


def test_gates_that_do_not_decode_are_not_written_over() -> None:
    """A raise of the budget is stored with them: it is refused until the row is restored."""
    world = World()
    handler = two_steps(world)
    crashed(world, handler)
    restore = world.damage("gates")

    async def raises(runtime: Runtime) -> None:
        await rest(runtime.session("s"))
        with pytest.raises(StateError, match="column 'gates'"):
            await runtime.session("s").raise_budget(Budget(steps=5))

    async def resumes(runtime: Runtime) -> Any:
        await runtime.session("s").raise_budget(Budget(steps=5))
        return await runtime.session("s").ask("go", id="m")

    world.life(handler, raises)
    assert world.store._tables.sessions["s"].gates == BAD
    restore()
    assert world.life(handler, resumes) == "go"


def test_a_record_that_waits_for_a_reply_and_does_not_decode_stays_as_it_is() -> None:
    """The answer does not spoil the write that it comes with; once the record is restored, what was asked is answered."""
    world = World()

    @agent(name="other")
    async def other(session: Session[Any], text: str) -> str:
        await session.sleep(100)
        return "the reply"

    @agent(name="a", park_after_s=1.0)
    async def asks(session: Session[Any], text: str) -> str:
        return str(await session.ask("other", "x", timeout_s=5000))

    async def first(runtime: Runtime) -> Any:
        await runtime.spawn(other, id="other")
        handle = await runtime.spawn(asks, id="s")
        await handle.tell("go", id="m")
        await rest(handle)
        await world.crash()

    async def second(runtime: Runtime) -> Any:
        await asyncio.sleep(200)
        return await idle(runtime.session("other"))

    async def third(runtime: Runtime) -> Any:
        return await runtime.session("s").ask("go", id="m", timeout_s=100)

    assert isinstance(world.life([asks, other], first), Crashed)
    restore = world.damage("record")
    assert world.life([asks, other], second).turn == 1
    restore()
    assert world.life([asks, other], third) == "the reply"


def test_a_body_that_the_agent_does_not_take_is_a_dead_letter() -> None:
    """It is what was sent: the agent has changed since. That is no damage, and a retry may handle it."""
    world = World()

    @agent(name="a")
    async def takes_text(session: Session[Any], text: str) -> None:
        await world.crash()

    @agent(name="a")
    async def takes_numbers(session: Session[Any], number: int) -> None: ...

    async def first(runtime: Runtime) -> Any:
        await (await runtime.spawn(takes_text, id="s")).tell("go", id="m")
        await asyncio.sleep(10)

    async def second(runtime: Runtime) -> Any:
        return await rest(runtime.session("s"))

    assert isinstance(world.life(takes_text, first), Crashed)
    assert world.life(takes_numbers, second).status == "failed"


SQL = {
    "record": "UPDATE steps SET body = x'c1' WHERE session = 's'",
    "foreign record": "UPDATE steps SET body = x'93010203' WHERE session = 's'",
    "state of a step": "UPDATE steps SET state = 77 WHERE session = 's'",
    "usage": "UPDATE turns SET usage = x'c1' WHERE session = 's'",
    "state": "UPDATE turns SET state = x'c1' WHERE session = 's'",
    "message": "UPDATE messages SET body = x'c1' WHERE session = 's'",
    "sender": "UPDATE messages SET reply_to = x'c1' WHERE session = 's'",
    "gates": "UPDATE sessions SET gates = x'c1' WHERE id = 's'",
    "foreign gates": "UPDATE sessions SET gates = x'81a7627265616b657201' WHERE id = 's'",
}


@pytest.mark.parametrize("damage", SQL.values(), ids=SQL)
async def test_a_row_of_a_file_that_does_not_decode_parks_its_own_session(damage: str, tmp_path: Path) -> None:
    """The same on SQLite: the process starts, the session is listed, the other one resumes."""
    path, block, ids, under_way = tmp_path / "holdfast.db", True, ("s", "other"), asyncio.Semaphore(0)

    async def work(number: int) -> int:
        return number

    @agent(name="a")
    async def handler(session: Session[list[int]], text: str) -> str:
        await session.step(work, 1)
        if block:
            under_way.release()
            await asyncio.sleep(100)
        return text

    async with Runtime(SqliteStore(path), [handler], drain_s=0.2) as runtime:
        for id in ids:
            await (await runtime.spawn(handler, id=id)).tell("go", id="m")
        for _ in ids:
            await under_way.acquire()
    with sqlite3.connect(path) as db:
        assert db.execute(damage).rowcount > 0
    db.close()
    block = False
    async with Runtime(SqliteStore(path), [handler]) as runtime:
        assert await runtime.session("other").ask("go", id="m", timeout_s=5) == "go"
        with pytest.raises(StateError):
            await runtime.session("s").ask("go", id="m", timeout_s=5)
        row = await rest(runtime.session("s"))
        assert (row.status, row.park.reason) == ("parked", "state")
        assert len(await runtime.store.sessions()) == 2
        states = {step.state for step in await runtime.store.steps("s", 1)}
        assert states == {StepState.OPEN if "77" in damage else StepState.CLOSED}


async def test_a_session_whose_own_row_does_not_decode_is_in_no_others_way(tmp_path: Path) -> None:
    """It cannot even be parked: it is left as it is, those who ask are told, and the process starts."""
    path, block, under_way = tmp_path / "holdfast.db", True, asyncio.Semaphore(0)

    @agent(name="a")
    async def handler(session: Session[Any], text: str) -> str:
        if block:
            under_way.release()
            await asyncio.sleep(100)
        return text

    async with Runtime(SqliteStore(path), [handler], drain_s=0.2) as runtime:
        for id in ("s", "other"):
            await (await runtime.spawn(handler, id=id)).tell("go", id="m")
            await under_way.acquire()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE sessions SET usage = x'c1' WHERE id = 's'")
    db.close()
    block = False
    async with Runtime(SqliteStore(path), [handler]) as runtime:
        assert await runtime.session("other").ask("go", id="m", timeout_s=5) == "go"
        with pytest.raises(StateError, match="its row does not decode"):
            await runtime.session("s").pause()
