"""decide, now, random and uuid: what a handler may branch on is the same when it runs again."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Runtime, Session, TurnFailed, agent
from tests.unit.runtime.support import World


def test_they_give_the_same_over_a_crash() -> None:
    """Time passes between the lives and the process draws other numbers; the turn sees neither."""
    world = World()

    @agent
    async def worker(session: Session[Any], text: str) -> list[Any]:
        async def branch() -> list[Any]:
            return [session.random().random(), str(session.uuid()), await session.now()]

        drawn = [
            await session.now(),
            session.random().random(),
            session.random().random(),
            str(session.uuid()),
            str(session.uuid()),
            await session.decide(["a", "b"], "b" if world.lives == 1 else "a", "why"),
            *await session.gather(branch(), branch()),
        ]
        world.done.append(drawn)
        if world.lives == 1:
            await world.crash()
        return drawn

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(worker, id="s")).ask("go", id="m")

    world.life(worker, main)
    world.time_s += 1000
    again = world.life(worker, main)
    assert [again] == world.done[:1]
    assert again[5] == "b"
    assert len({str(value) for value in again}) == len(again)


def test_they_differ_between_turns_and_sessions() -> None:
    """The same on replay is not the same for everybody."""

    @agent
    async def worker(session: Session[Any], text: str) -> list[Any]:
        return [session.random().random(), str(session.uuid())]

    async def main(runtime: Runtime) -> list[Any]:
        one, two = await runtime.spawn(worker), await runtime.spawn(worker)
        return [*await one.ask("1"), *await one.ask("2"), *await two.ask("1")]

    assert len(set(World().life(worker, main))) == 6


def test_what_is_chosen_has_to_be_an_option() -> None:
    """A decision that is none is a bug of the handler."""

    @agent
    async def worker(session: Session[Any], text: str) -> str:
        return await session.decide(["a", "b"], "c")

    async def main(runtime: Runtime) -> None:
        with pytest.raises(TurnFailed, match="not one of"):
            await (await runtime.spawn(worker)).ask("go")

    World().life(worker, main)
