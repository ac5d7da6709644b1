"""Versions of the state: brought forward, or left untouched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast import Agent, ConfigError, Runtime, Session, StateError, agent
from tests.unit.runtime.support import World


class First(msgspec.Struct):
    n: int = 0


class Second(msgspec.Struct):
    count: int
    name: str


def version_1() -> Agent:
    @agent(name="counter", version=1)
    async def counter(session: Session[First], text: str) -> int:
        session.state.n += 1
        return session.state.n

    return counter


def version_3(migrations: dict[int, Callable[[Any], Any]]) -> Agent:
    @agent(name="counter", version=3, migrations=migrations)
    async def counter(session: Session[Second], text: str) -> str:
        session.state.count += 1
        return f"{session.state.name} {session.state.count}"

    return counter


MIGRATIONS: dict[int, Callable[[Any], Any]] = {
    1: lambda state: {"count": state["n"]},
    2: lambda state: {**state, "name": "migrated"},
}


def asks(text: str, **options: Any) -> Callable[[Runtime], Any]:
    async def main(runtime: Runtime) -> Any:
        return await runtime.session("s").ask(text, **options)

    return main


def spawned() -> World:
    world, first = World(), version_1()

    async def main(runtime: Runtime) -> Any:
        return await (await runtime.spawn(first, id="s")).ask("one")

    assert world.life(first, main) == 1
    return world


def stored(world: World) -> list[int]:
    """The versions of the states in the store."""
    versions: list[int] = []

    async def main(runtime: Runtime) -> None:
        versions.extend(checkpoint.version for checkpoint in await runtime.store.checkpoints("s"))

    world.life(version_1(), main)
    return versions


def test_migrations_run_forward_when_the_state_is_loaded() -> None:
    """Each in its turn; the next commit stores the new version."""
    world = spawned()
    assert world.life(version_3(MIGRATIONS), asks("two")) == "migrated 2"
    assert stored(world) == [1, 1, 3]


@pytest.mark.parametrize(
    "migrations",
    [{}, {1: MIGRATIONS[1]}, {**MIGRATIONS, 2: lambda state: 1 / 0}, {**MIGRATIONS, 2: lambda state: state}],
    ids=["none", "one missing", "one raises", "result does not fit"],
)
def test_what_cannot_be_brought_forward_is_left_untouched(migrations: dict[int, Callable[[Any], Any]]) -> None:
    """Whoever asks is told why; the message waits; the right agent goes on from there."""
    world = spawned()
    with pytest.raises(StateError):
        world.life(version_3(migrations), asks("two", id="m", timeout_s=5))
    assert stored(world) == [1, 1]
    assert world.life(version_3(MIGRATIONS), asks("two", id="m", timeout_s=5)) == "migrated 2"


def test_a_newer_state_is_refused_by_older_code() -> None:
    """A rollback of a deploy does not run over what the newer one wrote."""
    world = spawned()
    world.life(version_3(MIGRATIONS), asks("two"))
    with pytest.raises(StateError, match="version 3"):
        world.life(version_1(), asks("three", timeout_s=5))
    assert stored(world) == [1, 1, 3]


def test_everyone_who_asks_is_told() -> None:
    """Not only the first: nobody waits for a session that cannot be loaded."""
    world = spawned()

    async def main(runtime: Runtime) -> list[type]:
        handle = runtime.session("s")
        both = await asyncio.gather(handle.ask("a", timeout_s=5), handle.ask("b", timeout_s=5), return_exceptions=True)
        await asyncio.sleep(1)
        later = await asyncio.gather(handle.ask("c", timeout_s=5), return_exceptions=True)
        return [type(error) for error in (*both, *later)]

    assert world.life(version_3({}), main) == [StateError] * 3


def test_a_type_that_changed_without_a_version_is_refused() -> None:
    """The text says what to do: raise the version, add a migration."""

    @agent(name="counter", version=1)
    async def counter(session: Session[Second], text: str) -> str:
        return session.state.name

    with pytest.raises(StateError, match="raise version="):
        spawned().life(counter, asks("two", timeout_s=5))


class Filled(msgspec.Struct):
    required: int


def test_a_state_that_cannot_be_made_without_arguments_is_asked_for_at_spawn() -> None:
    """The error names the agent, the type and the way out."""
    world = World()

    @agent
    async def counts(session: Session[Filled], text: str) -> int:
        return session.state.required

    async def main(runtime: Runtime) -> Any:
        with pytest.raises(ConfigError, match=r"needs a first state .* give the fields of Filled defaults, or spawn"):
            await runtime.spawn(counts, id="s")
        return await (await runtime.spawn(counts, id="s", state=Filled(7))).ask("go")

    assert world.life(counts, main) == 7
